"""Image sets as Hugging Face publishes them, in Parquet files."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from advkit.core.errors import DataError
from advkit.data.data import Data
from advkit.data.dataset import Part, pick, role
from advkit.data.given import from_dataset


def load_parquet(path: Path, part: Part | None = None) -> Data:
    """One file, or all files below a folder; they are of the split with which their names begin, such as
    ``train-00000-of-00002.parquet``. Without such names they are one set, called split ``all``.

    Raises:
        DataError: no such files, the library ``datasets`` is not installed, or whatever `from_dataset` finds.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    if not files:
        raise DataError(
            f"there is no Parquet file in {path}; give parquet:PATH of a file or folder that exists"
        )
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{path} needs Hugging Face's library; install it with `pip install datasets`"
        ) from error
    roles = {file: role(re.split(r"[-_.]", file.name)[0]) for file in files}
    split: Part = "all"
    if any(roles.values()):
        split, serving = pick(part, [name for name in roles.values() if name], path)
        files = [file for file in files if roles[file] == serving]
    try:
        rows = datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train")
    except Exception as error:  # a damaged file fails in as many ways as it has bytes
        raise DataError(f"{path} cannot be read ({type(error).__name__}); is it a Parquet file?") from error
    return replace(from_dataset(rows, f"parquet:{path}"), split=split)
