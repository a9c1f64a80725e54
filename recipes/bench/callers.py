"""What odd callers of advkit get: the answer of an ordinary caller, or one sentence.

    python recipes/bench/callers.py

Images, labels, targets, models and settings of every type and shape that people pass, and callers in
unusual places: threads, event loops, spawned and forked processes, under autocast, with other defaults of
PyTorch, with warnings as errors. An answer is *right* if it equals what the ordinary call gives (where the
call means the same), *said* if it is a `UserError`; anything else is a fault, and so is an answer where a
sentence is due. Exit code 1 at any fault. Expected time: half a minute on one core.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import multiprocessing
import signal
import sys
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import advkit

SAME, SAID, ANY = "same", "said", "any"
"""What is due: the ordinary answer; a sentence; either (the call means something else)."""
THREAT = advkit.Threat("linf", 0.05)
Case = tuple[str, str, Callable[[], Any]]


def subject() -> tuple[nn.Module, Tensor, Tensor]:
    """A classifier of digits, and 12 test images with labels."""
    images, labels = advkit.load_data("digits", "train").batch(torch.arange(400))
    x, y = advkit.load_data("digits").batch(torch.arange(12))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    return model, x, y


MODEL, X, Y = subject()


def evaluated(
    model: Any = MODEL, data: Any = (X, Y), threat: Any = THREAT, attack: Any = "pgd", **more: Any
) -> Any:
    """What an evaluation finds."""
    with torch.random.fork_rng():
        result = advkit.evaluate(model, data, threat, attack, progress=False, **more)
    return [(verdict.status, verdict.distance) for verdict in result.verdicts]


def perturbed(
    model: Any = MODEL, x: Any = X, y: Any = Y, threat: Any = THREAT, attack: Any = "pgd", **more: Any
) -> Any:
    """The images that an attack makes."""
    return advkit.perturb(model, x, y, threat, attack, progress=False, **more).x.tolist()


def usual() -> tuple[Any, Any]:
    """What both are in a process of its own."""
    return evaluated(), perturbed()


def settings() -> Iterator[Case]:
    """Of settings."""
    for value in (-5, 0, 1.5, "x", [3]):
        yield f"budget {value!r}", SAID, lambda v=value: evaluated(budget=v)
    for value in (-1, 0, 1.5, "x"):
        for call in (evaluated, perturbed):
            yield f"{call.__name__}, batch size {value!r}", SAID, lambda c=call, v=value: c(batch_size=v)
    for value in (None, 1, 5, 10**9):
        for call in (evaluated, perturbed):
            yield f"{call.__name__}, batch size {value!r}", SAME, lambda c=call, v=value: c(batch_size=v)
    for value in (0, -1, 5.5, "x"):
        yield f"n {value!r}", SAID, lambda v=value: evaluated(n=v)
    yield "n beyond all", SAME, lambda: evaluated(n=10**9)
    for value in (-1, 1.5, "a", 2**70, None):
        for call in (evaluated, perturbed):
            yield f"{call.__name__}, seed {value!r}", SAID, lambda c=call, v=value: c(seed=v)
    for value in ("PGD", "pgdd", "", [], None, 3, "pgd,", "pgd,pgd"):
        for call in (evaluated, perturbed):
            due = ANY if value in (None, []) else SAID
            yield f"{call.__name__}, attack {value!r}", due, lambda c=call, v=value: c(attack=v)
    yield "a list of attacks", SAME, lambda: evaluated(attack=["pgd"])
    for value in ({"steps": -1}, {"steps": "x"}, {"stepz": 3}):
        yield f"perturbed, parameters {value}", SAID, lambda v=value: perturbed(parameters=v)
        yield f"evaluated, parameters {value}", SAID, lambda v=value: evaluated(parameters={"pgd": v})
    yield "evaluated, parameters of no attack", SAID, lambda: evaluated(parameters={"steps": 3})
    for value in ("float16", "fp32", torch.float32):
        yield f"precision {value}", SAID, lambda v=value: evaluated(precision=v)
    for value in (None, "linf", 0.1, {"norm": "linf", "eps": 0.05}):
        for call in (evaluated, perturbed):
            due = ANY if isinstance(value, dict | None) else SAID
            yield f"{call.__name__}, threat {value}", due, lambda c=call, v=value: c(threat=v)
    for norm, eps in (("linf", 0), ("linf", -1), ("linf", float("nan")), ("linf", 8), ("l0", 0.5)):
        yield f"threat {norm} {eps}", SAID, lambda n=norm, e=eps: advkit.Threat(n, e)


def targets() -> Iterator[Case]:
    """Of targets of an attack; the class is 3."""

    def to(target: Any) -> Any:
        return perturbed(target=target)

    ordinary = to(3)
    one_hot = functional.one_hot(torch.full((12,), 3), 10)
    given = {"list": [3] * 12, "array": np.full(12, 3), "column": torch.full((12, 1), 3), "3.0": 3.0}
    given |= {"numpy's number": np.int64(3), "floats": [3.0] * 12}
    given |= {"one-hot": one_hot, "float one-hot": one_hot.float()}
    for name, value in given.items():
        yield f"target, {name}", SAME, lambda v=value: _equal(to(v), ordinary)
    for name, value in {"too few": [3] * 5, "-1": -1, "10": 10, "text": "x", "half": 3.5, "own": Y}.items():
        yield f"target, {name}", SAID, lambda v=value: to(v)


def labels() -> Iterator[Case]:
    """Of labels."""
    same = {"column": Y[:, None], "list": Y.tolist(), "array": Y.numpy(), "floats": Y.float(), "row": Y[None]}
    same |= {"int32": Y.int(), "uint8": Y.to(torch.uint8)}
    wrong = {"halves": Y + 0.5, "too few": Y[:5], "from -1": Y - 1, "none": None, "complex": Y + 0j}
    for due, given in ((SAME, same), (SAID, wrong)):
        for name, value in given.items():
            yield f"labels, {name}, perturbed", due, lambda v=value: perturbed(y=v)
            yield f"labels, {name}, evaluated", due, lambda v=value: evaluated(data=(X, v))
    yield "labels, up to 10 of 10 classes", SAID, lambda: perturbed(y=Y + 1)


def pixels() -> Iterator[Case]:
    """Of images; digits have 17 levels, so that bytes are others."""
    same = {"float64": X.double(), "array": X.numpy(), "array of float64": X.numpy().astype("f8")}
    same |= {"lists": X.tolist(), "channels last in memory": X.to(memory_format=torch.channels_last)}
    same |= {"gradients asked for": X.clone().requires_grad_(), "not contiguous": X.mT.contiguous().mT}
    same |= {"without channels": X[:, 0], "channels last": X.permute(0, 2, 3, 1)}
    same |= {"parameter": nn.Parameter(X.clone()), "read-only array": _read_only(X.numpy())}
    wrong = {"times 255": X * 255, "below 0": X - 0.5, "one image": X[0], "none": None}
    wrong |= {"sparse": X.to_sparse(), "quantised": torch.quantize_per_tensor(X, 1 / 16, 0, torch.quint8)}
    wrong |= {"on no device": X.to("meta"), "nested": torch.nested.nested_tensor([*X])}
    wrong |= {"not a number": X * float("nan"), "infinite": X + float("inf"), "none of them": X[:0]}
    wrong |= {"three channels": X.repeat(1, 3, 1, 1), "complex": X + 0j, "whole numbers": X.int() + 300}
    wrong |= {"wider": functional.pad(X, (0, 1)), "five dimensions": X[None], "text": "images"}
    for due, given in ((SAME, same), (SAID, wrong)):
        for name, value in given.items():
            yield f"images, {name}, perturbed", due, lambda v=value: perturbed(x=v)
            yield f"images, {name}, evaluated", due, lambda v=value: evaluated(data=(v, Y))
    rows = TensorDataset(X, Y)
    sets = {"data set": rows, "loader": DataLoader(rows, 5), "dictionary": {"image": X, "label": Y}}
    sets |= {"list of pairs": list(rows), "list": [X, Y]}
    for name, value in sets.items():
        yield f"data, {name}", SAME, lambda v=value: evaluated(data=v)


def models() -> Iterator[Case]:
    """Of models."""
    frozen = subject()[0].requires_grad_(False)
    training = subject()[0].train()
    same = {"frozen": frozen, "in training mode": training, "wrapped": nn.DataParallel(MODEL)}
    same |= {"returning a list and more": _Several(MODEL)}
    wrong = {
        "none": None,
        "weights alone": MODEL.state_dict(),
        "no file": "nofile.pt",
        "class": nn.Sequential,
    }
    wrong |= {"function": lambda z: MODEL(z), "other shape": nn.Linear(3, 3), "images out": nn.Identity()}
    wrong |= {"no such": "torchvision:nope", "always nan": nn.Sequential(MODEL, _Times(float("nan")))}
    for due, given in ((SAME, same), (SAID, wrong)):
        for name, value in given.items():
            yield f"model, {name}", due, lambda v=value: evaluated(v)
    yield "model, probabilities", ANY, lambda: evaluated(nn.Sequential(MODEL, nn.Softmax(1)))
    yield "certify, method", SAID, lambda: advkit.certify(MODEL, (X, Y), THREAT, method="x", progress=False)
    yield "certify, l0", SAID, lambda: advkit.certify(MODEL, (X, Y), advkit.Threat("l0", 1), progress=False)
    yield "curve, eps", SAID, lambda: advkit.curve(MODEL, (X, Y), "linf", eps=[-1], progress=False)
    yield "smooth, sigma", SAID, lambda: advkit.smooth(MODEL, 0.0, samples=100)
    yield "smooth, alpha", SAID, lambda: advkit.smooth(MODEL, 0.1, samples=100, alpha=2)


def places() -> Iterator[Case]:
    """Of callers in unusual places; each asks for what `usual` asks."""
    contexts: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
        "no_grad": torch.no_grad,
        "inference mode": torch.inference_mode,
        "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
        "float64 by default": lambda: _put_back(torch.set_default_dtype, torch.float32, torch.float64),
        "deterministic algorithms": lambda: _put_back(torch.use_deterministic_algorithms, False, True),
        "a device by default": lambda: torch.device("cpu"),
        "warnings as errors": _strict,
        "floating point errors raise": lambda: np.errstate(all="raise"),
        "no standard output": lambda: contextlib.redirect_stdout(None),
        "no standard error": lambda: contextlib.redirect_stderr(None),
        "output to a text": lambda: contextlib.redirect_stdout(io.StringIO()),
        "signals of its own": _handled,
        "three threads": lambda: _put_back(torch.set_num_threads, torch.get_num_threads(), 3),
        "little recursion": lambda: _put_back(sys.setrecursionlimit, sys.getrecursionlimit(), 400),
        "a generator of others": lambda: torch.random.fork_rng(),
    }
    for name, context in contexts.items():
        yield f"place, {name}", SAME, lambda c=context: _inside(c)
    yield "place, a thread", SAME, _in_thread
    yield "place, eight threads", SAME, _in_threads
    yield "place, an event loop", SAME, lambda: asyncio.run(_awaited(False))
    yield "place, a thread of an event loop", SAME, lambda: asyncio.run(_awaited(True))
    for method in multiprocessing.get_all_start_methods():
        yield f"place, a process by {method}", SAME, lambda m=method: _in_process(m)
        yield f"place, a pool of processes by {method}", SAME, lambda m=method: _in_pool(m)
    yield "place, a data set's worker", SAME, _in_worker


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class _Several(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        return [self.model(x)], {"more": x}


class _Asked(torch.utils.data.Dataset[Any]):
    def __getitem__(self, at: int) -> Any:
        return usual()

    def __len__(self) -> int:
        return 1


def _read_only(array: Any) -> Any:
    kept = array.copy()
    kept.flags.writeable = False
    return kept


def _equal(found: Any, wanted: Any) -> Any:
    return ORDINARY[1] if found == wanted else found


@contextlib.contextmanager
def _put_back(put: Callable[[Any], Any], before: Any, value: Any) -> Iterator[None]:
    put(value)
    try:
        yield
    finally:
        put(before)


@contextlib.contextmanager
def _strict() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@contextlib.contextmanager
def _handled() -> Iterator[None]:
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(kind, lambda *_: None) for kind in kinds]
    mine = [signal.getsignal(kind) for kind in kinds]
    yield
    assert [signal.getsignal(kind) for kind in kinds] == mine, "the caller's signal handlers are others"
    for kind, handler in zip(kinds, before, strict=True):
        signal.signal(kind, handler)


def _inside(context: Callable[[], contextlib.AbstractContextManager[Any]]) -> Any:
    with context():
        return usual()


def _in_thread() -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(usual()))
    thread.start()
    thread.join()
    return found[0]


def _in_threads() -> Any:
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(usual) for _ in range(8)]
        first, *others = [one.result() for one in found]
    return first if all(other == first for other in others) else [first, *others]


async def _awaited(thread: bool) -> Any:
    return await asyncio.to_thread(usual) if thread else usual()


def _send(pipe: Any) -> None:
    pipe.send(usual())


def _in_process(method: str) -> Any:
    context = multiprocessing.get_context(method)
    mine, theirs = context.Pipe(False)
    process = context.Process(target=_send, args=(theirs,))
    process.start()
    theirs.close()
    found = mine.recv() if mine.poll(120) else "no answer in 2 minutes"
    process.join(10)
    if process.is_alive():
        process.kill()
        return "the process does not end"
    return found if process.exitcode == 0 else f"exit code {process.exitcode}"


def _in_pool(method: str) -> Any:
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        first, second = pool.submit(usual), pool.submit(usual)
        found = first.result(120), second.result(120)
    return found[0] if found[0] == found[1] else found


def _in_worker() -> Any:
    return next(iter(DataLoader(_Asked(), batch_size=None, num_workers=1, collate_fn=lambda one: one)))


ORDINARY = usual() if __name__ == "__main__" else None


def main() -> None:
    """Asks, and judges."""
    found: Counter[str] = Counter()
    for name, due, call in (
        case for kind in (settings, targets, labels, pixels, models, places) for case in kind()
    ):
        try:
            answer = call()
            same = answer in (ORDINARY, *ORDINARY) or tuple(answer) == ORDINARY
            how = {SAME: "right" if same else "another answer", SAID: "an answer", ANY: "right"}[due]
        except advkit.UserError as error:
            answer, how = str(error), "an unexpected sentence" if due == SAME else "said"
            if "\n" in answer or len(answer) > 500:
                how = "more than a sentence"
        except Exception:
            answer, how = traceback.format_exc(), "a traceback"
        found[how] += 1
        if how not in ("right", "said"):
            print(f"{name}: {how}: {str(answer)[-600:]}", flush=True)
    print(f"{sum(found.values())} callers: {dict(found)}")
    sys.exit(0 if found.keys() <= {"right", "said"} else 1)


if __name__ == "__main__":
    main()
