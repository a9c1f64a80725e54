"""Models as estimators of ART, and estimators of ART, with their defences, as models."""

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod
from art.defences.postprocessor import HighConfidence
from art.defences.preprocessor import (
    FeatureSqueezing,
    GaussianAugmentation,
    JpegCompression,
    SpatialSmoothing,
    ThermometerEncoding,
)
from art.defences.preprocessor.preprocessor import PreprocessorPyTorch
from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
from art.estimators.classification import BlackBoxClassifier, PyTorchClassifier
from torch import nn

import advkit
from advkit.core.errors import ModelError
from advkit.models.architectures.mlp import MLP


class Halving(PreprocessorPyTorch):
    """A defence in PyTorch, which rounds, and says how to differentiate that."""

    def __init__(self, slope):
        super().__init__(device_type="cpu")
        self.slope = slope

    def forward(self, x, y=None):
        return (x * 4).round() / 4 * self.slope, y

    def estimate_forward(self, x, y=None):
        return x * self.slope


def classifier(network, shape=(1, 8, 8), **settings):
    settings = {"clip_values": (0, 1), "device_type": "cpu"} | settings
    return PyTorchClassifier(network, nn.CrossEntropyLoss(), shape, 5, **settings)


def test_to_art_says_the_same(small):
    model, data = small
    estimator = advkit.to_art(model, shape=(1, 8, 8))
    assert (estimator.nb_classes, estimator.input_shape) == (5, (1, 8, 8))
    assert estimator.clip_values.tolist() == [0, 1]
    said = estimator.predict(data.images.numpy())
    assert np.allclose(said, model(data.images).detach(), atol=1e-6)
    x = FastGradientMethod(estimator, eps=0.3).generate(data.images.numpy(), data.labels.numpy())
    assert (estimator.predict(x).argmax(1) != data.labels.numpy()).mean() > 0.5


def test_to_art_takes_what_the_card_knows():
    linear = MLP(MLP.Config(hidden=()), shape=(1, 8, 8), classes=10)
    assert advkit.to_art(linear).nb_classes == 10


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"preprocessing": (0.4, 0.3)},
        {"preprocessing": (np.array([0.4], np.float32), np.array([0.3], np.float32))},
        {"preprocessing_defences": SpatialSmoothing(window_size=3, channels_first=True)},
        {"preprocessing_defences": JpegCompression((0, 1), quality=50, channels_first=True)},
        {"preprocessing_defences": [Halving(0.7), Halving(0.9)], "preprocessing": (0.4, 0.3)},
        {"preprocessing_defences": GaussianAugmentation(augmentation=False)},
    ],
    ids=["plain", "scalars", "channels", "smoothed", "jpeg", "pytorch", "only in training"],
)
def test_from_art_says_the_same(small, settings):
    network, data = small
    estimator = classifier(network, **settings)
    model = advkit.from_art(estimator)
    with torch.no_grad():
        said = model(data.images)
    assert np.allclose(said, estimator.predict(data.images.numpy()), atol=1e-5)


def test_pixels_of_another_range_and_layout():
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    estimator = classifier(network, (8, 8, 3), clip_values=(0, 255), channels_first=False)
    model = advkit.from_art(estimator)
    assert model.card.shape == (3, 8, 8)
    x = torch.rand(4, 3, 8, 8)
    assert np.allclose(model(x).detach(), estimator.predict((255 * x).permute(0, 2, 3, 1).numpy()), atol=1e-3)


def test_gradients_pass_truly_where_they_can_and_straight_where_they_cannot(small):
    network, data = small

    def gradient(model, x):
        x = x.clone().requires_grad_(True)
        model(x)[:, 0].sum().backward()
        return x.grad

    squeezing = FeatureSqueezing((0, 1), bit_depth=2)
    model = advkit.from_art(classifier(network, preprocessing_defences=squeezing))
    squeezed = torch.as_tensor(squeezing(data.images.numpy())[0]).float()
    assert torch.allclose(model(data.images), network(squeezed), atol=1e-6)
    assert torch.allclose(gradient(model, data.images), gradient(network, squeezed), atol=1e-6)
    assert "FeatureSqueezing" in model.card.notes

    estimated = advkit.from_art(classifier(network, preprocessing_defences=Halving(0.5)))
    halved = (data.images * 4).round() / 8
    assert torch.allclose(gradient(estimated, data.images), gradient(network, halved) / 2, atol=1e-6)
    assert estimated.card.notes == ""

    encoding = ThermometerEncoding((0, 1), num_space=4, channels_first=True)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(256, 5))
    encoded = advkit.from_art(classifier(wide, preprocessing_defences=encoding))
    assert encoded.card.notes == ""  # ART says how to differentiate it
    assert gradient(encoded, data.images).abs().sum() > 0


def test_a_defended_model_is_evaluated_and_told_apart(small):
    network, data = small

    def defended(depth):
        squeezing = FeatureSqueezing((0, 1), bit_depth=depth)
        return advkit.from_art(advkit.to_art(network, shape=(1, 8, 8), preprocessing_defences=squeezing))

    result = advkit.evaluate(defended(3), data, advkit.Threat("linf", 0.2), "pgd")
    assert any("FeatureSqueezing" in note for note in result.notes)
    assert result.robust_accuracy < 0.5
    assert defended(3).hash == defended(3).hash != defended(4).hash


def test_what_it_does_not_take(small):
    network, _ = small
    with pytest.raises(ModelError, match="BlackBoxClassifier"):
        advkit.from_art(BlackBoxClassifier(lambda x: x, (1, 8, 8), 5))
    with pytest.raises(ModelError, match="HighConfidence"):
        advkit.from_art(classifier(network, postprocessing_defences=HighConfidence()))
    smoothed = PyTorchRandomizedSmoothing(
        network, nn.CrossEntropyLoss(), (1, 8, 8), 5, clip_values=(0.0, 1.0), device_type="cpu"
    )
    with pytest.raises(ModelError, match="PyTorchRandomizedSmoothing"):  # it is not what its network says
        advkit.from_art(smoothed)
