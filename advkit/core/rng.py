"""Random numbers as a function of where they are used: f(seed, stream, sample id, step).

Nothing is drawn from a sequence, so a number does not depend on batch size, order, restarts of the
process or the number of machines. The mixing function is the finaliser of SplitMix64 (Steele, Lea and
Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014), applied to a per-row key plus a
counter; integer arithmetic only, so the bits are the same on every device.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB
_AT_ONCE = 2**22
"""Numbers drawn at a time: the integers behind them take several times their memory."""


def _shift(value: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (the operator alone is arithmetic)."""
    return (value >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    mixed = _shift(value, 30).bitwise_xor_(value).mul_(_MIX1)
    mixed.bitwise_xor_(_shift(mixed, 27)).mul_(_MIX2)
    return mixed.bitwise_xor_(_shift(mixed, 31))


def derive(seed: int, *names: object) -> int:
    """A 63-bit seed for one named purpose: the same names give the same seed, in every process."""
    text = repr((int(seed), *names)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


def keys(seed: int, stream: str, ids: Tensor, step: Tensor | int = 0) -> Tensor:
    """One key per row.

    Args:
        stream: what the numbers are for ("start", "latent"); different streams are independent.
        ids: (N,) int64 ids of the samples, on the device where the numbers are wanted.
        step: iteration, one for all rows or (N,) int64.

    Returns:
        (N,) int64 keys for `uniform`, `normal`, `signs` and `integers`.
    """
    base = derive(seed, stream)
    return _mix(_mix(ids * _GOLDEN + base) + torch.as_tensor(step, device=ids.device) * _MIX1)


def step(key: Tensor, number: Tensor | int) -> Tensor:
    """(N,) keys of step ``number`` (one for all rows, or (N,)) under the keys ``key``."""
    return _mix(key + torch.as_tensor(number, device=key.device) * _MIX2)


def _bits(key: Tensor, shape: Sequence[int], lane: int = 0) -> Tensor:
    count = math.prod(shape)
    counter = torch.arange(1 + lane * count, 1 + (lane + 1) * count, device=key.device, dtype=torch.int64)
    return _mix(key[:, None] + counter * _GOLDEN).view(len(key), *shape)


def uniform(key: Tensor, shape: Sequence[int], lane: int = 0) -> Tensor:
    """(N, *shape) float32 in [0, 1); ``lane`` gives further independent numbers of the same key."""
    rows = max(1, _AT_ONCE // max(1, math.prod(shape)))
    drawn = torch.empty((len(key), *shape), dtype=torch.float32, device=key.device)
    for part, out in zip(key.split(rows), drawn.split(rows), strict=True):
        out.copy_(_shift(_bits(part, shape, lane), 40)).mul_(2.0**-24)
    return drawn


def normal(key: Tensor, shape: Sequence[int]) -> Tensor:
    """(N, *shape) float32 from N(0, 1), by the Box-Muller transform."""
    radius = (-2.0 * torch.log1p(-uniform(key, shape, 0))).sqrt()
    return radius * torch.cos(2.0 * math.pi * uniform(key, shape, 1))


def integers(key: Tensor, shape: Sequence[int], high: int) -> Tensor:
    """(N, *shape) int64 in [0, high); the bias is below high / 2**40."""
    return _shift(_bits(key, shape), 24) % high


def signs(key: Tensor, shape: Sequence[int]) -> Tensor:
    """(N, *shape) float32, -1 or 1 by the toss of a coin; one mixed number serves 64 of them."""
    count = math.prod(shape)
    words = _bits(key, (-(-count // 64),))[..., None] >> torch.arange(64, device=key.device)
    tossed = words.bitwise_and_(1).flatten(1)[:, :count].to(torch.float32)
    return tossed.mul_(2).sub_(1).view(len(key), *shape)


def permutation(seed: int, stream: str, n: int, step: int = 0) -> Tensor:
    """(n,) int64: a random order of range(n)."""
    return torch.argsort(keys(seed, stream, torch.arange(n), step))


_LOCK = threading.Lock()
_INSIDE: set[int] = set()
"""Threads that are in a `scope`."""
_BEFORE: dict[torch.Generator, Tensor] = {}
"""The states of the generators before the first of them."""


@contextmanager
def _put_back(device: torch.device) -> Iterator[None]:
    """The generators of the CPU and of ``device`` are put back afterwards: by an inner scope to what its
    thread had before, by the last thread outside to what the first found."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        torch.cuda.init()
        at = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[at])
    thread = threading.get_ident()
    with _LOCK:
        inner = thread in _INSIDE
        _INSIDE.add(thread)
        before = [(each, each.get_state()) for each in generators]
        for each, state in before:
            _BEFORE.setdefault(each, state)
    try:
        yield
    finally:
        with _LOCK:
            if not inner:
                _INSIDE.discard(thread)
                before = [] if _INSIDE else [*_BEFORE.items()]
            for each, state in before:
                each.set_state(state)
            if not _INSIDE:
                _BEFORE.clear()


@contextmanager
def scope(device: torch.device | str, seed: int, *names: object) -> Iterator[None]:
    """Code that can only draw from PyTorch's global generator (dropout, initialisation) draws from a
    generator seeded by (seed, names) inside, and the global state is put back afterwards; by the last of the
    threads that are inside at the same time, which draw from one generator."""
    device = torch.device(device)
    with _put_back(device):
        # torch.manual_seed would also queue a call, with its stack, for every kind of device not in use.
        derived = derive(seed, *names)
        torch.default_generator.manual_seed(derived)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(derived)
        elif device.type == "mps":
            torch.mps.manual_seed(derived)
        yield
