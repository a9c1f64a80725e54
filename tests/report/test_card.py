"""A model card: each figure says which run it is of, and the run's command gives the same figure again."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from advkit.cli.app import app
from advkit.commands.board import Config as Board
from advkit.commands.board import run as board
from advkit.commands.card import Config, run
from advkit.core.context import Context
from advkit.core.errors import ConfigError, OutputError
from advkit.core.run_list import read
from advkit.evaluation.corruptions.result import CorruptionResult
from advkit.evaluation.result import EvaluationResult
from advkit.models.checkpoint import save_model
from advkit.models.header import read_card
from advkit.models.load import load_model
from advkit.report.measured import Figure, Measured, on_card
from advkit.verify.certification.result import CertificationResult

GOLDEN = Path(__file__).parents[1] / "golden" / "0.1.0" / "finished"
LINES = {
    "attack": "--model m.pt --data npz:toy.npz --n 12 --norm linf --eps 4/255 --attack fgsm,pgd --seed 3 "
    "--set parameters.pgd.steps=3 --certify --eight-bit",
    "certify": "--model m.pt --data npz:toy.npz --n 9 --norm linf --eps 0.02",
    "curve": "--model m.pt --data npz:toy.npz --n 5 --norm l2 --eps 0.1,0.2 --attack ddn --seed 2",
    "corrupt": "--model m.pt --data npz:toy.npz --n 8 --corruptions jpeg,contrast --severities 2,5 "
    "--baseline o.pt",
    "smooth": "--model m.pt --data npz:toy.npz --n 4 --sigma 0.25 --samples 200 --seed 1",
    "compare": "--model o.pt,m.pt --data npz:toy.npz --n 12 --norm linf --eps 0.02 --attack fgsm",
}

UNDER = {
    "attack": "linf eps 0.01569, 8 bits",
    "certify": "linf eps 0.02",
    "curve": "l2 eps 0.25",
    "corrupt": "4 corruptions of each image",
    "smooth": "l2 eps 0.25, smoothed",
    "compare": "linf eps 0.02",
}


def advkit(line):
    answer = CliRunner().invoke(app, shlex.split(line), prog_name="advkit")
    assert answer.exit_code == 0, answer.output


@pytest.fixture
def models(thirds, save_npz, built):
    model, images = thirds
    save_model(model, "m.pt")
    save_model(built("mlp", "classifier", 3, hidden=(), seed=1), "o.pt")
    save_npz(images(4, 2, "train"), images(12, 1, "test"))


def written(*runs, out="card.md"):
    outcome = run(Config(runs=runs), Context(out=Path(out)))
    return outcome, Path(out).read_text(encoding="utf-8")


def commands(text):
    return [block.splitlines() for block in re.findall(r"```bash\n(.*?)\n```", text, re.DOTALL)]


def test_the_command_on_the_card_gives_the_same_figures(models):
    for name, words in LINES.items():
        advkit(f"{name} {words} --out first/{name}")
    _, text = written(*(f"first/{name}" for name in LINES))
    (model,) = {one.model_hash for one in Measured.of(read(Path("first/attack")))}
    for name, lines in zip(LINES, commands(text), strict=True):
        (line,) = lines
        assert line.startswith(f"advkit {name} ")
        advkit(f"{line.removeprefix('advkit ')} --out again/{name}")
        first, again = (
            [one for one in Measured.of(read(Path(top) / name)) if one.model_hash == model]
            for top in ("first", "again")
        )
        assert len(first) == len(again) == 1 and first[0].figures
        assert again[0].figures == first[0].figures and again[0].seed == first[0].seed
        assert first[0].under == UNDER[name]
    corrupted = CorruptionResult.load("first/corrupt")
    (one,) = Measured.of(read(Path("first/corrupt")))
    mean = Figure("corrupted", corrupted.mean_accuracy, corrupted.interval, UNDER["corrupt"])
    assert one.figures[1] == mean and one.figures[0].value == corrupted.clean_correct / 8
    alone = Measured.of(read(Path("first/compare/2-m.pt")))[0]
    (_, compared) = Measured.of(read(Path("first/compare")))
    assert (compared.figures, compared.trusted, compared.n) == (alone.figures, alone.trusted, alone.n)
    assert len(compared.said) >= 2
    shown = board(Board(folder=("first",)), Context(out=Path("board.html"))).result["runs"]
    parts = {"first/corrupt/baseline", "first/compare/1-o.pt", "first/compare/2-m.pt"}
    assert {Path(path).as_posix() for path in shown} == {f"first/{name}" for name in LINES} - {
        "first/compare"
    } | parts


def test_a_comparison_of_runs_comes_with_their_commands(models):
    shared = "--data npz:toy.npz --norm linf --eps 0.02 --attack fgsm"
    advkit(f"attack --model o.pt {shared}")
    advkit(f"attack --model m.pt {shared} --out 'its own'")
    advkit("compare 1 'its own' --out compared")
    advkit("certify --model m.pt --data npz:toy.npz --n 2 --norm linf --eps 0.02 --out m")
    _, text = written("compared", "its own")
    (lines, _) = commands(text)
    (before,) = Measured.of(read(Path("its own")))
    assert [one.seed for one in Measured.of(read(Path("compared")))] == [None, None]
    for place in (*Path("runs").iterdir(), Path("its own")):
        shutil.rmtree(place)
    (alone,) = commands(written("compared", "m", out="gone.md")[1])[0]
    assert alone == "advkit compare 1 'its own'"
    for line in lines:
        advkit(line.removeprefix("advkit "))
    (after,) = Measured.of(read(Path("its own")))
    assert after.figures == before.figures
    with pytest.raises(ConfigError) as fault:
        written("compared", out="other.md")  # of which model?
    assert fault.value.code == "not-comparable"


def test_the_metadata_has_each_figure(tmp_path):
    for name in ("attack", "curve"):
        shutil.copytree(GOLDEN / name, tmp_path / name)
    path = tmp_path / "attack" / "result.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["checks"][0] |= {"verdict": "doubt", "detail": "a | b"}
    path.write_text(json.dumps(values), encoding="utf-8")
    outcome, text = written("attack", "curve")
    _, head, body = text.split("---\n", 2)
    metadata = pytest.importorskip("yaml").safe_load(head)
    measured = [one for name in ("attack", "curve") for one in Measured.of(read(Path(name)))]
    (index,) = metadata["model-index"]
    assert index["name"] == measured[0].row.model
    rows = [line.strip("| ").split(" | ") for line in body.splitlines() if line.startswith("| ")][2:]
    for one, result in zip(measured, index["results"], strict=True):
        assert f"{result['dataset']['name']} {result['dataset']['split']}" == one.data
        for figure, metric in zip(one.figures, result["metrics"], strict=True):
            assert (metric["type"] == "accuracy") == (figure.name == "clean")
            facts = metric["args"]
            assert (metric["value"], facts["low"], facts["high"]) == (figure.value, *figure.interval)
            assert (facts["n"], facts["run_sha256"], facts["seed"]) == (one.n, one.digest, one.seed)
            assert facts["advkit"] == "0.1.0"
            row = rows.pop(0)
            assert row[:2] == [figure.called, figure.text] and one.digest.startswith(row[-1])
            assert row[4] == ("doubted" if one is measured[0] and figure.name == "robust" else "")
    assert not rows and body.count(f"`{measured[0].model_hash}`") == 1 and "a \\| b" in body
    assert all(f"- hash: `{one.digest}`" in body for one in measured)
    assert [found["sha256"] for found in outcome.result["runs"]] == [one.digest for one in measured]


def test_a_card_is_of_one_model_and_replaces_nothing(models):
    for name in ("m", "o"):
        advkit(f"certify --model {name}.pt --data npz:toy.npz --n 2 --norm linf --eps 0.02 --out {name}")
    with pytest.raises(ConfigError) as fault:
        written("m", "o")
    assert fault.value.code == "not-comparable" and not Path("card.md").exists()
    assert run(Config(runs=("m", "m")), Context(dry_run=True)).result == {"runs": 2}
    Path("card.md").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError):
        written("m")


def test_an_exported_model_has_what_runs_measured_of_it(models):
    """Of exactly it, and not of the model before it was rounded; of several runs the closest bounds."""
    advkit("models export m.pt half.safetensors --half")
    subject = "--model half.safetensors --data npz:toy.npz --norm linf --eps 0.02"
    advkit(f"attack {subject} --n 12 --attack cascade --certify --out a")
    advkit(f"attack {subject} --n 12 --attack fgsm --eight-bit --out eight")
    advkit(f"attack {subject} --n 12 --attack noise --out weak")
    advkit(f"certify {subject} --n 5 --out few")
    advkit(f"curve {subject.partition(' --norm')[0]} --n 5 --norm l2 --attack ddn --out curve")
    advkit(f"certify {subject.replace('half.safetensors', 'm.pt')} --n 12 --out other")
    for wrong in ("curve", "other", "eight", "nowhere"):
        refused = CliRunner().invoke(app, ["models", "export", "half.safetensors", "x.pt", "--runs", wrong])
        assert refused.exit_code == 2 and not Path("x.pt").exists()
    advkit("models export half.safetensors full.pt --runs a,few")
    card, before = read_card(Path("full.pt")), read_card(Path("half.safetensors"))
    attacked, few = EvaluationResult.load("a"), CertificationResult.load("few")
    weak = EvaluationResult.load("weak")
    found = {(one.name, one.data.n): (one.correct, one.threat) for one in card.accuracies}
    assert found == {
        ("clean", 12): (attacked.clean_correct, None),
        ("robust", 12): (attacked.robust_correct, attacked.threat),
        ("certified", 12): (attacked.certified_correct, attacked.threat),
        ("clean", 5): (few.clean_correct, None),
        ("certified", 5): (few.certified_correct, few.threat),
    }
    assert before.lineage == card.lineage != () and before.accuracies == ()
    doubts = {one.name: one.doubts for one in on_card(before, weak.model_hash, ["weak"]).accuracies}
    assert doubts == {"clean": (), "robust": tuple(one.name for one in weak.checks if one.verdict == "doubt")}
    assert doubts["robust"]
    for known in (2, 9):
        earlier = [one.model_copy(update={"correct": known}) for one in card.accuracies if one.threat]
        again = on_card(card.model_copy(update={"accuracies": earlier}), attacked.model_hash, ["a"])
        of = {(one.name, one.data.n): one.correct for one in again.accuracies}
        assert of["robust", 12] == min(known, attacked.robust_correct)
        assert of["certified", 12] == max(known, attacked.certified_correct)
    assert load_model("full.pt").hash == load_model("half.safetensors").hash == attacked.model_hash
