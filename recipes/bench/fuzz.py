"""Damaged and hostile files: what reads them changes no number in silence, and ends soon, with a sentence.

    python recipes/bench/fuzz.py --mutated 1000

Writes one intact file of each kind, changes some of its bytes, and reads it as the commands do, each time in
a process of its own. Then come files that were made to do harm. Prints a table: silent changes, tracebacks,
reads that take more than 10 s, and the most memory that one took beyond that of the imports; exit code 1 if
there are any, or if one took more than 1 GB. Expected time: 10 minutes on one core.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as save_tensors

from advkit import load_model
from advkit.cli import recipes
from advkit.core import files, rng
from advkit.core.config import StrictModel
from advkit.core.errors import UserError
from advkit.core.progress import Progress
from advkit.core.runs import RunFolder
from advkit.core.stats import clopper_pearson
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.data.load import load_data
from advkit.evaluation.ledger import Adversarial, Entry, Ledger, confirming
from advkit.evaluation.result import EvaluationResult, Verdict
from advkit.models.card import DataFacts, ModelCard, ThreatFacts
from advkit.models.checkpoint import save_model
from advkit.models.model import Model
from advkit.models.network import build
from advkit.models.store import Store

SECONDS, BYTES = 10, 1 << 30
CARD = ModelCard(
    role="classifier", architecture="mlp", config={"hidden": [8]}, shape=(1, 4, 4), classes=3,
    preprocessing={"mean": (0.4,), "std": (0.4,)},
)  # fmt: skip
N = 12


class Saying(Progress):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        """Keeps it."""
        self.said.append(message)


def model() -> Model:
    """A small classifier, the same each time."""
    with rng.scope("cpu", 0, "fuzz"):
        return Model(build("mlp", shape=CARD.shape, classes=3, config=CARD.config), CARD).eval()


def images() -> Data:
    """Twelve images."""
    x = rng.uniform(rng.keys(0, "fuzz", torch.arange(N)), CARD.shape)
    return Data("toy", "test", x, torch.arange(N) % 3, ("a", "b", "c"), torch.arange(N))


def entries() -> list[Entry]:
    """Of one stage; every second image is broken."""
    facts = {"iteration": 1, "variant": 0, "margin": 0.5, "refuted": 0, "forwards": 3, "backwards": 2}
    return [
        Entry(id=k, stage="pgd", broken=k % 2 == 0, distance=0.01 * k, **facts)  # type: ignore[arg-type]
        for k in range(N)
    ]


def changed(row: int) -> torch.Tensor:
    """The adversarial image of a row."""
    return (images().images[row] + 0.01).clamp(0, 1)


@cache
def _intact() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory()
    _write(Path(folder.name))
    return folder


def write_all(here: Path) -> None:
    """The intact files."""
    shutil.copytree(_intact().name, here, dirs_exist_ok=True)


def _write(here: Path) -> None:
    save_model(model(), here / "m.safetensors")
    save_model(model(), here / "m.pt")
    Store(here / "store").add(model(), "m")
    with RunFolder.open("train", "x", StrictModel(), here / "run") as run:
        for step in (1, 2):
            run.metrics(step, loss=1 / step)
            run.save_state({"step": step, "w": torch.arange(40) / step})
    (here / "ledger").mkdir()
    with Ledger(here / "ledger", images(), ["pgd"], keep=False) as ledger:
        for entry in entries():
            ledger.add(entry, changed(entry.id))
        ledger.finish()
        found = ledger.entries
    verdicts = [
        Verdict(id=k, label=k % 3, status="broken" if e.broken else "robust", image_sha256=e.image_sha256)
        for (_, k), e in found.items()
    ]
    robust = sum(verdict.status == "robust" for verdict in verdicts)
    result = EvaluationResult(
        status="complete", threat=ThreatFacts(norm="linf", eps=0.1), model_hash=model().hash, card=CARD,
        data=DataFacts(name="toy", split="test", fingerprint="0" * 64, n=N), seed=0, precision="float32", n=N,
        clean_correct=N, robust_correct=robust, stages=(), checks=(), forwards=36, backwards=24, seconds=1.5,
        environment={"python": "3"}, verdicts=tuple(verdicts), clean_accuracy=1.0, robust_accuracy=robust / N,
        clean_interval=clopper_pearson(N, N), interval=clopper_pearson(robust, N),
    )  # fmt: skip
    with RunFolder.open("attack", "x", StrictModel(), here / "done") as run:
        run.finish(result.as_values())
    levels = (images().images * 255).round().to(torch.uint8).numpy()
    files.write_arrays(here / "d.npz", x=levels, y=images().labels.numpy())
    for label in "ab":
        (here / "folder" / label).mkdir(parents=True)
        for k in range(2):
            picture = Image.fromarray(levels[k + 2 * (label == "b"), 0])
            picture.save(here / "folder" / label / f"{k}.png")
    (here / "r.toml").write_text('command = "attack"\nmodel = "clf.pt"\ndata = "digits"\neps = 0.1\nn = 20\n')


def _tensors(found: torch.nn.Module) -> Any:
    card = found.card.model_dump_json()  # type: ignore[union-attr]
    return card, [tensor.numpy().tobytes() for tensor in found.state_dict().values()]


def _state(here: Path, progress: Progress) -> Any:
    with RunFolder.open("train", "x", StrictModel(), here / "run", progress=progress) as run:
        state = run.load_state("w")
        return None if state is None else (state["step"], state["w"].numpy().tobytes(), run.history())


def _ledger(here: Path, progress: Progress) -> Any:
    confirm = confirming(None, images(), Threat("linf", 0.1))
    with Ledger(here / "ledger", images(), ["pgd"], keep=False, confirm=confirm, progress=progress) as ledger:
        return {
            key: (entry, ledger.image(entry).numpy().tobytes() if entry.broken else None)
            for key, entry in ledger.entries.items()
        }


def _result(here: Path, progress: Progress) -> Any:
    result = EvaluationResult.load(here / "done")
    return result.to_json()


def _images(here: Path, progress: Progress) -> Any:
    result = EvaluationResult.load(here / "done")
    return Adversarial(here / "ledger", images(), result.verdicts)[torch.arange(N)].numpy().tobytes()


def _data(name: str) -> Callable[[Path, Progress], Any]:
    def read(here: Path, progress: Progress) -> Any:
        data = load_data(name.replace("HERE", str(here)), "all")
        x, y = data.batch(torch.arange(len(data)))
        return x.numpy().tobytes(), y.tolist(), data.class_names

    return read


def _recipe(here: Path, progress: Progress) -> Any:
    recipes.load(here / "r.toml")
    return None  # a text of the user's, who may write any number


class Kind(NamedTuple):
    """One kind of file."""

    name: str
    file: str
    read: Callable[[Path, Progress], Any]


KINDS = (
    Kind("state", "run/state.pt", _state),
    Kind("record", "ledger/verdicts.jsonl", _ledger),
    Kind("images of a run", "ledger/adversarial.bin", _images),
    Kind("result", "done/result.json", _result),
    Kind("safetensors", "m.safetensors", lambda here, _: _tensors(load_model(here / "m.safetensors"))),
    Kind("pt", "m.pt", lambda here, _: _tensors(load_model(here / "m.pt"))),
    Kind("npz", "d.npz", _data("npz:HERE/d.npz")),
    Kind("png", "folder/a/0.png", _data("folder:HERE/folder")),
    Kind("recipe", "r.toml", _recipe),
)


def mutated(content: bytes, dice: random.Random) -> bytes:
    """The content with one to three changes."""
    changed = bytearray(content)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        place = dice.randrange(len(changed) or 1)
        end = min(len(changed), place + dice.choice((1, 4, 30, 200)))
        way = dice.randrange(7)
        if way <= 2 and changed:
            changed[min(place, len(changed) - 1)] ^= 1 << dice.randrange(8)
        elif way == 3:
            del changed[place:end]
        elif way == 4:
            changed[place:place] = changed[place:end]
        elif way == 5:
            changed[place:end] = bytes(end - place)
        else:
            changed[place:end] = dice.randbytes(end - place)
    if dice.random() < 0.05:
        del changed[dice.randrange(len(changed) or 1) :]
    return bytes(changed)


def silent(was: Any, now: Any, said: list[str]) -> bool:
    """Whether something else was read than was written, and nothing was said of it."""
    if isinstance(was, dict) and isinstance(now, dict):  # a record: what is missing is done again
        return any(was.get(key) != value for key, value in now.items())
    return was != now and not said


class Ended(NamedTuple):
    """How a read ended."""

    how: str
    """``same``, ``said``, ``refused``, ``SILENT``, ``TRACEBACK`` or ``HANG``."""
    detail: str
    seconds: float
    bytes: int


def apart(work: Callable[[Progress], tuple[str, str]], seconds: float = SECONDS) -> Ended:
    """Does the work in a process of its own."""
    ours, theirs = multiprocessing.Pipe(False)
    process = multiprocessing.get_context("fork").Process(target=_child, args=(theirs, work))
    begun = time.perf_counter()
    process.start()
    theirs.close()
    how, detail, taken = "HANG", "", 0
    if ours.poll(seconds):
        try:
            how, detail, taken = ours.recv()
        except EOFError:
            how, detail = "TRACEBACK", "the process died"
    else:
        process.kill()
    process.join()
    return Ended(how, detail, time.perf_counter() - begun, taken)


def _child(pipe: Any, work: Callable[[Progress], tuple[str, str]]) -> None:
    saying, before = Saying(), _resident()
    try:
        how, detail = work(saying)
    except UserError as error:
        how, detail = "refused", str(error)
        if len(detail) > 12_000:
            how = "TRACEBACK"
    except BaseException:
        how, detail = "TRACEBACK", traceback.format_exc()[-1500:]
    taken = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    pipe.send((how, detail[:2000], taken))
    pipe.close()
    os._exit(0)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()


def damage(count: int, seed: int) -> Iterator[tuple[str, Ended]]:
    """Reads ``count`` mutated files."""
    intact = {kind: kind.read(Path(_intact().name), Saying()) for kind in KINDS}
    for number in range(count):
        kind, dice = KINDS[number % len(KINDS)], random.Random(f"{seed} {number}")
        with tempfile.TemporaryDirectory() as scratch:
            here = Path(scratch)
            write_all(here)
            before = intact[kind]
            path = here / kind.file
            path.write_bytes(mutated(path.read_bytes(), dice))

            def work(
                progress: Progress, kind: Kind = kind, here: Path = here, before: Any = before
            ) -> tuple[str, str]:
                now = kind.read(here, progress)
                said = progress.said  # type: ignore[attr-defined]
                if silent(before, now, said):
                    return "SILENT", f"{here}"
                return ("same" if before == now else "said"), "; ".join(said)

            yield kind.name, apart(work)


# Files that were made to do harm: (name, what writes it and returns the reading)
Hostile = Callable[[Path], Callable[[], Any]]


def _torch(content: Any) -> Hostile:
    def write(here: Path) -> Callable[[], Any]:
        torch.save(content() if callable(content) else content, here / "h.pt")
        return lambda: load_model(here / "h.pt")

    return write


def _bytes(name: str, content: bytes | Callable[[], bytes], read: Callable[[Path], Any]) -> Hostile:
    def write(here: Path) -> Callable[[], Any]:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(content() if callable(content) else content)
        return lambda: read(here)

    return write


def _weights(kind: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], dict[str, Any]]:
    def content() -> dict[str, Any]:
        return {name: kind(tensor) for name, tensor in model().network.state_dict().items()}

    return content


def _loop() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def _deep(kind: type, depth: int) -> Any:
    inner: Any = {"w": torch.ones(2)}
    for _ in range(depth):
        inner = {"a": inner} if kind is dict else [inner]
    return inner


def _card(change: Callable[[dict[str, Any]], None], *, seal: bool = True) -> Callable[[], bytes]:
    def content() -> bytes:
        values = CARD.model_dump(mode="json", by_alias=True)
        change(values)
        text = json.dumps(files.sealed(values) if seal else values)
        return save_tensors(dict(model().network.state_dict()), {"advkit": text})

    return content


def _npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _npy(header: str, content: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def _bomb(size: int) -> bytes:
    """A checkpoint with its numbers compressed."""
    buffer, out = io.BytesIO(), io.BytesIO()
    torch.save({"layer.weight": torch.zeros(size // 4)}, buffer)
    with (
        zipfile.ZipFile(buffer) as archive,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as to,
    ):
        for name in archive.namelist():
            to.writestr(name, archive.read(name))
    return out.getvalue()


class _Call:
    def __init__(self, *what: Any) -> None:
        self.what = what

    def __reduce__(self) -> Any:
        return self.what


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(10**6), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _link(where: str, read: Callable[[Path], Any]) -> Hostile:
    """A link in the place of one of advkit's own files, to a file that must stay as it is."""

    def write(here: Path) -> Callable[[], Any]:
        write_all(here)
        (here / "precious").write_bytes(b"as it was")
        path = here / where
        path.unlink(missing_ok=True)
        path.symlink_to(here / "precious")

        def check() -> None:
            try:
                read(here)
            finally:
                assert (here / "precious").read_bytes() == b"as it was", "the target of a link was changed"

        return check

    return write


def _pipe(where: str, read: Callable[[Path], Any]) -> Hostile:
    def write(here: Path) -> Callable[[], Any]:
        write_all(here)
        path = here / where
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        return lambda: read(here)

    return write


def _outside(here: Path) -> Callable[[], Any]:
    """A name in the store that means a file outside it."""
    store = Store(here / "store")
    store.add(model(), "m")
    (here / "precious.safetensors").write_bytes(b"as it was")
    for seal in (False, True):
        values: dict[str, Any] = {"hash": "../../precious", "created": ""}
        path = here / f"store/names/bad{seal}.json"
        path.write_text(json.dumps(files.sealed(values) if seal else values))

    def check() -> None:
        for name in ("badFalse", "badTrue"):
            store.remove(name)
        assert (here / "precious.safetensors").exists(), "a file outside the store was deleted"

    return check


def _code(here: Path) -> Callable[[], Any]:
    """A recipe that names code, which is only validated."""
    (here / "evil_module.py").write_text(f"open({str(here / 'ran')!r}, 'w')\ndef net(): pass\n")
    (here / "r.toml").write_text('command = "attack"\nmodel = "evil_module:net"\ndata = "digits"\n')

    def check() -> None:
        from advkit.core.context import Context

        os.chdir(here)
        command, config = recipes.load(here / "r.toml")
        try:
            from advkit.core.named import without_code

            with without_code():
                command.run(config, Context(dry_run=True))
        finally:
            assert not (here / "ran").exists(), "code was imported"

    return check


def hostile() -> Iterator[tuple[str, Hostile]]:
    """All of them, each under a name."""
    whole = str.encode('{"a": ')
    kinds: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "int": lambda t: (9 * t).int(),
        "bool": lambda t: t > 0,
        "sparse": lambda t: t.to_sparse(),
        "quantised": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
        "meta": lambda t: t.to("meta"),
        "float8": lambda t: t.to(torch.float8_e4m3fn),
        "complex": lambda t: t.to(torch.complex64),
        "expanded": lambda t: torch.zeros(1).expand(3 * 10**9),
        "nested": lambda t: torch.nested.nested_tensor([t.flatten()]),
    }
    for name, kind in kinds.items():
        yield f"pt of {name} tensors", _torch(_weights(kind))
        yield (
            f"pt of {name} tensors, with a card",
            _torch(
                lambda kind=kind: {"advkit": CARD.model_dump(by_alias=True), "state_dict": _weights(kind)()}
            ),
        )
    for name in ("int", "bool", "float8", "complex"):
        yield (
            f"safetensors of {name}",
            _bytes(
                "h.safetensors",
                lambda kind=kinds[name]: save_tensors(_weights(kind)()),
                lambda here: load_model(here / "h.safetensors"),
            ),
        )
    yield "pt with a list of itself", _torch(_loop)
    for depth in (50, 400):
        for form in (list, dict):
            yield f"pt, {depth} {form.__name__}s deep", _torch(lambda f=form, d=depth: _deep(f, d))
    yield "pt, 3e8 bytes in 3e5", _bytes("h.pt", lambda: _bomb(3 * 10**8), lambda h: load_model(h / "h.pt"))
    calls = {
        "bytearray": _Call(bytearray, (10**10,)),
        "system": _Call(os.system, ("touch ran",)),
        "eval": _Call(eval, ("1",)),
        "empty": _Call(np.zeros(1).__reduce__()[0], (np.ndarray, (10**9,), b"d")),
    }
    for name, call in calls.items():
        for protocol in (2, 4):
            yield (
                f"pickle that calls {name}, protocol {protocol}",
                _bytes(
                    "h.pt",
                    lambda call=call, protocol=protocol: pickle.dumps({"w": call}, protocol=protocol),
                    lambda here: load_model(here / "h.pt"),
                ),
            )
    cards: dict[str, Callable[[dict[str, Any]], None]] = {
        "wide": lambda v: v.update(config={"hidden": [50_000, 50_000]}),
        "long": lambda v: v.update(config={"hidden": [1] * 10**6}),
        "huge": lambda v: v.update(config={"hidden": [10**12]}),
        "many keys": lambda v: v.update({f"k{k}": k for k in range(10**6)}),
        "fewer keys": lambda v: v.update({f"k{k}": k for k in range(10**5)}),
        "labels": lambda v: v.update(labels=["x"] * 10**6, classes=None),
        "sentence": lambda v: v.update(architecture="x" * (37 << 20)),
        "short sentence": lambda v: v.update(architecture="x" * (3 << 20)),
        "digits": lambda v: v.update(classes=10**4000),
        "shape": lambda v: v.update(shape=[1, 10**9, 10**9]),
        "negative": lambda v: v.update(shape=[1, -4, 4]),
        "classes": lambda v: v.update(classes=10**12),
        "code": lambda v: v.update(architecture="os:getcwd"),
        "resnet": lambda v: v.update(architecture="torchvision:vit_h_14", shape=[3, 224, 224], config={}),
    }
    for name, change in cards.items():
        for seal in (True, False):
            yield (
                f"card: {name}{'' if seal else ', without a seal'}",
                _bytes(
                    "h.safetensors", _card(change, seal=seal), lambda here: load_model(here / "h.safetensors")
                ),
            )
    texts = {
        "nested": b"[" * 10**5,
        "nested groups": whole * 10**5,
        "digits": b'{"n": ' + b"9" * 5000 + b"}",
        "not UTF-8": b'{"a": "\xff\xfe"}',
        "null": b"null",
        "a string of 37 MB": b'{"schema": "' + b"x" * (37 << 20) + b'"}',
        "empty": b"",
    }
    for name, text in texts.items():
        yield f"result: {name}", _bytes("h.json", text, lambda h: EvaluationResult.load(h / "h.json"))
        yield (
            f"resolved.json: {name}",
            _bytes(
                "run/resolved.json", text, lambda h: RunFolder.open("train", "x", StrictModel(), h / "run")
            ),
        )
        yield (
            f"name in the store: {name}",
            _bytes("store/names/m.json", text, lambda h: Store(h / "store").get("m")),
        )
        yield f"record: {name}", _bytes("ledger/verdicts.jsonl", text + b"\n" + text + b"\n", _open_ledger)
        yield f"recipe: {name}", _bytes("r.toml", text, lambda h: recipes.load(h / "r.toml"))
    tomls = {
        "nested": "a = " + "[" * 5000,
        "dotted": ".".join("a" * 5000) + " = 1",
        "digits": f'command = "attack"\nn = {"9" * 5000}',
        "large": f'command = "attack"\nn = {"9" * 3000}',
        "keys": 'command = "attack"\n' + "".join(f"k{k} = 1\n" for k in range(20_000)),
        "date": 'command = "attack"\nn = 1979-05-27T07:32:00Z',
    }
    for name, toml in tomls.items():
        yield f"recipe: {name}", _bytes("r.toml", toml.encode(), lambda h: recipes.load(h / "r.toml"))
    x, y = np.zeros((4, 1, 4, 4), np.uint8) + 7, np.arange(4)
    npy = _npy(str({"descr": "|u1", "fortran_order": False, "shape": (4, 1, 4, 4)}), x.tobytes())
    lying = _npy(str({"descr": "|u1", "fortran_order": False, "shape": (10**12,)}), b"x")
    short = _npy(str({"descr": "|u1", "fortran_order": False, "shape": (4, 1, 4, 2)}), x.tobytes())
    arrays: dict[str, bytes | Callable[[], bytes]] = {
        "a label of 2e8": _npz(x=x, y=np.array([0, 1, 2, 2 * 10**8])),
        "a label of 2e18": _npz(x=x, y=np.array([0, 1, 2, 2 * 10**18])),
        "negative labels": _npz(x=x, y=-y),
        "3e8 zeros": lambda: _npz(x=np.zeros((3 * 10**8, 1, 1, 1), np.uint8), y=np.zeros(3 * 10**8, bool)),
        "a shape that lies": _archive({"x.npy": lying, "y.npy": npy}),
        "a shape that is too small": _archive({"x.npy": short, "y.npy": npy}),
        "objects": _npz(x=np.array([_Call(os.getcwd, ())], object), y=y),
        "a header of code": _archive({"x.npy": _npy("__import__('os').getcwd()"), "y.npy": npy}),
        "a deep header": _archive({"x.npy": _npy("(" * 9000), "y.npy": npy}),
        "20,000 members": lambda: _archive({f"{k}.npy": b"" for k in range(20_000)}),
        "names outside": _archive({"../../x.npy": npy, "/y.npy": npy}),
    }
    for name, content in arrays.items():
        yield f"npz: {name}", _bytes("h.npz", content, lambda h: _data("npz:HERE/h.npz")(h, Saying()))
    pictures = {
        "1e5 by 1e5 pixels": _png(10**5, 10**5),
        "9000 by 9000 pixels": _png(9000, 9000),
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch ran) run\n",
        "text": b"hello",
    }
    for name, picture in pictures.items():
        yield f"png: {name}", _bytes("f/a/0.png", picture, lambda h: _data("folder:HERE/f")(h, Saying()))
    tables = {"NUL": b"path,label\n\0,\0\n", "a long field": b"path,label\n" + b"x" * (1 << 20) + b",1\n"}
    tables["a label of 1e30"] = b"path,label\nfolder/a/0.png,1e30\n"
    tables["no number"] = b"path,label\nfolder/a/0.png,nan\n"
    for name, table in tables.items():
        yield f"csv: {name}", _bytes("t.csv", table, lambda h: _data("csv:HERE/t.csv")(h, Saying()))

    def resumed(h: Path) -> Any:
        run = RunFolder.open("train", "x", StrictModel(), h / "run")
        with run:
            run.load_state("w")
            run.metrics(3, loss=1.0)

    for where, read in (
        ("run/.lock", resumed),
        ("run/metrics.jsonl", resumed),
        ("run/state.pt", resumed),
        ("run/resolved.json", resumed),
        ("ledger/adversarial.bin", _open_ledger),
        ("ledger/verdicts.jsonl", _open_ledger),
        ("store/.lock", lambda h: Store(h / "store").add(model(), "n")),
        ("store/names/m.json", lambda h: Store(h / "store").add(model(), "m")),
    ):
        yield f"a link at {where}", _link(where, read)
    for where, read in (
        ("run/state.pt", resumed),
        ("run/metrics.jsonl", resumed),
        ("run/resolved.json", resumed),
        ("ledger/adversarial.bin", _open_ledger),
        ("ledger/verdicts.jsonl", _open_ledger),
        ("done/result.json", lambda h: EvaluationResult.load(h / "done")),
        ("store/names/m.json", lambda h: Store(h / "store").get("m")),
        ("m.pt", lambda h: load_model(h / "m.pt")),
        ("m.safetensors", lambda h: load_model(h / "m.safetensors")),
        ("d.npz", lambda h: _data("npz:HERE/d.npz")(h, Saying())),
        ("folder/a/0.png", lambda h: _data("folder:HERE/folder")(h, Saying())),
        ("r.toml", lambda h: recipes.load(h / "r.toml")),
    ):
        yield f"a pipe at {where}", _pipe(where, read)
    yield "a name that means a file outside the store", _outside
    yield "a recipe that names code, in a dry run", _code


def _open_ledger(here: Path) -> Any:
    (here / "ledger").mkdir(exist_ok=True)
    with Ledger(here / "ledger", images(), ["pgd"], keep=False) as ledger:
        ledger.add(entries()[0], changed(0))


def attacked(pick: Callable[[int], bool] = lambda number: True) -> Iterator[tuple[str, Ended]]:
    """Reads the hostile files."""
    for number, (name, write) in enumerate(hostile()):
        if pick(number):
            with tempfile.TemporaryDirectory() as scratch:
                read = write(Path(scratch))

                def work(progress: Progress, read: Callable[[], Any] = read) -> tuple[str, str]:
                    read()
                    return "same", ""

                yield name, apart(work)


def main() -> None:
    """Reads, counts and prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--mutated", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--no-hostile", action="store_true")
    chosen = options.parse_args()
    begun, bad, most = time.perf_counter(), 0, 0
    _warm()
    rows: dict[str, Counter[str]] = {}
    parts = [("", damage(chosen.mutated, chosen.seed))]
    parts += [] if chosen.no_hostile else [("hostile", attacked())]
    for row, part in parts:
        for name, ended in part:
            how = "MEMORY" if ended.bytes > BYTES else ended.how
            rows.setdefault(row or name, Counter())[how] += 1
            most = max(most, ended.bytes)
            if how.isupper():
                bad += 1
                print(f"{how}: {name} ({ended.seconds:.1f} s, {ended.bytes >> 20} MB)\n{ended.detail}\n")
    ways = ("same", "said", "refused", "SILENT", "TRACEBACK", "HANG", "MEMORY")
    print("".join(f"{word:>16}" for word in ("kind", "files", *ways)))
    for row, counts in rows.items():
        print("".join(f"{word!s:>16}" for word in (row, counts.total(), *(counts[way] for way in ways))))
    print(f"most memory of one read: {most >> 20} MB; {time.perf_counter() - begun:.0f} s")
    sys.exit(1 if bad else 0)


def _warm() -> None:
    """What all reads import is imported before the first fork."""
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        write_all(here)
        for kind in KINDS:
            kind.read(here, Saying())
        (here / "bare.safetensors").write_bytes(save_tensors({"w": torch.ones(2)}))
        with suppress(UserError):
            load_model(here / "bare.safetensors")


if __name__ == "__main__":
    main()
