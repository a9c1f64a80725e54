"""What results print of themselves follows from their counts (evaluations: see their own tests)."""

import math
import random

import pytest

from advkit.defences.result import DetectionResult, OperatingPoint, PurificationResult
from advkit.evaluation.curve.result import MinimumNorm, SecurityCurve
from advkit.evaluation.spatial.result import Move, SpatialResult, SpatialVerdict
from advkit.models.card import ThreatFacts
from advkit.trained_attacks.latent.result import NaturalResult
from advkit.trained_attacks.transfer.result import SubstituteResult
from advkit.trained_attacks.universal.result import (
    Hits,
    PatchJudged,
    PatchResult,
    PerturbationJudged,
    PerturbationResult,
)
from advkit.verify.certification.result import CertificationResult, CertifiedVerdict
from advkit.verify.smoothing.result import SmoothedVerdict, SmoothingResult

DATA = {"name": "toy", "split": "test", "fingerprint": "f", "n": 9}
FACTS = {"status": "complete", "data": DATA, "seed": 0, "seconds": 1.0, "environment": {}, "model_hash": "m"}
LINF = {"norm": "linf", "eps": 0.125}


@pytest.fixture(params=range(12))
def dice(request):
    return random.Random(request.param)


def sound(result):
    """It is the same when it is read again."""
    assert type(result).from_json(result.to_json()) == result
    return result


def test_certification(dice, printed, share):
    n = dice.choice([1, 30, 1500])
    kinds = dice.choices(["misclassified", "certified", "undecided"], k=n)
    methods = [dice.choice(["interval", "linear"]) if kind == "certified" else None for kind in kinds]
    verdicts = tuple(
        CertifiedVerdict(id=k, label=0, status=kind, method=by)
        for k, (kind, by) in enumerate(zip(kinds, methods, strict=True))
    )
    facts = FACTS | {"threat": LINF, "method": "linear", "card": None}
    facts.pop("seed")
    told = sound(CertificationResult.of(verdicts, ("interval", "linear"), **facts))
    right, proved = n - kinds.count("misclassified"), kinds.count("certified")
    printed(told, *share(right, n), *share(proved, n), 0.125, n)
    cheap = methods.count("interval")
    counts = [(one.name, one.tried, one.proved) for one in told.methods]
    assert counts == [("interval", right, cheap), ("linear", right - cheap, proved - cheap)]
    rates = [100 * told.clean_accuracy, *(100 * end for end in told.clean_interval)]
    rates += [100 * told.certified_accuracy, *(100 * end for end in told.interval)]
    assert rates == pytest.approx(share(right, n) + share(proved, n)) and told.undecided == right - proved


def test_smoothing(dice, printed, share):
    n = dice.choice([1, 30, 1500])
    kinds = dice.choices(["right", "wrong", "abstained"], k=n)
    radii = [dice.random() if kind == "right" else 0.0 for kind in kinds]
    verdicts = tuple(
        SmoothedVerdict(id=k, label=0, status=kind, selected=0, votes=9, share=0.5, radius=radius)
        for k, (kind, radius) in enumerate(zip(kinds, radii, strict=True))
    )
    facts = FACTS | {"selection": 100, "skip": 1, "card": None, "bare_correct": 1}
    told = sound(SmoothingResult.of(verdicts, sigma=0.5, samples=10000, alpha=0.001, **facts))
    right, mean = kinds.count("right"), sum(radii) / n
    printed(told, mean, *share(right, n), kinds.count("abstained"), 0.5, 0.001, 10000, n)
    for number, point in enumerate(told.points):
        left = sum(radius > number * 0.25 for radius in radii)
        assert (point.radius, point.certified) == (number * 0.25, left)
        assert [100 * point.accuracy, *(100 * e for e in point.interval)] == pytest.approx(share(left, n))
    assert told.radii == sorted(radius for radius in radii if radius)


def test_spatial(dice, printed, share):
    n = dice.choice([1, 30, 1500])
    move = Move(angle=1.0, across=0.0, down=0.0, size=0.5)
    verdicts = []
    for k in range(n):
        falls = [dice.choice([move, None]), dice.choice([move, None])]
        status = "misclassified" if dice.random() < 0.1 else "broken" if any(falls) else "robust"
        falls = [None, None] if status == "misclassified" else falls
        verdicts.append(SpatialVerdict(id=k, label=0, status=status, random=falls[0], grid=falls[1]))
    facts = FACTS | {"rotation": 30.0, "shift": 2.5, "padding": "zeros", "moves_random": 7, "moves_grid": 9}
    told = sound(SpatialResult.of(tuple(verdicts), unconfirmed=0, forwards=1, **facts))
    right = [verdict for verdict in verdicts if verdict.status != "misclassified"]
    robust = sum(verdict.status == "robust" for verdict in right)
    printed(told, *share(len(right), n), *share(robust, n), 30, 2.5, n)
    left = [sum(getattr(verdict, by) is None for verdict in right) for by in ("random", "grid")]
    assert [told.random_correct, told.grid_correct] == left
    assert (told.left_at(0.4), told.left_at(0.5)) == (len(right) / n, left[1] / n)


def test_curve(dice, printed, share):
    n = dice.choice([1, 9, 300])
    norms = [dice.choice([0.0, None, dice.randint(1, 99) / 128]) for _ in range(n)]
    images = tuple(MinimumNorm(id=k, label=0, minimum_norm=norm) for k, norm in enumerate(norms))
    facts = FACTS | {"card": None, "attacks": (), "forwards": 1, "backwards": 1, "precision": "float32"}
    facts = {key: value for key, value in facts.items() if key in SecurityCurve.model_fields}
    told = SecurityCurve.of(images, norm="linf", marks=(), names=("a",), eps=(0.25,), **facts)
    clean = sum(norm != 0 for norm in norms)
    assert str(told).startswith(told.summary())
    middle = sorted(math.inf if norm is None else norm for norm in norms)[(n - 1) // 2]
    assert told.median.value == (None if middle == math.inf else middle)
    ends = [one for one in (told.median.value, told.median.low, told.median.high) if one is not None]
    printed(told.text(told.median), *(one * told.parts for one in ends))
    *_, warning, _ = lines = str(told).splitlines()[: -len(told.points)]
    assert len(lines) == 2 + (None in norms)
    if None in norms:
        printed(warning, norms.count(None), clean)
    for line, point in zip(str(told).splitlines()[len(lines) :], told.points, strict=True):
        left = sum(norm is None or norm > point.eps for norm in norms)
        assert point.robust_correct == left
        printed(line, point.eps, *share(left, n))
    assert (told.clean_correct, told.unbroken) == (clean, norms.count(None))
    printed(told.summary().partition(";")[0], *share(clean, n))


def test_what_is_built_from_counts(dice, printed, share):
    """Summaries of the results that keep counts alone."""
    n = dice.choice([1, 40, 2300])
    a, b, c = (dice.randint(0, n) for _ in range(3))
    facts = {"n": n, "threat": ThreatFacts(**LINF), "adaptive": a, "unaware": b, "bare": c}
    judged = {"name": "clf", "trained_on": True, "judged": n, "hits": a}
    hits = Hits(scale=(0.2, 0.4), patch=a, noise=b, grey=c, real=0)
    clf = PatchJudged.model_construct(**judged, anywhere=hits)
    printed(PatchResult.model_construct(target_name="b", classifiers=(clf,)), *share(a, n), n)
    clf = PerturbationJudged.model_construct(**judged)
    for target in (None, 1):
        told = PerturbationResult.model_construct(**facts, target=target, target_name="b", classifiers=(clf,))
        printed(told, 0.125, *share(a, n), n)
    point = OperatingPoint.model_construct(rate=0.05, adaptive=a, unaware=b)
    told = DetectionResult.model_construct(**facts, points=(point,))
    printed(told, 5, *share(a, n), n, *share(b, n), *share(c, n))
    told = PurificationResult.model_construct(**facts, defence="squeeze")
    printed(told, *share(a, n), n, *share(b, n), *share(c, n))
    told = NaturalResult.model_construct(legitimate=a, clean_correct=n)
    printed(told, *share(a, n), n)
    asked = {"train": a, "made": b}
    told = SubstituteResult.model_construct(n=n, agreed=c, answers="labels", asked=asked)
    printed(told, a + b, *share(c, n), n)
