"""AugMix: its changes as Pillow makes them, its mixtures and its divergence by computations of their own."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy import ndimage
from torch.nn.functional import cross_entropy

from advkit.commands.train import run as train
from advkit.core import rng
from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.training.objective import Batch
from advkit.training.objectives.augmix import change, divergence, equalised
from advkit.training.settings import OrdinaryTraining


def images(count=4, shape=(1, 20, 24)):
    x = rng.uniform(rng.keys(1, "augmix", torch.arange(count)), shape)
    x = torch.from_numpy(ndimage.gaussian_filter(x.numpy(), (0, 0, 1, 1)))
    return (x * 255).round() / 255


def by_pillow(x, operation):
    done = [operation(Image.fromarray(plane)) for plane in (x * 255).round().byte()[:, 0].numpy()]
    return torch.from_numpy(np.stack([np.asarray(each) for each in done]))[:, None] / 255


def each(x, kind, strength, sign=1.0):
    full = torch.full((len(x),), float(strength))
    return change(x, torch.full((len(x),), kind), full, torch.full_like(full, sign))


def test_changes_of_values_are_pillow_s():
    x = images()
    assert (each(x, 5, 0.3) - by_pillow(x, ImageOps.autocontrast)).abs().max() * 255 <= 1
    assert torch.equal(each(x, 6, 0.3), by_pillow(x, ImageOps.equalize))
    for strength, bits in ((0.0, 4), (0.24, 4), (0.25, 3), (0.5, 2)):
        assert torch.equal(
            each(x, 7, strength), by_pillow(x, lambda image, b=bits: ImageOps.posterize(image, b))
        )
    for strength in (0.0, 0.2, 0.51, 1.0):
        limit = 256 - int(strength * 256)
        wanted = by_pillow(x, lambda image, at=limit: ImageOps.solarize(image, at))
        assert (each(x, 8, strength) - wanted).abs().max() < 1e-6


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_affine_changes(sign):
    x, strength = images(), 0.28
    turn = math.radians(sign * int(30 * strength))
    shear = sign * 0.3 * strength
    maps = [
        ([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]], (0, 0)),
        ([[1, shear], [0, 1]], (0, 0)),
        ([[1, 0], [shear, 1]], (0, 0)),
        ([[1, 0], [0, 1]], (sign * int(strength * 24 / 3), 0)),
        ([[1, 0], [0, 1]], (0, sign * int(strength * 20 / 3))),
    ]
    for kind, (matrix, by) in enumerate(maps):
        across = np.array(matrix)[::-1, ::-1]
        middle = np.array([9.5, 11.5])
        offset = middle - across @ middle + np.array(by)[::-1]
        wanted = [
            ndimage.affine_transform(plane, across, offset, order=1, mode="grid-constant")
            for plane in x[:, 0].numpy()
        ]
        assert (each(x, kind, strength, sign)[:, 0] - torch.from_numpy(np.stack(wanted))).abs().max() < 1e-5


def test_flat_images_and_no_change():
    flat = torch.full((2, 3, 8, 8), 0.4)
    assert torch.equal(each(flat, 5, 0.3), flat)
    assert (equalised(flat) - flat).abs().max() <= 0.5 / 255
    x = images()
    assert torch.equal(each(x, -1, 0.9), x)


def test_divergence():
    logits = 3 * torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)).double()
    p = logits.softmax(2).numpy()
    mean = p.mean(0)
    wanted = np.mean([[sum(a * np.log(a / b)) for a, b in zip(form, mean, strict=True)] for form in p])
    assert float(divergence(logits)) == pytest.approx(wanted)
    assert float(divergence(logits[:1].expand(3, -1, -1))) == pytest.approx(0, abs=1e-9)
    sure = torch.tensor([[[50.0, 0.0]], [[0.0, 50.0]]])
    assert float(divergence(sure)) == pytest.approx(math.log(2), rel=1e-5)


def test_mixtures_and_loss(make, objective, digits):
    """Row by row, with the draws that the source says: chains of one to three changes."""
    model, (x, y) = make(), digits.batch(torch.arange(12))
    batch = Batch(digits.ids[:12], 4, 10, seed=3)
    made = objective("augmix", chains=2, depth=3, severity=5.0, consistency=7.0)
    key = rng.keys(3, "augmix", batch.ids, 4)
    mixtures, depths = [], set()
    for number in (1, 2):
        rows = []
        for row in range(12):
            one = rng.step(key[row : row + 1], number)
            exponential = -torch.log1p(-rng.uniform(rng.step(one, 0), (2,)))[0]
            mixed = 0
            for chain in range(2):
                own, form = rng.step(one, 2 + chain), x[row : row + 1]
                depth = int(rng.integers(rng.step(own, 0), (1,), 3)) + 1
                depths.add(depth)
                for link in range(depth):
                    drawn = rng.step(own, 1 + link)
                    kind = rng.integers(rng.step(drawn, 0), (1,), 9)[:, 0]
                    strength = (0.1 + 4.9 * rng.uniform(rng.step(drawn, 1), (1,))[:, 0]) / 10
                    form = change(form, kind, strength, rng.signs(rng.step(drawn, 2), (1,))[:, 0])
                mixed = mixed + form * float(exponential[chain] / exponential.sum())
            share = float(rng.uniform(rng.step(one, 1), (1,)))
            rows.append((1 - share) * x[row : row + 1] + share * mixed)
        mixtures.append(torch.cat(rows))
        assert torch.allclose(made.mixture(x, rng.step(key, number)), mixtures[-1], atol=1e-6)
    assert depths == {1, 2, 3}
    logits = [model(form) for form in (x, *mixtures)]
    wanted = cross_entropy(logits[0], y) + 7 * divergence(torch.stack(logits))
    loss, shown = made.loss(model.eval(), x, y, batch)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-4)
    assert torch.allclose(shown, logits[0], atol=1e-5)
    assert made.passes == (3, 3)
    low, high = mixtures[0].min(), mixtures[0].max()
    assert low >= 0 and high <= 1 + 1e-6


def test_train_takes_objectives_without_an_attacker():
    plan = OrdinaryTraining(data="digits", arch="mlp", epochs=1, objective="augmix")
    assert train(plan, Context(dry_run=True)).result["config"]["objective"] == "augmix"
    assert (
        train(OrdinaryTraining(data="digits"), Context(dry_run=True)).result["config"]["objective"]
        == "standard"
    )
    with pytest.raises(ConfigError):
        train(plan.model_copy(update={"objective": "pgd"}), Context(dry_run=True))
