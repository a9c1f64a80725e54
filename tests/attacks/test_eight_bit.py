"""Images that a PNG file can hold."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from advkit.attacks.perturb import perturb
from advkit.core import images, rng
from advkit.core.errors import DataError
from advkit.core.levels import are_levels, as_image, round_inside
from advkit.core.threat import Threat

THREATS = [
    Threat("linf", "8/255"),
    *(Threat(*one) for one in (("linf", 0.05), ("l2", 0.5), ("l1", 3.0), ("l0", 6))),
]


def rounded(data, model):
    """The data as 8-bit levels, with the model's answers as labels."""
    x = as_image(images.to_uint8(data.images))
    with torch.no_grad():
        return replace(data, images=x, labels=model(x).argmax(1))


LEVELS = np.arange(256, dtype=np.float32) / np.float32(255)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_values_on_a_level_stay_when_others_are_rounded_toward_the_original(norm):
    """All budget is spent, so that .6 of a level may not become one."""
    for seed in range(20):
        x0 = 40 + rng.integers(torch.tensor([seed]), (1, 4, 4), 170)
        change = torch.tensor([0, 1, -1, 0.6, -0.6, 5, -3, 0.4] * 2).view(1, 1, 4, 4)
        original, x = as_image(x0), (x0 + change) / 255
        threat = Threat(norm, float(Threat(norm, 1).distance(x, original)))
        near = (round_inside(x, original, threat) * 255).round() - x0
        assert near.flatten().tolist() == change.trunc().flatten().tolist()


def test_levels_are_the_same_bits_everywhere_and_what_a_png_file_gives_back():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    x = as_image(levels)
    assert np.array_equal(x.numpy().ravel(), LEVELS) and x.dtype == torch.float32
    read = np.array(Image.open(io.BytesIO(images.png_bytes(x))))
    assert torch.equal(as_image(torch.from_numpy(read)), x[0])
    assert torch.equal(images.to_uint8(x), levels)
    for off, still in ((0.0, True), (0.7e-4, True), (1.4e-4, False), (0.5, False)):
        assert are_levels(x + off / 255 * (levels == 3)) == are_levels(x - off / 255 * (levels == 3)) == still


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_successes_are_of_8_bits_and_still_succeed(threat, convolutional):
    model, data = convolutional
    data = rounded(data, model)
    name = "pgd" if threat.norm in ("linf", "l2") else "noise"
    x = perturb(model, data.images, data.labels, threat, name, eight_bit=True).x
    free = perturb(model, data.images, data.labels, threat, name).x
    assert are_levels(x) and not (threat.norm == "l2" and are_levels(free))
    assert threat.contains(x, data.images).all()
    with torch.no_grad():
        adversarial_found, fallen_free = (model(each).argmax(1) != data.labels for each in (x, free))
    assert 0 < adversarial_found.sum() <= fallen_free.sum()


def test_what_rounding_undoes_does_not_count(linear):
    """A budget of less than half a level reaches no other level."""
    model, data = linear
    x = as_image(images.to_uint8(data.images))
    with torch.no_grad():
        model.bias -= float((model(x)[:, 1]).sort().values[20])  # some images now lie on the boundary itself
        labels = model(x).argmax(1)
    found = perturb(model, x, labels, Threat("linf", "0.4/255"), eight_bit=True).x
    free = perturb(model, x, labels, Threat("linf", "0.4/255")).x
    with torch.no_grad():
        assert (model(free).argmax(1) != labels).any()
        assert torch.equal(found, x) and (model(found).argmax(1) == labels).all()


def test_originals_between_the_levels_are_refused(convolutional):
    model, data = convolutional
    with pytest.raises(DataError):
        perturb(model, data.images, data.labels, THREATS[0], eight_bit=True)
