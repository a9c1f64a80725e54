"""``advkit gate init``: a policy from a run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from advkit.cli.described import Described, Option
from advkit.cli.runs import RUN
from advkit.core import files
from advkit.core.errors import DataError
from advkit.core.run_list import find


@click.command("gate-init", cls=Described, example="advkit gate-init 12\nadvkit gate-init runs/a policy.toml")
@click.argument("run", type=RUN)
@click.argument("file", type=click.Path(path_type=Path), default=Path("policy.toml"))
@click.option("--overwrite", cls=Option, is_flag=True, help="FILE may be replaced.")
def gate_init(run: str, file: Path, overwrite: bool) -> None:
    """Write a policy to FILE (policy.toml) that asks for what RUN, one of advkit attack, has reached.

    The robust accuracy must reach the lower end of that run's interval, and must not be lower than that
    run's by more than 3 points.
    """
    from advkit.evaluation.result import EvaluationResult

    files.refuse_to_replace(file, overwrite=overwrite)
    path = find(run)
    result = EvaluationResult.load(path)
    resolved = path / "resolved.json"
    if not resolved.exists():
        raise DataError(f"{path} is no run folder; name one, whose settings the policy can ask for")
    config = files.read_json(resolved)["config"]
    shared = {
        "data": result.data.name,
        "split": config.get("split"),
        "n": config.get("n"),
        "attack": config["attack"],
        "seed": result.seed,
        "eight_bit": result.eight_bit,
    }
    bars = {
        "name": f"{result.threat.norm} {result.threat.eps:.4g}",
        "norm": result.threat.norm,
        "eps": result.threat.eps,
        "robust": math.floor(1000 * result.interval.low) / 1000,
        "of": "accuracy",
        "baseline": path.as_posix(),
        "points": 3.0,
    }
    if result.certified_interval is not None:
        bars["certified"] = math.floor(1000 * result.certified_interval.low) / 1000
    lines = [f"# What {path.as_posix()} has reached: {result.summary()}", *_toml(shared)]
    for name, parameters in config.get("parameters", {}).items():
        lines += ["", f"[parameters.{json.dumps(name)}]", *_toml(parameters)]
    lines += ["", "[[require]]", *_toml(bars)]
    files.write_text(file, "\n".join(lines) + "\n")
    click.echo(file)


def _toml(values: dict[str, object]) -> list[str]:
    return [
        f"{key} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in values.items()
        if value is not None
    ]
