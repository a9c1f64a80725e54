from __future__ import annotations

import http.client
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advkit.core.errors import ConfigError, DataError, OutputError
from advkit.data.dataset import TorchvisionFiles
from advkit.data.get import available, download


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Puts a network of ours where torchvision's is; returns the splits that were fetched through it."""

    def arrange(failure: Exception | None = None, after: int = 0) -> list[str]:
        fetched: list[str] = []

        def fetch(self: TorchvisionFiles, split: str, root: Path, *, download: bool) -> Any:
            if not download:
                return None
            if failure is not None and len(fetched) >= after:
                raise failure
            self.place(split, root).parent.mkdir(parents=True, exist_ok=True)
            self.place(split, root).write_bytes(b"content")
            fetched.append(split)
            return None

        monkeypatch.setattr(TorchvisionFiles, "open", fetch)
        return fetched

    return arrange


def test_available(mnist_folder: Path) -> None:
    (mnist_folder / "cifar10-test.npz").touch()
    rows = {row.name: row for row in available(mnist_folder)}
    assert rows["digits"].where == "bundled" and rows["digits"].splits == ("train", "test")
    assert rows["mnist"].where == str(mnist_folder) and rows["mnist"].splits == ("train", "test")
    assert rows["cifar10"].splits == ("test",)
    assert rows["svhn"].splits == () and rows["svhn"].where == "missing: advkit data get svhn"
    assert rows["svhn"].sizes == (73_257, 26_032) and rows["svhn"].shape == (3, 32, 32)


@pytest.mark.parametrize("name", ["mnist", "cifar100", "svhn"])
def test_download(name: str, tmp_path: Path, network: Callable[..., list[str]], heard: Any) -> None:
    fetched = network()
    folder = tmp_path / "new" / "folder"
    assert download(name, folder, heard) == folder
    assert fetched == ["train", "test"] and heard.said == [f"downloading {name} to {folder}"]
    assert {row.name: row.splits for row in available(folder)}[name] == ("train", "test")
    assert not list(folder.glob(".*"))
    download(name, folder, heard)
    assert fetched == ["train", "test"] and heard.said[1:] == [f"{name} is already in {folder}"]


def test_only_what_is_missing_is_fetched(tmp_path: Path, network: Callable[..., list[str]]) -> None:
    fetched = network()
    (tmp_path / "train_32x32.mat").write_bytes(b"mine")
    download("svhn", tmp_path)
    assert fetched == ["test"] and (tmp_path / "train_32x32.mat").read_bytes() == b"mine"


def test_half_a_set_is_not_overwritten(mnist_folder: Path, network: Callable[..., list[str]]) -> None:
    fetched = network()
    (mnist_folder / "MNIST" / "raw" / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(DataError):
        download("mnist", mnist_folder)
    assert fetched == [] and len(list((mnist_folder / "MNIST" / "raw").iterdir())) == 3


@pytest.mark.parametrize(
    "failure",
    [
        urllib.error.URLError("name or service not known"),
        http.client.IncompleteRead(b""),
        ConnectionResetError("reset by peer"),
        TimeoutError("timed out"),
        RuntimeError("File not found\nor corrupted."),
    ],
    ids=lambda failure: type(failure).__name__,
)
@pytest.mark.parametrize("after", [0, 1])
def test_network_failure_leaves_nothing(
    failure: Exception, after: int, tmp_path: Path, network: Callable[..., list[str]]
) -> None:
    network(failure, after)
    with pytest.raises(DataError) as caught:
        download("cifar10", tmp_path)
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path, network: Callable[..., list[str]]) -> None:
    network(OSError(28, "No space left on device"))
    with pytest.raises(OutputError):
        download("kmnist", tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        download("kmnist", tmp_path / "file")


def test_bundled_and_unknown(tmp_path: Path, heard: Any) -> None:
    download("digits", tmp_path, heard)
    assert len(heard.said) == 1 and "digits" in heard.said[0] and not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="'mnist'"):
        download("mnits", tmp_path)
