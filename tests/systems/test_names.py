"""Names of files that few people choose: the result or one sentence, and never another file."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import advkit
from advkit.cli.app import app
from advkit.models.store import Store

NAMES = {
    "latin-1": b"clf\xfc".decode("utf-8", "surrogateescape"),
    "emoji": "clf 🦆",
    "newline": "clf\nclf",
    "dash": "-clf",
    "long": "c" * 200,
    "spaces": "  c l f ",
    "percent": "clf%s%",
    "hash": "clf#1",
    "quotes": "c'l\"f`$x$",
    "parent": "..",
    "dot": "clf.",
    "right to left": "מודל",
}


@pytest.fixture(scope="session")
def pair(place: Path, classifier: str) -> Path:
    """A folder with a classifier and data that fit each other."""
    folder = place / "pair"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVKIT_HOME", str(place / "home"))
        advkit.save_model(advkit.load_model(classifier), folder / "clf.pt")
    images, labels = advkit.load_data("digits").batch(range(40))
    np.savez(folder / "data.npz", images=(images * 255).round().byte().numpy(), labels=labels.numpy())
    return folder


def attack(model: str, data: str, out: str) -> list[str]:
    """A short attack on five images."""
    options = {"model": model, "data": f"npz:{data}", "out": out, "json": "-", "attack": "fgsm", "n": "5"}
    options |= {"norm": "linf", "eps": "0.1"}
    return ["attack", *(word for name, value in options.items() for word in (f"--{name}", value))]


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_odd_names_give_the_result_or_one_sentence(pair: Path, tmp_path: Path, name: str) -> None:
    model, data, out = (name if name == ".." else f"{name}{end}" for end in (".pt", ".npz", ""))
    if name != "..":
        shutil.copy(pair / "clf.pt", model)
        shutil.copy(pair / "data.npz", data)
    before = set(tmp_path.rglob("*"))
    found = CliRunner().invoke(app, attack(model, data, out))
    if name != "..":
        assert found.exit_code == 0, found.output
        assert (Path(out) / "report.html").exists() and (Path(out) / "result.json").exists()
        assert {path for path in tmp_path.rglob("*") if path.parent == tmp_path} - before == {tmp_path / out}
        for file in (path for path in Path(out).iterdir() if path.suffix in (".json", ".html", ".jsonl")):
            assert file.read_text("utf-8")
    else:
        assert found.exit_code == 2 and found.stderr.count("error: ") == 1, found.output
        assert set(tmp_path.rglob("*")) == before
    stored = CliRunner().invoke(app, ["models", "import", "--", model])
    assert stored.exit_code in (0, 2), stored.output


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_odd_names_in_the_store(
    pair: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is stored and found again, or refused before anything is written."""
    monkeypatch.setenv("ADVKIT_HOME", str(tmp_path / "home"))
    stored = CliRunner().invoke(app, ["models", "import", "--", str(pair / "clf.pt"), name])
    if stored.exit_code == 0:
        assert list(Store().names()) == [name]
        used = CliRunner().invoke(app, attack(name, str(pair / "data.npz"), "run"))
        assert used.exit_code == 0, used.output
    else:
        assert stored.exit_code == 2 and stored.stderr.count("error: ") == 1, stored.output
        assert not list(tmp_path.rglob("*"))
        train = ["train", "--data", "digits", "--arch", "mlp", "--epochs", "1", f"--name={name}"]
        refused = CliRunner().invoke(app, train)
        assert refused.exit_code == 2 and refused.stderr.count("error: ") == 1, refused.output
        for command in ("show", "rm", "lineage"):
            missing = CliRunner().invoke(app, ["models", command, "--", name])
            assert missing.exit_code == 2 and missing.stderr.count("error: ") == 1, missing.output
        assert not list(tmp_path.rglob("*.safetensors"))


def test_a_locale_without_unicode_changes_nothing(pair: Path) -> None:
    shutil.copy(pair / "clf.pt", "clé.pt")
    words = [sys.executable, "-m", "advkit", *attack("clé.pt", str(pair / "data.npz"), "oüt")]
    told = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "COLUMNS": "60", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(words, env=told, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode("ascii"))["n"] == 5
    shown = done.stderr.decode("ascii")
    assert "cl\\xc3\\xa9.pt'" in shown and "\x1b" not in shown
    assert "clé.pt" in Path("oüt/report.html").read_text("utf-8")
    assert json.loads(Path("oüt/resolved.json").read_text("utf-8"))["config"]["model"] == "clé.pt"
