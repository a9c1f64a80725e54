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
from advkit.core.stats import Interval


@click.command("gate-init", cls=Described, example="advkit gate-init 12\nadvkit gate-init runs/a policy.toml")
@click.argument("run", type=RUN)
@click.argument("file", type=click.Path(path_type=Path), default=Path("policy.toml"))
@click.option("--overwrite", cls=Option, is_flag=True, help="FILE may be replaced.")
def gate_init(run: str, file: Path, overwrite: bool) -> None:
    """Write a policy to FILE (policy.toml) that asks for what RUN of advkit attack or corrupt has reached.

    The robust accuracy, or the mean accuracy under corruptions, must reach the lower end of that run's
    interval, and must not be lower than that run's by more than 3 points.
    """
    from advkit.evaluation.comparison.compare import Source
    from advkit.evaluation.corruptions.result import CorruptionResult
    from advkit.evaluation.result import EvaluationResult

    files.refuse_to_replace(file, overwrite=overwrite)
    path = find(run)
    result = Source.open(path).result
    resolved = path / "resolved.json"
    if not resolved.exists():
        raise DataError(f"{path} is no run folder; name one, whose settings the policy can ask for")
    config = files.read_json(resolved)["config"]
    shared = {"data": result.data.name, "split": config.get("split"), "n": config.get("n")}
    if isinstance(result, EvaluationResult):
        shared |= {"attack": config["attack"], "seed": result.seed, "eight_bit": result.eight_bit}
        bars = {
            "name": f"{result.threat.norm} {result.threat.eps:.4g}",
            "norm": result.threat.norm,
            "eps": result.threat.eps,
            "robust": _reached(result.interval),
        }
        if config.get("certify") == "complete":
            shared["certify"] = "complete"
        if result.certified_interval is not None:
            bars["certified"] = _reached(result.certified_interval)
    elif isinstance(result, CorruptionResult):
        keys = ("corruptions", "severities", "constants", "seed")
        shared |= {key: getattr(result, key) for key in keys}
        bars = {"name": "common corruptions", "corrupted": _reached(result.interval)}
    else:
        raise DataError(f"{path} is a run of advkit {result.command}; name one of attack or corrupt")
    bars |= {"of": "accuracy", "baseline": path.as_posix(), "points": 3.0}
    said = f"# What {path.as_posix()} has reached: {result.summary()}"
    lines = [" ".join(said.split()), *_toml(shared)]  # a name may hold the end of a line
    for name, parameters in config.get("parameters", {}).items():
        lines += ["", f"[parameters.{json.dumps(name)}]", *_toml(parameters)]
    lines += ["", "[[require]]", *_toml(bars)]
    files.write_text(file, "\n".join(lines) + "\n")
    click.echo(file)


def _reached(interval: Interval) -> float:
    """Its lower end, rounded down."""
    return math.floor(1000 * interval.low) / 1000


def _toml(values: dict[str, object]) -> list[str]:
    return [
        f"{key} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in values.items()
        if value is not None
    ]
