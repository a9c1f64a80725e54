"""Patches to print and to look at, and universal perturbations to look at."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from advkit.core import files, images
from advkit.report import plots
from advkit.trained_attacks.universal.change import Form, coverage
from advkit.trained_attacks.universal.result import PatchResult

DOTS_PER_INCH = 150
"""Of the picture to print: 600 pixels are 4 inches, or 10 cm."""


def write_print(path: Path, patch: Tensor, form: Form, pixels: int) -> None:
    """A PNG of a patch (C, h, w) to print: its pixels as squares, transparent outside its outline.

    Args:
        patch: in [0, 1].
        pixels: width of the picture.
    """
    levels = images.to_uint8(patch)
    centre = torch.arange(pixels).add(0.5) / pixels
    row = (centre * patch.shape[1]).long()
    column = (centre * patch.shape[2]).long()
    along = 2 * centre - 1
    cover = coverage(along[None, :], along[:, None], pixels / 2, form)
    shown = levels[:, row][:, :, column].expand(3, -1, -1)
    seen = torch.cat([shown, images.to_uint8(cover)[None]]).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(seen), "RGBA").save(
        buffer, format="PNG", optimize=True, dpi=(DOTS_PER_INCH, DOTS_PER_INCH)
    )
    files.write_bytes(path, buffer.getvalue())


def write_maps(path: Path, result: PatchResult) -> None:
    """A PNG of where in the image the patch works: a row for each classifier, a map for each size."""
    judged = result.classifiers
    count = len(judged[0].by_place)
    figure, axes = plots.figure((2.7 * count + 1.2, 2.9 * len(judged)), len(judged), count, squeeze=False)
    for row, classifier in enumerate(judged):
        for column, places in enumerate(classifier.by_place):
            axis = axes[row, column]
            share = 100 * np.array(places.hits) / places.n
            drawn = axis.imshow(share, vmin=0, vmax=100, cmap="viridis")
            for down, across in np.ndindex(*share.shape):
                value = share[down, across]
                color = "black" if value > 60 else "white"
                axis.text(across, down, f"{value:.0f}", ha="center", va="center", fontsize=7, color=color)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(f"diameter {places.scale:.2g} of the image", fontsize=9)
        axes[row, 0].set_ylabel(classifier.label, fontsize=9)
    figure.colorbar(drawn, ax=axes, label=f"seen as {result.target_name}, in %", shrink=0.8)
    plots.save(figure, path)


def write_perturbation(path: Path, change: Tensor) -> None:
    """A PNG of a perturbation (C, H, W): grey is nothing, white and black its largest values."""
    most = float(change.abs().max()) or 1.0
    shown = (0.5 + change / (2 * most)).clamp(0, 1)
    files.write_bytes(path, images.png_bytes(shown, zoom=max(1, 600 // change.shape[2])))
