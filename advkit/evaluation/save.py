"""Where ``--save`` leaves the adversarial images: arrays, a grid to look at, or a folder of PNG files."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from advkit.core import files, images
from advkit.core.errors import OutputError
from advkit.data.data import Data
from advkit.evaluation.ledger import PIECE, Adversarial
from advkit.evaluation.result import EvaluationResult
from advkit.evaluation.settings import Evaluation

GRID = 400
"""Largest number of images in a grid."""


def place_to_save(config: Evaluation, *, overwrite: bool) -> Path | None:
    """The path of ``--save``, checked before the work begins.

    Raises:
        OutputError: unknown suffix, it exists, or a folder of images that 8 bits cannot hold.
    """
    if config.save is None:
        return None
    path = Path(config.save)
    if path.suffix in (".npz", ".png"):
        files.refuse_to_replace(path, overwrite=overwrite)
        return path
    if path.suffix:
        raise OutputError(
            f"--save {path}: unknown kind {path.suffix!r}; name a .npz or .png file, or a folder"
        )
    if not config.eight_bit:
        raise OutputError(
            f"--save {path}: PNG files have 8 bits per channel, and rounding could undo successes; "
            "add --eight-bit, or name a .npz file"
        )
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise OutputError(f"--save {path} exists already; choose another name")
    return path


def save(path: Path, data: Data, adversarial: Adversarial, result: EvaluationResult) -> None:
    """Writes the adversarial images, originals where there is none."""
    status = [verdict.status for verdict in result.verdicts]
    if path.suffix == ".npz":
        _arrays(path, data, adversarial, status)
    elif path.suffix == ".png":
        broken = adversarial.broken.nonzero()[:, 0]
        rows = broken if len(broken) else torch.arange(len(data))
        images.write_grid(path, adversarial[rows[:GRID]], columns=20)
    else:
        _folder(path, data, adversarial, status)


def _arrays(path: Path, data: Data, adversarial: Adversarial, status: Sequence[str]) -> None:
    def pieces(batch: Callable[[Tensor], Tensor]) -> files.Pieces:
        parts = (batch(rows).numpy() for rows in torch.arange(len(data)).split(PIECE))
        return files.Pieces((len(data), *data.shape), "float32", parts)

    files.write_arrays(
        path,
        x=pieces(lambda rows: adversarial[rows]),
        y=data.labels.numpy(),
        original=pieces(lambda rows: data.batch(rows)[0]),
        id=data.ids.numpy(),
        status=np.array(status),
    )


def _folder(path: Path, data: Data, adversarial: Adversarial, status: Sequence[str]) -> None:
    """``PATH/test/CLASS/ID-STATUS.png``, a layout that ``folder:PATH`` reads with the same labels."""
    digits = len(str(data.classes - 1))
    classes = [_class_folder(number, name, digits) for number, name in enumerate(data.class_names)]
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with files.writing(path):
        try:
            (temporary / "train").mkdir(parents=True)  # so that no image is used as a training image
            for name in classes:
                (temporary / "test" / name).mkdir(parents=True)
            labels, ids = data.labels.tolist(), data.ids.tolist()
            saved = (image for rows in torch.arange(len(data)).split(PIECE) for image in adversarial[rows])
            for image, label, sample, what in zip(saved, labels, ids, status, strict=True):
                file = temporary / "test" / classes[label] / f"{sample:06d}-{what}.png"
                file.write_bytes(images.png_bytes(image))
            if path.is_dir():
                path.rmdir()
            temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _class_folder(number: int, name: str, digits: int) -> str:
    """The number first, since folders are numbered in the order of their names."""
    word = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
    return f"{number:0{digits}d}" + (f"-{word}" if word and word != str(number) else "")
