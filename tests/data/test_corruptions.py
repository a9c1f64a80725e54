"""Corruptions agree with other implementations of the published definitions, and depend on nothing else."""

import colorsys
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from scipy.stats import norm, poisson

from advkit.core import levels, rng
from advkit.core.errors import ConfigError, DataError
from advkit.data.corruption import CORRUPTIONS, SEVERITIES, SIDES, corrupted, family_of

NAMES = [entry.name for entry in CORRUPTIONS]
DRAWN = {
    *(
        "gaussian-noise",
        "shot-noise",
        "impulse-noise",
        "speckle-noise",
        "glass-blur",
        "motion-blur",
        "elastic",
    ),
    *("rotate", "shear", "translate"),
}
SHAPES = {"mnist-c": (1, 28, 28), "cifar-10-c": (3, 32, 32), "imagenet-c": (3, 224, 224)}


def smooth(shape, count=2, seed=5):
    """Images with edges and slopes, of 8-bit levels."""
    x = rng.uniform(rng.keys(seed, "images", torch.arange(count)), shape)
    x = torch.from_numpy(ndimage.gaussian_filter(x.numpy(), (0, 0, 2, 2)))
    x = ((x - x.amin((1, 2, 3), keepdim=True)) / (x.amax() - x.amin()) * 1.3).clamp(0, 1)
    return (x * 255).round() / 255


def plane_by_plane(x, change):
    return torch.from_numpy(np.stack([[change(plane) for plane in image] for image in x.double().numpy()]))


def key(name, severity, seed=0):
    return rng.keys(seed, f"corruption/{name}", torch.tensor([0]), severity)


def same(x, name, family, change, *, tables):
    """The corruption of the first image is ``change(constant)``, to one level, in all severities."""
    for severity, constant in zip(SEVERITIES, tables[family], strict=True):
        ours = corrupted(x[:1], torch.tensor([0]), name, severity, family=family)
        theirs = (change(constant, severity).clamp(0, 1) * 255).round()
        apart = (ours * 255 - theirs).abs()
        assert apart.max() < 1.1 and apart.mean() < 0.3, severity


def either(large, small=None, mnist=None):
    return {"imagenet-c": large, "cifar-10-c": small or large, "mnist-c": mnist or large}


@pytest.fixture(params=SHAPES)
def family(request):
    return request.param


@pytest.fixture
def x(family):
    return smooth(SHAPES[family], 1)


def test_gaussian_blur(x, family):
    tables = either((1, 2, 3, 4, 6), (0.4, 0.6, 0.7, 0.8, 1))
    same(
        x,
        "gaussian-blur",
        family,
        lambda sigma, _: plane_by_plane(x, lambda p: ndimage.gaussian_filter(p, sigma, mode="nearest")),
        tables=tables,
    )


def test_defocus_blur(x, family):
    def change(constant, _):
        radius, sigma = constant
        reach, wide = (8, 1) if radius <= 8 else (radius, 2)
        at = np.arange(-reach, reach + 1)
        disc = (at[:, None] ** 2 + at**2 <= radius**2).astype(float)
        taps = np.exp(-(np.arange(-wide, wide + 1) ** 2) / (2 * sigma**2))
        kernel = ndimage.correlate(disc / disc.sum(), np.outer(taps, taps) / taps.sum() ** 2, mode="mirror")
        return plane_by_plane(x, lambda p: ndimage.correlate(p, kernel, mode="mirror"))

    large = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
    small = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))
    same(x, "defocus-blur", family, change, tables=either(large, small))


def test_zoom_blur(x, family):
    def change(factors, _):
        def zoomed(plane, factor):
            n = len(plane)
            kept = math.ceil(n / factor)
            top = (n - kept) // 2
            big = ndimage.zoom(plane[top : top + kept, top : top + kept], factor, order=1)
            top = (len(big) - n) // 2
            return big[top : top + n, top : top + n]

        return plane_by_plane(x, lambda p: (p + sum(zoomed(p, f) for f in factors)) / (len(factors) + 1))

    def reach(*ends):
        return tuple(np.arange(1, *end) for end in ends)

    large = reach((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
    small = reach((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))
    same(x, "zoom-blur", family, change, tables=either(large, small))


def test_motion_blur(x, family):
    def change(constant, severity):
        radius, sigma = constant
        angle = math.radians(float(rng.uniform(key("motion-blur", severity), (1,))) * 90 - 45)
        steps = np.arange(2 * radius + 1)
        weights = np.exp(-(steps**2) / (2 * sigma**2))
        across, down = (
            np.ceil(steps * part - 0.5).astype(int) for part in (math.cos(angle), math.sin(angle))
        )

        def along(plane):
            reach = 2 * radius + 2
            wide = np.pad(plane, reach, mode="edge")
            h, w = plane.shape
            shifted = [
                weight * wide[reach + dy : reach + dy + h, reach + dx : reach + dx + w]
                for weight, dx, dy in zip(weights, across, down, strict=True)
            ]
            return sum(shifted) / weights.sum()

        return plane_by_plane(x, along)

    large = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
    small = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))
    same(x, "motion-blur", family, change, tables=either(large, small))


@pytest.mark.parametrize("family", ["mnist-c", "cifar-10-c"])
def test_glass_blur(family):
    """Exchanges one after the other, from the lower right."""
    x = smooth((1, *SHAPES[family][1:]), 1)

    def change(constant, severity):
        sigma, reach, rounds = constant
        plane = np.floor(
            ndimage.gaussian_filter(x[0, 0].double().numpy(), sigma, mode="nearest") * 255 + 1e-3
        )
        n = len(plane)
        for number in range(rounds):
            shape = (n - 2 * reach, n - 2 * reach)
            moves = rng.integers(rng.step(key("glass-blur", severity), 2 * number), (*shape, 2), 2 * reach)[0]
            coins = rng.uniform(rng.step(key("glass-blur", severity), 2 * number + 1), shape)[0]
            for i, row in enumerate(range(n - reach, reach, -1)):
                for j, column in enumerate(range(n - reach, reach, -1)):
                    down, right = (moves[i, j] - reach).tolist()
                    if family != "mnist-c" or coins[i, j] < 0.5:
                        there = row + down, column + right
                        plane[row, column], plane[there] = plane[there], plane[row, column]
        return torch.from_numpy(ndimage.gaussian_filter(plane / 255, sigma, mode="nearest"))

    large = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
    small = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))
    same(x, "glass-blur", family, change, tables=either(large, small))


def test_contrast(x, family):
    tables = either((0.4, 0.3, 0.2, 0.1, 0.05), (0.75, 0.5, 0.4, 0.3, 0.15))
    same(
        x,
        "contrast",
        family,
        lambda kept, _: plane_by_plane(x, lambda p: p.mean() + kept * (p - p.mean())),
        tables=tables,
    )


def hsv(x, change):
    """Images whose hue, saturation and value were changed."""
    flat = x.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).reshape(-1, 3).tolist()
    done = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in flat]
    out = torch.tensor(done).view(len(x), *x.shape[2:], 3).permute(0, 3, 1, 2)
    return out[:, : x.shape[1]]


@pytest.mark.parametrize("family", ["mnist-c", "cifar-10-c"])
def test_brightness(family):
    x = smooth(SHAPES[family], 1)
    x[..., :5, :5] = 0
    tables = either((0.1, 0.2, 0.3, 0.4, 0.5), (0.05, 0.1, 0.15, 0.2, 0.3))
    same(
        x,
        "brightness",
        family,
        lambda more, _: hsv(x, lambda h, s, v: (h, s, min(1, v + more))),
        tables=tables,
    )


@pytest.mark.parametrize("family", ["imagenet-c", "cifar-10-c"])
def test_saturate(family):
    x = smooth((3, 32, 32), 1)
    x[..., :5, :5], x[..., 5:9, :5] = 0, 0.5  # black and grey
    large = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))
    small = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))
    same(
        x,
        "saturate",
        family,
        lambda c, _: hsv(x, lambda h, s, v: (h, min(1, s * c[0] + c[1]), v)),
        tables=either(large, small),
    )


def by_pillow(x, change):
    array = (x[0] * 255).byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(array if x.shape[1] == 3 else array[..., 0])
    changed = np.asarray(change(image)).reshape(*x.shape[2:], -1)
    return torch.from_numpy(changed.copy()).permute(2, 0, 1)[None] / 255


def test_jpeg(x, family):
    def compressed(image, quality):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    tables = either((25, 18, 15, 10, 7), (80, 65, 58, 50, 40))
    same(x, "jpeg", family, lambda q, _: by_pillow(x, lambda image: compressed(image, q)), tables=tables)


def test_pixelate(x, family):
    def coarse(image, share):
        box = Image.Resampling.BOX
        return image.resize([int(side * share) for side in image.size], box).resize(image.size, box)

    tables = either((0.6, 0.5, 0.4, 0.3, 0.25), (0.95, 0.9, 0.85, 0.75, 0.65))
    same(x, "pixelate", family, lambda c, _: by_pillow(x, lambda image: coarse(image, c)), tables=tables)


@pytest.mark.parametrize("channels", [2, 4])
def test_other_numbers_of_channels_are_grey_images(channels):
    x = smooth((channels, 30, 40))
    for name in ("jpeg", "pixelate"):
        done = corrupted(x, torch.arange(2), name, 3)
        for channel in range(channels):
            alone = corrupted(x[:, channel : channel + 1], torch.arange(2), name, 3, family="cifar-10-c")
            assert torch.equal(done[:, channel : channel + 1], alone)


def test_elastic(x, family):
    def change(constant, severity):
        factor, sigma, most = constant
        n = x.shape[2]
        drawn = [
            2 * rng.uniform(rng.step(key("elastic", severity), k), shape)[0].double().numpy() - 1
            for k, shape in enumerate([(3, 2), (1, n, n), (1, n, n)])
        ]
        arm = n // 3
        points = n // 2 + arm * np.array([[1, 1], [1, -1], [-1, -1]])
        back = np.linalg.solve(np.c_[points + most * drawn[0], np.ones(3)], points)
        down, right = np.mgrid[:n, :n]
        to = np.stack([right, down, np.ones((n, n))], -1) @ back
        dx, dy = (
            factor * ndimage.gaussian_filter(field[0], sigma, mode="reflect", truncate=3)
            for field in drawn[1:]
        )
        borders = ("grid-constant", "constant") if family == "mnist-c" else ("mirror", "reflect")

        def distorted(plane):
            plane = ndimage.map_coordinates(plane, [to[..., 1], to[..., 0]], order=1, mode=borders[0])
            return ndimage.map_coordinates(plane, [down + dy, right + dx], order=1, mode=borders[1])

        return plane_by_plane(x, distorted)

    def sides(side, *rows):
        return tuple(tuple(side * part for part in row) for row in rows)

    wide = ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
    small = ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))
    same(x, "elastic", family, change, tables=either(sides(244, *wide), sides(32, *small), sides(28, *wide)))


GEOMETRIC = {
    "rotate": lambda c, s: ([[math.cos(c), -math.sin(c * s[0])], [math.sin(c * s[0]), math.cos(c)]], (0, 0)),
    "shear": lambda c, s: ([[1, -math.sin(c * s[0])], [0, math.cos(c)]], (0, 0)),
    "scale": lambda c, s: ([[1 / c, 0], [0, 1 / c]], (0, 0)),
    "translate": lambda c, s: ([[1, 0], [0, 1]], (c * s[0], c * s[1])),
}


@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometric(name):
    x = smooth((1, 28, 28), 1)
    radians = (0.2, 0.4, 0.6, 0.8, 1.0)
    tables = {"scale": (0.9, 0.8, 0.7, 0.6, 0.5), "translate": (1, 2, 3, 4, 5)}

    def change(constant, severity):
        signs = rng.signs(key(name, severity), (2,))[0].tolist()
        (to, by), middle = GEOMETRIC[name](constant, signs), np.full(2, 13.5)
        across = np.array(to)[::-1, ::-1]  # rows and columns for x and y
        offset = middle - across @ middle + np.array(by)[::-1]
        return plane_by_plane(
            x, lambda p: ndimage.affine_transform(p, across, offset, order=1, mode="grid-constant")
        )

    same(x, name, "mnist-c", change, tables=either(tables.get(name, radians)))


def test_both_directions_occur():
    x = smooth((1, 28, 28), 1).expand(40, -1, -1, -1)
    for name, ways in {"rotate": 2, "shear": 2, "translate": 4}.items():
        assert len({bytes(image.numpy()) for image in corrupted(x, torch.arange(40), name, 2)}) == ways


@pytest.mark.parametrize("family", SIDES)
def test_noise(family):
    """Moments of a value of 0.4, and what becomes of black and white."""
    x, ids = torch.full((4, 1, 224, 224), 102 / 255), torch.arange(4)
    gaussian = either((0.08, 0.12, 0.18, 0.26, 0.38), (0.04, 0.06, 0.08, 0.09, 0.10))[family]
    speckle = either((0.15, 0.2, 0.35, 0.45, 0.6), (0.06, 0.1, 0.12, 0.16, 0.2))[family]
    impulse = either((0.03, 0.06, 0.09, 0.17, 0.27), (0.01, 0.02, 0.03, 0.05, 0.07))[family]
    photons = either((60, 25, 12, 5, 3), (500, 250, 100, 75, 50))[family]
    for severity in SEVERITIES:
        for name, sigma in (
            ("gaussian-noise", gaussian[severity - 1]),
            ("speckle-noise", 0.4 * speckle[severity - 1]),
        ):
            noise = corrupted(x, ids, name, severity, family=family) - x
            below = (noise <= -sigma + 0.5 / 255).float().mean()  # what is cut off at 0 changes no quantile
            level = math.floor(-sigma * 255 + 0.5)
            assert below == pytest.approx(norm.cdf((level + 0.5) / 255 / sigma), abs=0.01)
            assert (noise > 0.5 / 255).float().mean() == pytest.approx(norm.sf(0.5 / 255 / sigma), abs=0.01)
        share = impulse[severity - 1]
        dead = corrupted(x, ids, "impulse-noise", severity, family=family)
        assert [(dead == end).float().mean() for end in (0, 1)] == pytest.approx([share / 2] * 2, rel=0.05)
        assert ((dead == 0) | (dead == 1) | (dead == x)).all()
        light = corrupted(x, ids, "shot-noise", severity, family=family)
        count = photons[severity - 1]
        for most in {0, 1, count // 3, 2 * count // 5}:
            share = (light * count < most + 0.5).float().mean()
            assert share == pytest.approx(poisson.cdf(most, 0.4 * count), abs=0.01)
        assert ((light * count - (light * count).round()).abs() <= count / 509).all()
        if count >= 12:  # else much is cut off at 1
            assert light.mean() == pytest.approx(0.4, rel=0.01)
            assert light.var() * count == pytest.approx(0.4, rel=0.05)
    black = torch.zeros(1, 1, 8, 8)
    for name in ("shot-noise", "speckle-noise"):
        assert not corrupted(black, torch.tensor([0]), name, 5, family=family).any()


@pytest.mark.parametrize("name", NAMES)
def test_depends_on_seed_name_id_and_severity_alone(name):
    x, ids = smooth((3, 16, 20), 6), torch.tensor([4, 9, 2, 7, 30, 1])
    whole = corrupted(x, ids, name, 3)
    order = torch.tensor([3, 0, 5])
    assert torch.equal(corrupted(x[order], ids[order], name, 3), whole[order])
    assert torch.equal(corrupted(x[4:5], ids[4:5], name, 3), whole[4:5])
    assert not torch.equal(corrupted(x, ids, name, 4), whole)
    one = x[:1].expand(6, -1, -1, -1)
    others = [corrupted(one, ids, name, 3), corrupted(one, ids, name, 3, seed=1)]
    alike = [all(torch.equal(image, each[0]) for image in each) for each in others]
    assert alike == [name not in DRAWN] * 2
    assert torch.equal(*others) == (name not in DRAWN)


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (3, 8, 11), (1, 28, 28), (4, 24, 40), (3, 32, 32), (3, 224, 224)]
)
def test_all_sizes(shape):
    x = smooth(shape, 2)
    for entry in CORRUPTIONS:
        if entry.facts["colour"] and shape[0] != 3:
            continue
        for severity in (1, 5):
            done = corrupted(x, torch.arange(2), entry.name, severity)
            assert done.shape == x.shape and done.dtype == torch.float32
            assert levels.are_levels(done)
            assert 0 <= done.min() <= done.max() <= 1


def test_lengths_grow_with_the_image():
    x = smooth((1, 56, 56), 1)
    twice = plane_by_plane(x, lambda p: ndimage.gaussian_filter(p, 2.0, mode="nearest"))
    assert (
        corrupted(x, torch.tensor([0]), "gaussian-blur", 1, family="mnist-c") - twice
    ).abs().max() < 1 / 255
    small = smooth((3, 16, 40), 1)
    for family, sigma in (("cifar-10-c", 1.0), ("mnist-c", 6 * 16 / 28), ("imagenet-c", 6 * 16 / 224)):
        same = plane_by_plane(small, lambda p, s=sigma: ndimage.gaussian_filter(p, s, mode="nearest"))
        done = corrupted(small, torch.tensor([0]), "gaussian-blur", 5, family=family)
        assert (done - same).abs().max() < 1 / 255
    moved = corrupted(x, torch.tensor([0]), "translate", 1, family="imagenet-c")
    signs = rng.signs(key("translate", 1), (2,))[0].long().tolist()
    there = torch.roll(x, (-2 * signs[1], -2 * signs[0]), (2, 3))
    assert torch.equal(moved[..., 2:-2, 2:-2], there[..., 2:-2, 2:-2])


def test_families():
    shapes = {(1, 48, 60): "mnist-c", (1, 49, 49): "cifar-10-c", (3, 28, 28): "cifar-10-c"}
    shapes |= {(3, 96, 200): "cifar-10-c", (3, 97, 97): "imagenet-c", (1, 224, 224): "imagenet-c"}
    assert {shape: family_of(shape) for shape in shapes} == shapes


def test_refusals():
    x, ids = torch.zeros(1, 1, 8, 8), torch.tensor([0])
    with pytest.raises(DataError):
        corrupted(x[..., :7], ids, "contrast", 1)
    for name, severity, family in [
        ("saturate", 1, None),
        ("contrast", 0, None),
        ("contrast", 6, None),
        ("contrast", 1, "cifar-c"),
        ("fog-of-war", 1, None),
    ]:
        with pytest.raises(ConfigError):
            corrupted(x, ids, name, severity, family=family)
