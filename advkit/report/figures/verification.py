"""Certified margins, and certified accuracy by radius."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from advkit.report import plots
from advkit.report.plots import GREY, RED
from advkit.verify.certification.result import CertificationResult
from advkit.verify.smoothing.result import SmoothingResult

COLOURS = {"interval": "#1b5e20", "linear": "#1565c0", "optimised": "#6a1b9a"}
COLOURS |= {"complete": "#e65100", "undecided": "#b0b0b0"}
BINS = 40
SHOWN = 99
"""Percentile up to which the margins are drawn; below 0 they are as far as above it."""


def write_margins(path: Path, result: CertificationResult) -> None:
    """A PNG: a histogram of the margins by what proved them, above the share of all images whose margin is
    at least so large."""
    groups = {name: np.array([]) for name in COLOURS}
    for name in groups:
        groups[name] = np.array(
            [
                verdict.margin
                for verdict in result.verdicts
                if verdict.margin is not None
                and name == (verdict.method if verdict.status == "certified" else "undecided")
            ]
        )
    every = np.sort(np.concatenate(list(groups.values())))
    high = max(0.0, float(np.percentile(every, SHOWN)))
    low = min(0.0, max(float(every[0]), -high))
    width = (high - low or 1.0) / BINS
    edges = width * np.arange(np.floor(low / width), np.ceil(high / width) + 1)  # with an edge at 0
    figure, (above, below) = plots.figure((6.5, 4.8), 2, sharex=True)
    bottom = np.zeros(len(edges) - 1)
    for name, margins in groups.items():
        if len(margins):
            counts, _ = np.histogram(margins.clip(edges[0], edges[-1]), edges)
            said = f"{'proved by ' if name != 'undecided' else ''}{name} ({len(margins):,})"
            above.bar(
                edges[:-1], counts, np.diff(edges), bottom, align="edge", color=COLOURS[name], label=said
            )
            bottom += counts
    above.set(
        ylabel="images",
        title=f"certified margins: {result.data.name} {result.data.split}, {result.threat.norm} eps "
        f"{result.threat.eps:.4g}, n = {result.n:,}",
    )
    share = 100 * np.arange(len(every), 0, -1) / result.n
    below.step(every, share, where="pre", color="#1565c0")
    below.plot([0], [100 * result.certified_accuracy], "o", color="#b00020", label=_said(result))
    below.set(
        xlabel="margin: the least by which the true logit leads on the whole ball (proved)",
        ylabel="images with at least\nthis margin, in %",
        xlim=(edges[0], edges[-1]),
        ylim=(0, 101),
    )
    for axis in (above, below):
        axis.axvline(0, color="#606060", linewidth=1.2, linestyle="--")
        axis.grid(alpha=0.3)
        axis.legend(loc="best", fontsize=9)
    plots.save(figure, path)


def _said(result: CertificationResult) -> str:
    certified, clean = (100 * share for share in (result.certified_accuracy, result.clean_accuracy))
    return f"certified accuracy {certified:.1f} % (of {clean:.1f} % clean)"


def write_radii(path: Path, result: SmoothingResult) -> None:
    """A PNG of the certified accuracy by l2 radius, as a step curve with its 95 % interval."""
    right = 1.04 * result.largest_radius
    radii = np.array(result.radii)
    places = np.concatenate([[0.0], radii, [right]])
    left = np.concatenate([result.right - np.arange(len(radii) + 1), [0]])
    figure, axis = plots.figure((6.5, 3.9))
    plots.steps(axis, places, left, result.n, "certified accuracy")
    axis.axvline(
        result.average_radius, color=RED, linewidth=1.2, label=f"average radius {result.average_radius:.3f}"
    )
    axis.axvline(
        result.largest_radius,
        color=GREY,
        linestyle="--",
        linewidth=1.2,
        label=f"most that {result.samples:,} samples certify: {result.largest_radius:.3f}",
    )
    axis.set(
        title=f"smoothed, sigma {result.sigma:g}: {result.data.name} {result.data.split}, n = {result.n:,}, "
        f"alpha {result.alpha:g}",
        xlabel="l2 radius",
        ylabel="accuracy in %",
        xlim=(0, right),
        ylim=(0, 101),
    )
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left", fontsize=9)
    plots.save(figure, path)
