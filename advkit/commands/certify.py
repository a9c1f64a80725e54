"""Certify a lower bound on robust accuracy."""

from __future__ import annotations

from advkit.core.context import Context
from advkit.core.errors import by_size
from advkit.core.shards import ShardResult
from advkit.data import threats
from advkit.data.subjects import Subject
from advkit.report import verification as report
from advkit.report.outcome import Outcome, Table, planned
from advkit.report.shards import shard
from advkit.verify.bounds.ball import refuse_l0
from advkit.verify.bounds.read import read
from advkit.verify.certification.certify import certified_subject
from advkit.verify.certification.result import CertificationResult
from advkit.verify.certification.settings import Certification as Config

GROUP = "Robustness"
EXAMPLE = "advkit certify --model clf.pt --norm linf --eps 0.05"


def run(config: Config, context: Context) -> Outcome:
    """Certifies images."""
    subject = Subject.open(config, context)
    model, images = subject.model, subject.images
    against = threats.choose(config.norm, config.eps, model, images, context.progress)
    refuse_l0(against)
    if context.dry_run:
        rows = tuple(
            (node.name, type(node.op).__name__ if node.op else "-", by_size(node.shape))
            for node in read(model).nodes
        )
        return planned(
            f"{model.card.architecture} on {len(images):,} images of {images.name} ({images.split}), "
            f"{against}, method {config.method}.",
            table=Table("layers of the network", ("layer", "operation", "values"), rows),
            n=len(images),
            threat=against.model_dump(),
            layers=len(rows),
        )
    with context.run_folder("certify", images.name, config, subject.inputs) as run:

        def work() -> CertificationResult | ShardResult:
            return certified_subject(subject, against, config, run=run, progress=context.progress)

        if config.shard is not None:
            return shard(run.once(ShardResult, work), run.path)
        result = run.once(CertificationResult, work)
        return report.certification(config, result, images, run.path)
