"""What a classifier learns from generated images."""

from __future__ import annotations

import torch

from advkit.attacks.perturb import logits_of
from advkit.core import rng
from advkit.data.data import Data
from advkit.gan.metric import Comparison, Figure, NotApplicableError, metric
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.models.network import build
from advkit.training.loop import fit
from advkit.training.objectives.adversarial import Standard
from advkit.training.settings import Fitting

CLASSES = 100
"""More classes than this would leave too few images of each."""
ARCHITECTURE = "small-cnn"
UPDATES = 1500
"""Updates of 64 images that the classifier learns for, or a few more, since epochs are whole."""


@metric(
    "classification-accuracy",
    Figure("cas", "accuracy score", "higher", "accuracy"),
    summary="accuracy on real test images of a small classifier trained on the generated ones",
    source="Ravuri and Vinyals 2019 (CAS)",
    rank=70,
)
def classification_accuracy(comparison: Comparison) -> dict[str, float]:
    """A small-cnn learns the generated images by the classes that they were asked for, or else by those that
    the judge sees, and is tested on the real images with their own labels. About 1,500 updates of 64."""
    generated, real = comparison.generated, comparison.real
    if comparison.classes > CLASSES:
        raise NotApplicableError(f"{comparison.classes:,} classes leave too few images of each")
    if generated.labels is None and not comparison.digits:
        raise NotApplicableError("the images have no labels of these classes, and the judge cannot read them")
    if real.labels is None:
        raise NotApplicableError("the real images have no labels")
    labels = generated.seen if generated.labels is None else generated.labels
    names = tuple(map(str, range(comparison.classes)))
    learn, test = (
        Data(name, "all", images, known, names, torch.arange(len(images)))
        for name, images, known in (
            ("generated", generated.images, labels),
            ("real", real.images, real.labels),
        )
    )
    card = ModelCard(
        role="classifier", architecture=ARCHITECTURE, shape=learn.shape, classes=comparison.classes
    )
    with rng.scope("cpu", comparison.seed, "classification-accuracy"):
        network = build(ARCHITECTURE, shape=learn.shape, classes=comparison.classes)
    plan = Fitting(checks=1, seed=comparison.seed)
    plan = plan.model_copy(update={"epochs": -(-UPDATES // plan.batches(len(learn)))})
    trained = fit(Model(network, card), plan, learn, objective=Standard(Standard.Config()))
    right = logits_of(trained.model, test).argmax(1) == test.labels
    return {"cas": float(right.float().mean())}
