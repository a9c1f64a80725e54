"""A discriminator as the losses see it: a function from images to logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from advkit.models.architectures.conditional import AuxiliaryDiscriminator
from advkit.models.network import Discriminator


@dataclass(frozen=True)
class Critic:
    """A discriminator with a batch's labels, the augmentation of its inputs, and the packing of images.

    Losses and regularisers call it as a function of images.
    """

    network: nn.Module
    labels: Tensor | None = None
    """(N,) classes of real and of generated images alike, for a conditional discriminator."""
    augment: Callable[[Tensor], Tensor] | None = None
    packing: int = 1
    """Images that are judged together, as further channels of one (Lin et al. 2018)."""
    _class_logits: list[tuple[Tensor, Tensor]] = field(default_factory=list, repr=False)
    """Images that have been judged, and the auxiliary classifier's logits for them."""

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N / packing,) of images (N, C, H, W) in [0, 1]."""
        (logits,) = self._judged(self.labels, images)
        return logits

    def features(self, images: Tensor) -> Tensor:
        """(N / packing, feature_dim): what the last layer is given."""
        return cast(Discriminator, self.network).features(self._seen(images))

    def classify(self, images: Tensor) -> Tensor:
        """(N, classes) logits of an auxiliary classifier; of images that have been judged, without another
        pass."""
        for seen, logits in self._class_logits:
            if seen is images:
                return logits
        return cast(AuxiliaryDiscriminator, self.network).classify(self._seen(images))

    def both(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of real and of generated images; in one pass, which is quicker, unless the network's answer
        to an image depends on those beside it."""
        if any(isinstance(module, _BatchNorm) for module in self.network.modules()):
            return self(real), self(fake)
        labels = None if self.labels is None else torch.cat([self.labels, self.labels])
        on_real, on_fake = self._judged(labels, real, fake)
        return on_real, on_fake

    def _judged(self, labels: Tensor | None, *batches: Tensor) -> list[Tensor]:
        """Logits (N / packing,) of each batch, from one pass."""
        seen = self._seen(
            batches[0] if len(batches) == 1 else torch.cat([x.to(batches[0].dtype) for x in batches])
        )
        if isinstance(self.network, AuxiliaryDiscriminator):
            logits, classes = self.network.judge(seen)
            if torch.is_grad_enabled():
                self._class_logits.extend(zip(batches, classes.chunk(len(batches)), strict=True))
        else:
            logits = self.network(seen) if labels is None else self.network(seen, labels)
        return list(logits.chunk(len(batches)))

    def _seen(self, images: Tensor) -> Tensor:
        """As the network is given them: augmented, and in packs (N / packing, packing * C, H, W)."""
        if self.augment is not None:
            images = self.augment(images)
        if self.packing == 1:
            return images
        n, channels, height, width = images.shape
        together = images.reshape(n // self.packing, self.packing * channels, height, width)
        return together.contiguous(memory_format=torch.channels_last)
