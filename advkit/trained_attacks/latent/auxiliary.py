"""The auxiliary classifier of a latent-space search, which keeps the class of the images."""

from __future__ import annotations

from torch import Tensor, nn

from advkit.core.errors import ConfigError, ModelError
from advkit.gan.judge import judge
from advkit.gan.labelled import common_classes
from advkit.models.architectures.conditional import AuxiliaryDiscriminator
from advkit.models.model import Model


class ClassHead(nn.Module):
    """The class head of a discriminator, as a classifier."""

    def __init__(self, discriminator: AuxiliaryDiscriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        return self.discriminator.classify(x)


def auxiliary_classifier(auxiliary_model: Model, generator: Model, model: Model, name: str) -> nn.Module:
    """The auxiliary classifier for the search, from images in [0, 1] to logits.

    Args:
        auxiliary_model: a classifier, or a discriminator with a class head.
        generator: whose classes it must have.
        model: the classifier that is attacked.
        name: what the auxiliary classifier is called in errors.

    Raises:
        ConfigError: it is the attacked classifier or the judge.
        ModelError: it has no class logits, other classes, or another image shape.
    """
    if auxiliary_model.hash in (model.hash, judge().hash):
        role = (
            "the attacked classifier"
            if auxiliary_model.hash == model.hash
            else "the judge that evaluates the examples"
        )
        raise ConfigError(f"{name} is {role}, so it cannot be the auxiliary classifier; name another one")
    network = auxiliary_model.network
    if not isinstance(network, AuxiliaryDiscriminator) and auxiliary_model.card.role != "classifier":
        raise ModelError(
            f"{name} is a {auxiliary_model.card.role} without class logits; name a classifier, or the "
            "discriminator of a generator that was trained with --conditional auxiliary"
        )
    common_classes(generator, auxiliary_model)
    return ClassHead(network) if isinstance(network, AuxiliaryDiscriminator) else auxiliary_model
