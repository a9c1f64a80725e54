"""Certify a lower bound on robust accuracy."""

from __future__ import annotations

from advkit.core.context import Context
from advkit.core.errors import by_size
from advkit.core.shards import ShardResult
from advkit.core.threat import Threat
from advkit.data import threats
from advkit.data.subjects import Subject
from advkit.models.load import load_model
from advkit.report import verification as report
from advkit.report.outcome import Outcome, Table, planned
from advkit.report.shards import shard
from advkit.verify.bounds.ball import Ball, refuse_l0
from advkit.verify.bounds.linear import Bounder
from advkit.verify.bounds.read import read
from advkit.verify.certification.certify import certified_subject
from advkit.verify.certification.result import CertificationResult, finite
from advkit.verify.certification.settings import Certification as Config
from advkit.verify.vnnlib import decide, load_property

GROUP = "Robustness"
EXAMPLE = "advkit certify --model clf.pt --norm linf --eps 0.05"


def run(config: Config, context: Context) -> Outcome:
    """Certifies images, or decides a property."""
    if config.property is not None:
        return _decided(config, config.property, context)
    subject = Subject.open(config, context)
    model, images = subject.model, subject.images
    against = threats.choose(config.norm, config.eps, model, images, context.progress)
    refuse_l0(against)
    if context.dry_run:
        rows = tuple(
            (node.name, type(node.op).__name__ if node.op else "-", by_size(node.shape))
            for node in read(model).nodes
        )
        unsure = _unsure(subject, against)
        return planned(
            f"{model.card.architecture} on {len(images):,} images of {images.name} ({images.split}), "
            f"{against}, method {config.method}.",
            f"Of an image, {unsure:,.0f} inputs of ReLUs have an open sign by interval bounds "
            "(mean of a few).",
            table=Table("layers of the network", ("layer", "operation", "values"), rows),
            n=len(images),
            threat=against.model_dump(),
            layers=len(rows),
            unsure=unsure,
        )
    with context.run_folder("certify", images.name, config, subject.beginning) as run:

        def work() -> CertificationResult | ShardResult:
            return certified_subject(subject, against, config, run=run, progress=context.progress)

        if config.shard is not None:
            return shard(run.once(ShardResult, work), run.path)
        result = run.once(CertificationResult, work)
        return report.certification(config, result, images, run.path)


def _unsure(subject: Subject, against: Threat) -> float:
    few = subject.few.cpu()
    bounder = Bounder(read(subject.model), few.device)
    return float(bounder.unsure(bounder.interval(Ball(few, against))).double().mean())


def _decided(config: Config, file: str, context: Context) -> Outcome:
    """A property in place of images."""
    regions, said = load_property(file), config.said
    if said["shape"] is None and config.model.endswith(".onnx"):
        said["shape"] = (1, 1, len(regions[0].low))  # where the file says no other: a row of values
    model = load_model(config.model, **said)
    count = sum(len(region.alternatives) for region in regions)
    about = f"{file}: {count:,} alternatives in {len(regions):,} boxes of inputs."
    if context.dry_run:
        return planned(about, boxes=len(regions), alternatives=count)
    answer = decide(model, regions, timeout=config.timeout, subproblems=config.subproblems)
    sentences = {
        "holds": "The property holds: no input within the bounds gives these outputs.",
        "violated": "The property is violated, by an input that the network confirms (`input` of --json).",
        "open": "The property is open: neither proved nor violated within --timeout.",
    }
    return Outcome(
        f"property of {config.model}",
        (sentences[answer.status], about),
        result={
            "property": file,
            "status": answer.status,
            "margin": finite(answer.margin),
            "subproblems": answer.subproblems,
            "notes": answer.notes,
            "input": None if answer.input is None else answer.input.tolist(),
        },
        notes=answer.notes,
        passed=answer.status == "holds",
    )
