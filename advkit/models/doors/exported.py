"""Programs of ``torch.export``: ``.pt2`` files, and an ``ExportedProgram`` in hand."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advkit.core import files
from advkit.core.errors import ModelError, UserError
from advkit.core.notes import Note
from advkit.models.door import Door, Found, Said, door
from advkit.models.header import damaged
from advkit.models.program import DTYPES, Program


@door(
    "torch.export",
    ".pt2",
    "torch.export.exported_program:ExportedProgram",
    summary="a program of torch.export",
)
class Exported(Door):
    """Reads the graph and the weights; nothing is unpickled but tensors."""

    def open(self, where: Any, said: Said) -> Found:
        """The program as a network that takes batches of any size."""
        if isinstance(where, Path):
            name, file = str(where), io.BytesIO(where.read_bytes())
        else:
            name, file = "the exported program", io.BytesIO()
            torch.export.save(where, file)
        try:
            with zipfile.ZipFile(file) as archive:
                network = _program(_Archive(archive, name))
        except UserError:
            raise
        except Exception as error:  # what is cut short or made up can fail in any way
            detail = f"{type(error).__name__}: {error}"
            raise (
                damaged(where, detail) if isinstance(where, Path) else ModelError(f"{name} is {detail}")
            ) from error
        config, notes = {"sha256": network.digest}, []
        network.free()
        if network.batch is not None:
            text = (
                f"the program was exported for batches of {network.batch}, and is given no others; export it "
                'with dynamic_shapes=({0: torch.export.Dim("n")},) for speed'
            )
            notes.append(Note("batch-fixed", text))
        return Found(
            network.eval(), "torch.export", config, network.shape, network.classes, notes=tuple(notes)
        )

    def holds(self, path: Path) -> bool:
        """By the names of what is inside."""
        ends = ("exported_program.json", "models/model.json")
        return any(name.endswith(ends) for name in files.zip_names(path))


class _Archive:
    """The members of a file, whatever folder they are in."""

    def __init__(self, archive: zipfile.ZipFile, where: str) -> None:
        self.archive, self.where = archive, where
        self.names = archive.namelist()

    def find(self, ending: str) -> str | None:
        return next((name for name in self.names if f"/{name}".endswith(f"/{ending}")), None)

    def json(self, ending: str) -> Any:
        return files.parsed(self.archive.read(self.find(ending) or ending))

    def tensors(self, member: str) -> Any:
        """What was saved by ``torch.save``, if it is tensors alone."""
        try:
            content = io.BytesIO(self.archive.read(member))
            return torch.load(content, map_location="cpu", weights_only=True)
        except Exception as error:  # a pickle can fail in any way
            reason = (str(error).splitlines() or [""])[0]
            raise ModelError(
                f"{self.where} holds a pickle of something else than tensors ({member}: {reason}), which "
                "could run any code; nothing was executed: export the network again"
            ) from error


def _program(archive: _Archive) -> Program:
    if archive.find("models/model.json"):
        content = archive.json("models/model.json")
        tensors = {**_payload(archive, "weights"), **_payload(archive, "constants")}
    elif archive.find("serialized_exported_program.json"):
        content = archive.json("serialized_exported_program.json")
        tensors = {}
        for part in ("state_dict", "constants"):
            if (found := archive.find(f"serialized_{part}.pt")) is not None:
                tensors |= archive.tensors(found)
    else:
        compiled = any("aotinductor" in name for name in archive.names)
        what = "compiled for one kind of machine" if compiled else "no program of torch.export"
        how = "torch.export.save(torch.export.export(network, (images,)), path)"
        raise ModelError(f"{archive.where} is {what}; write the program itself: {how}")
    return Program(content, tensors)


def _payload(archive: _Archive, part: str) -> dict[str, Tensor]:
    """The tensors in one folder: each as its bytes, or all in one file of older versions."""
    if (old := archive.find(f"data/{part}/model.pt")) is not None:
        return dict(archive.tensors(old))
    if archive.find(f"data/{part}/model_{part}_config.json") is None:
        return {}
    config = archive.json(f"data/{part}/model_{part}_config.json")["config"]
    return {name: _tensor(archive, part, about) for name, about in config.items()}


def _tensor(archive: _Archive, part: str, about: Mapping[str, Any]) -> Tensor:
    member = archive.find(f"data/{part}/{about['path_name']}") or ""
    if about.get("use_pickle"):
        tensor = archive.tensors(member)
        if not isinstance(tensor, Tensor):
            raise ModelError(f"{archive.where} holds {member}, which is no tensor; export the network again")
        return tensor
    meta = about["tensor_meta"]
    content = archive.archive.read(member)
    dtype = DTYPES[meta["dtype"]]
    flat = torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.zeros(0, dtype=dtype)
    size, stride = ([number["as_int"] for number in meta[key]] for key in ("sizes", "strides"))
    return flat.as_strided(size, stride, meta["storage_offset"]["as_int"]).clone()
