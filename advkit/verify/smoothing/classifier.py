"""The smoothed classifier: the most frequent class of a classifier under Gaussian noise."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from advkit.core.errors import ConfigError, DataError, ModelError
from advkit.core.modes import own_modes
from advkit.models.load import load_model
from advkit.verify.smoothing.noise import QUERIES, STREAM, Copies
from advkit.verify.smoothing.statistics import certified_radius, chance, least_share, refuse_too_few

ABSTAIN = -1
"""The prediction where the votes are not significant."""
PASS = 1000
"""Default number of noisy copies in a pass."""
SELECTION, SAMPLES, ALPHA = 100, 100_000, 0.001
"""Votes that select the class, votes that certify it, and the probability of error; as in the paper."""


@dataclass(frozen=True)
class Certificate:
    """The certificate of one image, which holds with probability 1 - alpha."""

    selected: int
    """The class that the first votes selected."""
    votes: int
    """Its count among the later votes."""
    share: float
    """Lower bound of its probability under noise."""
    radius: float
    """Within this l2 distance the smoothed classifier returns ``selected``; 0: it abstains."""

    @property
    def predicted(self) -> int:
        """The class, or `ABSTAIN`."""
        return self.selected if self.radius > 0 else ABSTAIN


class SmoothedClassifier(nn.Module):
    """g(x): the most frequent class of ``model`` on x + N(0, sigma^2) (Cohen et al., ICML 2019).

    It runs a frozen copy of the model in its own precision, in eval mode and channels-last; certificates are
    for this copy. Noisy copies are passed in whole blocks, so the noise of an image does not depend on other
    images or on the size of a pass.

    As a module it returns logits, the logarithms of vote shares, with the same noise for all images and all
    queries. So it is deterministic and can be evaluated like any model, by decision- or score-based attacks:
    votes have no gradient. It is an estimate of g from ``samples`` noisy copies, and an attack on it attacks
    this estimate; `certify` is about g itself and draws different noise for each image.

    Args:
        model: images (N, C, H, W), with pixels also outside [0, 1], to logits (N, K).
        sigma: standard deviation of the noise, for pixels in [0, 1].
        samples: votes when it is called as a module, and in `predict`.
        alpha: probability that a prediction or a certificate is wrong.
        seed: the noise follows from it and the image's id.
        batch_size: noisy copies in a pass; it changes the result by rounding at most.

    Raises:
        ConfigError: sigma, samples or alpha is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        sigma: float,
        *,
        samples: int = 1000,
        alpha: float = ALPHA,
        seed: int = 0,
        batch_size: int = PASS,
    ) -> None:
        super().__init__()
        if not (math.isfinite(sigma) and sigma > 0):
            raise ConfigError(f"sigma is the standard deviation of the noise, above 0 (got {sigma})")
        if samples < 1 or batch_size < 1:
            raise ConfigError(f"samples and batch_size are 1 or more (got {samples} and {batch_size})")
        if not 0 < alpha < 1:
            raise ConfigError(f"alpha is a probability between 0 and 1 (got {alpha})")
        with torch.no_grad():  # where TorchScript, too, copies leaves
            self.network: nn.Module = copy.deepcopy(model).to(memory_format=torch.channels_last).eval()
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)
        self.sigma, self.samples, self.alpha, self.seed = float(sigma), samples, alpha, seed
        self.batch_size = batch_size
        # Part of the state, so that different settings have different hashes.
        settings = repr((self.sigma, samples, seed)).encode()
        self.register_buffer("settings", torch.tensor(list(settings), dtype=torch.uint8))
        super().train(False)

    def train(self, mode: bool = True) -> Self:
        """Has no effect: it stays in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(N, K) logarithms of vote shares, with half a vote for classes without one."""
        each = [
            self.votes(Copies(image, self.sigma, seed=self.seed, stream=QUERIES, sample=0), self.samples)
            for image in x
        ]
        votes = torch.stack(each)
        _refuse_lost(votes, self.samples)
        return (votes.float().clamp_min(0.5) / self.samples).log()

    def votes(self, copies: Copies, count: int, report: Callable[[int], None] | None = None) -> Tensor:
        """(K,) int64: votes for each class among the next ``count`` copies. Logits that are not finite do not
        count. Nothing here synchronises with the device.

        Args:
            copies: of one image.
            count: number of copies.
            report: called after each pass with the number of copies so far.
        """
        total: Tensor | None = None
        done = 0
        for x in copies.passes(count, self.batch_size):
            logits = self.network(x)[: count - done]
            done += len(logits)
            voted = torch.where(logits.isfinite().all(1), logits.argmax(1), ABSTAIN)
            counted = (voted[:, None] == torch.arange(logits.shape[1], device=x.device)).sum(0)
            total = counted if total is None else total + counted
            if report is not None:
                report(done)
        assert total is not None
        return total

    @torch.no_grad()
    def predict(self, x: Tensor, ids: Tensor | None = None) -> Tensor:
        """The most frequent class of ``samples`` votes, or `ABSTAIN` where a two-sided binomial test at alpha
        finds no significant lead over the next one (PREDICT in the paper).

        Args:
            x: (N, C, H, W) images.
            ids: (N,) of the samples, which the noise follows; by default 0 to N - 1.

        Returns:
            (N,) int64 on the CPU. The probability of a class other than g(x) is at most alpha.
        """
        found = []
        for image, sample in zip(x, _ids(x, ids), strict=True):
            votes = self.votes(self.copies(image, sample), self.samples)
            _refuse_lost(votes, self.samples)
            (first, second), classes = (part.tolist() for part in votes.topk(2))
            found.append(classes[0] if chance(first, second) <= self.alpha else ABSTAIN)
        return torch.tensor(found, dtype=torch.int64)

    def certify(
        self,
        x: Tensor,
        ids: Tensor | None = None,
        *,
        selection: int = SELECTION,
        samples: int = SAMPLES,
    ) -> list[Certificate]:
        """A certificate for each image (CERTIFY in the paper): some votes select the class, others give a
        lower bound of its probability.

        Args:
            x: (N, C, H, W) images.
            ids: (N,) of the samples, which the noise follows; by default 0 to N - 1.
            selection: votes that select the class.
            samples: votes that bound its probability.

        Raises:
            ConfigError: too few samples to certify anything.
        """
        refuse_too_few(samples, self.alpha, self.sigma)
        if selection < 1:
            raise ConfigError(f"at least 1 vote has to select the class (got {selection})")
        return [self.certify_one(*one, selection, samples) for one in zip(x, _ids(x, ids), strict=True)]

    @torch.no_grad()
    def certify_one(
        self,
        image: Tensor,
        sample: int,
        selection: int,
        samples: int,
        report: Callable[[int], None] | None = None,
    ) -> Certificate:
        """The certificate of one image (C, H, W); ``report`` is called with the number of votes so far."""
        copies = self.copies(image, sample)
        first = self.votes(copies, selection)
        votes = self.votes(copies, samples, report)  # of later blocks: no copy votes in both
        _refuse_lost(first, selection)
        _refuse_lost(votes, samples)
        selected = int(first.argmax())
        share = least_share(int(votes[selected]), samples, self.alpha)
        return Certificate(selected, int(votes[selected]), share, certified_radius(share, self.sigma))

    def copies(self, image: Tensor, sample: int) -> Copies:
        """Noisy copies of the image (C, H, W) with this id."""
        return Copies(image, self.sigma, seed=self.seed, stream=STREAM, sample=sample)


@own_modes()
def smooth(
    model: nn.Module | str | Path, sigma: float, *, shape: tuple[int, int, int] | None = None, **settings: Any
) -> SmoothedClassifier:
    """The smoothed classifier of ``model``, which is not inspected here: `certify_smoothed` refuses one that
    is not deterministic.

    Args:
        model: a module from images (N, C, H, W) in [0, 1] to logits (N, K), or whatever `load_model` takes.
        sigma: standard deviation of the noise, for pixels in [0, 1]; best that of the model's training.
        shape: (channels, height, width), if the model does not define it.
        settings: ``samples``, ``alpha``, ``seed``, ``batch_size``, as `SmoothedClassifier` takes them.

    Raises:
        ModelError: there is no such model, or it is no classifier.
        ConfigError: a setting is out of range.
    """
    if isinstance(model, nn.Module):
        return SmoothedClassifier(model, sigma, **settings)
    return SmoothedClassifier(load_model(model, role="classifier", shape=shape), sigma, **settings)


def _ids(x: Tensor, ids: Tensor | None) -> list[int]:
    if x.dim() != 4 or not x.is_floating_point():
        raise DataError(
            f"images must be floats of shape (N, C, H, W), not {str(x.dtype).removeprefix('torch.')} of "
            f"{tuple(x.shape)}"
        )
    if ids is not None and len(ids) != len(x):
        raise DataError(f"there are {len(x)} images but {len(ids)} ids; give one id per image")
    return list(range(len(x))) if ids is None else [int(sample) for sample in ids]


def _refuse_lost(votes: Tensor, count: int) -> None:
    if bool((votes.sum(-1) != count).any()):
        raise ModelError(
            "the model gives NaN or infinite logits on noisy images, whose pixels leave [0, 1]; correct it"
        )
