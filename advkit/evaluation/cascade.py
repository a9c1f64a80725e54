"""Attacks one after the other, each on the images that still stand, with every verdict in the ledger."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from advkit.attacks.attack import Attack
from advkit.attacks.engine import Found, Search
from advkit.attacks.oracle import Oracle
from advkit.attacks.perturb import device_of
from advkit.data.data import Data
from advkit.evaluation.ledger import Entry, Ledger
from advkit.evaluation.result import Stage, Verdict
from advkit.progress import Progress


class Cascade:
    """One evaluation under way.

    Args:
        model: the classifier, in eval mode.
        images: what is attacked.
        clean: (N, K) its logits on them.
        attacks: by name, in order.
        oracle: the door to the model.
        ledger: verdicts so far and from now on.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Data,
        clean: Tensor,
        attacks: Mapping[str, Attack],
        oracle: Oracle,
        ledger: Ledger,
    ) -> None:
        self.images, self.clean, self.attacks = images, clean, attacks
        self.oracle, self.ledger = oracle, ledger
        self.device = device_of(model)
        self.ids: list[int] = images.ids.tolist()
        self.correct = clean.argmax(1) == images.labels
        self.standing = self.correct.clone()
        """(N,) bool: right on the clean image, and not broken so far."""

    def run(self, name: str, *, seed: int, batch_size: int, progress: Progress) -> Stage:
        """Runs one attack; what an earlier process decided is not run again."""
        attacked = self.standing.nonzero()[:, 0].tolist()
        earlier = [self.ledger.entries.get((name, self.ids[index])) for index in attacked]
        todo = [index for index, entry in zip(attacked, earlier, strict=True) if entry is None]
        for index, entry in zip(attacked, earlier, strict=True):
            self.standing[index] = entry is None or not entry.broken
        if todo:
            self._search(name, todo, len(attacked) - len(todo), seed, batch_size, progress)
        entries = [self.ledger.entries[name, self.ids[index]] for index in attacked]
        return Stage(
            attack=name,
            parameters=self.attacks[name].config.model_dump(mode="json"),
            attacked=len(attacked),
            broken=sum(entry.broken for entry in entries),
            correct_after=int(self.standing.sum()),
            forwards=sum(entry.forwards for entry in entries),
            backwards=sum(entry.backwards for entry in entries),
        )

    def _search(
        self, name: str, todo: list[int], done: int, seed: int, batch_size: int, progress: Progress
    ) -> None:
        if done:
            progress.say(f"{name}: {done} of {done + len(todo)} images were decided earlier")
        with progress.task(f"attacking with {name}", done + len(todo), done=done, unit="image") as task:

            def record(found: Found) -> None:
                self.standing[found.index] = not found.broken
                self.ledger.add(
                    Entry(
                        id=self.ids[found.index],
                        attack=name,
                        broken=found.broken,
                        iteration=found.iteration,
                        variant=found.variant,
                        distance=found.distance,
                        forwards=found.forwards,
                        backwards=found.backwards,
                    ),
                    found.x,
                )
                task.advance(1, **{"accuracy left": float(self.standing.float().mean())})

            search = Search(
                self.attacks[name],
                self.oracle,
                self.images,
                self.clean,
                seed=seed,
                name=name,
                batch_size=batch_size,
                device=self.device,
            )
            search.run(torch.tensor(todo, dtype=torch.int64), record)

    def _tried(self, sample: int) -> list[Entry]:
        """What the attacks said of one image, in order."""
        return [e for name in self.attacks if (e := self.ledger.entries.get((name, sample))) is not None]

    def verdicts(self) -> tuple[Verdict, ...]:
        """One for each image, in the order of the data."""
        verdicts = []
        labels, correct = self.images.labels.tolist(), self.correct.tolist()
        for sample, label, right in zip(self.ids, labels, correct, strict=True):
            tried = self._tried(sample) if right else []
            fallen = tried[-1] if tried and tried[-1].broken else None
            verdicts.append(
                Verdict(
                    id=sample,
                    label=label,
                    status="broken" if fallen else "robust" if right else "misclassified",
                    attack=fallen.attack if fallen else None,
                    iteration=fallen.iteration if fallen else 0,
                    variant=fallen.variant if fallen else 0,
                    distance=fallen.distance if fallen else None,
                    forwards=sum(entry.forwards for entry in tried),
                    backwards=sum(entry.backwards for entry in tried),
                    place=fallen.place if fallen else None,
                )
            )
        return tuple(verdicts)

    def adversarial(self) -> Tensor:
        """(N, C, H, W) float32: the adversarial image where there is one, else the original."""
        x, _ = self.images.batch(torch.arange(len(self.images)))
        for index, sample in enumerate(self.ids):
            tried = self._tried(sample)
            if tried and tried[-1].broken:
                x[index] = self.ledger.image(tried[-1])
        return x
