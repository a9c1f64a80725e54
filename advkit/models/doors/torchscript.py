"""TorchScript: files, if their code may run, and modules in hand."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import torch

from advkit.core import files
from advkit.core.errors import ModelError
from advkit.models.door import Door, Found, Said, door
from advkit.models.header import damaged


@door("torchscript", "torch.jit._script:ScriptModule", summary="FILE, with --allow-torchscript")
class TorchScript(Door):
    """Runs the code of a file only where the caller allows that."""

    def open(self, where: Any, said: Said) -> Found:
        """The module, and for its hash what no state dict has: a file's code, a frozen module's weights."""
        if not isinstance(where, Path):
            frozen = hashlib.sha256(where.save_to_buffer()).hexdigest() if not where.state_dict() else ""
            return Found(where, "", {"sha256": frozen} if frozen else {})
        if not said.allow_torchscript:
            raise ModelError(
                f"{where} is TorchScript, which holds code; if you trust it, add --allow-torchscript "
                "(load_model(..., allow_torchscript=True) in Python), else ask for the weights alone: "
                f'torch.save(torch.jit.load("{where.name}").state_dict(), "weights.pt")'
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated
                module = torch.jit.load(where, map_location="cpu")
        except RuntimeError as error:
            raise damaged(where) from error
        return Found(module.eval(), "torchscript", {"sha256": hashlib.sha256(where.read_bytes()).hexdigest()})

    def holds(self, path: Path) -> bool:
        """By the constants that every archive of TorchScript has."""
        return any(name.endswith("/constants.pkl") for name in files.zip_names(path))
