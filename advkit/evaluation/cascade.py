"""Stages in order, each on the images that are still robust, with every verdict in the ledger.

With several processes, each attacks its share of a round, and all exchange the verdicts. So all of them
choose the next round from the same verdicts as a single process would.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from advkit.attacks.attack import Access, Attack
from advkit.attacks.engine.batch_size import BatchSizeTuner
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.engine.outcome import Found
from advkit.attacks.engine.search import Search
from advkit.attacks.engine.search_model import search_model
from advkit.attacks.ensemble import Stage
from advkit.attacks.perturb import device_of, make
from advkit.core import distributed
from advkit.core.config import Precision
from advkit.core.progress import Progress, Share, Task
from advkit.core.stats import lower_limit
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.evaluation import result
from advkit.evaluation.ledger import Entry, Ledger
from advkit.evaluation.result import Limited, Missing, Status, Verdict
from advkit.evaluation.settings import Evaluation

ROUNDS = 24
"""Largest number of rounds of a stage."""
ERROR = 0.05
"""Probability at most that a stage stops although it would break a larger share of the images left."""


def most_common(broken: int, tried: int, look: int) -> float:
    """Upper limit of the share that a stage would break of the images left, after ``look`` rounds.

    The limit of Clopper and Pearson, from all images that it has tried. The first look may err with half of
    `ERROR`, each later one with half as much as that before, so all looks together err with less than it.
    Images are tried in the order of their margins: those left are taken to fall no more often.
    """
    return 1 - lower_limit(tried - broken, tried, ERROR / 2**look)


def settled(stage: Stage, left: float, share: float, n: int) -> bool:
    """Whether a stage need not look for at most this share of the images left, of ``n`` in all."""
    return left * share < max(stage.tolerance * n, stage.rare * left)


def _broken(entries: Iterable[Entry]) -> int:
    return sum(entry.broken for entry in entries)


class Cascade:
    """A running evaluation.

    Args:
        model: the classifier, in eval mode.
        searched: the module that the searches copy: the model, or one of equal logits and other gradients.
        surrogate: another classifier, whose gradients the attacks use instead; the model only confirms.
        clean: (N, K) the model's logits on them.
        config: seed, budget, batch size, 8-bit images, and the precision, unless a stage has its own.
        votes: passes that confirm a success; above 1 for randomised models.
        proved: (N,) bool: certified images, which are not attacked.
        few: (n, C, H, W) images that the searches' copies of the model are compared on; None: the first ones.
    """

    def __init__(
        self,
        model: nn.Module,
        searched: nn.Module,
        images: Data,
        clean: Tensor,
        threat: Threat,
        ledger: Ledger,
        config: Evaluation,
        *,
        votes: int,
        progress: Progress,
        surrogate: nn.Module | None = None,
        proved: Tensor | None = None,
        few: Tensor | None = None,
    ) -> None:
        self.model, self.searched, self.surrogate = model, searched, surrogate
        self.images, self.clean, self.threat, self.ledger = images, clean, threat, ledger
        self.config, self.votes, self.progress = config, votes, progress
        self.device = device_of(model)
        self.tuner = BatchSizeTuner(self.device, images.shape, config.batch_size)
        self.ids: list[int] = images.ids.tolist()
        self.correct = clean.argmax(1) == images.labels
        self.robust = self.correct.clone()
        """(N,) bool: classified correctly, and not broken so far."""
        self.robust &= torch.tensor([(result.COMPLETE, sample) not in ledger.entries for sample in self.ids])
        self.proved = torch.zeros_like(self.correct) if proved is None else proved
        self.noticed = self.confirmed = 0
        """Successes that the searches found, and those that the model confirmed; of all processes."""
        self.passes = 0
        """Forward and backward passes so far, including those of earlier processes."""
        self.timed: dict[str, tuple[int, float]] = {}
        """Passes and seconds of each stage in this process, or in the processes that work at once."""
        self.cut_short: list[str] = []
        """What the budget ended, or kept from beginning."""
        self.stages: list[Stage] = []
        self.missing: Missing | None = None
        """What the check on a random sample found, if there was one."""
        self.limited: Limited | None = None
        """What was chosen for a time limit, if there is one."""
        self.margin = torch.full((len(images),), -math.inf)
        """(N,) the largest margin that the stages reached on each image; above 0 it is misclassified."""
        self._few = few_of(images, self.device) if few is None else few
        self._search_models: dict[tuple[Precision, Access, bool], nn.Module] = {}

    @property
    def exhausted(self) -> bool:
        """Whether the budget is spent."""
        budget = self.config.budget
        return budget is not None and self.passes >= budget * len(self.images)

    @property
    def undecided(self) -> Tensor:
        """(N,) bool: classified correctly, neither broken so far nor certified."""
        return self.robust & ~self.proved

    def run(self, stage: Stage) -> result.Stage:
        """Runs one stage; verdicts of an earlier process are kept."""
        self.stages.append(stage)
        begun = self.undecided.nonzero()[:, 0].tolist()
        rounds = self._rounds(begun, stage) if self._worthwhile(stage, len(begun)) else []
        entries: list[Entry] = []
        share = None
        with self.progress.task(f"attacking with {stage.name}", 0, unit="image") as task:
            for look, chosen in enumerate(rounds, 1):
                if self.exhausted:
                    budget = self.config.budget
                    self.progress.say(f"{stage.name}: the budget of {budget} passes per image is spent")
                    self.cut_short.append(stage.name)
                    break
                task.extend(len(chosen))
                new = self._round(stage, chosen, task)
                entries += new
                left = sum(map(len, rounds[look:]))
                share = most_common(_broken(entries), len(entries), look) if left else None
                if share is not None and self._hopeless(stage, new, left, share):
                    break
        return self.summary(stage, entries).model_copy(
            update={"left": len(begun) - len(entries), "at_most": share}
        )

    def _hopeless(self, stage: Stage, new: Sequence[Entry], left: int, share: float) -> bool:
        """Whether neither the bound nor the last round promises enough on the images left."""
        n = len(self.images)
        return settled(stage, left, share, n) and left * _broken(new) < stage.tolerance * n * len(new)

    def affordable(self, stage: Stage, rows: list[int]) -> list[int]:
        """Of chosen rows those for which the rest of the budget is enough, should none of them break; those
        with the largest margin first."""
        if self.config.budget is None:
            return rows
        rest = self.config.budget * len(self.images) - self.passes
        kept = self.nearest_first(rows)[
            : max(0, rest // self._attack(stage).most_passes(self.clean.shape[1]))
        ]
        if len(kept) < len(rows):
            self.cut_short.append(stage.name)
        return kept

    def attack(self, stage: Stage, rows: list[int]) -> list[Entry]:
        """Runs a stage on chosen rows at once."""
        if stage not in self.stages:
            self.stages.append(stage)
        if not rows:
            return []
        with self.progress.task(f"checking with {stage.name}", len(rows), unit="image") as task:
            return self._round(stage, rows, task)

    def adopt(self, stage: Stage, found: Sequence[Found]) -> list[Entry]:
        """Records what a search beside the stages found on some rows, as a stage whose passes are counted
        elsewhere."""
        self.stages.append(stage)
        for one in () if distributed.rank() else found:
            if (stage.name, self.ids[one.index]) not in self.ledger.entries:  # of an earlier process
                entry = Entry.of(self.ids[one.index], stage.name, one)
                self.ledger.add(replace(entry, forwards=0, backwards=0), one.x)
        self.ledger.exchange()
        for one in found:
            self.robust[one.index] = not one.broken
        return [self.ledger.entries[stage.name, self.ids[one.index]] for one in found]

    def summary(self, stage: Stage, entries: Sequence[Entry]) -> result.Stage:
        """The result of a stage, from its entries."""
        return result.Stage(
            name=stage.name,
            attack=stage.attack,
            parameters=self._attack(stage).config.model_dump(mode="json"),
            attacked=len(entries),
            broken=_broken(entries),
            correct_after=int(self.robust.sum()),
            forwards=sum(entry.forwards for entry in entries),
            backwards=sum(entry.backwards for entry in entries),
            transferred=self._transfers(self._attack(stage)),
        )

    def _transfers(self, attack: Attack[Any]) -> bool:
        """Whether it searches on the surrogate."""
        return self.surrogate is not None and attack.access == "gradients"

    def _worthwhile(self, stage: Stage, left: int) -> bool:
        if left <= stage.beyond:
            return False
        if stage.after is None:
            return True
        broken = sum(e.broken for e in self.ledger.entries.values() if e.stage == stage.after)
        return broken > 0 and broken >= stage.tolerance * len(self.images)

    def _rounds(self, rows: list[int], stage: Stage) -> list[list[int]]:
        """All at once, or in order of the margins that earlier stages reached, the largest first."""
        if stage.tolerance <= 0 or not rows:
            return [rows] if rows else []
        order = self.nearest_first(rows)
        size = max(stage.round, math.ceil(len(order) / ROUNDS))
        return [order[first : first + size] for first in range(0, len(order), size)]

    def nearest_first(self, chosen: Iterable[int]) -> list[int]:
        """Rows of the data, those with the largest margin first."""
        return sorted(chosen, key=lambda index: (-float(self.margin[index]), self.ids[index]))

    @property
    def _left(self) -> dict[str, float]:
        return {"accuracy left": Share(self.robust.float().mean())}

    def _attack(self, stage: Stage) -> Attack[Any]:
        return make(stage.attack, self.threat, stage.parameters)

    def _round(self, stage: Stage, chosen: Sequence[int], task: Task) -> list[Entry]:
        self.ledger.take((stage.name, self.ids[index]) for index in chosen)
        earlier = [self.ledger.entries.get((stage.name, self.ids[index])) for index in chosen]
        todo = [index for index, entry in zip(chosen, earlier, strict=True) if entry is None]
        done = len(chosen) - len(todo)
        task.advance(0, **self._left)
        if done:
            self.progress.say(f"{stage.name}: {done} of {len(chosen)} images were decided earlier")
            task.advance(done)
        mine, begun = todo[distributed.rank() :: distributed.world()], time.perf_counter()
        if mine:
            self._search(stage, mine, task)
        if todo:
            self.ledger.exchange()
        entries = [self.ledger.entries[stage.name, self.ids[index]] for index in chosen]
        for index, entry in zip(chosen, entries, strict=True):
            self.robust[index] = not entry.broken
            if entry.margin is not None:
                self.margin[index] = max(float(self.margin[index]), entry.margin)
        if todo:
            task.advance(len(todo) - len(mine), **self._left)
            passes, seconds = self.timed.get(stage.name, (0, 0.0))
            new = sum(entry.passes for entry, before in zip(entries, earlier, strict=True) if before is None)
            self.timed[stage.name] = (passes + new, seconds + time.perf_counter() - begun)
        self.passes += sum(entry.passes for entry in entries)
        broken = _broken(entries)
        self.confirmed += broken
        if not self._transfers(self._attack(stage)):  # successes on another model need not transfer
            self.noticed += sum(entry.refuted for entry in entries)
        self.noticed += broken
        return entries

    def _search(self, stage: Stage, todo: list[int], task: Task) -> None:
        attack = self._attack(stage)
        transfers = self._transfers(attack)
        oracle = self.oracle(
            self.threat, attack.access, self.precision(stage, attack), on_surrogate=transfers
        )
        search = self.searching(stage.key, attack, oracle)

        def record(found: Found) -> None:
            self.robust[found.index] = not found.broken
            entry = Entry.of(self.ids[found.index], stage.name, found)
            # On a surrogate the margin is that of the surrogate.
            self.ledger.add(replace(entry, margin=None) if transfers else entry, found.x)
            task.advance(1, **self._left)

        search.run(torch.tensor(todo, dtype=torch.int64), record, task.underway)

    def precision(self, stage: Stage, attack: Attack[Any]) -> Precision:
        """The arithmetic in which a stage searches."""
        return "float32" if attack.fine else stage.precision or self.config.precision

    def oracle(
        self,
        threat: Threat,
        access: Access,
        precision: Precision,
        kind: type[Oracle] = Oracle,
        *,
        on_surrogate: bool = False,
    ) -> Oracle:
        """An oracle on the model, which searches on a copy of it or of the surrogate."""
        key = (precision, access, on_surrogate)
        if key not in self._search_models:
            copied = self.surrogate if on_surrogate and self.surrogate is not None else self.searched
            self._search_models[key] = search_model(copied, precision, self._few, access)
        return kind(
            self.model,
            threat,
            self._search_models[key],
            access=access,
            votes=self.votes,
            eight_bit=self.config.eight_bit,
        )

    def searching(self, name: str, attack: Attack[Any], oracle: Oracle) -> Search:
        """A search with one attack on these images, independent of earlier verdicts and of the ledger."""
        return Search(
            attack,
            oracle,
            self.images,
            self.clean,
            seed=self.config.seed,
            name=name,
            tuner=self.tuner,
            device=self.device,
        )

    def tried(self, sample: int) -> list[Entry]:
        """The entries of the stages for one image, in order."""
        names = (result.COMPLETE, *(stage.name for stage in self.stages))
        return [e for name in names if (e := self.ledger.entries.get((name, sample))) is not None]

    def verdicts(self) -> tuple[Verdict, ...]:
        """One for each image, in the order of the data."""
        verdicts = []
        labels, correct = self.images.labels.tolist(), self.correct.tolist()
        for sample, label, right, proved in zip(self.ids, labels, correct, self.proved.tolist(), strict=True):
            tried = self.tried(sample) if right else []
            success = tried[-1] if tried and tried[-1].broken else None
            unbroken: Status = "certified" if proved else "robust"
            verdicts.append(
                Verdict(
                    id=sample,
                    label=label,
                    status="broken" if success else unbroken if right else "misclassified",
                    attack=success.stage if success else None,
                    iteration=success.iteration if success else 0,
                    variant=success.variant if success else 0,
                    distance=success.distance if success else None,
                    image_sha256=success.image_sha256 if success else None,
                    margin=None
                    if success
                    else max((e.margin for e in tried if e.margin is not None), default=None),
                    forwards=sum(entry.forwards for entry in tried),
                    backwards=sum(entry.backwards for entry in tried),
                )
            )
        return tuple(verdicts)

    def adversarial(self) -> Tensor:
        """(N, C, H, W) float32: adversarial images, originals where there is none.

        The ledger must be finished.
        """
        last = (tried[-1] for sample in self.ids if (tried := self.tried(sample)))
        return self.ledger.adversarial(entry for entry in last if entry.broken)


def few_of(images: Data, device: torch.device) -> Tensor:
    """(n, C, H, W) the first images, on which the searches' copies of a model are compared with it."""
    return images.batch(torch.arange(min(16, len(images))), device)[0]


def certain(stages: Sequence[Stage]) -> list[Stage]:
    """The first stages, of which each image that is still robust is certain to see all steps: what any image
    goes through there does not depend on others."""
    return [*takewhile(lambda stage: stage.tolerance <= 0 and not (stage.after or stage.beyond), stages)]
