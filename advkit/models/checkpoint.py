"""One file per model: its weights and its card, in formats that cannot execute code.

``.safetensors`` has the card as JSON in its header, under the key ``advkit``. ``.pt`` is a PyTorch file of
plain types, ``{"advkit": card, "state_dict": weights}``, read with ``weights_only=True`` and never otherwise.
In both the card has two members more, by which damage is noticed: ``weights``, a digest of the weights, and
``sha256``, the seal of the card with it (`advkit.core.files`). A third, ``half``, says that the weights are
in the file as float16, and are read as float32.
"""

from __future__ import annotations

import io
import mmap
import pickle
import pickletools
import re
import threading
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from advkit import __version__
from advkit.core import files, rng, runs
from advkit.core.errors import ConfigError, ModelError, UserError, by_size
from advkit.models.card import VERSION, ModelCard, Parent
from advkit.models.door import DOORS, named_door
from advkit.models.header import (
    SUFFIXES,
    Header,
    damaged,
    header_in,
    is_safetensors,
    kind,
    opened,
    parse_card,
    refuse_absent,
)
from advkit.models.model import Model, content_hash, refuse_meta, weights_hash
from advkit.models.network import ARCHITECTURES, build
from advkit.models.unwrap import MOST, choose, plain_types, refuse_odd, unwrap

State = dict[str, Tensor]


def save_model(model: Model, path: Path | str, *, overwrite: bool = False) -> Path:
    """Writes weights and card into one file, whose format follows from the suffix.

    Raises:
        ConfigError: a suffix that is neither ``.safetensors`` nor ``.pt``.
        ModelError: weights that are not finite.
        OutputError: the file exists and ``overwrite`` is not set, or it cannot be written.
    """
    refuse_meta(model.network)
    refuse_nonfinite(model.network, "this model", "nothing was written; train with a smaller learning rate")
    return write_checkpoint(model.card, model.network.state_dict(), path, overwrite=overwrite)


def load_checkpoint(path: Path | str, *, arch: str | None = None) -> Model:
    """The model in a file that advkit wrote, on the CPU, in eval mode, with the dtypes it was saved in.

    Args:
        path: a ``.safetensors`` or ``.pt`` file with a card.
        arch: the factory ``package.module:function`` that the caller trusts to build the network. A file
            that names one in its card is not enough, since calling it runs code.

    Raises:
        ModelError: the file is missing, damaged, unsafe, foreign or inconsistent.
    """
    found = open_checkpoint(path, arch=arch)
    if not isinstance(found, Model):
        raise ModelError(f"{path} holds weights without a card; load it with load_model and --arch")
    return found


def open_checkpoint(
    path: Path | str, *, arch: str | None = None, weights_key: str | None = None
) -> Model | State:
    """Like `load_checkpoint`, but gives the bare weights of a file that has no card; of several state dicts,
    those under ``weights_key``."""
    path = Path(path)
    content = _read(path, weights_key)
    if content.header.card is None:
        return content.state
    if weights_key is not None:
        raise ConfigError(f"{path} has a card and one set of weights; leave --weights-key out")
    model = assemble(content.header.card, content.state, str(path), arch=arch)
    _refuse_damage(path, content)  # last, so that what differs is named if it can be
    return model


def read_checkpoint(path: Path | str) -> tuple[ModelCard | None, State]:
    """Card and weights of a file, on the CPU; no card for a bare state dict that something else wrote.

    Raises:
        ModelError: the file is missing, damaged, unsafe, or holds no weights.
    """
    content = _read(Path(path))
    _refuse_damage(Path(path), content)
    return content.header.card, content.state


def rounded(card: ModelCard, state: Mapping[str, Tensor], name: str = "") -> tuple[ModelCard, State]:
    """The model whose weights are rounded to float16, in float32; itself, where that changes nothing.

    Args:
        card: of the model; what was measured of it does not count for another one.
        name: that the card of the rounded model gives to it.

    Raises:
        ModelError: a weight is beyond the range of float16.
    """
    new = {
        key: tensor.half().float() if tensor.is_floating_point() else tensor for key, tensor in state.items()
    }
    for key, tensor in new.items():
        if tensor.isinf().any() and not torch.equal(tensor, state[key]):
            raise ModelError(
                f"{name or card.architecture} has weights ({key!r}) beyond 65,504, the most of float16; "
                "leave --half out"
            )
    if (digest := content_hash(card, state)) != content_hash(card, new):
        origin = Parent(relation="rounded-from", hash=digest, name=name)
        card = card.model_copy(update={"lineage": (origin,), "metrics": {}, "accuracies": ()})
    return card, new


def write_checkpoint(
    card: ModelCard,
    state: Mapping[str, Tensor],
    path: Path | str,
    *,
    overwrite: bool = False,
    half: bool = False,
) -> Path:
    """Writes a card and a state dict; see `save_model`. With ``half`` the model is `rounded`, and the file
    has half the size."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"cannot save a model as {path}: end its name with .safetensors or .pt")
    files.refuse_to_replace(path, overwrite=overwrite)
    today = {"version": VERSION, "advkit": __version__, "created": card.created or runs.now()}
    card = card.model_copy(update=today)
    # Clones: contiguous, on the CPU, and none a view of another, which safetensors would refuse.
    own = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    if half:
        card, own = rounded(card, own)
    facts = {"weights": weights_hash(own), **({"half": True} if half else {})}
    values = files.sealed({**card.model_dump(mode="json", by_alias=True), **facts})
    if half:
        own = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in own.items()}
    if path.suffix == ".safetensors":
        # One key of metadata only: the format writes several in an order that changes from time to time.
        header = {"advkit": files.json_text(values)}
        files.write_bytes(path, safetensors.torch.save(own, header))
    else:
        content = {"advkit": values, "state_dict": own}
        buffer = io.BytesIO()  # torch.save would hide a full disk behind an error of its own
        torch.save(content, buffer)
        files.write_bytes(path, buffer.getvalue())
    return path


def assemble(card: ModelCard, state: Mapping[str, Tensor], where: str, *, arch: str | None = None) -> Model:
    """The network that ``card`` names with the weights ``state``; ``where`` is named in messages.

    Raises:
        ModelError: the network cannot be built, or the weights are not its own.
    """
    trouble = f"{where}: its weights are not those of its card ({card.architecture!r})"
    _refuse_other_sizes(card, state, trouble)
    network = _network(card, where, arch)
    load_weights(network, state, trouble)
    refuse_nonfinite(network, where, "it was damaged, or its training diverged; take an earlier checkpoint")
    return Model(network, card).eval()


def _refuse_other_sizes(card: ModelCard, state: Mapping[str, Tensor], trouble: str) -> None:
    """Raises a `ModelError` before memory is taken for a network that is not that of the weights."""
    most = max((size for tensor in state.values() for size in tensor.shape), default=0)
    pending: list[Any] = [card.config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict | list):
            pending += value.values() if isinstance(value, dict) else value
        elif isinstance(value, int) and value > max(most, 10_000):
            raise ModelError(
                f"{trouble}: no weight has a size of {value:,}; take the file that belongs to it"
            )
    way = named_door(card.architecture)
    try:
        with rng.scope("cpu", 0, "build"), torch.device("meta"):
            sizes = (
                way.build(card)
                if way is not None
                else build(card.architecture, shape=card.shape, classes=card.classes, config=card.config)
            )
        own = {name: tensor.shape for name, tensor in sizes.state_dict().items() if torch.is_tensor(tensor)}
    except Exception:  # what is wrong is said where it is built, perhaps by the user's own function
        return
    if said := first_mismatch(own, state):
        raise ModelError(f"{trouble}: {said}; take the file that belongs to the model")


def load_weights(network: nn.Module, state: Mapping[str, Tensor], trouble: str) -> None:
    """Loads ``state`` into ``network``, which takes over its dtypes.

    Raises:
        ModelError: ``trouble`` and the first key that is missing, unexpected or of another shape.
    """
    own = network.state_dict(keep_vars=True)
    if extra := next((name for name, tensor in own.items() if not torch.is_tensor(tensor)), None):
        raise ModelError(
            f"{trouble}: its {extra!r} is no tensor (get_extra_state), and only tensors are read from files; "
            "load it in Python, and give advkit the module"
        )
    said = first_mismatch({name: tensor.shape for name, tensor in own.items()}, state)
    if said:
        raise ModelError(f"{trouble}: {said}; take the file that belongs to the model")
    for name, tensor in own.items():
        if tensor.is_floating_point() and not state[name].is_floating_point():
            kind = str(state[name].dtype).removeprefix("torch.")
            raise ModelError(
                f"{trouble}: {name!r} is {kind} where real numbers are wanted; take another file"
            )
        tensor.data = tensor.data.to(state[name].dtype).copy_(state[name])


def first_mismatch(expected: Mapping[str, torch.Size], state: Mapping[str, Tensor]) -> str:
    """What first differs between the tensors a network wants and those there are; empty for nothing."""
    for name, shape in expected.items():
        if name not in state:
            return f"{name!r} is missing"
        if state[name].shape != shape:
            return f"{name!r} is {_size(state[name].shape)} where {_size(shape)} is wanted"
    surplus = next((name for name in state if name not in expected), None)
    return f"{surplus!r} is unexpected" if surplus is not None else ""


def refuse_nonfinite(network: nn.Module, what: str, advice: str) -> None:
    """Raises a `ModelError` when a weight is NaN or infinite (a buffer may hold infinities: masks do)."""
    for name, parameter in network.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ModelError(f"{what} has weights that are NaN or infinite ({name!r}): {advice}")
    for name, buffer in network.named_buffers():
        if torch.isnan(buffer).any():
            raise ModelError(f"{what} has weights that are NaN ({name!r}): {advice}")


def _size(shape: torch.Size) -> str:
    return by_size(shape) or "a single number"


def _network(card: ModelCard, where: str, arch: str | None) -> nn.Module:
    name = card.architecture
    if arch is not None and name != (ARCHITECTURES.entry(arch).name if arch in ARCHITECTURES else arch):
        raise ConfigError(f"{where} says that its architecture is {name!r}, not {arch!r}; leave --arch out")
    try:
        with rng.scope("cpu", 0, "build"):
            if (way := named_door(name) or (DOORS.get(name)() if name in DOORS else None)) is not None:
                return way.build(card)
            if ":" in name:
                if arch is None:
                    raise ModelError(
                        f"its network is made by calling {name!r}, and a file alone must not run code; "
                        f"if you trust that function, say so with --arch {name}"
                    )
                return DOORS.get("function")().build(card)
            if (role := ARCHITECTURES.entry(name).facts["role"]) != card.role:
                raise ModelError(f"its card calls a {role} architecture ({name!r}) a {card.role}")
            return build(name, shape=card.shape, classes=card.classes, config=card.config)
    except UserError as error:
        raise ModelError(f"{where}: {error}") from error
    except (ArithmeticError, MemoryError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{where}: the network of its card cannot be built ({error}); take another copy"
        ) from error


@dataclass(frozen=True)
class _Content:
    header: Header
    state: State

    @classmethod
    def of(cls, header: Header, state: State) -> _Content:
        if header.half:
            state = {
                name: tensor.float() if tensor.dtype == torch.float16 else tensor
                for name, tensor in state.items()
            }
        return cls(header, state)


def _read(path: Path, weights_key: str | None = None) -> _Content:
    if is_safetensors(path):
        with opened(path) as file:
            header = header_in(file.metadata() or {}, path)
            names = list(file.keys())
            if len(names) > MOST:
                raise damaged(path, f"it has {len(names):,} tensors")
            # Clones, so that nothing that happens to the file later reaches into the model.
            state = {name: file.get_tensor(name).clone() for name in names}
            refuse_odd(state, path)
        if weights_key is not None and header.card is None:
            state = choose(state, path, weights_key)
        return _Content.of(header, state)
    return _read_pickle(path, weights_key)


def _refuse_damage(path: Path, content: _Content) -> None:
    digest = content.header.digest
    if digest is not None and digest != weights_hash(content.state):
        raise ModelError(f"{path} is damaged: its weights are not those that were written; take another copy")


_ALONE = threading.Lock()
"""Of the thread that has changed what PyTorch reads, and warns of."""


def _read_pickle(path: Path, weights_key: str | None) -> _Content:
    refuse_absent(path)
    if (what := kind(path)) is not None:
        raise ModelError(f"{path} is {what}")
    try:
        if files.is_zip(path):
            with zipfile.ZipFile(path) as archive:
                for part in archive.infolist():
                    files.refuse_bomb(part)
                programs = [name for name in archive.namelist() if name.endswith("data.pkl")]
                grows = any(b"bytearray" in archive.read(name) for name in programs)
                # PyTorch does not look at the checksums that it writes.
                if (member := archive.testzip()) is not None:
                    raise damaged(path, f"the checksum of {member} is wrong")
        else:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                grows = re.search(b"bytearray", mapped) is not None
        if grows:  # which takes as much memory as the file likes
            raise damaged(path, "it makes a bytearray")
        with _ALONE, warnings.catch_warnings(), plain_types():
            warnings.simplefilter("ignore")  # on files that are refused right after
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        blocked = re.search(r"GLOBAL (\S+)", str(error))
        name = blocked[1] if blocked else _blocked_call(path)
        if name is None:
            raise damaged(path, "it is a pickle of something else than weights") from error
        raise ModelError(
            f"{path} is a pickle that calls {name}, which could run any code; nothing was executed: "
            "ask for the weights alone (torch.save(model.state_dict(), ...)) or for .safetensors"
        ) from error
    except UserError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way whatever
        raise damaged(path) from error
    header = Header()
    if isinstance(content, dict):
        header = parse_card(content.pop("advkit", None), path)
    if header.card is not None:
        weights_key = None  # which is refused later
    return _Content.of(header, unwrap(content, path, weights_key))


def _blocked_call(path: Path) -> str | None:
    """The first thing but PyTorch's own that a pickle looks up by name, read without executing anything."""
    if files.is_zip(path):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            content = archive.read(names[0]) if names else b""
    else:
        content = path.read_bytes()
    found: list[str] = []
    strings: list[str] = []
    stream = io.BytesIO(content)
    try:
        while True:  # older files are several pickles in a row
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL":
                    found.append(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    found.append(".".join(strings[-2:]))
                elif isinstance(argument, str):
                    strings.append(argument)
    except ValueError:  # no more pickles, or one that is cut short
        pass
    strange = (name for name in found if not name.startswith(("torch.", "collections.")))
    return next(strange, found[0] if found else None)
