"""Certify a lower bound on robust accuracy."""

from __future__ import annotations

from advkit.core.context import Context
from advkit.core.errors import by_size
from advkit.core.runs import RunFolder
from advkit.core.stats import accuracy
from advkit.core.threat import Threat
from advkit.data import threats
from advkit.data.data import Data
from advkit.data.subjects import Subject, flags
from advkit.models.model import Model
from advkit.report.figures.certification import write_margins
from advkit.report.outcome import Outcome, Picture, Table, check_threshold
from advkit.verify.bounds.ball import refuse_l0
from advkit.verify.bounds.read import read
from advkit.verify.certification.certify import certified_subject
from advkit.verify.certification.result import CertificationResult
from advkit.verify.certification.settings import Certification as Config

GROUP = "Robustness"
EXAMPLE = "advkit certify --model clf.pt --norm linf --eps 0.05"


def run(config: Config, context: Context) -> Outcome:
    """Certifies images; the same command resumes a killed run.

    Raises:
        UserError: something is wrong with the model, the data or the options.
    """
    subject = Subject.open(config, context)
    model, images = subject.model, subject.images
    against = threats.choose(config.norm, config.eps, model, images, context.progress)
    refuse_l0(against)
    if context.dry_run:
        return _plan(config, model, images, against)
    with RunFolder.open(
        "certify", images.name, config, context.out, inputs=subject.inputs, resume=context.resume
    ) as folder:
        result = folder.once(
            CertificationResult,
            lambda: certified_subject(subject, against, config, run=folder, progress=context.progress),
            context.progress,
        )
        pictures = []
        if result.clean_correct:
            pictures.append(
                Picture(
                    "certified margins",
                    folder.path / "margins.png",
                    "Lower bound of the true class's margin within eps, and the method that proved it; above "
                    "0 an image is certified.",
                )
            )
            write_margins(pictures[0].path, result)
        return _outcome(config, result, images, tuple(pictures), folder)


def _plan(config: Config, model: Model, images: Data, against: Threat) -> Outcome:
    graph = read(model)
    rows = tuple(
        (node.name, type(node.op).__name__ if node.op else "-", by_size(node.shape)) for node in graph.nodes
    )
    return Outcome(
        title="what would be done",
        sentences=(
            f"{model.card.architecture} on {len(images):,} images of {images.name} ({images.split}), "
            f"{against}, method {config.method}.",
        ),
        tables=(Table("layers of the network", ("layer", "operation", "values"), rows),),
        result={"n": len(images), "threat": against.model_dump(), "layers": len(rows)},
    )


def _outcome(
    config: Config,
    result: CertificationResult,
    images: Data,
    pictures: tuple[Picture, ...],
    folder: RunFolder,
) -> Outcome:
    n, left = result.n, 0
    rows = [("none (clean)", "", "", accuracy(result.clean_correct, n))]
    for method in result.methods:
        left += method.proved
        rows.append((method.name, f"{method.tried:,}", f"{method.proved:,}", accuracy(left, n)))
    sentences = [result.sentence]
    sentences.append(
        f"No attack lowers the accuracy on these images below {100 * result.certified_accuracy:.1f} %; "
        f"{result.undecided:,} more are classified correctly but undecided."
    )
    if result.status == "partial":
        sentences.append(f"Partial: {n} images only.")
    passed, said = check_threshold(config.min_certified, "certified accuracy", result.certified_accuracy)
    sentences += said
    subject = flags([config.model], result.data.name, arch=config.arch, said=config)
    here = f"{subject} --norm {result.threat.norm}"
    return Outcome(
        title=f"certification of {config.model}",
        sentences=tuple(sentences),
        tables=(
            Table(
                f"{result.threat.norm} eps {result.threat.eps:.4g}, n = {n:,}",
                ("bounds", "tried", "proved", "certified accuracy [95 % interval]"),
                tuple(rows),
            ),
            _by_class(result, images),
        ),
        pictures=pictures,
        files=(folder.path,),
        next=(
            f"advkit attack {here} --eps {result.threat.eps:.4g} --certify",
            f"advkit certify {here} --eps {result.threat.eps / 2:.3g}",
        ),
        result=result.as_values(),
        passed=passed,
    )


def _by_class(result: CertificationResult, images: Data) -> Table:
    statuses: dict[int, list[str]] = {}
    for verdict in result.verdicts:
        statuses.setdefault(verdict.label, []).append(verdict.status)
    rows = []
    for label, found in sorted(statuses.items()):
        n, proved = len(found), found.count("certified")
        name = images.class_names[label] if label < images.classes else str(label)
        clean = accuracy(n - found.count("misclassified"), n)
        rows.append((name, f"{n:,}", clean, accuracy(proved, n)))
    columns = ("class", "n", "clean accuracy [95 % interval]", "certified accuracy [95 % interval]")
    return Table("by class", columns, tuple(rows))
