"""A classifier that answers and shows nothing else, and counts."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from advkit.attacks.engine.oracle import query
from advkit.attacks.perturb import device_of
from advkit.core import levels
from advkit.core.errors import ConfigError
from advkit.models.mode import evaluation_mode

Answers = Literal["labels", "probabilities"]
BATCH = 500
"""Images of a pass."""


class BlackBox:
    """Answers at most ``limit`` queries, each an image of 8-bit levels.

    Args:
        model: images in [0, 1] to logits.
        answers: the predicted class alone, or the probabilities of all.
        limit: how many queries are answered.
        asked: how many have been, by an earlier process.
    """

    def __init__(self, model: nn.Module, answers: Answers, limit: int, asked: int = 0) -> None:
        self._model, self._answers = model, answers
        self.limit, self.asked = limit, asked

    @property
    def left(self) -> int:
        """Queries that will still be answered."""
        return self.limit - self.asked

    @torch.no_grad()
    def query(self, images: Tensor) -> Tensor:
        """(N, K) float32 probabilities, on the CPU: 1 and 0 where it says labels only.

        Args:
            images: (N, C, H, W) uint8.

        Raises:
            ConfigError: more than are left; none is answered then.
        """
        if len(images) > self.left:
            raise ConfigError(
                f"{len(images)} queries are more than the {self.left} left of {self.limit}; allow more with "
                "--queries"
            )
        self.asked += len(images)
        device, said = device_of(self._model), []
        with evaluation_mode(self._model):
            for part in images.split(BATCH):
                logits = query(self._model, levels.as_image(part.to(device))).float()
                if self._answers == "labels":
                    said.append(one_hot(logits.argmax(1), logits.shape[1]).float().cpu())
                else:
                    said.append(logits.softmax(1).cpu())
        return torch.cat(said)
