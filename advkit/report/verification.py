"""The outcomes of ``certify`` and ``smooth``, from their results."""

from __future__ import annotations

from pathlib import Path

from advkit.core.stats import accuracy
from advkit.core.threat import options
from advkit.data.data import Data
from advkit.data.subjects import flags
from advkit.report.charts import Bar
from advkit.report.evaluation import by_class, class_bars
from advkit.report.figures import verification as figures
from advkit.report.outcome import Outcome, Picture, Table, check_threshold, partial
from advkit.verify.certification.result import CertificationResult
from advkit.verify.certification.settings import Certification
from advkit.verify.smoothing.result import SmoothingResult
from advkit.verify.smoothing.settings import SmoothedCertification

LOST = 0.5
"""Share of the model's own accuracy below which a warning says that smoothing cost too much."""


def certification(config: Certification, result: CertificationResult, images: Data, folder: Path) -> Outcome:
    """The outcome of ``advkit certify``."""
    n, left, threat = result.n, 0, result.threat
    rows = [("none (clean)", "", "", accuracy(result.clean_correct, n))]
    for method in result.methods:
        left += method.proved
        rows.append((method.name, f"{method.tried:,}", f"{method.proved:,}", accuracy(left, n)))
    passed, said = check_threshold(config.min_certified, "certified accuracy", result.certified_accuracy)
    pictures = [class_bars(result, images.class_names, "certified")]
    if any(verdict.margin is not None for verdict in result.verdicts):
        margins = Picture.chart(
            "certified margins",
            figures.margins(result),
            "Lower bound of the true class's margin within eps, and the method that proved it; above 0 an "
            "image is certified.",
            folder / "margins.svg",
        )
        pictures.insert(0, margins)
    subject = flags(config, result.data.name)
    columns = ("bounds", "tried", "proved", "certified accuracy [95 % interval]")
    return Outcome(
        title=f"certification of {config.model}",
        sentences=(
            result.sentence,
            f"No attack lowers the accuracy on these images below {100 * result.certified_accuracy:.1f} %; "
            f"{result.undecided:,} more are classified correctly but undecided.",
            *([f"{result.broken_correct:,} have an adversarial example."] * (result.broken_correct > 0)),
            *partial(result.status, n),
            *said,
        ),
        bars=(
            Bar.of(f"clean accuracy, n = {n:,}", result.clean_correct, n, "grey"),
            Bar.of("certified accuracy, at least", left, n, "green"),
        ),
        tables=(
            Table(f"{threat.norm} eps {threat.eps:.4g}, n = {n:,}", columns, tuple(rows)),
            by_class(result, images.class_names, "certified"),
        ),
        pictures=tuple(pictures),
        files=(folder,),
        next=(
            f"advkit attack {subject} {options(threat.norm, threat.eps)} --certify",
            f"advkit certify {subject} --norm {threat.norm} --eps {threat.eps / 2:.3g}",
        ),
        stored=result,
        passed=passed,
        judged=config.min_certified is not None,
    )


def smoothing(config: SmoothedCertification, result: SmoothingResult, folder: Path) -> Outcome:
    """The outcome of ``advkit smooth``."""
    n, subject = result.n, flags(config, result.data.name)
    curve = Picture.chart(
        "certified accuracy by radius",
        figures.radii(result),
        "The share of images classified correctly and certified within the radius. Each radius holds with "
        "probability 1 - alpha.",
        folder / "curve.svg",
    )
    follow = f"advkit attack {subject} --norm l2 --eps {result.average_radius or result.sigma:.3g}"
    warning = ""
    if result.right < LOST * result.bare_correct:
        warning = (
            f"Without noise the model classifies {result.bare_correct:,} images correctly, smoothed "
            f"{result.right:,}: it seems not to be trained on such noise."
        )
        follow = (
            f"advkit adv-train {subject} --objective noise --set parameters.sigma={result.sigma:g} "
            "--set parameters.copies=2 --set parameters.consistency=5 --out smoothed.pt"
        )
    passed, said = check_threshold(config.min_radius, "average certified radius", result.average_radius)
    counts = {
        "correct": result.right,
        "wrong": result.wrong,
        "abstained": result.abstained,
        "correct without noise": result.bare_correct,
    }
    radii = tuple(
        (f"{point.radius:.3g}", f"{point.certified:,}", accuracy(point.certified, n))
        for point in result.points
    )
    how = f"sigma {result.sigma:g}, alpha {result.alpha:g}, n = {n:,}"
    among = f", one in {result.skip}" if result.skip > 1 else ""
    return Outcome(
        title=f"smoothing of {config.model}",
        sentences=(
            result.sentence,
            f"{result.samples:,} samples certify a radius of {result.largest_radius:.3f} at most; each "
            f"radius holds with probability {1 - result.alpha:g}.",
            *partial(result.status, n, among),
            *([warning] if warning else []),
            *said,
        ),
        bars=(
            Bar.of(f"accuracy without noise, n = {n:,}", result.bare_correct, n, "grey"),
            Bar.of("smoothed accuracy", result.right, n, "green"),
        ),
        tables=(
            Table.of_shares(f"predictions, {how}", "prediction", n, counts),
            Table(f"certified, {how}", ("l2 radius", "images", "certified accuracy [95 % interval]"), radii),
        ),
        pictures=(curve,),
        files=(folder,),
        next=(follow,),
        stored=result,
        passed=passed,
        judged=config.min_radius is not None,
        warning=warning,
    )
