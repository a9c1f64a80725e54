"""Generators to be measured, whatever they are inside, and their images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from advkit.core import files, rng
from advkit.core.errors import DataError, ModelError, by_size
from advkit.core.progress import SILENT, Progress
from advkit.core.run_list import numbered
from advkit.gan.sample import sample
from advkit.models.card import ModelCard, Preprocessing, Shape
from advkit.models.load import load_model
from advkit.models.model import Model
from advkit.models.network import Vae, numbers


@dataclass(frozen=True)
class Subject:
    """One generator."""

    name: str
    """As the user calls it."""
    generator: Model
    """Latent vectors, and classes where it is conditional, to images; of a VAE, the decoder."""
    hash: str
    """Of the whole model."""
    card: ModelCard
    """Of the whole model."""
    whole: Vae | None = None
    """The autoencoder whose decoder it is."""

    @property
    def parameters(self) -> int:
        """Numbers that the generator alone consists of, batch norm's running statistics among them."""
        return numbers(self.generator.network)

    @property
    def classes(self) -> int | None:
        """Classes that it can be asked for; None where there are none."""
        return cast(int | None, getattr(self.generator.network, "classes", None))

    @property
    def images_seen(self) -> int | None:
        """Real images that its training took in, repeats counted; None where its card does not say."""
        step, size = (self.card.training.get(key) for key in ("step", "batch_size"))
        return step * size if isinstance(step, int) and isinstance(size, int) else None

    @property
    def seconds(self) -> float | None:
        """How long its training took, if it was named by its run folder or a file in it."""
        path = numbered(self.name) or Path(self.name)
        file = (path if path.is_dir() else path.parent) / "result.json"
        if not path.exists() or not file.is_file():
            return None
        result = files.read_json(file)
        models = result.get("models", {"model": result.get("model", {})})
        if self.hash not in (model.get("hash") for model in models.values()):
            return None
        seconds = result.get("seconds")
        return float(seconds) if isinstance(seconds, int | float) else None

    def refuse_other_shape(self, shape: Shape) -> None:
        """Raises a `DataError` unless its images are such as a classifier takes."""
        if self.card.shape != shape:
            theirs, ours = map(by_size, (self.card.shape, shape))
            raise DataError(
                f"{self.name} makes {theirs} images but the classifier takes {ours} ones "
                "(channels x height x width); name a generator of such images"
            )

    def draw(self, n: int, seed: int, *, progress: Progress = SILENT) -> tuple[Tensor, Tensor | None]:
        """Images (n, C, H, W) uint8, and the classes (n,) that a conditional generator was asked for, drawn
        uniformly."""
        if self.classes is None:
            return sample(self.generator, n, seed, progress=progress)[0], None
        drawn = rng.integers(rng.keys(seed, "labels", torch.arange(n)), (1,), self.classes)[:, 0]
        asked: dict[str, Any] = {"labels": drawn}
        return sample(self.generator, n, seed, progress=progress, **asked)[0], drawn


def open_subject(name: str, device: str) -> Subject:
    """The generator called ``name``.

    Raises:
        ModelError: there is none, or it can draw no images.
    """
    model = load_model(name, device=device)
    if model.card.role == "generator":
        return Subject(name, model, model.hash, model.card)
    if not isinstance(model.network, Vae):
        raise ModelError(
            f"{name} is a {model.card.role}, which draws no images; name a generator or a VAE instead"
        )
    card = model.card.model_copy(update={"role": "generator", "preprocessing": Preprocessing()})
    decoder = Model(model.network.decoder, card).eval()
    return Subject(name, decoder, model.hash, model.card, model.network)
