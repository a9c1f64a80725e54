from __future__ import annotations

import importlib.util
import re

import pytest

from advkit.cli import recipes
from advkit.core.config import OneOf, ParametersOf, mark
from advkit.core.errors import ConfigError
from advkit.core.named import at
from advkit.core.registry import Registry
from advkit.gan.settings import GanTraining

FAULTY = """\
command = "gan-train"
about.sumary = "x"
data = "digitss"
arch = "conv-gn"
loss = "hinge-ish"
steps = 0
batchsize = 3
"""


@pytest.mark.parametrize("name", recipes.names())
def test_every_shipped_recipe_is_valid(name):
    command = recipes.read(name)["command"]
    place = recipes.COMMANDS[command].settings.partition(":")[0]
    if importlib.util.find_spec(place) is None:
        pytest.skip(f"{place} is not written yet")
    command, config = recipes.load(name)
    assert isinstance(config, command.config)
    assert recipes.about(name).summary
    head = recipes.find(name).read_text().split("\ncommand")[0]
    assert all(line.startswith("#") for line in head.strip().splitlines())
    assert re.search(rf"^#   advkit run {name}\b", head, re.MULTILINE)


def test_load_by_path_with_overrides(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('command = "gan-train"\nsteps = 5\ngenerator.latent_dim = 8\n')
    command, config = recipes.load(path, ["steps=7", "generator.latent_dim=16"])
    assert command.name == "gan-train"
    assert config == GanTraining(steps=7, generator={"latent_dim": 16})


GROUPS = """\
command = "attack"
model = "x"
attack = ["pgd", "apdg-ce"]
parameters.pgd.stpes = 1
parameters.apgd-ce.restarts = 0
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FAULTY, ["'summary'", "'digits'", "'conv-gan'", "'hinge-ish'", "steps", "'batch_size'"]),
        (
            GROUPS,
            ["'apgd-ce'", "parameters.pgd: unknown key 'stpes'", "'steps'", "parameters.apgd-ce: restarts"],
        ),
        ('command = "gan-train"\narch = "mlp-gan"\ngenerator.hiden = [3]', ["generator: ", "'hidden'"]),
        ('command = "gan-tran"', ["'gan-tran'", "'gan-train'"]),
        ("steps = 3", ["'command'"]),
        ("command = 3", ["command 3"]),
        ('command = "gan-train"\nabout = 3', ["about", "summary", "3"]),
        ('command = "gan-train"\nsteps = = 3', ["line 2"]),
        ("command = 'gan-train'\n\xff", ["TOML"]),
    ],
    ids=range(9),
)
def test_all_faults_are_told_at_once_with_the_nearest_names(tmp_path, text, said):
    path = tmp_path / "bad.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"bad\.toml") as caught:
        recipes.load(path)
    assert [part for part in said if part not in str(caught.value)] == []


def test_names_with_a_colon_are_left_to_the_loader(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('command = "gan-train"\ndata = "folder:photos"\n')
    assert recipes.load(path)[1].model_dump()["data"] == "folder:photos"


def test_validate_tells_of_every_file(advkit, tmp_path):
    (tmp_path / "bad.toml").write_text(FAULTY)
    (tmp_path / "worse.toml").write_text("= 3")
    answer = advkit("validate", "bad.toml", "gan/digits", "worse.toml")
    assert answer.exit_code == 2
    assert "gan/digits: valid (gan-train" in answer.stdout
    assert "bad.toml" in answer.stderr and "worse.toml" in answer.stderr


def test_cp(advkit, tmp_path):
    original = recipes.find("gan/digits").read_bytes()
    assert advkit("cp", "gan/digits", "-").stdout_bytes == original
    answer = advkit("cp", "gan/digits")
    assert answer.stdout.splitlines() == ["next: advkit run digits.toml", "digits.toml"]
    assert (tmp_path / "digits.toml").read_bytes() == original
    (tmp_path / "digits.toml").write_text("mine")
    refused = advkit("cp", "gan/digits", "digits.toml")
    assert refused.exit_code == 2 and "--overwrite" in refused.stderr
    assert (tmp_path / "digits.toml").read_text() == "mine"
    assert advkit("cp", "gan/digits", "digits.toml", "--overwrite").exit_code == 0
    (tmp_path / "folder").mkdir()
    assert advkit("cp", "gan/digits", "folder").stdout.splitlines()[-1] == "folder/digits.toml"


def test_every_group_of_keys_says_whose_parameters_it_holds():
    own = {"quickstart", "run", "sweep"}  # the last holds recipes, which are judged as such
    for name, command in recipes.COMMANDS.items():
        for key, field in command.config.model_fields.items():
            if name not in own and "dict[" in str(field.annotation):
                owner = mark(field, ParametersOf)
                assert owner is not None and isinstance(at(owner.place), Registry), (name, key)


def test_every_name_is_known_to_somebody():
    found = {
        known.place
        for command in recipes.COMMANDS.values()
        for field in command.config.model_fields.values()
        if (known := mark(field, OneOf)) is not None
    }
    assert len(found) >= 10 and all(isinstance(at(place), Registry) or at(place)() for place in found)


def test_a_recipe_may_ask_for_an_ensemble(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(
        'command = "attack"\nmodel = "clf.pt"\nattack = ["cascade", "autoattack", "advgan:mine"]\n'
    )
    assert recipes.load(path)[1].attack == ("cascade", "autoattack", "advgan:mine")
    with pytest.raises(ConfigError, match=r"'autoatack' \(did you mean 'autoattack'"):
        recipes.load(path, ['attack=["autoatack"]'])
