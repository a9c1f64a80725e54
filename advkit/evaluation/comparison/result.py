"""The result of a comparison, as a versioned file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stats import Interval, clopper_pearson, mcnemar, mean_interval, paired_difference, percent
from advkit.core.stored import SummarisedResult
from advkit.models.card import ThreatFacts

Measure = Literal["clean", "robust", "certified", "corrupted"]

MEASURES: dict[Measure, tuple[str, ...]] = {
    "clean": ("broken", "robust", "certified", "undecided"),
    "robust": ("robust", "certified"),
    "certified": ("certified",),
    "corrupted": ("robust",),
}
"""What can be compared, and the status of the images that count in it."""

Answers = Sequence[Sequence[bool]]
"""For each image whether it counts: once, or as often as it was corrupted."""


class Compared(StrictModel):
    """One of the models."""

    name: str
    """As the run names its model, with the run's own name where two are alike."""
    source: str
    """The run folder or file that the verdicts come from; empty for a result in memory."""
    model_hash: str
    trusted: bool | None = None
    """What the sanity checks say of its robust accuracy; None where none was measured."""
    correct: dict[Measure, int]
    """Images that count in each measure; of corrupted ones, over all corruptions and severities."""
    corrupted_interval: Interval | None = None
    """95 % interval of the mean accuracy under corruptions (`advkit.core.stats.mean_interval`)."""


class Share(StrictModel):
    """A measure of one model, on a group of images."""

    correct: int
    n: int
    interval: Interval
    """Exact 95 % interval; of a mean over corruptions, of Student's t."""

    @classmethod
    def of(cls, correct: int, n: int) -> Share:
        """With its interval."""
        return cls(correct=correct, n=n, interval=clopper_pearson(correct, n))

    @property
    def text(self) -> str:
        """In percent, with the interval."""
        return percent(self.correct / self.n, self.interval)


class Difference(StrictModel):
    """One measure of two models, paired by image."""

    first: str
    second: str
    measure: Measure
    both: int
    """Images that count with both."""
    only_first: int
    only_second: int
    neither: int
    difference: float
    """The second's share minus the first's, in [-1, 1]."""
    interval: Interval
    """95 % interval of it for other images of this kind, paired (`advkit.core.stats.paired_difference`)."""
    p_value: float
    """Of no difference, two-sided: McNemar's exact test; of corruptions the t test of the images' means."""

    @classmethod
    def of(cls, pair: tuple[str, str], measure: Measure, first: Answers, second: Answers) -> Difference:
        """Of two models, for each image whether it counts."""
        cells = [cell for images in zip(first, second, strict=True) for cell in zip(*images, strict=True)]
        gone, come, n = cells.count((True, False)), cells.count((False, True)), len(cells)
        if measure == "corrupted":  # the answers to an image belong together
            apart = [sum(b) / len(b) - sum(a) / len(a) for a, b in zip(first, second, strict=True)]
            _, interval, p_value = mean_interval(apart, -1.0, 1.0)
        else:
            interval, p_value = paired_difference(gone, come, n), mcnemar(gone, come)
        return cls(
            first=pair[0],
            second=pair[1],
            measure=measure,
            both=cells.count((True, True)),
            only_first=gone,
            only_second=come,
            neither=cells.count((False, False)),
            difference=(come - gone) / n,
            interval=interval,
            p_value=p_value,
        )

    @property
    def significant(self) -> bool:
        """Whether the exact test excludes, at 5 %, that the two are alike."""
        return self.p_value <= 0.05

    @property
    def text(self) -> str:
        """In words: who leads, by how much, and whether that can be chance."""
        low, high = (f"{100 * end:+.1f}" for end in self.interval)
        test = "the paired t test's" if self.measure == "corrupted" else "McNemar's exact"
        said = f"{100 * self.difference:+.1f} points [{low}, {high}], {test} p = {self.p_value:.3g}"
        if not self.significant:
            return f"no significant difference in {self.measure} accuracy: {self.second} {said}"
        better, worse = (self.second, self.first) if self.difference > 0 else (self.first, self.second)
        return f"higher {self.measure} accuracy of {better} than of {worse}: {self.second} {said}"


class ComparedImage(StrictModel):
    """One image, with the verdict of each model."""

    id: int
    """Its position in the split."""
    label: int
    status: tuple[str, ...]
    """Of each model."""
    attack: tuple[str | None, ...]
    """The stage that broke each model on it."""


class ByClass(StrictModel):
    """One class."""

    label: int
    name: str
    n: int
    correct: tuple[int, ...]
    """Images of it that count, of each model."""


class ByAttack(StrictModel):
    """One stage of the attack."""

    name: str
    broken: tuple[int, ...]
    """Images that it broke, of each model."""


class ComparisonResult(SummarisedResult):
    """Two or more models on the same images under the same attacks."""

    command = "compare"

    schema_name: Literal["advkit/comparison"] = Field("advkit/comparison", alias="schema")
    data: str
    split: str
    n: int
    """Images that all have."""
    threat: ThreatFacts | None
    """None of corruptions."""
    answers: int = 1
    """Of corruptions, in how many kinds and severities each image was classified."""
    decisive: Measure
    """Of the differences, the one that the summary is about: robust where it was measured, else certified."""
    models: tuple[Compared, ...]
    differences: tuple[Difference, ...]
    """Of each later model from the first, by measure."""
    classes: tuple[ByClass, ...]
    attacks: tuple[ByAttack, ...]
    images: tuple[ComparedImage, ...]
    notes: tuple[str, ...] = ()
    """What a reader has to know, such as images that only some have."""

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What is compared."""
        return tuple(self.models[0].correct)

    def share(self, model: int, measure: Measure) -> Share:
        """A measure of the model at this position."""
        found = self.models[model]
        if measure == "corrupted" and found.corrupted_interval is not None:
            n = self.n * self.answers
            return Share(correct=found.correct[measure], n=n, interval=found.corrupted_interval)
        return Share.of(found.correct[measure], self.n)

    def lost(self, model: int) -> list[ComparedImage]:
        """The images that only this model loses, in the decisive measure."""
        good = MEASURES[self.decisive]
        found = []
        for image in self.images:
            losers = [place for place, status in enumerate(image.status) if status not in good]
            if losers == [model]:
                found.append(image)
        return found

    @property
    def deciding(self) -> tuple[Difference, ...]:
        """The differences in the decisive measure."""
        return tuple(one for one in self.differences if one.measure == self.decisive)

    @property
    def trusted(self) -> bool:
        """Whether no check doubts one of the robust accuracies."""
        return all(model.trusted is not False for model in self.models)

    def summary(self) -> str:
        """One line for people."""
        said = "; ".join(one.text for one in self.deciding)
        return f"{said} (n = {self.n}, {self.data} {self.split}, {self.under})"

    @property
    def under(self) -> str:
        """The threat model, or what else the models were tried with, in words."""
        if self.threat is None:
            return f"{self.answers} corruptions of each image"
        return f"{self.threat.norm} eps {self.threat.eps:.4g}"

    def rows(self) -> list[tuple[str, ...]]:
        """For each model its name, and each measure with its exact 95 % interval."""
        return [
            (model.name, *(self.share(place, measure).text for measure in self.measures))
            for place, model in enumerate(self.models)
        ]

    def _repr_html_(self) -> str:
        return self._html(("model", *(f"{measure} accuracy" for measure in self.measures)), self.rows())
