"""Images that a PNG file can hold."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from advkit import images, rng
from advkit.attacks.perturb import perturb, robust_correct
from advkit.errors import DataError
from advkit.levels import are_levels, as_image, round_inside
from advkit.threat import Threat

THREATS = [
    Threat("linf", "8/255"),
    Threat("linf", 0.05),
    Threat("l2", 0.5),
    Threat("l1", 3.0),
    Threat("l0", 6),
]


def rounded(data, model):
    """The data as 8-bit levels, with the model's answers as labels."""
    x = as_image(images.to_uint8(data.images))
    with torch.no_grad():
        return replace(data, images=x, labels=model(x).argmax(1))


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_rounding_never_leaves_the_budget(threat):
    x0 = as_image(rng.integers(torch.arange(200), (1, 6, 6), 256))
    x = threat.project(x0 + 0.6 * threat.eps * rng.normal(torch.arange(200) + 1000, (1, 6, 6)), x0)
    near = round_inside(x, x0, threat)
    assert threat.contains(near, x0).all() and are_levels(near)
    assert (near - x).abs().max() < 1 / 255
    assert torch.equal(round_inside(x0, x0, threat), x0)


def test_a_budget_of_whole_levels_is_used_whole():
    threat = Threat("linf", "8/255")
    x0 = as_image(torch.full((1, 1, 2, 2), 100))
    assert torch.equal(round_inside(threat.project(x0 + 1, x0), x0, threat) * 255, torch.full_like(x0, 108))


def test_a_budget_between_levels_is_rounded_toward_the_original():
    threat = Threat("linf", 0.3)  # 76.5 levels
    x0 = as_image(torch.arange(256).view(1, 1, 16, 16))
    up, down = round_inside(threat.project(x0 + 1, x0), x0, threat), threat.project(x0 - 1, x0)
    assert torch.equal((up * 255).round(), (x0 * 255 + 76).clamp(max=255).round())
    assert torch.equal((round_inside(down, x0, threat) * 255).round(), (x0 * 255 - 76).clamp(min=0).round())


def test_every_level_is_what_a_png_file_gives_back():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    x = as_image(levels)
    read = np.array(Image.open(io.BytesIO(images.png_bytes(x))))
    assert torch.equal(as_image(torch.from_numpy(read)), x[0])
    assert torch.equal(images.to_uint8(x), levels)
    assert are_levels(x) and not are_levels(x + 0.001)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_successes_are_of_8_bits_and_still_succeed(threat, convolutional):
    model, data = convolutional
    data = rounded(data, model)
    name = "pgd" if threat.norm in ("linf", "l2") else "noise"
    x = perturb(model, data.images, data.labels, threat, name, eight_bit=True)
    free = perturb(model, data.images, data.labels, threat, name)
    assert are_levels(x) and not (threat.norm == "l2" and are_levels(free))
    assert threat.contains(x, data.images).all()
    with torch.no_grad():
        fallen, fallen_free = (model(each).argmax(1) != data.labels for each in (x, free))
    assert 0 < fallen.sum() <= fallen_free.sum()


def test_what_rounding_undoes_does_not_count(linear):
    """A budget of less than half a level reaches no other level."""
    model, data = linear
    x = as_image(images.to_uint8(data.images))
    with torch.no_grad():
        model.bias -= float((model(x)[:, 1]).sort().values[20])  # some images now lie on the boundary itself
        labels = model(x).argmax(1)
    found = perturb(model, x, labels, Threat("linf", "0.4/255"), eight_bit=True)
    free = perturb(model, x, labels, Threat("linf", "0.4/255"))
    with torch.no_grad():
        assert (model(free).argmax(1) != labels).any()
        assert torch.equal(found, x) and (model(found).argmax(1) == labels).all()


def test_the_verdict_does_not_depend_on_the_batch(convolutional):
    model, data = convolutional
    data = rounded(data, model)
    threat = Threat("linf", 0.03)
    runs = [
        perturb(model, data.images, data.labels, threat, batch_size=b, eight_bit=True) for b in (1, 7, 100)
    ]
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])
    assert robust_correct(model, data, threat)[0].all()


def test_originals_between_the_levels_are_refused(convolutional):
    model, data = convolutional
    with pytest.raises(DataError, match=r"no multiples of 1/255.*--eight-bit"):
        perturb(model, data.images, data.labels, THREATS[0], eight_bit=True)
