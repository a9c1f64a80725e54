"""Classifier and detector as one classifier, so that an attack has to fool both.

Carlini and Wagner, "Adversarial Examples Are Not Easily Detected", AISec 2017, attack a detector by one
network of both with one more class, which is predicted where the detector flags and does not count as a
success. Here the image's own class is predicted there instead: a flagged image counts as correctly
classified. There is one such classifier for each class y. It has the classes of the bare classifier, so
every attack, its scheduler and its confirmation work on it unchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus


class Guarded(nn.Module):
    """Logits (N, K) of images of one class ``label``, which is predicted where the detector flags.

    There its logit is the largest of all, plus ``weight`` times the excess of the score over the threshold.
    (The paper multiplies instead, which requires positive logits.) An image is misclassified by this network
    if and only if the classifier misclassifies it and the detector does not flag it, for any weight.

    Args:
        classifier: images in [0, 1] to logits (N, K).
        detector: images in [0, 1] to scores (N,); larger means more likely adversarial.
        threshold: scores above it are flagged; so are NaN scores.
        label: the true class of all images.
        weight: of the detector, relative to the classifier.
    """

    def __init__(
        self, classifier: nn.Module, detector: nn.Module, threshold: float, label: int, weight: float = 1.0
    ) -> None:
        super().__init__()
        self.classifier, self.detector = classifier, detector
        self.threshold, self.label, self.weight = threshold, label, weight

    def forward(self, x: Tensor) -> Tensor:
        """Logits; those of the classifier for images that are not flagged."""
        logits = self.classifier(x)
        return self._guarded(logits, self._excess(x))

    def _excess(self, x: Tensor) -> Tensor:
        """(N, 1) scores minus the threshold."""
        excess: Tensor = self.detector(x)[:, None] - self.threshold
        return excess

    def _guarded(self, logits: Tensor, excess: Tensor) -> Tensor:
        top = logits.amax(1, keepdim=True)
        # Strictly above the largest, even for a tiny excess: rounding must not turn a flag into a success.
        least = torch.nextafter(top.detach(), torch.full_like(top.detach(), torch.inf))
        alarm = torch.maximum(top + self.weight * excess, least)
        return self._with_label(logits, torch.where(excess <= 0, self._own(logits), alarm))

    def _own(self, logits: Tensor) -> Tensor:
        return logits[:, self.label : self.label + 1]

    def _with_label(self, logits: Tensor, own: Tensor) -> Tensor:
        return torch.cat([logits[:, : self.label], own, logits[:, self.label + 1 :]], 1)


class Joint(Guarded):
    """The same logits with another gradient, for the search: the label's logit has the gradient of itself
    plus ``weight`` times softplus of the excess.

    The gradient of `Guarded` is that of one network at a time: of the classifier where nothing is flagged, of
    the detector where it flags, so an attack alternates between them. Here both contribute everywhere, and
    the detector does so before it flags.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Logits, equal to those of `Guarded`."""
        logits, excess = self.classifier(x), self._excess(x)
        surrogate = self._with_label(logits, self._own(logits) + self.weight * softplus(excess))
        answers = self._guarded(logits, excess).detach()
        return answers + (surrogate - surrogate.detach())
