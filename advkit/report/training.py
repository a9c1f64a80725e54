"""The outcome of ``advkit adv-train``, from its result alone."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advkit.core.stats import accuracy
from advkit.report.outcome import Outcome, Picture, Table
from advkit.training.objective import OBJECTIVES
from advkit.training.several import named

CURVES = (
    "Accuracy during training. Robust accuracy that decreases on held-out images while it increases on "
    "training images is robust overfitting."
)


def threatened(config: Mapping[str, Any]) -> str:
    """All threat models of a resolved configuration, for a person."""
    if config["eps"] is None:
        return "no attacker"
    first = f"{config['norm']} eps {config['eps']:.4g}"
    return ", ".join([first, *(str(named(text)) for text in config["also"])])


def outcome(result: dict[str, Any], folder: Path) -> Outcome:
    """The outcome; the same for a finished run."""
    config, test = result["config"], result["test"]
    held = result["card"]["metrics"]
    rows = [
        (
            when,
            accuracy(row["clean"], row["n"]),
            "not attacked" if row["robust"] is None else accuracy(row["robust"], row["n"]),
            f"{row['n']:,}",
        )
        for when in ("before", "after")
        if (row := test[when]) is not None
    ]
    sentences = [f"In the model store as {result['model']['name']}."]
    if held:
        found = ", ".join(
            f"{key.removeprefix('held_out_').removesuffix('_accuracy')} {value:.1%}"
            for key, value in held.items()
        )
        sentences.append(f"Kept: update {result['kept_step']:,}, the best on held-out images ({found}).")
    objective = OBJECTIVES.get(config["objective"])
    sentences.append(objective.advice)
    against = threatened(config)
    beside: dict[str, str] = result.get("beside", {})
    sentences += [
        f"Also trained, and in the model store as {name}: a {role}." for name, role in beside.items()
    ]
    attacks = [f"advgan:{name}" for name, role in beside.items() if role == "perturbation-generator"]
    sentences += result["warnings"]
    steps = test["parameters"]["steps"]
    first = shlex.quote(result["model"]["files"][0])
    return Outcome(
        title=f"trained against {against}" if result["card"]["threat"] else "trained",
        sentences=tuple(sentences),
        tables=(
            Table(
                f"{test['data']['name']} test images, {against}",
                ("", "clean accuracy [95 % interval]", f"accuracy under PGD-{steps}", "n"),
                tuple(rows),
            ),
        ),
        pictures=(Picture("curves", folder / "curves.png", CURVES),),
        files=(*map(Path, result["model"]["files"]), folder),
        next=(
            *(command.format(first) for command in objective.judges),
            f"advkit attack --model {first}",
            *(f"advkit attack --model {first} --attack {shlex.quote(name)}" for name in attacks),
            f"advkit attack --model {first} --attack apgd-ce --set parameters.apgd-ce.restarts=5",
            f"advkit models lineage {result['model']['name']}",
        ),
        result=result,
    )
