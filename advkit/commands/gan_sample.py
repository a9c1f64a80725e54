"""Draw images from a trained generator."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import torch

from advkit.core import device as devices
from advkit.core import files, images
from advkit.core.context import Context
from advkit.core.errors import ConfigError, by_size
from advkit.data.load import load_data
from advkit.gan.gaussian import gaussians
from advkit.gan.labelled import sample_labelled
from advkit.gan.sample import sample as draw_images
from advkit.gan.settings import Sampling as Config
from advkit.models.header import SUFFIXES
from advkit.models.load import load_model
from advkit.report.outcome import Outcome, Picture

GROUP = "GANs"
EXAMPLE = (
    "advkit gan-sample --model digits-conv-gan-ema --n 400 --out digits.png\n"
    "advkit gan-sample --model advkit:digits-gan"
)


def run(config: Config, context: Context) -> Outcome:
    """Draws images from a generator into a grid (``.png``) or arrays (``.npz``).

    Raises:
        ModelError: no such model, or it is no generator.
        ConfigError: another suffix.
        OutputError: the file exists.
    """
    path = _image_file(config, context)
    device = str(devices.choose(context.device))
    if config.gaussian is not None:
        model = gaussians(load_data(config.gaussian, "train", root=context.data_dir)).to(device)
    else:
        model = load_model(config.source, role="generator", device=device)
    classifier = config.classifier and load_model(config.classifier, role="classifier", device=device)
    if config.labels and not classifier and model.card.classes is None:
        raise ConfigError(
            f"{config.source} is unconditional, so its images have no labels; name a classifier that "
            "labels them with --classifier, or leave --labels out"
        )
    columns = config.columns or math.ceil(math.sqrt(config.n))
    size = by_size(model.card.shape)
    result = {
        "model": {"name": config.source, "hash": model.hash, "architecture": model.card.architecture},
        "classifier": {"name": config.classifier, "hash": classifier.hash} if classifier else None,
        "n": config.n,
        "seed": config.seed,
        "shape": list(model.card.shape),
        "file": str(path),
    }
    if context.dry_run:
        sentence = f"{config.n:,} images ({size}) of {config.source}, seed {config.seed}, into {path}."
        return Outcome(title="what would be done", sentences=(sentence,), result=result)
    sentences: list[str] = []
    labels: torch.Tensor | None
    if classifier:
        drawn, labels, latents, tried = sample_labelled(
            model,
            classifier,
            config.n,
            confidence=config.confidence,
            seed=config.seed,
            progress=context.progress,
        )
        result["tried"] = tried
        sentences.append(
            f"Kept of {tried:,} images: those with a confidence of {config.classifier} of at least "
            f"{config.confidence:.0%}, the same number of each class."
        )
    else:
        drawn, latents = draw_images(model, config.n, config.seed, progress=context.progress)
        classes = model.card.classes
        labels = None if classes is None else torch.arange(config.n) % classes
    title = f"{config.n:,} images of {config.source}"
    if path.suffix == ".png":
        images.write_grid(path, drawn, min(columns, config.n))
        pictures = (Picture("generated images", path, f"{title}, seed {config.seed}."),)
        return Outcome(
            title=title, sentences=tuple(sentences), pictures=pictures, files=(path,), result=result
        )
    arrays = {"x": drawn.numpy(), "z": latents.numpy()}
    if labels is not None:
        arrays["y"] = labels.numpy()
        if names := (classifier or model).card.labels:
            arrays["class_names"] = np.array(names)
        sentences.append(f"Train on them with --extra-data npz:{path}")
    sentences.insert(0, f"x: {size} levels from 0 to 255 for each image; z: its latent vector.")
    files.write_arrays(path, **arrays)
    return Outcome(title=title, sentences=tuple(sentences), files=(path,), result=result)


def _image_file(config: Config, context: Context) -> Path:
    """Where to write, checked before the work begins."""
    path = context.out
    if path is None:
        name = Path(config.source).name
        for suffix in SUFFIXES:
            name = name.removesuffix(suffix)
        path = Path(re.sub(r"[^A-Za-z0-9._-]+", "-", name) + ".png")
    if path.suffix not in (".png", ".npz"):
        raise ConfigError(f"cannot write images as {path}: end its name with .png (a grid) or .npz (arrays)")
    files.refuse_to_replace(path, overwrite=context.overwrite)
    return path
