"""The auxiliary classifier of a search in latent space: the one that keeps the class."""

from __future__ import annotations

from torch import Tensor, nn

from advkit.core.errors import ConfigError, ModelError
from advkit.gan.judge import judge
from advkit.gan.labelled import common_classes
from advkit.models.architectures.conditional_discriminator import AuxiliaryDiscriminator
from advkit.models.model import Model


class Classes(nn.Module):
    """The second head of a discriminator, as a classifier."""

    def __init__(self, discriminator: AuxiliaryDiscriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        return self.discriminator.classify(x)


def auxiliary_classifier(auxiliary_model: Model, generator: Model, model: Model, name: str) -> nn.Module:
    """What tells classes while the search goes on, images in [0, 1] to logits.

    Args:
        auxiliary_model: a classifier, or a discriminator with a head for classes.
        generator: whose classes it has to know.
        model: the classifier that is attacked.
        name: what the auxiliary classifier is called in errors.

    Raises:
        ConfigError: it is the classifier that is attacked, or the judge.
        ModelError: it tells no classes, or others, or takes other images.
    """
    if auxiliary_model.hash in (model.hash, judge().hash):
        who = "attacked" if auxiliary_model.hash == model.hash else "the judge of what comes of it"
        raise ConfigError(f"{name} is {who}, so it cannot keep the class; name another classifier")
    network = auxiliary_model.network
    if not isinstance(network, AuxiliaryDiscriminator) and auxiliary_model.card.role != "classifier":
        raise ModelError(
            f"{name} is a {auxiliary_model.card.role} without class logits; name a classifier, or the "
            "discriminator of a generator that was trained with --conditional auxiliary"
        )
    common_classes(generator, auxiliary_model)
    return Classes(network) if isinstance(network, AuxiliaryDiscriminator) else auxiliary_model
