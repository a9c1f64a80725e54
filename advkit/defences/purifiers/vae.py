"""A VAE's reconstruction instead of the image."""

from __future__ import annotations

from torch import Tensor

from advkit.core.config import StrictModel
from advkit.defences.purifier import Purifier, defence
from advkit.gan.evaluation.subject import Subject
from advkit.models.card import Shape


@defence(
    "vae",
    summary="encoded and decoded by a VAE",
    source="after MagNet's reformer (Meng and Chen, CCS 2017) and PuVAE (Hwang et al. 2019)",
)
class VaeProjection(Purifier):
    """One pass through the encoder (its mean) and the decoder, which is differentiable."""

    needs = "vae"
    ways = ("gradient", "identity")

    def __init__(self, config: StrictModel, subject: Subject | None, shape: Shape) -> None:
        super().__init__(config, subject, shape)
        assert subject is not None and subject.whole is not None  # checked by `build`
        self.vae = subject.whole

    @property
    def cost(self) -> int:
        """One pass."""
        return 1

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction."""
        images: Tensor = self.vae(x)
        return images
