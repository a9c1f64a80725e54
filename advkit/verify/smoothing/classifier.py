"""The smoothed classifier: what a classifier says most often of noisy copies of an image."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from advkit.core import memory
from advkit.core.errors import ConfigError, DataError, ModelError
from advkit.models.load import load_model
from advkit.verify.smoothing.noise import QUERIES, STREAM, Copies
from advkit.verify.smoothing.statistics import certified_radius, chance, least_share, refuse_too_few

ABSTAIN = -1
"""What is predicted where the votes do not tell."""
PASS = 1000
"""Noisy copies in a pass, by default."""
SELECTION, SAMPLES, ALPHA = 100, 100_000, 0.001
"""Votes that choose the class, votes that certify it, and the probability of error; the paper's."""


@dataclass(frozen=True)
class Certificate:
    """What the votes prove of one image, with probability 1 - alpha."""

    selected: int
    """The class that the first votes named."""
    votes: int
    """How often it came among the further ones."""
    share: float
    """Its probability under noise, at least."""
    radius: float
    """Within this l2 distance the smoothed classifier answers ``selected``; 0: it abstains."""

    @property
    def predicted(self) -> int:
        """The class, or `ABSTAIN`."""
        return self.selected if self.radius > 0 else ABSTAIN


class SmoothedClassifier(nn.Module):
    """g(x): the class that ``model`` gives most often to x + N(0, sigma^2) (Cohen et al., ICML 2019).

    What is run is a frozen copy of the model in its own precision, in eval mode and channels-last, and that
    is what certificates are about. Noisy copies are passed in whole blocks, so an answer does not depend on
    the images beside it, nor on the size of a pass.

    As a module it gives logits, the logarithms of vote shares, with the same noise for all images and all
    questions. So it answers twice alike and can be evaluated like any model, by attacks that see decisions or
    scores: votes have no gradient. It is an estimate of g from ``samples`` noisy copies, and who attacks it
    attacks these; `certify` speaks of g itself and draws other noise for each image.

    Args:
        model: images (N, C, H, W), whatever their pixels, to logits (N, K).
        sigma: standard deviation of the noise, for pixels in [0, 1].
        samples: votes that answer when it is called as a module, and in `predict`.
        alpha: probability with which a prediction or a certificate may be wrong.
        seed: the noise follows from it and the image's id.
        batch_size: noisy copies in a pass; it changes the speed, not the answers.

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
        twin = copy.deepcopy(model).to(memory_format=torch.channels_last)
        self.network: nn.Module = twin.eval().requires_grad_(False)
        self.sigma, self.samples, self.alpha, self.seed = float(sigma), samples, alpha, seed
        self.batch_size = batch_size
        # Part of the state, so that its hash tells one smoothing from another.
        settings = repr((self.sigma, samples, seed)).encode()
        self.register_buffer("settings", torch.tensor(list(settings), dtype=torch.uint8))
        super().train(False)

    def train(self, mode: bool = True) -> Self:
        """Nothing is trained here: it stays in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(N, K) logarithms of vote shares, with half a vote where there is none."""
        each = [
            self.votes(Copies(image, self.sigma, seed=self.seed, stream=QUERIES, sample=0), self.samples)
            for image in x
        ]
        votes = torch.stack(each)
        _refuse_lost(votes, self.samples)
        return (votes.float().clamp_min(0.5) / self.samples).log()

    def votes(self, copies: Copies, count: int, told: Callable[[int], None] | None = None) -> Tensor:
        """(K,) int64: how often each class is given to the next ``count`` copies. Answers that are not finite
        are not counted. Nothing here waits for the device.

        Args:
            copies: of one image.
            count: how many.
            told: hears after each pass how many copies went through.
        """
        total: Tensor | None = None
        done = 0
        for x in copies.passes(count, self.batch_size):
            logits = self.network(x)[: count - done]
            done += len(logits)
            said = torch.where(logits.isfinite().all(1), logits.argmax(1), ABSTAIN)
            counted = (said[:, None] == torch.arange(logits.shape[1], device=x.device)).sum(0)
            total = counted if total is None else total + counted
            if told is not None:
                told(done)
        assert total is not None
        return total

    @torch.no_grad()
    def predict(self, x: Tensor, ids: Tensor | None = None) -> Tensor:
        """The most frequent class of ``samples`` votes, or `ABSTAIN` where a two-sided binomial test at alpha
        does not tell it from the next one (PREDICT in the paper).

        Args:
            x: (N, C, H, W) images.
            ids: (N,) of the samples, which the noise follows; by default 0 to N - 1.

        Returns:
            (N,) int64 on the CPU. A class that is not g(x) is returned with a probability of alpha at most.
        """
        found = []
        with memory.kept():
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
        """A certificate for each image (CERTIFY in the paper): some votes choose the class, others bound its
        probability from below.

        Args:
            x: (N, C, H, W) images.
            ids: (N,) of the samples, which the noise follows; by default 0 to N - 1.
            selection: votes that choose the class.
            samples: votes that bound its probability.

        Raises:
            ConfigError: too few samples to certify anything.
        """
        refuse_too_few(samples, self.alpha, self.sigma)
        if selection < 1:
            raise ConfigError(f"at least 1 vote has to choose the class (got {selection})")
        with memory.kept():
            return [self.certify_one(*one, selection, samples) for one in zip(x, _ids(x, ids), strict=True)]

    @torch.no_grad()
    def certify_one(
        self,
        image: Tensor,
        sample: int,
        selection: int,
        samples: int,
        told: Callable[[int], None] | None = None,
    ) -> Certificate:
        """Of one image (C, H, W); ``told`` hears how many of the ``samples`` votes there are."""
        copies = self.copies(image, sample)
        first = self.votes(copies, selection)
        votes = self.votes(copies, samples, told)  # of further blocks: no copy has a say in both
        _refuse_lost(first, selection)
        _refuse_lost(votes, samples)
        selected = int(first.argmax())
        share = least_share(int(votes[selected]), samples, self.alpha)
        return Certificate(selected, int(votes[selected]), share, certified_radius(share, self.sigma))

    def copies(self, image: Tensor, sample: int) -> Copies:
        """Noisy copies of the image (C, H, W) with this id."""
        return Copies(image, self.sigma, seed=self.seed, stream=STREAM, sample=sample)


def smooth(
    model: nn.Module | str | Path, sigma: float, *, shape: tuple[int, int, int] | None = None, **settings: Any
) -> SmoothedClassifier:
    """The smoothed classifier of ``model``, which is not looked at here: `certify_smoothed` refuses one that
    answers twice differently.

    Args:
        model: a module from images (N, C, H, W) in [0, 1] to logits (N, K), or whatever `load_model` takes.
        sigma: standard deviation of the noise, for pixels in [0, 1]; that which the model was trained on.
        shape: (channels, height, width), where the model does not say.
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
            f"images are floats of shape (N, C, H, W), not {str(x.dtype).removeprefix('torch.')} of "
            f"{tuple(x.shape)}; give some"
        )
    if ids is not None and len(ids) != len(x):
        raise DataError(f"there are {len(x)} images but {len(ids)} ids; give one each")
    return list(range(len(x))) if ids is None else [int(sample) for sample in ids]


def _refuse_lost(votes: Tensor, count: int) -> None:
    if bool((votes.sum(-1) != count).any()):
        raise ModelError(
            "the model gives NaN or infinite logits on noisy images, whose pixels leave [0, 1]; mend it"
        )
