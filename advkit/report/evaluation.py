"""The outcomes of ``attack``, ``curve`` and ``spatial``, from their results."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from advkit.attacks.perturb import device_of
from advkit.core.bars import duration
from advkit.core.stats import accuracy
from advkit.core.threat import options, written
from advkit.data.classes import class_name
from advkit.data.data import Data
from advkit.data.subjects import flags
from advkit.evaluation.curve.result import SecurityCurve
from advkit.evaluation.curve.settings import Curve
from advkit.evaluation.forecast import Forecast
from advkit.evaluation.ledger import Adversarial
from advkit.evaluation.result import COMPLETE, Cost, EvaluationResult, Limited, in_units
from advkit.evaluation.settings import Evaluation
from advkit.evaluation.spatial.result import SpatialResult
from advkit.evaluation.spatial.settings import Spatial
from advkit.models.model import Model, evaluation_mode
from advkit.report.charts import Bar, matrix
from advkit.report.figures import evaluation as figures
from advkit.report.outcome import Outcome, Picture, Table, check_threshold, partial
from advkit.report.plots import write_images
from advkit.verify.certification.result import CertificationResult

SHOWN = 10
"""Classes in a table; of more, the worst."""
EXAMPLES = 8
"""Images in a picture of examples."""
CONFUSED = 1000
"""Images misclassified under attack, at most, whose predicted classes are asked for."""

Row = TypeVar("Row")


def worst(rows: Sequence[tuple[Any, Row]]) -> tuple[list[Row], str]:
    """All rows where they are few, else those of the lowest figure, and what to say of that in a title."""
    if len(rows) <= SHOWN:
        return [row for _, row in rows], "by class"
    chosen = sorted(range(len(rows)), key=lambda place: rows[place][0])[:SHOWN]
    return [rows[place][1] for place in chosen], f"the worst {SHOWN} of {len(rows)} classes"


def by_class(
    result: EvaluationResult | CertificationResult, names: Sequence[str], what: str = "robust"
) -> Table:
    """Clean and robust (or certified) accuracy of each class that occurs, with its number of images: an
    average may hide that one class is much less robust than the others."""
    rows, title = _classes(result, names, what)
    columns = ("class", "n", "clean accuracy [95 % interval]", f"{what} accuracy [95 % interval]")
    said = tuple((name, f"{n:,}", accuracy(clean, n), accuracy(good, n)) for name, n, clean, good in rows)
    return Table(title, columns, said)


def class_bars(
    result: EvaluationResult | CertificationResult, names: Sequence[str], what: str = "robust"
) -> Picture:
    """The same as a chart."""
    rows, title = _classes(result, names, what)
    svg = figures.classes([row[0] for row in rows], [row[1:] for row in rows], what)
    return Picture.chart(f"{what} accuracy {title}", svg, "With exact 95 % intervals.")


def _classes(
    result: EvaluationResult | CertificationResult, names: Sequence[str], what: str
) -> tuple[list[tuple[str, int, int, int]], str]:
    """For each class its name, and the number of images, of those classified correctly, and of good ones."""
    statuses: dict[int, list[str]] = {}
    for verdict in result.verdicts:
        statuses.setdefault(verdict.label, []).append(verdict.status)
    rows = []
    for label, found in sorted(statuses.items()):
        n, good = len(found), found.count(what) + (what == "robust") * found.count("certified")
        rows.append((good / n, (class_name(label, names), n, n - found.count("misclassified"), good)))
    return worst(rows)


def attack(
    config: Evaluation,
    result: EvaluationResult,
    images: Data,
    pictures: tuple[Picture, ...],
    files: tuple[Path, ...],
) -> Outcome:
    """The outcome of ``advkit attack``."""
    n, threat = result.n, result.threat
    rows = [("none (clean)", "", "", accuracy(result.clean_correct, n), f"{n:,}")]
    if verified := sum(verdict.attack == COMPLETE for verdict in result.verdicts):
        left = accuracy(result.clean_correct - verified, n)
        rows.append((COMPLETE, f"{result.clean_correct:,}", f"{verified:,}", left, ""))
    rows += [
        (
            f"{stage.name} (on the surrogate)" if stage.transferred else stage.name,
            f"{stage.attacked:,}",
            f"{stage.broken:,}",
            accuracy(stage.correct_after, n),
            f"{stage.passes:,}",
        )
        for stage in result.stages
        if stage.attacked
    ]
    columns = ("attack", "attacked", "misclassified", "robust accuracy [95 % interval]", "passes")
    passed, said = _gate(config, result)
    projected = [f"{_projected(result.cost)}."] if result.cost and result.status == "partial" else []
    return Outcome(
        title=f"attack on {config.model}",
        sentences=(result.sentence, result.trust, *partial(result.status, n), *projected, *said),
        bars=figures.first_bars(result),
        legend={
            key: figures.BOUNDS[key] for key in figures.BOUNDS if result.certified_correct or key != "green"
        },
        warning="" if result.trusted else result.trust,
        tables=(
            Table(
                f"{threat.norm} eps {threat.eps:.4g}, n = {n:,}",
                columns,
                tuple(rows),
                _idle(result),
            ),
            *_queries(result),
            *_sides(result),
            *_checks(result),
            by_class(result, images.class_names),
            _cost(result),
        ),
        pictures=(*_charts(result, images.class_names), *pictures),
        files=files,
        next=_next(config, result),
        stored=result,
        passed=passed,
        judged=config.min_robust is not None,
    )


def _idle(result: EvaluationResult) -> str:
    """The stages that attacked nothing, which have no row."""
    why = {False: "had nothing left to attack", True: "attacked nothing, since little was to be found"}
    said = []
    for left, reason in why.items():
        names = [one.name for one in result.stages if not one.attacked and bool(one.left) == left]
        if names:
            said.append(f"{len(names)} stage{'s' * (len(names) > 1)} {reason}: {', '.join(names)}.")
    return " ".join(said)


def _charts(result: EvaluationResult, names: Sequence[str]) -> Iterator[Picture]:
    left = "The accuracy after each attack with its exact 95 % interval, and the images that it took away."
    yield Picture.chart("accuracy after each attack", figures.waterfall(result), left)
    yield class_bars(result, names)
    if any(verdict.margin is not None for verdict in result.verdicts):
        caption = (
            "The largest margin that an attack reached on each robust image; at 0 it would be misclassified."
        )
        yield Picture.chart("margins", figures.margins(result), caption)


def _cost(result: EvaluationResult) -> Table:
    facts = {
        "forward passes": f"{result.forwards:,}",
        "backward passes": f"{result.backwards:,}",
        "seconds": f"{result.seconds:,.1f}",
        "precision": result.precision,
        "seed": str(result.seed),
        "model": result.model_hash,
        "images": result.data.fingerprint,
    }
    return Table.of_facts("cost and settings", "", facts)


def expected(found: Forecast | None) -> tuple[str, ...]:
    """What an evaluation will probably cost, in words."""
    if found is None:
        return (
            "What is expected is not known: a pilot needs the model itself, and attacks that count passes.",
        )
    return (
        f"Expected, from a pilot on {found.pilot} images: {found.passes:,.0f} passes, forward and backward, "
        f"in {duration(found.seconds)} on this machine, with {found.memory / 1e6:,.0f} MB of memory.",
        f"{_projected(found.cost)}.",
    )


def _projected(cost: Cost) -> str:
    """What an image costs, and what all of them would, in words."""
    time, whole = (
        "" if each is None else f"{sign}{duration(each)}"
        for sign, each in ((" and ", cost.seconds), (" in about ", cost.all_seconds))
    )
    return (
        f"An image costs {cost.passes:,.1f} passes{time}; all {cost.images:,} of the data set cost about "
        f"{cost.all_passes:,.0f} passes{whole}"
    )


def chosen(limited: Limited) -> tuple[str, ...]:
    """What a time limit would leave out, in words."""
    if limited.shortened:
        return (f"{limited.shortened[0].upper()}{limited.shortened[1:]}; nothing with {limited.flag}.",)
    return (f"All of it fits into the time limit of {in_units(limited.seconds)}.",)


def _gate(config: Evaluation, result: EvaluationResult) -> tuple[bool, list[str]]:
    """Whether --min-robust is reached, by a number that no check doubts, and the sentence about it."""
    if config.min_robust_of == "interval":
        what, value = "lower end of the 95 % interval of the robust accuracy", result.interval.low
    else:
        what, value = "robust accuracy", result.robust_accuracy
    passed, said = check_threshold(config.min_robust, what, value)
    doubted = [check.name for check in result.checks if check.verdict == "doubt"]
    refused = [name for name in doubted if name not in config.accept_doubt]
    if config.min_robust is None or not passed or not refused:
        return passed, said
    return False, [
        f"FAIL: threshold met ({what} {value:.4f}, threshold {config.min_robust:.4f}), but the number is not "
        f"trusted: {', '.join(refused)} doubt{'s' * (len(refused) == 1)} it. Remove the cause, or accept it "
        f"with --accept-doubt {','.join(refused)}."
    ]


def _queries(result: EvaluationResult) -> Iterator[Table]:
    """The queries to a black box."""
    if (asked := result.queries) is None:
        return
    limits = [
        f"{limit:,} {what}"
        for limit, what in ((asked.max_queries, "per image"), (asked.max_total_queries, "in total"))
        if limit is not None
    ]
    row = (
        f"{asked.mean:,.1f}",
        f"{asked.median:,.1f}",
        f"{asked.total:,}",
        f"{asked.answered:,}",
        ", ".join(limits) or "none",
        f"{asked.stopped:,}",
    )
    columns = ("mean per image", "median", "total", "answered", "limit", "images stopped by it")
    yield Table(f"queries ({asked.access})", columns, (row,))


def _sides(result: EvaluationResult) -> Iterator[Table]:
    """Lower and upper bound of robust accuracy."""
    if result.certified_correct is None:
        return
    n, lower, upper = result.n, result.certified_correct, result.robust_correct
    counts = {
        "lower bound (certified)": lower,
        "upper bound (attacked)": upper,
        "undecided": upper - lower,
    }
    yield Table.of_shares("bounds of robust accuracy", "", n, counts)


def _checks(result: EvaluationResult) -> Iterator[Table]:
    """The sanity checks: those that failed, and those that passed."""
    doubts = tuple((c.name, c.detail, c.remedy) for c in result.checks if c.verdict == "doubt")
    if doubts:
        yield Table("reasons for doubt", ("check", "found", "what to do"), doubts)
    rest = tuple((c.name, c.detail) for c in result.checks if c.verdict == "ok")
    if rest:
        yield Table("checks that raise no doubt", ("check", "found"), rest)


def _next(config: Evaluation, result: EvaluationResult) -> tuple[str, ...]:
    threat, subject = result.threat, flags(config, config.data)
    proofs = " --certify complete" if config.certify == "complete" else " --certify" * config.certify
    here = f"{subject} {options(threat.norm, threat.eps)}"
    through = f" --bpda {','.join(config.bpda)}" if config.bpda else ""
    remedies = dict.fromkeys(check.flags for check in result.checks if check.flags)
    if remedies:
        same = "" if config.attack == ("cascade",) else f" --attack {','.join(config.attack)}"
        return tuple(
            f"advkit attack {here}{'' if '--bpda' in flags else through}"
            f"{'' if '--attack' in flags else same}{proofs} {flags}"
            for flags in remedies
        )
    numbered = (f"hard-{number}.pt" for number in itertools.count(2))
    free = next(name for name in itertools.chain(["hard.pt"], numbered) if not Path(name).exists())
    standard = f"advkit attack {here}{through} --attack autoattack"
    return (
        f"advkit adv-train {here} --out {free}",
        f"advkit attack {subject}{through} --norm {threat.norm} --eps {threat.eps / 2:.3g}",
        *([standard] if threat.norm != "l0" and config.attack != ("autoattack",) else []),
    )


def nearest(
    folder: Path, result: EvaluationResult, model: Model, data: Data, adversarial: Adversarial
) -> tuple[Picture, ...]:
    """The predicted classes under attack, and the adversarial examples that are nearest to their originals,
    at most eight."""
    broken = [verdict for verdict in result.verdicts if verdict.status == "broken"]
    shown = sorted(broken, key=lambda verdict: (verdict.distance or 0.0, verdict.id))[:EXAMPLES]
    if not shown:
        return ()
    return (
        *_confusion(result, model, data, adversarial),
        Picture(
            "adversarial examples",
            _examples(folder, [verdict.id for verdict in shown], model, data, adversarial),
            "The adversarial examples with the smallest perturbations: true class and predicted class.",
        ),
    )


def _confusion(
    result: EvaluationResult, model: Model, data: Data, adversarial: Adversarial
) -> Iterator[Picture]:
    """What the model calls the images that the attacks broke, by true class; of many classes, the ten of most
    such images."""
    places = adversarial.broken.nonzero()[:CONFUSED, 0]
    said: list[int] = []
    with torch.no_grad(), evaluation_mode(model):
        for few in places.split(data.at_once(50)):
            said += model(adversarial[few].to(device_of(model))).argmax(1).tolist()
    pairs = Counter(zip((result.verdicts[place].label for place in places.tolist()), said, strict=True))
    seen = Counter[int]()
    for pair, count in pairs.items():
        seen.update(dict.fromkeys(pair, count))
    shown = sorted(sorted(seen, key=lambda label: (-seen[label], label))[:SHOWN])
    counts = [[pairs[row, column] for column in shown] for row in shown]
    names = [class_name(label, data.class_names) for label in shown]
    left = len(places) - sum(map(sum, counts))
    some = f" {left:,} more are of other classes." if left else ""
    yield Picture.chart(
        "true class against predicted class under attack",
        matrix("true class against predicted class under attack", names, counts, "true", "predicted"),
        f"Of {len(places):,} images misclassified under attack.{some}",
    )


def _examples(
    folder: Path, ids: list[int], model: Model, data: Data, changed: Any, notes: Sequence[str] = ()
) -> Path:
    """Draws images and their changed forms: what is in ``notes`` below, or else their differences."""
    places = {sample: index for index, sample in enumerate(data.ids.tolist())}
    index = torch.tensor([places[sample] for sample in ids])
    original, labels = data.batch(index)
    x = changed[index]
    with torch.no_grad(), evaluation_mode(model):
        said = model(x.to(device_of(model))).argmax(1).tolist()
    rows, names = [original, x], []
    if not notes:
        largest = float((x - original).abs().max()) or 1.0
        rows.append((0.5 + (x - original) / (2 * largest)).clamp(0, 1))
        names = ["original", "adversarial", f"change / {largest:.3g}"]
    known = dict(enumerate(data.class_names))
    above, below = ([known.get(label, str(label)) for label in each] for each in (labels.tolist(), said))
    path = folder / "examples.png"
    write_images(path, rows, above, below, answers=1, names=names, notes=notes)
    return path


def curve(config: Curve, result: SecurityCurve, folder: Path) -> Outcome:
    """The outcome of ``advkit curve``."""
    pictures = (
        Picture.chart(
            "security curve",
            figures.security_curve(result),
            "Robust accuracy by eps (an upper bound) with its 95 % interval.",
            folder / "curve.svg",
        ),
        Picture.chart(
            "minimum norms",
            figures.norms(result),
            f"Smallest perturbations found.{figures.not_drawn(result)}",
            folder / "norms.svg",
        ),
        Picture.chart(
            "minimum norms by class",
            figures.norms_by_class(result),
            "The median (line), the quartiles (box) and the range from 5 to 95 % of the images (whiskers).",
            folder / "classes.svg",
        ),
    )
    subject, norm = flags(config, result.data.name), result.norm
    half = result.half if result.half else result.class_eps
    sizes = dict.fromkeys([f"{half:.3g}", *(written(mark.eps, norm) for mark in result.marks[:1])])
    return Outcome(
        title=f"security curve of {config.model}",
        sentences=(
            result.sentence,
            "Every robust accuracy is an upper bound: something nearer may exist. At one eps, advkit attack "
            "gives a tighter bound, and runs sanity checks on it.",
            *partial(result.status, result.n),
            *([result.warning] if result.warning else []),
        ),
        bars=(
            Bar.of(f"clean accuracy, n = {result.n:,}", result.clean_correct, result.n, "grey"),
            *_at(result),
        ),
        warning=result.warning,
        tables=(_points(config, result), _norms_by_class(result), _attacks(result)),
        pictures=pictures,
        files=(folder,),
        next=(
            *(f"advkit attack {subject} --norm {norm} --eps {size}" for size in sizes),
            f"advkit curve {subject} --norm {'l2' if norm == 'linf' else 'linf'}",
        ),
        stored=result,
    )


def _at(result: SecurityCurve) -> Iterator[Bar]:
    """The robust accuracy at the usual sizes of a threat, else in the middle of the table."""
    for eps in [mark.eps for mark in result.marks] or [result.class_eps]:
        left = sum(norm > eps for norm in result.norms)
        yield Bar.of(f"robust at {result.norm} eps {written(eps, result.norm)}, at most", left, result.n)


def _points(config: Curve, result: SecurityCurve) -> Table:
    norm, n = result.norm, result.n
    said = {mark.eps: mark.said for mark in result.marks}
    rows = [("0", accuracy(result.clean_correct, n), "clean accuracy")]
    for point in result.points:
        remark = said.get(point.eps, "asked for" if point.eps in config.eps else "")
        rows.append((written(point.eps, norm), accuracy(point.robust_correct, n), remark))
    columns = ("eps", "robust accuracy at most [95 % interval]", "")
    return Table(f"{norm}, n = {n:,}", columns, tuple(rows))


def _norms_by_class(result: SecurityCurve) -> Table:
    rows = []
    for row in result.classes:
        place = (row.robust_correct / row.n, math.inf if row.median.value is None else row.median.value)
        said = (
            row.name,
            f"{row.n:,}",
            f"{100 * row.clean_correct / row.n:.1f} %",
            result.text(row.median),
            accuracy(row.robust_correct, row.n),
        )
        rows.append((place, said))
    shown, title = worst(rows)
    median = f"median norm{' * 255' if result.parts > 1 else ''} [95 %]"
    at = f"robust at {written(result.class_eps, result.norm)} [95 %]"
    return Table(title, ("class", "n", "clean", median, at), tuple(shown))


def _attacks(result: SecurityCurve) -> Table:
    rows = tuple(
        (
            one.name,
            f"{one.found:,} of {one.attacked:,}",
            f"{one.nearest:,}",
            "-" if one.median is None else f"{one.median * result.parts:.3g}",
            f"{one.forwards + one.backwards:,}",
        )
        for one in result.attacks
    )
    distance = f"median distance{' * 255' if result.parts > 1 else ''}"
    return Table("attacks", ("attack", "found", "nearest of all", distance, "passes"), rows)


def spatial(
    config: Spatial, result: SpatialResult, pictures: tuple[Picture, ...], files: tuple[Path, ...]
) -> Outcome:
    """The outcome of ``advkit spatial``."""
    n, clean = result.n, result.clean_correct
    tried = [
        ("none (clean)", clean),
        (f"worst of {result.moves_random} random", result.random_correct),
        (f"grid of {result.moves_grid}", result.grid_correct),
        ("all of these", result.robust_correct),
    ]
    unconfirmed = (
        f"{result.unconfirmed} transformations fooled the model in the search, but not when repeated; "
        "they are not counted."
    )
    subject = flags(config, result.data.name)
    return Outcome(
        title=f"rotations and translations against {config.model}",
        sentences=(
            result.sentence,
            *partial(result.status, n),
            *([unconfirmed] if result.unconfirmed else []),
            f"{result.forwards:,} forward passes.",
        ),
        bars=tuple(Bar.of(name, left, n, "blue" if at else "grey") for at, (name, left) in enumerate(tried)),
        tables=(
            Table(
                f"up to {result.rotation:g} degrees and {result.shift:g} px, n = {n:,}",
                ("transformations", "misclassified", "robust accuracy [95 % interval]"),
                tuple((name, f"{clean - left:,}", accuracy(left, n)) for name, left in tried),
            ),
        ),
        pictures=pictures,
        files=files,
        next=(f"advkit spatial {subject} --shift 0", f"advkit spatial {subject} --rotation 0"),
        stored=result,
    )


def least_moved(
    folder: Path, result: SpatialResult, model: Model, data: Data, moved: torch.Tensor
) -> tuple[Picture, ...]:
    """The smallest transformations that are misclassified, at most eight, and the accuracy by size."""
    caption = "Accuracy on the grid as its range grows."
    sizes = Picture.chart("accuracy by size", figures.sizes(result), caption, folder / "curve.svg")
    broken = [(verdict.move, verdict.id) for verdict in result.verdicts if verdict.move is not None]
    shown = sorted(broken, key=lambda pair: (pair[0].size, pair[1]))[:EXAMPLES]
    if not shown:
        return (sizes,)
    notes = [f"{_signed(to.angle)}°\n{_signed(to.across)}, {_signed(to.down)} px" for to, _ in shown]
    examples = Picture(
        "adversarial transformations",
        _examples(folder, [sample for _, sample in shown], model, data, moved, notes),
        "The smallest transformations that are misclassified: true class and predicted class.",
    )
    return (examples, sizes)


def _signed(value: float) -> str:
    return f"{value:+.2g}" if abs(value) >= 0.05 else "0"
