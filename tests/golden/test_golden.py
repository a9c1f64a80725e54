"""Files of earlier versions stay readable: results, checkpoints, records and run folders.

``0.1.0/finished`` has a run folder of each command, with pictures and reports left out; ``0.1.0/unfinished``
has those of trainings that were killed after their first state; ``0.1.0/models`` a ``.pt`` of each role. The
folders' ``env.json`` says the command line that made them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from advkit.cli.app import app
from advkit.core.stored import StoredResult
from advkit.defences.result import DetectionResult, DetectorResult, PurificationResult
from advkit.evaluation.curve.result import SecurityCurve
from advkit.evaluation.result import EvaluationResult
from advkit.evaluation.spatial.result import SpatialResult
from advkit.gan.evaluation.result import GanEvaluationResult
from advkit.gan.result import GanTrainingResult
from advkit.models.checkpoint import load_checkpoint
from advkit.models.store import Store
from advkit.reuse.result import FineTuningResult, SemiTrainingResult
from advkit.trained_attacks.generators.result import AdvGanResult
from advkit.trained_attacks.latent.result import InversionResult, NaturalResult, UnrestrictedResult
from advkit.trained_attacks.transfer.result import SubstituteResult
from advkit.trained_attacks.universal.result import PatchResult, PerturbationResult
from advkit.training.result import TrainingResult
from advkit.verify.certification.result import CertificationResult
from advkit.verify.smoothing.result import SmoothingResult

GOLDEN = Path(__file__).parent / "0.1.0"
FINISHED = sorted(path.name for path in (GOLDEN / "finished").iterdir())
UNFINISHED = sorted(path.name for path in (GOLDEN / "unfinished").iterdir())
CHECKPOINTS = sorted((GOLDEN / "finished").glob("*/*.safetensors"))
"""Of trainings; each is in the model store, too, where other commands look for it."""
RESULTS: dict[str, type[StoredResult]] = {
    "adv-train": TrainingResult,
    "advgan-train": AdvGanResult,
    "attack": EvaluationResult,
    "certify": CertificationResult,
    "curve": SecurityCurve,
    "defence-eval": PurificationResult,
    "detector-eval": DetectionResult,
    "detector-train": DetectorResult,
    "finetune": FineTuningResult,
    "gan-compare": GanEvaluationResult,
    "gan-eval": GanEvaluationResult,
    "gan-invert": InversionResult,
    "gan-train": GanTrainingResult,
    "gan-train-vae": GanTrainingResult,
    "natural": NaturalResult,
    "patch": PatchResult,
    "semi-train": SemiTrainingResult,
    "smooth": SmoothingResult,
    "spatial": SpatialResult,
    "substitute": SubstituteResult,
    "universal": PerturbationResult,
    "unrestricted": UnrestrictedResult,
}
"""The public classes of results."""


def raw(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return values


def hashes(name: str) -> dict[str, tuple[str, str]]:
    """(name in the store, hash) that a finished training's result gives for each of its checkpoints."""
    result = raw(GOLDEN / "finished" / name)
    made = result["models"] if "models" in result else {"model": result["model"]}
    return {stem: (about["name"], about["hash"]) for stem, about in made.items()}


def missing(old: Any, new: Any, where: str = "") -> list[str]:
    """What the old values have that the new ones lack or say otherwise; new keys are no fault."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            fault
            for key, value in old.items()
            for fault in (missing(value, new[key], f"{where}.{key}") if key in new else [f"{where}.{key}"])
        ]
    if isinstance(old, list) and isinstance(new, list | tuple) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [fault for number, pair in pairs for fault in missing(*pair, f"{where}[{number}]")]
    return [] if old == new else [f"{where}: {old!r} is now {new!r}"]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with the models of 0.1.0 under their names."""
    place = tmp_path_factory.mktemp("golden")
    store = Store(place / "models")
    for path in CHECKPOINTS:
        store.add(load_checkpoint(path), hashes(path.parent.name)[path.stem][0])
    return place


@pytest.fixture
def again(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Copies a golden folder and types its command line once more: (the copy, what came of it)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADVKIT_HOME", str(home))

    def type_again(folder: Path, without: str | None = None) -> tuple[Path, Result]:
        words = json.loads((folder / "env.json").read_text())["argv"][1:]
        copy = tmp_path / words[words.index("--out") + 1]
        shutil.copytree(folder, copy)
        if without:
            (copy / without).unlink()
        return copy, CliRunner().invoke(app, [*words, "--json", "-"], prog_name="advkit")

    return type_again


@pytest.mark.parametrize("name", FINISHED)
def test_a_result_is_read_by_its_class(name):
    """With every figure that the file has."""
    values = raw(GOLDEN / "finished" / name)
    result = RESULTS[name].load(GOLDEN / "finished" / name)
    values.pop("version")  # an older one is read as one of today
    assert missing(values, result.as_values()) == []
    assert RESULTS[name].from_json(result.to_json()) == result


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_checkpoint_has_the_hash_that_its_result_gives(path):
    model = load_checkpoint(path)
    assert model.card.advkit == "0.1.0" and model.hash == hashes(path.parent.name)[path.stem][1]


@pytest.mark.parametrize(
    ("role", "source"),
    [
        ("classifier", ("adv-train", "model")),
        ("detector", ("detector-train", "model")),
        ("discriminator", ("gan-train", "discriminator")),
        ("generator", ("gan-train", "ema")),
        ("perturbation-generator", ("advgan-train", "model")),
        ("vae", ("gan-train-vae", "vae")),
    ],
)
def test_a_pt_file_of_each_role_is_read(role, source):
    model = load_checkpoint(GOLDEN / "models" / f"{role}.pt")
    run, stem = source
    assert model.card.role == role and model.hash == hashes(run)[stem][1]


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_is_told_again_without_work(name, again):
    folder = GOLDEN / "finished" / name
    copy, found = again(folder)
    assert found.exit_code == 0, found.output
    old, told = raw(folder), json.loads(found.stdout)
    kept = raw(copy)  # seconds and all
    for values in (old, told, kept):
        values.pop("version", None)  # an older one may be told as one of today
    assert missing(old, told) == [] and missing(old, kept) == []
    for path in (path for path in folder.rglob("*") if path.is_file() and path.name != "result.json"):
        assert (copy / path.relative_to(folder)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", UNFINISHED)
def test_an_unfinished_training_goes_on_or_is_refused_in_one_sentence(name, again):
    """And nothing of it is lost in the second case."""
    folder = GOLDEN / "unfinished" / name
    copy, found = again(folder)
    if found.exit_code == 0:
        assert json.loads(found.stdout)["schema"] and (copy / "result.json").exists()
        return
    assert found.exit_code == 2, found.output
    assert one_sentence(found), found.output
    assert not (copy / "result.json").exists()
    for path in folder.iterdir():
        assert (copy / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", ["attack", "certify", "curve", "smooth"])
def test_a_record_of_verdicts_goes_on_or_is_refused_in_one_sentence(name, again):
    """An evaluation that was killed just before it wrote its result: the verdicts are in its record."""
    folder = GOLDEN / "finished" / name
    copy, found = again(folder, without="result.json")
    if found.exit_code == 2:
        assert one_sentence(found), found.output
        return
    assert found.exit_code == 0, found.output
    old, new = raw(folder), raw(copy)
    for key, value in old.items():
        if key.endswith("correct") or key in ("n", "right", "wrong", "abstained", "verdicts", "images"):
            assert missing(value, new[key]) == [], key


def one_sentence(found: Result) -> bool:
    """One fault, which begins with ``error:``, and no traceback."""
    return found.stderr.count("error:") == 1 and "Traceback" not in found.output


def test_nothing_tells_whose_machine_it_was():
    for path in GOLDEN.rglob("*"):
        if path.is_file():
            assert not any(place in path.read_bytes() for place in (b"/tmp/", b"/root/", b"/home/")), path
