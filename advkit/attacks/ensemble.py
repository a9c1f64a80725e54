"""Ensembles: plans of several attacks, in the order in which they run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field

from advkit.attacks.attack import ATTACKS
from advkit.core.config import Fraction, Precision, StrictModel
from advkit.core.registry import Registry, Rows
from advkit.core.threat import Threat

ENSEMBLES: Registry[type[Ensemble]] = Registry("ensemble")


@dataclass(frozen=True)
class Stage:
    """One attack of an ensemble, on the images that no earlier stage has broken."""

    name: str
    """What results call it; no other stage of the evaluation has this name."""
    attack: str
    """A registered attack."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Of the attack."""
    precision: Precision | None = None
    """Arithmetic of the search; None: the evaluation's."""
    tolerance: float = 0.0
    """Above 0: the images are attacked in rounds, those with the largest margin first, until the last round
    suggests that all further ones would change the robust accuracy by less than this."""
    round: int = 32
    """Fewest images of such a round."""
    after: str | None = None
    """Name of a stage that must have changed the robust accuracy, by no less than the tolerance, for this one
    to run."""
    key: str = ""
    """Random numbers follow from it; by default the name. A change of it changes results."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.key or self.name)

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the verdicts, for the record of a run."""
        values = asdict(self)
        if self.key == self.name:
            del values["key"]
        return values


def stage(key: str, attack: str, **parameters: Any) -> Stage:
    """A part of an ensemble, named after the attack and its parameters: ``apgd-t (9 targets, 50 steps)``.

    Args:
        key: its random numbers follow from it.
        attack: a registered attack.
        parameters: of the attack.
    """
    fields = ATTACKS.get(attack).Config.model_fields
    known = {name: fields[name].default for name in ("steps", "queries") if name in fields} | parameters
    title = attack
    if attack == "apgd":
        title = "apgd-t" if known.get("targets") else f"apgd-{known['loss']}"
    counts = [
        f"{known[name]:,} {one if known[name] == 1 else name}"
        for name, one in _COUNTED.items()
        if known.get(name) is not None
    ]
    starts = [f"{known['start']} start"] if "start" in known else []
    return Stage(f"{title} ({', '.join(starts + counts)})", attack, parameters, key=key)


_COUNTED = {
    "targets": "target",
    "restarts": "restart",
    "samples": "sample",
    "steps": "step",
    "queries": "query",
}


class Ensemble(ABC):
    """A plan of stages.

    Args:
        config: parameters of this ensemble.
    """

    Config: ClassVar[type[StrictModel]] = StrictModel

    def __init__(self, config: StrictModel) -> None:
        self.config = config

    @abstractmethod
    def stages(self, threat: Threat, classes: int) -> Sequence[Stage]:
        """The attacks, in order, for a model of ``classes`` classes."""

    @classmethod
    def listing(cls) -> Rows:
        """Its stages with default parameters, on 10 classes in linf."""
        planned = cls(cls.Config()).stages(Threat(norm="linf", eps=8 / 255), 10)
        given = (", ".join(f"{key}={value}" for key, value in one.parameters.items()) for one in planned)
        return Rows(
            "stages",
            ("name", "attack", "parameters"),
            tuple((one.name, one.attack, text) for one, text in zip(planned, given, strict=True)),
        )


E = TypeVar("E", bound=type[Ensemble])


def ensemble(name: str, *, summary: str, source: str) -> Callable[[E], E]:
    """Decorator that registers an `Ensemble` under ``name``."""
    return ENSEMBLES.register(name, summary=summary, source=source)


def names() -> list[str]:
    """All attacks and ensembles that an evaluation can run, by any of their names."""
    registries: tuple[Registry[Any], ...] = (ATTACKS, ENSEMBLES)
    return sorted(
        name for registry in registries for entry in registry for name in (entry.name, *entry.aliases)
    )


@ensemble(
    "autoattack",
    summary="the standard evaluation: APGD-CE, targeted APGD, targeted FAB, Square",
    source="Croce and Hein 2020; l1: Croce and Hein 2021",
)
class AutoAttack(Ensemble):
    """All parameters are those of the reference implementation.

    A model with too few classes for the difference of logits ratio is attacked with the plain difference of
    logits.
    """

    class Config(StrictModel):
        version: Literal["standard", "plus", "rand"] = "standard"
        """standard: 4 attacks; plus: 6, with restarts; rand: 2, averaging gradients, for random models."""
        samples: int = Field(20, ge=1)
        """Gradients averaged in a step of rand."""
        queries: int = Field(5000, ge=1)
        """Queries of Square Attack."""

    config: Config

    def stages(self, threat: Threat, classes: int) -> Sequence[Stage]:
        """The attacks of the version, in the reference's order."""
        version, l1 = self.config.version, threat.norm == "l1"
        wrong = min(9, classes - 1)
        square = stage("square", "square", queries=self.config.queries)
        fab_t = stage("fab-t", "fab-t", targets=wrong)
        if version == "rand":
            samples = {"samples": self.config.samples}
            return stage("apgd-ce", "apgd-ce", **samples), _dlr(classes, samples)
        if version == "plus":
            five = {"restarts": 5}
            ce = stage("apgd-ce", "apgd-ce", **five)
            fab = stage("fab", "fab", **five)
            return ce, _dlr(classes, five), fab, square, _targeted(classes, wrong), fab_t
        ce = stage("apgd-ce", "apgd-ce", **({"restarts": 5} if l1 else {}))
        return ce, _targeted(classes, min(wrong, 5) if l1 else wrong), fab_t, square


def _dlr(classes: int, parameters: dict[str, Any]) -> Stage:
    if classes >= 3:
        return stage("apgd-dlr", "apgd-dlr", **parameters)
    return stage("apgd-margin", "apgd", loss="margin", **parameters)


def _targeted(classes: int, targets: int) -> Stage:
    if classes >= 4:
        return stage("apgd-t", "apgd-t", targets=targets)
    return stage("apgd-t", "apgd", loss="logit-difference", targets=targets)


@ensemble(
    "cascade",
    summary="a short targeted attack on every image, then all kinds on the images nearest to the boundary",
    source="attacks of Croce and Hein 2020; budget by margin after Liu et al. 2022",
)
class Cascade(Ensemble):
    """The default.

    Two short stages attack every image. The others take the images in the order of the largest margin reached
    so far, in rounds, and stop when a round finds too little. The last four repeat a kind of attack that has
    found something, with more steps, restarts or queries.
    """

    class Config(StrictModel):
        tolerance: Fraction = Field(0.001, ge=0, lt=1)
        """Change of the robust accuracy that is not worth looking for; 0: all stages on all images."""

    config: Config

    def stages(self, threat: Threat, classes: int) -> Sequence[Stage]:
        """Eleven stages, the last four only where their kind has found something; in l0 two, made for it."""
        if threat.norm == "l0":
            return stage("sigma-zero", "sigma-zero", steps=100), stage("fmn", "fmn")
        wrong = min(classes - 1, 9)
        ratio = "dlr" if classes >= 4 else "logit-difference"
        apgd_ce = stage("diversified", "apgd", loss="ce", start="diversified", restarts=2, steps=50)
        fab = stage("fab-t", "fab-t", targets=min(wrong, 3), steps=50)
        square = stage("square", "square", queries=2500)
        more_square = stage("square-again", "square")
        return (
            stage("likeliest", "apgd", loss="logit-difference", targets=1, steps=25),
            stage("three-targets", "apgd", loss="logit-difference", targets=min(wrong, 3), steps=20),
            self._nearest(24, stage("all-targets", "apgd", loss=ratio, targets=wrong, steps=50)),
            self._nearest(24, apgd_ce),
            self._nearest(24, fab),
            self._nearest(16, square, None),
            self._nearest(8, stage("restarts", "apgd", loss=ratio, targets=wrong, restarts=2, steps=100)),
            self._nearest(8, stage("ce-again", "apgd", loss="ce", restarts=5, steps=100), after=apgd_ce),
            self._nearest(8, stage("fab-again", "fab-t", targets=wrong, restarts=2), after=fab),
            self._nearest(8, more_square, None, after=square),
            self._nearest(8, stage("square-longer", "square", queries=10000), None, after=more_square),
        )

    def _nearest(
        self,
        fewest: int,
        one: Stage,
        precision: Precision | None = "float32",
        *,
        after: Stage | None = None,
    ) -> Stage:
        return replace(
            one,
            tolerance=self.config.tolerance,
            round=fewest,
            precision=precision,
            after=after.name if after else None,
        )
