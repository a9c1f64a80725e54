"""Whether corruptions agree with the published generators, to one grey level.

    python recipes/bench/corruptions.py mnist-c FOLDER/corruptions.py
    python recipes/bench/corruptions.py cifar-10-c FOLDER/ImageNet-C/create_c/make_cifar_c.py
    python recipes/bench/corruptions.py imagenet-c FOLDER/ImageNet-C/imagenet_c/imagenet_c/corruptions.py

The folders are those of github.com/google-research/mnist-c and github.com/hendrycks/robustness. Of the file,
the functions alone are run. It needs scikit-image, opencv-python-headless, and for motion blur wand with
ImageMagick 6. What a corruption draws at random (directions, angles, shifts) is given to the published
function; noise is not compared. The published functions are for the libraries of 2019, whose definitions the
two stand-ins below have:

- ``gaussian`` blurs both axes of grey images (with ``multichannel=True`` on two axes, the published code
  blurs columns only);
- ``AffineTransform`` shears as in scikit-image 0.15.

The published glass blur assigns views of colour images to each other, so copies pixels instead of exchanging
them; it is compared on grey images.
"""

from __future__ import annotations

import argparse
import ast
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from advkit.core import rng
from advkit.data.corruption import CORRUPTIONS, SEVERITIES, SIDES, corrupted
from advkit.data.load import load_data

THEIRS = {
    "gaussian-blur": "gaussian_blur",
    "defocus-blur": "defocus_blur",
    "glass-blur": "glass_blur",
    "motion-blur": "motion_blur",
    "zoom-blur": "zoom_blur",
    "brightness": "brightness",
    "contrast": "contrast",
    "saturate": "saturate",
    "jpeg": "jpeg_compression",
    "pixelate": "pixelate",
    "elastic": "elastic_transform",
    "rotate": "rotate",
    "shear": "shear",
    "scale": "scale",
    "translate": "translate",
}


class Numpy:
    """numpy with the names of 2019, and random numbers that are given."""

    float_, int = np.float64, int

    def __init__(self) -> None:
        self.random = types.SimpleNamespace()

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def fromstring(text: bytes, kind: Any) -> Any:
        """The bytes as an array."""
        return np.frombuffer(text, kind)


def gaussian(image: Any, sigma: float, multichannel: bool = False, **settings: Any) -> Any:
    """Blurs height and width, as it is meant."""
    from skimage.filters import gaussian as blurred

    return blurred(image, sigma=sigma, channel_axis=-1 if image.ndim == 3 else None, **settings)


def affine(scale: Any = (1, 1), rotation: float = 0, shear: float = 0, translation: Any = (0, 0)) -> Any:
    """As in scikit-image 0.15."""
    from skimage.transform import AffineTransform

    (sx, sy), (tx, ty) = scale, translation
    matrix = [
        [sx * np.cos(rotation), -sy * np.sin(rotation + shear), tx],
        [sx * np.sin(rotation), sy * np.cos(rotation + shear), ty],
        [0, 0, 1],
    ]
    return AffineTransform(np.array(matrix))


def published(path: Path) -> Any:
    """The functions and imports of a file."""
    from scipy import ndimage

    sys.modules["scipy.ndimage.interpolation"] = types.SimpleNamespace(  # type: ignore[assignment]
        map_coordinates=ndimage.map_coordinates
    )
    sys.modules.setdefault("pkg_resources", types.SimpleNamespace(resource_filename=None))  # type: ignore[arg-type]
    module = types.ModuleType("published")
    for node in ast.parse(path.read_text("utf-8")).body:
        wanted = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef
        if isinstance(node, wanted) or "argtypes" in ast.unparse(node):
            try:
                exec(compile(ast.Module([node], []), str(path), "exec"), module.__dict__)
            except (ImportError, NameError, AttributeError) as fault:
                print(f"left out: {ast.unparse(node).splitlines()[0]} ({fault})")
    module.__dict__.update(np=Numpy(), gaussian=gaussian)
    if "transform" in module.__dict__:
        from skimage.transform import warp

        module.__dict__["transform"] = types.SimpleNamespace(AffineTransform=affine, warp=warp)
    return module


def draws(module: Any, name: str, key: torch.Tensor, scale: float, constant: Any, shape: Any) -> None:
    """Makes the published function draw what this package does."""
    height, width = shape[1:]
    if name in ("rotate", "shear"):
        module.np.random.choice = lambda *_: rng.signs(key, (1,))[0].numpy()
    elif name == "translate":
        module.np.random.choice = lambda *_: rng.signs(key, (2,))[0].numpy()
    elif name == "motion-blur":
        module.np.random.uniform = lambda *_: float(90 * rng.uniform(key, (1,))[0, 0] - 45)
    elif name == "elastic":
        numbers = iter(range(3))

        def uniform(low: float, high: float, size: Any) -> Any:
            drawn = rng.uniform(rng.step(key, next(numbers)), tuple(size))[0].numpy()
            return low + (high - low) * drawn

        module.np.random.uniform = uniform
    elif name == "glass-blur":
        reach, rounds = constant[1:]
        moves, coins = [], []
        for number in range(rounds):
            size = (height - 2 * reach, width - 2 * reach)
            moves += rng.integers(rng.step(key, 2 * number), (*size, 2), 2 * reach)[0].view(-1, 2).tolist()
            coins += (rng.uniform(rng.step(key, 2 * number + 1), size)[0] < 0.5).flatten().tolist()
        place = iter(range(len(moves)))
        at = [-1]

        def choice(*_: Any) -> Any:
            at[0] = next(place)
            return [coins[at[0]]]

        module.np.random.choice = choice
        module.np.random.randint = lambda *_, **__: [each - reach for each in moves[at[0]][::-1]]


def images(family: str, count: int) -> torch.Tensor:
    """(count, C, H, W) float: of MNIST and CIFAR-10 the first ones, else parts of photographs."""
    if family != "imagenet-c":
        data = load_data("mnist" if family == "mnist-c" else "cifar10", "test")
        return data.batch(torch.arange(count))[0]
    from sklearn.datasets import load_sample_images

    photos = load_sample_images().images
    tops = rng.integers(torch.arange(count), (2,), 200).tolist()
    cut = [photos[i % 2][top : top + 224, left : left + 224] for i, (top, left) in enumerate(tops)]
    return torch.tensor(np.stack(cut)).permute(0, 3, 1, 2) / 255


def main() -> None:
    """Compares every corruption in every severity."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("family", choices=SIDES)
    parser.add_argument("file", type=Path)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    module = published(asked.file)
    x = images(asked.family, asked.images)
    ids = torch.arange(len(x))
    for entry in CORRUPTIONS:
        name = entry.name
        if name not in THEIRS or THEIRS[name] not in module.__dict__ or asked.only not in name:
            continue
        grey = x.shape[1] == 1
        if (entry.facts["colour"] and grey) or (name == "glass-blur" and not grey):
            continue
        for severity in SEVERITIES:
            ours = (corrupted(x, ids, name, severity, family=asked.family) * 255).round().int()
            worst, beyond = 0, 0
            for row in range(len(x)):
                key = rng.keys(0, f"corruption/{name}", ids[row : row + 1], severity)
                constant = entry.facts["constants"][asked.family][severity - 1]
                draws(module, name, key, 1.0, constant, x.shape[1:])
                levels = (x[row] * 255).round().byte().permute(1, 2, 0).numpy()
                image = Image.fromarray(levels[..., 0] if grey else levels)
                try:
                    theirs = np.array(getattr(module, THEIRS[name])(image, severity), dtype=np.float64)
                except Exception as fault:
                    print(f"{name} {severity}: not compared ({type(fault).__name__}: {fault})")
                    break
                theirs = theirs.reshape(*x.shape[2:], -1).transpose(2, 0, 1).astype(np.uint8).astype(int)
                apart = np.abs(theirs - ours[row].numpy())
                worst, beyond = max(worst, int(apart.max())), beyond + int((apart > 1).sum())
            else:
                print(
                    f"{name} {severity}: at most {worst} levels, {beyond} of {x.numel()} values more than 1"
                )
                continue
            break


if __name__ == "__main__":
    main()
