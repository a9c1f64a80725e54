"""Damaged and hostile files, a few of those of ``recipes/bench/fuzz.py``."""

import errno
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from advkit.cli.app import app
from advkit.core import config, errors, files
from advkit.core.errors import ConfigError, DataError, ModelError, OutputError, UserError
from advkit.models.store import Store
from advkit.models.unwrap import refuse_odd

SOURCE = Path(__file__).parents[2] / "recipes/bench/fuzz.py"


@pytest.fixture(scope="module")
def fuzz():
    found = importlib.util.spec_from_file_location("fuzz", SOURCE)
    module = importlib.util.module_from_spec(found)
    sys.modules["fuzz"] = module
    found.loader.exec_module(module)
    return module


def test_damage_is_noticed_in_every_kind_of_file(fuzz, tmp_path):
    """In this process; only the full harness measures time and memory."""
    for number in range(45):
        kind, dice = fuzz.KINDS[number % len(fuzz.KINDS)], fuzz.random.Random(f"suite {number}")
        here, saying = tmp_path / str(number), fuzz.Saying()
        here.mkdir()
        fuzz.write_all(here)
        before, path = kind.read(here, saying), here / kind.file
        assert saying.said == []
        path.write_bytes(fuzz.mutated(path.read_bytes(), dice))
        try:
            now = kind.read(here, saying)
        except UserError:
            continue
        assert not fuzz.silent(before, now, saying.said), (kind.name, number)


SLOW = [
    "1e5 in",
    "3e8",
    "37 MB",
    "wide",
    "sentence",
    "keys",
    "long",
    "labels",
    "resnet",
    "members",
    "bytearray",
    "quantised",
    "nested tensors",
]


def test_hostile_files_end_in_a_sentence(fuzz, tmp_path):
    accepted = []
    for number, (name, write) in enumerate(fuzz.hostile()):
        if any(word in name for word in SLOW):
            continue
        here = tmp_path / str(number)
        here.mkdir()
        read = write(here)
        try:
            read()
            accepted.append(name)
        except UserError as error:
            assert len(str(error)) < 12_000
    harmless = ("record: ", "a link at ", "a pipe at ", "a name ", "csv: ")
    assert all(name.startswith(harmless) for name in accepted), accepted


@pytest.mark.parametrize(
    ("message", "length"),
    [("x" * 500, 500), ("x" * 501, 500), ("x" * 10**6, 500), ("; ".join("ab" * 20), 39 * 3 - 2 - 38)],
)
def test_a_message_is_bounded(message, length):
    cut = str(UserError(message))
    assert (cut == message) == (len(message) <= 500 and message.count("; ") < errors.MOST)
    if ";" in message:
        assert cut.split("; ")[:20] == message.split("; ")[:20] and cut.endswith("; and 20 more")
    else:
        assert len(cut) == length
        assert cut == message or cut == message[:395] + " ... " + message[-100:]


def test_numbers_and_values_are_bounded():
    for value in (2**63 - 1, -(2**63)):
        config._refuse_large({"a": [value]}, "x")
    for value in (2**63, -(2**63) - 1, 10**5000):
        with pytest.raises(ConfigError, match="64"):
            config._refuse_large({"a": [{"b": value}]}, "x")
    config._refuse_large([0] * 1000, "x")
    with pytest.raises(ConfigError, match="values"):
        config._refuse_large([[0] * (config.VALUES // 2)] * 3, "x")


def test_tensors_of_a_file_are_no_larger_than_the_file(tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(bytes(1000))
    most = (8 * 1000 + (1 << 26)) // 4
    refuse_odd({"w": torch.zeros(1).expand(most)}, path)
    for state in ({"w": torch.zeros(1).expand(most + 1)}, {f"w{k}": torch.zeros(1) for k in range(100_001)}):
        with pytest.raises(ModelError):
            refuse_odd(state, path)


def test_only_regular_files_are_read_and_only_so_much(tmp_path):
    path, link = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"12345")
    link.symlink_to(path)
    assert files.read(path, 5) == files.read(link) == b"12345"
    with pytest.raises(ValueError):
        files.read(path, 4)
    with pytest.raises(OSError) as caught:
        files.read(link, own=True)
    assert caught.value.errno == errno.ELOOP
    with pytest.raises(OutputError), files.writing(path):
        files.read(tmp_path)
    sealed = tmp_path / "c"
    for content in (b"", b"abc"):
        files.write_sealed(sealed, content)
        assert files.read_sealed(sealed) == content
    assert files.read_sealed(path) == b"12345"
    sealed.write_bytes(sealed.read_bytes().replace(b"abc", b"abd"))
    with pytest.raises(ValueError):
        files.read_sealed(sealed)


def test_a_dry_run_imports_no_code(tmp_path):
    Path("own.py").write_text("raise SystemExit('imported')\n", encoding="utf-8")
    ended = CliRunner().invoke(app, ["attack", "--model", "own:net", "--data", "digits", "--dry-run"])
    assert ended.exit_code == 2 and "own:net" in ended.output


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch, built):
    store = Store(tmp_path / "store")
    store.add(built("mlp", classes=3, hidden=()), "m")

    def full(path, content):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Path, "write_bytes", full)
    for name in ("m.pt", "m.safetensors"):
        with pytest.raises(OutputError, match="full"):
            store.export("m", tmp_path / name)
        assert not (tmp_path / name).exists()


RUN = "import sys; sys.argv = ['advkit', 'ls', 'attacks']; from advkit.cli.app import main; main()"


def test_a_reader_that_has_gone_and_a_closed_stream_are_no_faults():
    """As with ``advkit ls attacks | head -1``, and ``advkit ls attacks >&-``."""
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-c", RUN]
    ended = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, check=False)
    os.close(writes)
    assert (ended.returncode, ended.stderr) == (141, b"")
    shell = f'"{sys.executable}" -c "{RUN}" >&-'
    ended = subprocess.run(shell, shell=True, stderr=subprocess.PIPE, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_an_array_that_claims_another_size_is_refused(tmp_path):
    import numpy as np

    path = tmp_path / "a.npz"
    files.write_arrays(path, x=np.arange(12).reshape(3, 4), e=np.zeros((0, 2)))
    found = files.Arrays(path)
    assert sorted(found) == ["e", "x"] and len(found) == 2 and found["e"].shape == (0, 2)
    assert (found["x"] == np.arange(12).reshape(3, 4)).all()
    with pytest.raises(DataError):
        files.Arrays(SOURCE)
