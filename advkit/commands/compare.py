"""Compare models image by image: which is more robust."""

from __future__ import annotations

import re
from dataclasses import replace

from advkit.commands import COMMANDS
from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.core.threat import options
from advkit.evaluation.comparison.compare import Source, compared
from advkit.evaluation.comparison.result import ComparisonResult
from advkit.evaluation.comparison.settings import Comparison as Config
from advkit.evaluation.result import EvaluationResult
from advkit.report import comparison as report
from advkit.report.outcome import Outcome, Table, planned

GROUP = "Robustness"
EXAMPLE = "advkit compare 12 15\nadvkit compare --model clf.pt,hard.pt --n 500"
OPERANDS = "runs"


def run(config: Config, context: Context) -> Outcome:
    """Compares runs, or first measures models."""
    others = sorted(config.model_fields_set - {"runs"})
    if config.runs and others:
        raise ConfigError(f"runs are compared as they are; leave out {', '.join(others)}, or the runs")
    if max(len(config.runs), len(config.model)) < 2:
        raise ConfigError("name two runs or more, or models with --model A,B")
    if context.dry_run:
        return _plan(config)
    sources = [Source.open(name) for name in config.runs]
    if sources:
        compared(sources)  # fails now on what cannot be compared
    inputs = {"results": [one.digest for one in sources]} if sources else {}
    with context.run_folder("compare", "-".join(config.runs or config.model), config, inputs) as folder:
        plan = config
        for number, name in enumerate(config.model, 1):
            context.progress.say(f"{number}/{len(config.model)} attacking {name}")
            own = folder.path / f"{number}-{re.sub(r'[^A-Za-z0-9.]+', '-', name)}"
            COMMANDS["attack"].run(plan.evaluation(name), replace(context, out=own, resume=False))
            sources.append(Source.open(own))
            if number == 1:
                plan = _same(config, sources[0])
                context.progress.say(
                    f"the others are attacked on {plan.data} at {options(plan.norm, plan.eps or 0)}"
                )
        result = folder.once(ComparisonResult, lambda: compared(sources))
        pictures = report.pictures(folder.path, result, sources)
        return report.comparison(result, pictures, folder.path)


def _same(config: Config, first: Source) -> Config:
    """The settings with the data and the threat model of the first model where they say none: each model may
    have defaults of its own."""
    found = first.result
    assert isinstance(found, EvaluationResult)
    given = {"data": config.data or found.data.name, "norm": found.threat.norm, "eps": found.threat.eps}
    return config.model_copy(update=given)


def _plan(config: Config) -> Outcome:
    names = config.runs or config.model
    rows = tuple((name, "measured first" if config.model else "read") for name in names)
    return planned(
        f"{len(names)} models compared image by image; `advkit attack --dry-run` has the cost of one.",
        table=Table("", ("model or run", "what"), rows),
        runs=list(config.runs),
        models=list(config.model),
    )
