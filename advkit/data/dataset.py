"""The registry of data sets, the folder that they lie in, and those that torchvision reads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from advkit.core.errors import DataError
from advkit.core.notes import Note
from advkit.core.registry import Registry
from advkit.core.threat import Threat
from advkit.models.card import Shape

if TYPE_CHECKING:
    from advkit.data.data import Data


@dataclass(frozen=True)
class TorchvisionFiles:
    """Where torchvision keeps one data set below the data folder."""

    name: str
    """What advkit calls the set."""
    kind: str
    """Its class in ``torchvision.datasets``."""
    train: str
    """File that is there when the training split is, below the data folder."""
    test: str
    npz: bool = False
    """Whether NAME-train.npz and NAME-test.npz in the data folder may replace the splits."""

    def place(self, split: str, root: Path) -> Path:
        """The file of torchvision's that tells whether ``split`` is there."""
        return root / (self.train if split == "train" else self.test)

    def substitute(self, split: str, root: Path) -> Path | None:
        """The npz file to read instead, where torchvision's files are absent and it is there."""
        alone = root / f"{self.name}-{split}.npz"
        return alone if self.npz and not self.place(split, root).exists() and alone.is_file() else None

    def present(self, split: str, root: Path) -> bool:
        """Whether ``split`` is there in either form."""
        return self.place(split, root).exists() or self.substitute(split, root) is not None

    def read(self, split: str, root: Path) -> Any:
        """torchvision's own object, which holds the whole split in memory.

        Raises:
            DataError: it is not there, or it is damaged.
        """
        place = self.place(split, root)
        if not place.exists():
            raise DataError(
                f"the {split} split of {self.name!r} is not in {root}; "
                f"fetch it with `advkit data get {self.name}`, "
                "or name the folder that has it with --data-dir or ADVKIT_DATA",
                code="data-not-found",
            )
        try:
            return self.open(split, root, download=False)
        except Exception as error:  # each reader fails in its own ways on a damaged file
            raise DataError(
                f"{self.name!r} in {place.parent} is incomplete or damaged; "
                f"remove it there and fetch it again with `advkit data get {self.name}`"
            ) from error

    def open(self, split: str, root: Path, *, download: bool) -> Any:
        """torchvision's own object, with torchvision's own errors."""
        from torchvision import datasets

        which = {"split": split} if self.kind == "SVHN" else {"train": split == "train"}
        return getattr(datasets, self.kind)(root, download=download, **which)


Split = Literal["train", "test"]
Part = Literal["train", "test", "all"]
"""What may be asked for; ``all`` only of sets that are not divided."""
Loader: TypeAlias = "Callable[[Split, Path], Data]"

_ROLES = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "dev"),
}


def role(name: str) -> str | None:
    """Which split a folder, a key or a column's entry of this name means: train, test or val, if any."""
    return next((role for role, names in _ROLES.items() if name.strip().lower() in names), None)


def pick(part: Part | None, roles: Iterable[str], where: object) -> tuple[Split, str]:
    """Which split of a divided set is asked for, and the role that serves as it.

    The validation images are the test split where there is no other. Without a choice it is the test
    split, or the training images where there are no others.

    Raises:
        DataError: there is no such split.
    """
    serving: dict[Split, str] = {}
    if "train" in roles:
        serving["train"] = "train"
    if tested := next((name for name in ("test", "val") if name in roles), None):
        serving["test"] = tested
    split = part or ("test" if tested else "train")
    if split not in serving:
        raise DataError(f"{where} has no split {split!r}; ask for {' or '.join(serving)}")
    return split, serving[split]


def held_out(name: str) -> bool:
    """Whether the file belongs to the test split of an undivided set (about 20 %): whether the SHA-256 of its
    name, as a big-endian number, is divisible by 5. So a file stays in its split whatever is added."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest(), "big") % 5 == 0


def by_hash(names: Sequence[str], part: Part | None, where: object) -> tuple[list[int], Part, Note]:
    """Which files of an undivided set belong to a split, what it is called, and what to say of it.

    Raises:
        DataError: too few files for that split.
    """
    if part in (None, "all"):
        said = f"{where} has no train and test splits; its {len(names):,} images are one set"
        return list(range(len(names))), "all", Note("undivided", said)
    rows = [row for row, name in enumerate(names) if held_out(name) == (part == "test")]
    if not rows:
        raise DataError(
            f"{where} has too few images for a {part} split by hash (80/20); add images, take all of them "
            "(--split all), or divide them into train and test yourself"
        )
    said = f"{len(rows):,} of {len(names):,} images: the {part} split by a hash of their names (80/20)"
    return rows, part, Note("hash-split", said)


DATASETS: Registry[Loader] = Registry("data set", "advkit.data.sets")


def dataset(
    name: str,
    *,
    summary: str,
    shape: Shape,
    sizes: tuple[int, int],
    source: str = "",
    aliases: tuple[str, ...] = (),
    threat: Threat | None = None,
    files: TorchvisionFiles | None = None,
) -> Callable[[Loader], Loader]:
    """Decorator that registers ``load(split, root) -> Data`` under ``name``.

    Args:
        name: what users call it.
        shape: (channels, height, width) of its images.
        sizes: number of training and of test images.
        source: who published it.
        threat: the default threat model, if there is one.
        files: where torchvision keeps it, for a set that has to be downloaded.
    """
    return DATASETS.register(
        name,
        summary=summary,
        source=source,
        aliases=aliases,
        shape=shape,
        sizes=sizes,
        threat=threat,
        files=files,
    )


def data_folder(root: Path | str | None = None) -> Path:
    """The folder of the data sets: ``root``, else ``$ADVKIT_DATA``, else ``~/.advkit/data``."""
    return Path(root or os.environ.get("ADVKIT_DATA") or "~/.advkit/data").expanduser()
