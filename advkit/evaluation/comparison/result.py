"""The result of a comparison, as a versioned file."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stats import Interval, accuracy, clopper_pearson, mcnemar, paired_difference
from advkit.core.stored import SummarisedResult
from advkit.models.card import ThreatFacts

Measure = Literal["clean", "robust", "certified"]

MEASURES: dict[Measure, tuple[str, ...]] = {
    "clean": ("broken", "robust", "certified", "undecided"),
    "robust": ("robust", "certified"),
    "certified": ("certified",),
}
"""What can be compared, and the status of the images that count in it."""


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
    """Images that count in each measure."""


class Share(StrictModel):
    """A measure of one model, on a group of images."""

    correct: int
    n: int
    interval: Interval
    """Exact 95 % interval."""

    @classmethod
    def of(cls, correct: int, n: int) -> Share:
        """With its interval."""
        return cls(correct=correct, n=n, interval=clopper_pearson(correct, n))


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
    """McNemar's exact test of no difference, two-sided."""

    @classmethod
    def of(cls, pair: tuple[str, str], measure: Measure, first: list[bool], second: list[bool]) -> Difference:
        """Of two models, for each image whether it counts."""
        cells = list(zip(first, second, strict=True))
        gone, come, n = cells.count((True, False)), cells.count((False, True)), len(cells)
        return cls(
            first=pair[0],
            second=pair[1],
            measure=measure,
            both=cells.count((True, True)),
            only_first=gone,
            only_second=come,
            neither=cells.count((False, False)),
            difference=(come - gone) / n,
            interval=paired_difference(gone, come, n),
            p_value=mcnemar(gone, come),
        )

    @property
    def significant(self) -> bool:
        """Whether the exact test excludes, at 5 %, that the two are alike."""
        return self.p_value <= 0.05

    @property
    def text(self) -> str:
        """In words: who leads, by how much, and whether that can be chance."""
        low, high = (f"{100 * end:+.1f}" for end in self.interval)
        said = f"{100 * self.difference:+.1f} points [{low}, {high}], McNemar's exact p = {self.p_value:.3g}"
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
    threat: ThreatFacts
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
        return Share.of(self.models[model].correct[measure], self.n)

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
        return (
            f"{said} (n = {self.n}, {self.data} {self.split}, {self.threat.norm} eps {self.threat.eps:.4g})"
        )

    def rows(self) -> list[tuple[str, ...]]:
        """For each model its name, and each measure with its exact 95 % interval."""
        return [
            (model.name, *(accuracy(model.correct[measure], self.n) for measure in self.measures))
            for model in self.models
        ]

    def _repr_html_(self) -> str:
        def row(cells: Iterable[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        lines = "".join(f"<p>{escape(line)}</p>" for line in str(self).splitlines())
        heads = row(("model", *(f"{measure} accuracy" for measure in self.measures)), "th")
        return f"{lines}<table>{heads}{''.join(row(cells, 'td') for cells in self.rows())}</table>"
