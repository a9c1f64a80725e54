"""Query access to a classifier, with a counter and a limit."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from advkit.attacks.engine.oracle import query
from advkit.attacks.perturb import device_of
from advkit.core import levels
from advkit.core.errors import ConfigError
from advkit.models.model import evaluation_mode

Answers = Literal["labels", "probabilities"]
BATCH = 500
"""Images of a pass."""


class BlackBox:
    """Answers at most ``limit`` queries, each an image of 8-bit levels.

    Args:
        model: images in [0, 1] to logits.
        answers: the predicted class, or the probabilities of all classes.
        limit: of queries.
        asked: queries made by an earlier process.
    """

    def __init__(self, model: nn.Module, answers: Answers, limit: int, asked: int = 0) -> None:
        self._model, self._answers = model, answers
        self.limit, self.asked = limit, asked

    @property
    def left(self) -> int:
        """Remaining queries."""
        return self.limit - self.asked

    @torch.no_grad()
    def query(self, images: Tensor) -> Tensor:
        """(N, K) float32 probabilities, on the CPU: one-hot with labels only.

        Args:
            images: (N, C, H, W) uint8.

        Raises:
            ConfigError: more queries than remain; none is answered.
        """
        if len(images) > self.left:
            raise ConfigError(
                f"{len(images)} queries exceed the {self.left} that remain of {self.limit}; raise the limit "
                "with --queries"
            )
        self.asked += len(images)
        device, answers = device_of(self._model), []
        with evaluation_mode(self._model):
            for part in images.split(BATCH):
                logits = query(self._model, levels.as_image(part.to(device))).float()
                if self._answers == "labels":
                    answers.append(one_hot(logits.argmax(1), logits.shape[1]).float().cpu())
                else:
                    answers.append(logits.softmax(1).cpu())
        return torch.cat(answers)
