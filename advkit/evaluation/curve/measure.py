"""The smallest adversarial perturbation of every image, over a few minimum-norm attacks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from advkit.attacks.attack import ATTACKS
from advkit.attacks.engine.outcome import Found
from advkit.attacks.ensemble import Stage
from advkit.attacks.perturb import device_of, logits_of, make, refuse_misfit, searching
from advkit.core.bars import shown
from advkit.core.config import validate
from advkit.core.device import repeatable
from advkit.core.errors import ConfigError, ModelError
from advkit.core.modes import own_modes
from advkit.core.progress import SILENT, Progress
from advkit.core.runs import RunFolder
from advkit.core.shards import ShardResult
from advkit.core.threat import Norm, Threat, norm_called
from advkit.data.data import Data
from advkit.data.subjects import Subject
from advkit.data.threats import default_threat
from advkit.evaluation.curve.result import Mark, MinimumNorm, Searched, SecurityCurve
from advkit.evaluation.curve.settings import Curve
from advkit.evaluation.evaluate import plan
from advkit.evaluation.ledger import Entry, Ledger, confirming
from advkit.models.model import Model, evaluation_mode

DEFAULT: Final[dict[Norm, dict[str, dict[str, Any]]]] = {
    "linf": {"fmn": {"steps": 300}, "fmn-t": {"targets": 3}},
    "l2": {"fmn-t": {}},
    "l1": {"fmn-t": {}},
    "l0": {"sigma-zero": {}, "fmn": {"steps": 1000}},
}
GROUP, GROUP_ON_GPU = 64, 1024
"""Images that are attacked at once and recorded together; a crash loses no more than these."""


@own_modes()
def security_curve(
    model: nn.Module | str | Path,
    data: Any,
    norm: Norm | None = None,
    attacks: str | Sequence[str] | None = None,
    *,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    eps: float | str | Sequence[float | str] = (),
    seed: int = 0,
    n: int | None = None,
    first: bool = False,
    batch_size: int | None = None,
    keep: bool = False,
    run: RunFolder | None = None,
    progress: Progress | bool | None = None,
) -> SecurityCurve:
    """Robust accuracy of a classifier at every eps, from minimum-norm attacks.

    Each attack searches the nearest adversarial image around every correctly classified image, anywhere in
    [0, 1]. The nearest over all attacks counts, confirmed by the model itself. The curve is an upper bound at
    every eps. At a single eps, `advkit.evaluate` gives a tighter bound.

    Args:
        model: a module from images (N, C, H, W) in [0, 1] to logits (N, K), or whatever `load_model` takes.
            It is attacked on its own device, in eval mode, and its mode is restored.
        data: `Data`, a data set's name, (images, labels), or a ``Dataset`` or ``DataLoader`` of such pairs.
        norm: of distances; None: that of the model's robust training, else the default of the data set.
        attacks: minimum-norm attacks: one name, several separated by commas, or a sequence of names; None:
            one or two that are strong in the norm.
        parameters: of the attacks, by name: ``{"fmn": {"steps": 300}}``.
        eps: further values for ``.points``, as 0.1 or "8/255"; `SecurityCurve.at` evaluates the curve at any
            eps.
        seed: every random number follows from it.
        n: number of images; None: all.
        first: the first ``n``, also of rows that are in the order of their classes (`Data.limit`).
        batch_size: images attacked at once; None: measured. It changes the result by rounding at most.
        keep: keep the nearest adversarial images, in ``.adversarial``.
        run: folder for the ledger; an interrupted run resumes from it.
        progress: True: bars or lines; False: none; None: bars in a terminal or a notebook; or your own.

    Raises:
        ModelError: the model does not behave as a classifier, or no image is classified correctly.
        DataError: the images or labels do not fit.
        ConfigError: unknown attacks or parameters, attacks that are not minimum-norm or do not support the
            norm, an impossible eps, or no default norm.
    """
    given = {
        "model": "",
        "n": n,
        "norm": None if norm is None else norm_called(norm),
        "eps": [*eps] if isinstance(eps, Iterable) and not isinstance(eps, str) else [eps],
        "attack": attacks or (),
        "parameters": parameters or {},
        "seed": seed,
        "batch_size": batch_size,
    }
    config = validate(Curve, given, "advkit.security_curve")
    subject = Subject.of(model, data, config.n, first=first)
    result = measured(subject, config, keep=keep, run=run, progress=shown(progress))
    assert isinstance(result, SecurityCurve)  # no shard is named
    return result


@own_modes()
def measured(
    subject: Subject,
    config: Curve,
    *,
    keep: bool = False,
    run: RunFolder | None = None,
    progress: Progress = SILENT,
) -> SecurityCurve | ShardResult:
    """As `security_curve`, of a model and images that were inspected; the configuration's are ignored. Of a
    shard (``config.shard``) its images are searched."""
    model, images = subject.model, subject.images
    norm = config.norm or default_threat(model, images).norm
    asked = sizes(config.eps, norm)
    config.refuse(len(images))
    with repeatable(), evaluation_mode(model):
        clean = logits_of(model, images)
        refuse_misfit(clean, images)
        if not (clean.argmax(1) == images.labels).any():
            raise ModelError(
                f"the model misclassifies all {len(images)} images before any attack; check that its "
                "normalisation and classes match the data"
            )
        stages = stages_of(norm, images, clean.shape[1], config)
        if run is not None:
            determined = {"norm": norm, "stages": [stage.identity for stage in stages], "seed": config.seed}
            run.begin_with(**subject.beginning, **{"plan of attack": determined})
        folder = run.path if run is not None else None
        confirm = confirming(model, images, Threat.whole(norm, math.prod(images.shape)))
        names = [stage.name for stage in stages]
        parts = () if run is None else run.parts
        with Ledger(
            folder, images, names, keep=keep, confirm=confirm, parts=parts, progress=progress
        ) as ledger:
            nearest = Nearest(model, images, clean, norm, ledger, config)
            for stage in stages:
                nearest.run(stage, progress)
            ledger.finish()
            if config.shard is not None:
                return ShardResult.of(config, len(images), ledger.entries.values(), subject.about())
            adversarial = ledger.adversarial(nearest.best.values()) if keep else None
    done = nearest.searched()
    notes = (*subject.notes, *nearest.notes())
    curve = SecurityCurve.of(
        nearest.minimum_norms(),
        **subject.about() | {"notes": notes},
        norm=norm,
        marks=marks_of(model, images, norm),
        names=images.class_names,
        eps=asked,
        seed=config.seed,
        attacks=done,
        forwards=len(images) + sum(one.forwards for one in done),
        backwards=sum(one.backwards for one in done),
    )
    curve._adversarial = adversarial
    return curve


class Nearest:
    """A running measurement.

    Args:
        model: the classifier, in eval mode.
        clean: (N, K) the model's logits on them.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Data,
        clean: Tensor,
        norm: Norm,
        ledger: Ledger,
        config: Curve,
    ) -> None:
        self.model, self.images, self.clean, self.ledger = model, images, clean, ledger
        self.threat = Threat.whole(norm, math.prod(images.shape))
        self.config = config
        self.ids: list[int] = images.ids.tolist()
        self.correct: list[bool] = (clean.argmax(1) == images.labels).tolist()
        self._chosen = [row for row in config.mine(range(len(images))) if self.correct[row]]
        self.best: dict[int, Entry] = {}
        """The nearest success for each image so far, by id."""
        self.entries: dict[str, list[Entry]] = {}
        """Outcomes on the correctly classified images, by attack."""
        self._stages: list[Stage] = []

    def run(self, stage: Stage, progress: Progress) -> None:
        """Runs one attack on all correctly classified images; outcomes of an earlier process are kept."""
        attack = make(stage.attack, self.threat, stage.parameters)
        chosen, known = self._chosen, self.ledger.entries
        self.ledger.take((stage.name, self.ids[index]) for index in chosen)
        todo = [index for index in chosen if (stage.name, self.ids[index]) not in known]
        done = len(chosen) - len(todo)
        if done:
            progress.say(f"{stage.name}: {done} of {len(chosen)} images were decided earlier")
        search = searching(
            self.model,
            self.images,
            attack,
            name=stage.key,
            seed=self.config.seed,
            batch_size=self.config.batch_size,
            clean=self.clean,
            nearest=True,
        )
        with progress.task(f"searching with {stage.name}", len(chosen), done=done, unit="image") as task:
            distances: list[float] = []

            def record(found: Found) -> None:
                entry = Entry.of(self.ids[found.index], stage.name, found)
                self.ledger.add(entry, found.x if self._nearer(entry) else None)
                distances.append(found.distance if found.broken else math.inf)

            for group in self._groups(todo):
                search.run(group, record)
                task.advance(len(group), **{"median distance": statistics.median_low(distances)})
        entries = [known[stage.name, self.ids[index]] for index in chosen]
        self._stages.append(stage)
        self.entries[stage.name] = entries
        self.best.update({entry.id: entry for entry in entries if self._nearer(entry)})

    def _groups(self, todo: list[int]) -> Sequence[Tensor]:
        size = GROUP if device_of(self.model).type == "cpu" else GROUP_ON_GPU
        return torch.tensor(todo, dtype=torch.int64).split(size) if todo else ()

    def _nearer(self, entry: Entry) -> bool:
        """Whether it is a success, and nearer than those of earlier attacks."""
        before = self.best.get(entry.id)
        return entry.broken and (before is None or entry.distance < before.distance)

    def searched(self) -> tuple[Searched, ...]:
        """The figures of each attack."""
        rows = []
        for stage in self._stages:
            entries = self.entries[stage.name]
            made = make(stage.attack, self.threat, stage.parameters)
            median = statistics.median_low(e.distance if e.broken else math.inf for e in entries)
            rows.append(
                Searched(
                    name=stage.name,
                    attack=stage.attack,
                    parameters=made.config.model_dump(mode="json"),
                    attacked=len(entries),
                    found=sum(entry.broken for entry in entries),
                    nearest=sum(best.stage == stage.name for best in self.best.values()),
                    median=median if median < math.inf else None,
                    forwards=sum(entry.forwards for entry in entries),
                    backwards=sum(entry.backwards for entry in entries),
                )
            )
        return tuple(rows)

    def notes(self) -> list[str]:
        """Notes for people on where nothing could be found."""
        met = {entry.id for entries in self.entries.values() for entry in entries if entry.undefined}
        if not met:
            return []
        return [
            f"on {len(met)} of {sum(self.correct)} images the attacks met logits or gradients that are not "
            "numbers, where nothing counts as a success: nearer ones may be there; give finite ones "
            "everywhere in [0, 1]"
        ]

    def minimum_norms(self) -> tuple[MinimumNorm, ...]:
        """One for each image, in the order of the data."""
        passes: dict[int, list[Entry]] = {sample: [] for sample in self.ids}
        for entry in (entry for entries in self.entries.values() for entry in entries):
            passes[entry.id].append(entry)
        norms = []
        for sample, label, right in zip(self.ids, self.images.labels.tolist(), self.correct, strict=True):
            best = self.best.get(sample)
            norms.append(
                MinimumNorm(
                    id=sample,
                    label=label,
                    minimum_norm=0.0 if not right else best.distance if best else None,
                    attack=best.stage if best else None,
                    forwards=sum(entry.forwards for entry in passes[sample]),
                    backwards=sum(entry.backwards for entry in passes[sample]),
                )
            )
        return tuple(norms)


def stages_of(norm: Norm, images: Data, classes: int, config: Curve) -> tuple[Stage, ...]:
    """The attacks, with their parameters.

    Raises:
        ConfigError: unknown names or parameters, a norm that an attack does not support, or an attack that is
            not minimum-norm.
    """
    names, given = config.attack, config.parameters
    if not names:
        usual = DEFAULT[norm]
        names = tuple(usual)
        given = {name: {**usual.get(name, {}), **given.get(name, {})} for name in (usual | given)}
    stages = plan(names, Threat.whole(norm, math.prod(images.shape)), classes, given)
    for stage in stages:
        if not ATTACKS.get(stage.attack).minimal:
            known = [entry.name for entry in ATTACKS if entry.thing.minimal and norm in entry.thing.norms]
            raise ConfigError(
                f"{stage.attack} is not a minimum-norm attack (it searches within a fixed eps); in {norm} "
                f"choose among {', '.join(known)}"
            )
    return stages


def marks_of(model: Model, images: Data, norm: Norm) -> tuple[Mark, ...]:
    """Usual threat models in this norm, that of the model first."""
    found = {}
    if images.threat is not None and images.threat.norm == norm:
        found[images.threat.eps] = f"default of {images.name}"
    hardened = model.card.threat
    if hardened is not None and hardened.norm == norm:
        found = {hardened.eps: "hardened for", **found, hardened.eps: "hardened for"}
    return tuple(Mark(eps=eps, said=said) for eps, said in found.items())


def sizes(eps: Sequence[float | str], norm: Norm) -> tuple[float, ...]:
    """The eps as numbers.

    Raises:
        ConfigError: unknown norm, or an eps that it does not allow.
    """
    if norm not in DEFAULT:
        raise ConfigError(f"there is no norm {norm!r}; choose {', '.join(DEFAULT)}")
    return tuple(Threat(norm, one).eps for one in eps)
