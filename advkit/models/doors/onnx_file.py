"""``.onnx``: a graph that any framework exported, read into PyTorch so that gradients and proofs work."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from torch import nn

from advkit.core.errors import ModelError
from advkit.core.notes import Note
from advkit.models.card import ModelCard
from advkit.models.checkpoint import refuse_nonfinite
from advkit.models.door import Door, Found, Said, door
from advkit.models.onnx_graph.content import bare, content, parse
from advkit.models.onnx_graph.read import check_batches, read

_PREFIX = "onnx:"


@door(
    "onnx",
    ".onnx",
    _PREFIX,
    "onnx.onnx_ml_pb2:ModelProto",
    summary="an ONNX file (pip install 'advkit[onnx]')",
)
class OnnxFile(Door):
    """Reads a file, or the ``ModelProto`` of the package onnx in hand."""

    def open(self, where: Any, said: Said) -> Found:
        """The network, whose weights are parameters."""
        if isinstance(where, str | Path):
            path = Path(str(where).removeprefix(_PREFIX))
            named, folder = str(path), path.parent
            if not path.is_file():
                raise ModelError(f"there is no ONNX file {path}; check its name", code="model-not-found")
            model = parse(path.read_bytes(), named)
        else:
            model, named, folder = where, "the ONNX model", None
        held = content(model, named, folder)
        network = read(held, said.shape)
        refuse_nonfinite(network.module, named, "take another copy")
        check_batches(network, named)
        notes = []
        if held.converted:
            kinds = " and ".join(held.converted)
            how = f"the weights are {kinds}; they are computed with in float32"
            notes.append(Note("weights-converted", how))
        if network.layout == "channels last":
            notes.append(Note("input-arranged", "the file wants its channels last, and is given them so"))
        if network.layout == "flat" and network.shape[0] > 1:
            how = "the file wants its pixels in a row, and is given them channel by channel"
            notes.append(Note("input-arranged", how))
        return Found(
            network.module,
            f"{_PREFIX}{Path(named).stem}",
            {"graph": base64.b64encode(bare(model)).decode()},
            network.shape,
            network.classes,
            notes=tuple(notes),
        )

    def holds(self, path: Path) -> bool:
        """By the first bytes of an ``ModelProto``: its version, and the name of a producer or a graph."""
        with path.open("rb") as file:
            head = file.read(3)
        return head[:1] == b"\x08" and head[2:3] in (b"\x12", b":", b"B")

    def build(self, card: ModelCard) -> nn.Module:
        """The network of the graph that the card holds, with weights that are not there yet."""
        try:
            data = base64.b64decode(card.config["graph"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"its card holds no graph for {card.architecture!r}; take another copy"
            ) from error
        return read(content(parse(data, card.architecture), card.architecture, None), card.shape).module
