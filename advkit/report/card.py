"""Model cards: Markdown with YAML metadata, from runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from advkit.core.errors import readable
from advkit.models.card import ModelCard
from advkit.report.gate import cell
from advkit.report.measured import Measured
from advkit.report.outcome import Outcome, Table

COLUMNS = ("figure", "value [95 % interval]", "under", "images", "checks", "run")
MEMORY = " What a command calls `memory:` was in a Python program: save it, and name the file instead."
SHOWN = 16
"""Digits of a run's hash in the table."""


def text(measured: Sequence[Measured], commands: Sequence[Sequence[str]]) -> str:
    """The card of one model.

    Args:
        commands: for each run the command lines that reproduce it.
    """
    name = _name(measured)
    lines = [
        "---",
        *_yaml(_metadata(name, measured)),
        "---",
        "",
        f"# {cell(name)}",
        "",
        f"- hash: `{measured[0].model_hash}`",
        *_about(next((one.card for one in measured if one.card), None)),
        "",
        "## Accuracy and robustness",
        "",
        _row(COLUMNS),
        _row("---" for _ in COLUMNS),
        *map(_row, _rows(measured)),
        "",
        "Intervals are exact (Clopper-Pearson), those of means over corruptions of Student's t. A robust "
        "accuracy is an upper bound, as another attack may break more images; a certified accuracy is a "
        "lower bound. A run's hash is the SHA-256 of its `result.json`.",
        "",
        "## The same figures again",
        "",
        "Put the model's file, which has the hash above (`advkit.load_model(FILE).hash` in Python), in the "
        "place that a command names. The same versions on the same kind of processor give the same figures."
        + (MEMORY if "memory:" in str(commands) else ""),
    ]
    for one, typed in zip(measured, commands, strict=True):
        lines += ["", *_run(one, typed)]
    return readable("\n".join(lines)) + "\n"


def outcome(measured: Sequence[Measured], out: Path) -> Outcome:
    """The outcome of ``advkit card``."""
    return Outcome(
        f"card of {_name(measured)}",
        tables=(Table("", COLUMNS, tuple(_rows(measured))),),
        files=(out,),
        result={
            "model": measured[0].model_hash,
            "runs": [{"run": str(one.row.path), "sha256": one.digest} for one in measured],
        },
    )


def _name(measured: Sequence[Measured]) -> str:
    """As the run of this model alone that was named first calls it, without a folder."""
    names = [one.row.model for one in measured if one.card and one.row.model]
    return Path(names[0]).name if names else measured[0].model_hash[:SHOWN]


def _rows(measured: Sequence[Measured]) -> list[tuple[str, ...]]:
    return [
        (
            figure.called,
            figure.text,
            f"{figure.under}, {one.data}" if figure.under else one.data,
            f"{one.n:,}",
            one.checks if figure.name == "robust" else "",
            one.digest[:SHOWN],
        )
        for one in measured
        for figure in one.figures
    ]


def _row(cells: Any) -> str:
    return f"| {' | '.join(map(cell, cells))} |"


def _about(card: ModelCard | None) -> Iterator[str]:
    """What is known of the model."""
    if card is None:
        return
    yield f"- architecture: {cell(card.architecture)}"
    yield f"- input: {' x '.join(map(str, card.shape))}, pixels in [0, 1]"
    named = f": {', '.join(card.labels)}" if 0 < len(card.labels) <= 20 else ""
    yield f"- classes: {card.classes}{cell(named)}"
    if card.threat is not None:
        yield f"- trained against: {card.threat.norm} eps {card.threat.eps:.4g}"
    for parent in card.lineage:
        yield f"- {parent.relation.replace('-', ' ')}: {cell(parent.name)}, hash `{parent.hash}`"


def _run(one: Measured, typed: Sequence[str]) -> Iterator[str]:
    """How it was made, and what a reader has to know."""
    versions = {key: one.environment.get(key) for key in ("advkit", "torch", "python", "platform")}
    yield f"### Run {one.digest[:SHOWN]}"
    yield ""
    yield f"- hash: `{one.digest}`"
    if one.seed is not None:
        yield f"- seed: {one.seed}"
    yield f"- versions: {', '.join(f'{key} {value}' for key, value in versions.items() if value)}"
    if one.fingerprint:
        yield f"- fingerprint of the images: `{one.fingerprint}`"
    for said in one.said:
        yield f"- {cell(said)}"
    yield from ("", "```bash", *typed, "```")


def _metadata(name: str, measured: Sequence[Measured]) -> dict[str, Any]:
    """As model hubs read it: each run a result, each figure a metric."""
    results = []
    for one in measured:
        data, _, split = one.data.rpartition(" ")
        shared = {
            "n": one.n,
            "run_sha256": one.digest,
            **({} if one.seed is None else {"seed": one.seed}),
            "advkit": one.environment.get("advkit", ""),
        }
        metrics = [
            {
                "type": "accuracy" if figure.name == "clean" else f"{figure.name}_accuracy",
                "name": figure.called + (f" ({figure.under})" if figure.under else ""),
                "value": figure.value,
                "args": {"low": figure.interval.low, "high": figure.interval.high, **shared},
            }
            for figure in one.figures
        ]
        results.append(
            {
                "task": {"type": "image-classification"},
                "dataset": {"name": data, "type": data, "split": split},
                "metrics": metrics,
            }
        )
    return {
        "library_name": "advkit",
        "pipeline_tag": "image-classification",
        "tags": ["adversarial-robustness"],
        "model-index": [{"name": name, "results": results}],
    }


def _yaml(value: Mapping[str, Any] | Sequence[Any], indent: str = "") -> Iterator[str]:
    """Plain values as YAML in blocks; scalars are JSON, which YAML reads."""
    pairs = value.items() if isinstance(value, Mapping) else ((None, one) for one in value)
    for key, one in pairs:
        head = f"{indent}-" if key is None else f"{indent}{key}:"
        if not isinstance(one, dict | list):
            yield f"{head} {json.dumps(one, ensure_ascii=False)}"
            continue
        lines = _yaml(one, f"{indent}  ")
        yield f"{head} {next(lines).strip()}" if key is None else head
        yield from lines
