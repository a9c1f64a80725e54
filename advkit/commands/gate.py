"""Check a model against the requirements of a policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from advkit.commands import COMMANDS
from advkit.core.config import validate
from advkit.core.context import Context
from advkit.core.run_list import find
from advkit.evaluation.comparison.compare import Source
from advkit.evaluation.corruptions.settings import Corruptions
from advkit.evaluation.gate.judge import judge, refuse_other_kind
from advkit.evaluation.gate.result import GateResult
from advkit.evaluation.gate.settings import Gate as Config
from advkit.evaluation.gate.settings import Policy, Requirement
from advkit.evaluation.settings import Evaluation
from advkit.report import gate as report
from advkit.report.outcome import Outcome, Table, planned

GROUP = "Robustness"
EXAMPLE = "advkit gate policy.toml --model clf.pt"
OPERANDS = "policy"


def run(config: Config, context: Context) -> Outcome:
    """Measures what the policies ask for, and judges it."""
    requirements = [one for name in config.policy for one in Policy.load(Path(name)).require]
    baselines = {name: Source.open(find(name)) for one in requirements if (name := one.baseline) is not None}
    asked = [_measuring(config, one) for one in requirements]
    for one, (command, _) in zip(requirements, asked, strict=True):
        if one.baseline is not None:
            refuse_other_kind(one, baselines[one.baseline], command)
    plans = [one for place, one in enumerate(asked) if one not in asked[:place]]
    if context.dry_run:
        return _plan(requirements)
    inputs: dict[str, Any] = {"requirements": [one.asked for one in requirements]}
    if baselines:
        inputs["baselines"] = {name: source.digest for name, source in baselines.items()}
    with context.run_folder("gate", Path(config.model).stem, config, inputs) as folder:
        measured = []
        for number, (name, plan) in enumerate(plans, 1):
            context.progress.say(f"{number}/{len(plans)} advkit {name} of {config.model}")
            own = folder.path / f"{number}-{name}"
            COMMANDS[name].run(plan, replace(context, out=own, resume=False))
            measured.append(Source.open(own))
        sources = [measured[plans.index(one)] for one in asked]

        def work() -> GateResult:
            return GateResult(
                model=config.model,
                model_hash=sources[0].result.model_hash,
                policy=config.policy,
                data=sources[0].result.data.name,
                findings=tuple(
                    finding
                    for one, source in zip(requirements, sources, strict=True)
                    for finding in judge(one, source, baselines[one.baseline] if one.baseline else None)
                ),
            )

        result = folder.once(GateResult, work)
        return report.gate(result, report.write(folder.path, result), folder.path)


def _measuring(config: Config, requirement: Requirement) -> tuple[str, Evaluation | Corruptions]:
    """The command that measures what is required, and its settings."""
    kind: type[Evaluation | Corruptions] = Evaluation if requirement.corrupted is None else Corruptions
    given = config.model_dump(include=set(kind.model_fields), exclude_unset=True)
    settings = validate(kind, requirement.measuring() | given, f"requirement {requirement.name!r}")
    return "attack" if kind is Evaluation else "corrupt", settings


def _plan(requirements: list[Requirement]) -> Outcome:
    rows = tuple(
        (one.name, "common corruptions", ",".join(one.corruptions))
        if one.corrupted is not None
        else (one.name, f"{one.norm or 'default norm'} eps {one.eps or 'default'}", ",".join(one.attack))
        for one in requirements
    )
    return planned(
        f"{len(requirements)} requirements.", table=Table("", ("requirement", "threat", "attack"), rows)
    )
