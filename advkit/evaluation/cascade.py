"""Stages one after the other, each on images that still stand, with every verdict in the ledger.

Several processes take every so-many-th image of a round and tell each other what became of them; so all know
the same when the next round is chosen, and choose what a single one would choose.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import torch
from torch import Tensor, nn

from advkit.attacks.attack import Access, Attack
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.engine.outcome import Found
from advkit.attacks.engine.pace import Pace
from advkit.attacks.engine.search import Search
from advkit.attacks.engine.searcher import searcher
from advkit.attacks.ensemble import Stage
from advkit.attacks.perturb import device_of, make
from advkit.core import distributed
from advkit.core.config import Precision
from advkit.core.progress import Progress, Task
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.evaluation import result
from advkit.evaluation.ledger import Entry, Ledger
from advkit.evaluation.result import Status, Verdict

ROUNDS = 24
"""Rounds at most in which a stage goes through all images."""


class Cascade:
    """One evaluation under way.

    Args:
        model: the classifier, in eval mode.
        searched: what the searches copy: the model, or one that answers alike and has other gradients.
        surrogate: another classifier, on which attacks with gradients search in place of the model, which
            then only confirms.
        images: what is attacked.
        clean: (N, K) its logits on them.
        threat: what the attacker may change.
        ledger: verdicts so far and from now on.
        pace: how many rows to have at work at once.
        seed: every random number follows from it.
        precision: arithmetic of the search, unless a stage has its own.
        votes: passes that confirm a success; above 1 for randomised models.
        budget: passes per image on average after which no further round begins.
        eight_bit: adversarial images are of 8-bit levels.
        progress: told how many images were decided.
        proved: (N,) bool: images that need no attack, since none can succeed.
    """

    def __init__(
        self,
        model: nn.Module,
        searched: nn.Module,
        images: Data,
        clean: Tensor,
        threat: Threat,
        ledger: Ledger,
        *,
        pace: Pace,
        seed: int,
        precision: Precision,
        votes: int,
        budget: int | None,
        eight_bit: bool,
        progress: Progress,
        surrogate: nn.Module | None = None,
        proved: Tensor | None = None,
    ) -> None:
        self.model, self.searched, self.surrogate = model, searched, surrogate
        self.images, self.clean, self.threat, self.ledger = images, clean, threat, ledger
        self.pace, self.seed, self.votes, self.eight_bit = pace, seed, votes, eight_bit
        self.precision, self.budget, self.progress = precision, budget, progress
        self.device = device_of(model)
        self.ids: list[int] = images.ids.tolist()
        self.correct = clean.argmax(1) == images.labels
        self.standing = self.correct.clone()
        """(N,) bool: right on the clean image, and not broken so far."""
        self.proved = torch.zeros_like(self.correct) if proved is None else proved
        self.noticed = self.confirmed = 0
        """Successes that the searches saw, and those that the model itself repeated; of all processes."""
        self.passes = 0
        """Forward and backward passes so far, those of earlier processes too."""
        self.stages: list[Stage] = []
        self.margin = torch.full((len(images),), -math.inf)
        """(N,) the largest that the stages reached on each image: how near it came to falling."""
        self._searchers: dict[tuple[Precision, Access, bool], nn.Module] = {}

    @property
    def exhausted(self) -> bool:
        """The budget is spent."""
        return self.budget is not None and self.passes >= self.budget * len(self.images)

    @property
    def undecided(self) -> Tensor:
        """(N,) bool: neither broken so far nor proved."""
        return self.standing & ~self.proved

    def run(self, stage: Stage) -> result.Stage:
        """Runs one stage; what an earlier process decided is not run again."""
        self.stages.append(stage)
        begun = self.undecided.nonzero()[:, 0].tolist() if self._worthwhile(stage) else []
        rounds = self._rounds(begun, stage)
        entries: list[Entry] = []
        with self.progress.task(f"attacking with {stage.name}", 0, unit="image") as task:
            for number, chosen in enumerate(rounds):
                if self.exhausted:
                    self.progress.say(f"{stage.name}: the budget of {self.budget} passes per image is spent")
                    break
                task.extend(len(chosen))
                new = self._round(stage, chosen, task)
                entries += new
                left = sum(map(len, rounds[number + 1 :]))
                # What follows is farther from falling than the farther half of this round.
                farther = new[len(new) // 2 :]
                expected = left * sum(entry.broken for entry in farther) / len(farther)
                if expected < stage.tolerance * len(self.images):
                    break
        return result.Stage(
            name=stage.name,
            attack=stage.attack,
            parameters=self._attack(stage).config.model_dump(mode="json"),
            attacked=len(entries),
            broken=sum(entry.broken for entry in entries),
            correct_after=int(self.standing.sum()),
            forwards=sum(entry.forwards for entry in entries),
            backwards=sum(entry.backwards for entry in entries),
            transferred=self._transfers(self._attack(stage)),
        )

    def _transfers(self, attack: Attack) -> bool:
        """Whether it searches on the surrogate."""
        return self.surrogate is not None and attack.access == "gradients"

    def _worthwhile(self, stage: Stage) -> bool:
        if stage.after is None:
            return True
        broken = sum(e.broken for e in self.ledger.entries.values() if e.stage == stage.after)
        return broken > 0 and broken >= stage.tolerance * len(self.images)

    def _rounds(self, standing: list[int], stage: Stage) -> list[list[int]]:
        """All at once, or the nearest to falling first, as the earlier stages' entries say."""
        if stage.tolerance <= 0 or not standing:
            return [standing] if standing else []
        order = self.nearest_first(standing)
        size = max(stage.round, math.ceil(len(order) / ROUNDS))
        return [order[first : first + size] for first in range(0, len(order), size)]

    def nearest_first(self, chosen: Iterable[int]) -> list[int]:
        """Rows of the data, those that came nearest to falling first."""
        return sorted(chosen, key=lambda index: (-float(self.margin[index]), self.ids[index]))

    @property
    def _left(self) -> dict[str, float]:
        return {"accuracy left": float(self.standing.float().mean())}

    def _attack(self, stage: Stage) -> Attack:
        return make(stage.attack, self.threat, stage.parameters)

    def _round(self, stage: Stage, chosen: Sequence[int], task: Task) -> list[Entry]:
        earlier = [self.ledger.entries.get((stage.name, self.ids[index])) for index in chosen]
        todo = [index for index, entry in zip(chosen, earlier, strict=True) if entry is None]
        done = len(chosen) - len(todo)
        if done:
            self.progress.say(f"{stage.name}: {done} of {len(chosen)} images were decided earlier")
            task.advance(done)
        mine = todo[distributed.rank() :: distributed.world()]
        if mine:
            self._search(stage, mine, task)
        if todo:
            self.ledger.exchange()
        entries = [self.ledger.entries[stage.name, self.ids[index]] for index in chosen]
        for index, entry in zip(chosen, entries, strict=True):
            self.standing[index] = not entry.broken
            if entry.margin is not None:
                self.margin[index] = max(float(self.margin[index]), entry.margin)
        if todo:
            task.advance(len(todo) - len(mine), **self._left)
        self.passes += sum(entry.forwards + entry.backwards for entry in entries)
        broken = sum(entry.broken for entry in entries)
        self.confirmed += broken
        if not self._transfers(self._attack(stage)):  # another model's successes are no promise
            self.noticed += sum(entry.refuted for entry in entries)
        self.noticed += broken
        return entries

    def _search(self, stage: Stage, todo: list[int], task: Task) -> None:
        attack = self._attack(stage)
        transfers = self._transfers(attack)
        precision = stage.precision or self.precision
        oracle = self.oracle(self.threat, attack.access, precision, on_surrogate=transfers)
        search = self.searching(stage.key, attack, oracle)

        def record(found: Found) -> None:
            self.standing[found.index] = not found.broken
            outcome = asdict(found.outcome)
            if transfers:
                outcome["margin"] = None  # the surrogate's says nothing of the model
            entry = Entry(id=self.ids[found.index], stage=stage.name, **outcome)
            self.ledger.add(entry, found.x)
            task.advance(1, **self._left)

        search.run(torch.tensor(todo, dtype=torch.int64), record, task.underway)

    def oracle(
        self,
        threat: Threat,
        access: Access,
        precision: Precision,
        kind: type[Oracle] = Oracle,
        *,
        on_surrogate: bool = False,
    ) -> Oracle:
        """A door to the model, in front of the copy that is searched on: its own, or one of the surrogate."""
        key = (precision, access, on_surrogate)
        if key not in self._searchers:
            few, _ = self.images.batch(torch.arange(min(16, len(self.images))), self.device)
            copied = self.surrogate if on_surrogate and self.surrogate is not None else self.searched
            self._searchers[key] = searcher(copied, precision, few, access)
        return kind(
            self.model,
            threat,
            self._searchers[key],
            access=access,
            votes=self.votes,
            eight_bit=self.eight_bit,
        )

    def searching(self, name: str, attack: Attack, oracle: Oracle) -> Search:
        """One attack on these images, ready to run; it knows nothing of what stands, nor of the ledger."""
        return Search(
            attack,
            oracle,
            self.images,
            self.clean,
            seed=self.seed,
            name=name,
            pace=self.pace,
            device=self.device,
        )

    def tried(self, sample: int) -> list[Entry]:
        """What the stages said of one image, in order."""
        return [
            e for stage in self.stages if (e := self.ledger.entries.get((stage.name, sample))) is not None
        ]

    def verdicts(self) -> tuple[Verdict, ...]:
        """One for each image, in the order of the data."""
        verdicts = []
        labels, correct = self.images.labels.tolist(), self.correct.tolist()
        for sample, label, right, proved in zip(self.ids, labels, correct, self.proved.tolist(), strict=True):
            tried = self.tried(sample) if right else []
            fallen = tried[-1] if tried and tried[-1].broken else None
            stands: Status = "certified" if proved else "robust"
            verdicts.append(
                Verdict(
                    id=sample,
                    label=label,
                    status="broken" if fallen else stands if right else "misclassified",
                    attack=fallen.stage if fallen else None,
                    iteration=fallen.iteration if fallen else 0,
                    variant=fallen.variant if fallen else 0,
                    distance=fallen.distance if fallen else None,
                    margin=max((e.margin for e in tried if e.margin is not None), default=None)
                    if not fallen
                    else None,
                    forwards=sum(entry.forwards for entry in tried),
                    backwards=sum(entry.backwards for entry in tried),
                )
            )
        return tuple(verdicts)

    def adversarial(self) -> Tensor:
        """(N, C, H, W) float32 the adversarial image where there is one, else the original.

        The ledger must be finished.
        """
        x, _ = self.images.batch(torch.arange(len(self.images)))
        for index, sample in enumerate(self.ids):
            tried = self.tried(sample)
            if tried and tried[-1].broken:
                x[index] = self.ledger.image(tried[-1])
        return x
