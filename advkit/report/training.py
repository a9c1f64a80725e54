"""The outcomes of ``adv-train``, ``train``, ``finetune`` and ``semi-train``, from their results."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advkit.core.stats import accuracy, clopper_pearson
from advkit.report.charts import Bar
from advkit.report.figures.curves import CLASSIFIER, SEMI, course
from advkit.report.outcome import Outcome, Picture, Table
from advkit.reuse.result import AttackFacts, Errors, FineTuningResult, SemiTrainingResult
from advkit.training.objective import OBJECTIVES
from advkit.training.result import TrainingResult
from advkit.training.several import named


def threatened(config: Mapping[str, Any]) -> str:
    """All threat models of a resolved configuration, for a person."""
    if config["eps"] is None:
        return "no attacker"
    first = f"{config['norm']} eps {config['eps']:.4g}"
    return ", ".join([first, *(str(named(text)) for text in config["also"])])


def trained(result: TrainingResult, folder: Path) -> Outcome:
    """The outcome of ``advkit adv-train`` and ``advkit train``."""
    config, test, name = result.config, result.test, result.model.name
    seen = [(when, row) for when, row in (("before", test.before), ("after", test.after)) if row]
    rows = tuple(
        (
            when,
            accuracy(row.clean, row.n),
            "not attacked" if row.robust is None else accuracy(row.robust, row.n),
            f"{row.n:,}",
        )
        for when, row in seen
    )
    sentences = [f"In the model store as {name}."]
    if held := result.card.metrics:
        n = result.held_out
        found = ", ".join(
            f"{key.removeprefix('held_out_').removesuffix('_accuracy')} "
            f"{accuracy(round(value * n), n) if n else f'{value:.1%}'}"
            for key, value in held.items()
        )
        images = f"{n:,} held-out images" if n else "held-out images"
        sentences.append(f"Kept: update {result.kept_step:,}, the best on {images} ({found}).")
    objective = OBJECTIVES.get(config["objective"])
    sentences.append(objective.advice)
    sentences += [
        f"Also trained, and in the model store as {each}: a {role}." for each, role in result.beside.items()
    ]
    attacks = [f"advgan:{each}" for each, role in result.beside.items() if role == "perturbation-generator"]
    first, against = shlex.quote(result.model.files[0]), threatened(config)
    pgd = f"accuracy under PGD-{test.parameters['steps']}"
    return Outcome(
        title=f"trained against {against}" if result.card.threat else "trained",
        sentences=(*sentences, *result.warnings),
        bars=tuple(
            bar
            for when, row in seen
            for bar in (
                Bar.of(f"clean accuracy {when}, n = {row.n:,}", row.clean, row.n, "grey"),
                *([] if row.robust is None else [Bar.of(f"{pgd} {when}", row.robust, row.n)]),
            )
        ),
        tables=(
            Table(
                f"{test.data.name} test images, {against}",
                ("", "clean accuracy [95 % interval]", pgd, "n"),
                rows,
            ),
        ),
        pictures=tuple(
            course(
                folder,
                CLASSIFIER,
                "Accuracy during training. Robust accuracy that decreases on held-out images while it "
                "increases on training images is robust overfitting.",
                kept=result.kept_step,
            )
        ),
        files=(*map(Path, result.model.files), folder),
        next=(
            *(command.format(first) for command in objective.judges),
            f"advkit attack --model {first}",
            *(f"advkit attack --model {first} --attack {shlex.quote(each)}" for each in attacks),
            f"advkit attack --model {first} --attack apgd-ce --set parameters.apgd-ce.restarts=5",
            f"advkit models lineage {name}",
        ),
        stored=result,
    )


def fine_tuned(result: FineTuningResult, folder: Path) -> Outcome:
    """The outcome of ``advkit finetune``."""
    config, test, name = result.config, result.test, result.model.name
    which = ("Which labels: label_ids in result.json.",) if result.label_ids is not None else ()
    model = shlex.quote(result.model.files[0])
    return Outcome(
        title=f"a classifier of {config['data']} from {config['model']}",
        sentences=(
            f"In the model store as {name}, trained on {result.labels:,} labels with {result.updates:,} "
            "updates.",
            *which,
        ),
        tables=(errors(test.errors, test.data.name, test.attack),),
        pictures=tuple(course(folder, CLASSIFIER, "Accuracy on training batches during training.")),
        files=(*map(Path, result.model.files), folder),
        next=(
            f"advkit attack --model {model}",
            f"advkit adv-train --model {model} --out hard.pt",
            f"advkit models lineage {name}",
        ),
        stored=result,
    )


def semi_supervised(result: SemiTrainingResult, folder: Path) -> Outcome:
    """The outcome of ``advkit semi-train``."""
    config, test = result.config, result.test
    subject = f"--model {shlex.quote(result.model.files[0])}{data_flag(config)}"
    return Outcome(
        title=f"a classifier of {config['data']} from {result.labels:,} labels",
        sentences=(
            f"In the model store as {result.model.name}, trained with {result.updates:,} updates.",
            "Which labels: label_ids in result.json. Test labels were used for this table alone.",
        ),
        tables=(errors({"K+1 head": test}, test.data.name, test.attack),),
        pictures=(
            *course(folder, SEMI, "Losses during training."),
            Picture(
                "generated images", folder / "grid.png", "Samples of the generator that was trained with it."
            ),
        ),
        files=(*map(Path, result.model.files), folder),
        next=(f"advkit attack {subject}", f"advkit adv-train {subject} --out hard.pt"),
        stored=result,
    )


def data_flag(config: Mapping[str, Any]) -> str:
    """The data set as an option, unless it is the default."""
    return "" if config["data"] == "digits" else f" --data {shlex.quote(config['data'])}"


def errors(tested: Mapping[str, Errors], name: str, attack: AttackFacts | None) -> Table:
    """A row for each classifier: errors out of n with their exact 95 % intervals.

    Args:
        tested: by how the classifier was trained.
        name: of the test images.
        attack: of the robust error; None: there is none.
    """
    columns, rows = ["", "clean error [95 %]", "wrong", "n"], []
    if attack is not None:
        columns += [f"error under PGD-{attack.parameters['steps']}", "n"]
    for how, row in tested.items():
        cells = [how, _share(row.clean, row.n), f"{row.clean:,}", f"{row.n:,}"]
        if attack is not None:
            assert row.robust is not None
            cells += [_share(row.robust, row.attacked), f"{row.attacked:,}"]
        rows.append(tuple(cells))
    threat = "" if attack is None else f", {attack.norm} eps {attack.eps:.4g}"
    return Table(f"{name} test images{threat}", tuple(columns), tuple(rows))


def _share(wrong: int, n: int) -> str:
    low, high = clopper_pearson(wrong, n)
    return f"{100 * wrong / n:.2f} % [{100 * low:.2f}, {100 * high:.2f}]"
