"""Classifier and detector as one classifier, so that an attack on it has to mislead both.

Carlini and Wagner, "Adversarial Examples Are Not Easily Detected", AISec 2017, attack a detector by one
network of both, with a class more that wins where the detector flags, and which is no success. Here the own
class of the image wins there: an attacker of an image of class y gains nothing by being flagged, so what is
flagged counts as right. There is one such classifier for each y, its classes are those of the bare one, and
every attack, its scheduler and its confirmation work on it as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus


class Guarded(nn.Module):
    """Logits (N, K) of images of one class ``label``, which wins where the detector flags.

    Its logit is there the largest of all plus ``weight`` times what the score exceeds the threshold by. (The
    paper multiplies instead, which wants positive logits.) Misclassified by this is what is misclassified by
    the classifier and not flagged, whatever the weight.

    Args:
        classifier: images in [0, 1] to logits (N, K).
        detector: images in [0, 1] to scores (N,), the larger the rather adversarial.
        threshold: scores above it are flagged; so are those that are no number.
        label: the true class of all images.
        weight: of the detector beside the classifier.
    """

    def __init__(
        self, classifier: nn.Module, detector: nn.Module, threshold: float, label: int, weight: float = 1.0
    ) -> None:
        super().__init__()
        self.classifier, self.detector = classifier, detector
        self.threshold, self.label, self.weight = threshold, label, weight

    def forward(self, x: Tensor) -> Tensor:
        """Logits; those of the classifier, where nothing is flagged."""
        logits = self.classifier(x)
        return self._guarded(logits, self._excess(x))

    def _excess(self, x: Tensor) -> Tensor:
        """(N, 1) what the scores exceed the threshold by."""
        excess: Tensor = self.detector(x)[:, None] - self.threshold
        return excess

    def _guarded(self, logits: Tensor, excess: Tensor) -> Tensor:
        top = logits.amax(1, keepdim=True)
        # Above the largest, however little the excess is: rounding must not let a flagged image through.
        least = torch.nextafter(top.detach(), torch.full_like(top.detach(), torch.inf))
        alarm = torch.maximum(top + self.weight * excess, least)
        return self._with_label(logits, torch.where(excess <= 0, self._own(logits), alarm))

    def _own(self, logits: Tensor) -> Tensor:
        return logits[:, self.label : self.label + 1]

    def _with_label(self, logits: Tensor, own: Tensor) -> Tensor:
        return torch.cat([logits[:, : self.label], own, logits[:, self.label + 1 :]], 1)


class Joint(Guarded):
    """The same answers with another gradient, to search on: that of the label's own logit plus ``weight``
    times softplus of the excess.

    `Guarded` itself lets an attacker climb one network at a time, the classifier until the detector flags and
    then the detector alone until it is misled no more, back and forth. Here both are climbed at all points,
    and the detector is felt before it flags.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Logits, equal to those of `Guarded`."""
        logits, excess = self.classifier(x), self._excess(x)
        climbed = self._with_label(logits, self._own(logits) + self.weight * softplus(excess))
        answers = self._guarded(logits, excess).detach()
        return answers + (climbed - climbed.detach())
