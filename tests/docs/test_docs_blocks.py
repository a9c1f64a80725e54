"""What the documentation tells people to type is typed here, page by page, from top to bottom.

Python blocks of a page share a namespace, shell blocks its folder. A block with a title is a file that the
reader writes. Long commands are shortened (`SHORT`). A block below a comment ``<!-- test: skip, REASON -->``
is not run, but the options of its commands, their values and the names in them are judged all the same.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from click.testing import CliRunner, Result

from advkit.cli import execute, recipes
from advkit.cli.app import app
from advkit.commands import COMMANDS
from advkit.core.errors import UserError
from advkit.core.named import at

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
FENCE = re.compile(
    r'^(?:<!-- test: skip, (?P<reason>\w.*?) -->\n)?```(?P<language>\w*)(?: title="(?P<title>.*?)")?\n'
    r"(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SHORT = {
    "gan-train": ["--steps", "20"],
    "gan-eval": ["--n", "20"],
    "finetune": ["--epochs", "1"],
    "semi-train": ["--epochs", "1"],
    "train": ["--epochs", "1", "--checks", "1"],
    "adv-train": ["--epochs", "1", "--checks", "1"],
    "attack": ["--n", "20"],
    "certify": ["--n", "20"],
    "smooth": ["--n", "5", "--samples", "200"],
    "curve": ["--n", "20"],
    "spatial": ["--n", "20"],
    "corrupt": ["--n", "20"],
    "patch": ["--steps", "5", "--n", "40"],
    "universal": ["--steps", "5", "--n", "40"],
    "advgan-train": ["--steps", "10", "--n", "40"],
    "detector-train": ["--epochs", "1", "--checks", "1", "--n", "60"],
    "detector-eval": ["--n", "10", "--attack", "pgd"],
    "defence-eval": ["--n", "5", "--set", "parameters.pgd.steps=2"],
    "substitute": ["--epochs", "1", "--queries", "200"],
    "natural": ["--n", "5", "--steps", "5", "--rings", "2"],
    "unrestricted": ["--n", "10", "--passes", "10"],
    "gan-invert": ["--steps", "5", "--n", "4"],
    "run": ["--set", "steps=20"],
}
"""Added to a command, so that it takes seconds; where an option is given twice, the later one counts."""
SMALL = {
    "advkit.commands.adv_train.TESTED": 40,
    "advkit.report.gan.SIDE": 5,
    "advkit.commands.gan_eval.GRID": 5,
    "advkit.gan.metrics.classification_accuracy.UPDATES": 10,
    "advkit.reuse.tested.ATTACKED": 40,
}
"""Constants of the commands that would take most of the time, and mean nothing here."""
REGISTRIES = (
    "advkit.attacks.attack:ATTACKS",
    "advkit.attacks.loss:ATTACK_LOSSES",
    "advkit.data.dataset:DATASETS",
    "advkit.defences.purifier:DEFENCES",
    "advkit.evaluation.check:CHECKS",
    "advkit.gan.loss:GAN_LOSSES",
    "advkit.gan.regulariser:REGULARISERS",
    "advkit.gan.metric:METRICS",
    "advkit.models.network:ARCHITECTURES",
    "advkit.training.objective:OBJECTIVES",
)


class Block(NamedTuple):
    page: Path
    line: int
    """Of the opening fence."""
    language: str
    title: str | None
    skipped: bool
    body: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"

    def commands(self) -> list[list[str]]:
        """The words of every advkit command, without ``advkit`` itself."""
        lines = self.body.replace("\\\n", " ").splitlines()
        parts = [part.strip() for line in lines for part in line.split(" && ")]
        return [shlex.split(part, comments=True)[1:] for part in parts if re.match(r"advkit( |$)", part)]


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text[: found.start("language")].count("\n") + 1,
            found["language"],
            found["title"],
            found["reason"] is not None,
            found["body"],
        )
        for found in FENCE.finditer(text)
    ]


def name(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder; what a page registers or imports is gone afterwards."""
    for place in REGISTRIES:
        registry = at(place)
        list(registry)  # registers what is advkit's own, which stays
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        monkeypatch.setattr(registry, "_aliases", dict(registry._aliases))
    for constant, value in SMALL.items():
        monkeypatch.setattr(constant, value)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "path", [str(work), *sys.path])
    monkeypatch.setenv("ADVKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ADVKIT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "120")
    modules = set(sys.modules)
    yield work
    for module in set(sys.modules) - modules:
        if str(getattr(sys.modules[module], "__file__", "")).startswith(str(work)):
            del sys.modules[module]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name)
def test_a_page_does_what_it_says(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.title is not None:
            (folder / block.title).write_text(block.body, encoding="utf-8")
        elif block.language == "bash":
            shell(block, monkeypatch)
        elif block.language == "python" and not block.skipped:
            lines = "\n" * block.line + block.body  # so that a traceback names the page's own line
            exec(compile(lines, str(page), "exec"), namespace)


def shell(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in block.commands():
        judge(words, block.place, monkeypatch)
        if not block.skipped:
            answer = call([*words, *SHORT.get(words[0] if words else "", [])])
            allowed = (0, 1) if "--min-robust" in words else (0,)
            assert answer.exit_code in allowed, f"{block.place}: {answer.output}"


def judge(words: list[str], place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options, their values and the names in them are right, whether or not the command is run."""
    command, context = app, click.Context(app, info_name="advkit")
    left = list(words)
    while left and isinstance(command, click.Group) and not left[0].startswith("-"):
        found = command.get_command(context, left[0])
        assert found is not None, f"{place}: there is no command {left[0]!r}"
        context = click.Context(found, parent=context, info_name=left.pop(0))
        command = found
    if words and words[0] in (*COMMANDS, "run"):
        given: list[Any] = []
        with monkeypatch.context() as patch:
            patch.setattr(execute, "execute", lambda trade, config, where: given.append((trade, config)))
            answer = call(words)
        assert answer.exit_code == 0 and given, f"{place}: {answer.output}"
        trade, config = given[0]
        recipe = Path("judged.toml")  # a recipe's names are looked up, those of options only when used
        recipe.write_text(
            as_toml({"command": trade.name, **config.model_dump(exclude_unset=True)}), encoding="utf-8"
        )
        recipes.load(recipe)
        recipe.unlink()
    elif not isinstance(command, click.Group):
        command.make_context(command.name, left, parent=context.parent)


@pytest.mark.parametrize(
    "line",
    [
        "attack --mdoel clf.pt",
        "attack --model clf.pt --attack pgdd",
        "attack --model clf.pt --set parameters.pgd.stpes=3",
        "gan-train --loss non-saturated",
        "gan-train --steps 0",
        "run gan/digitss",
        "ls --all",
        "modles ls",
    ],
)
def test_a_wrong_line_would_be_found(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((AssertionError, UserError, click.ClickException)):
        judge(line.split(), "a page", monkeypatch)


def as_toml(values: dict[str, Any], prefix: str = "") -> str:
    lines = []
    for name, value in values.items():
        key = name if re.fullmatch(r"[\w-]+", name) else json.dumps(name)
        if isinstance(value, dict):
            lines.append(as_toml(value, f"{prefix}{key}."))
        elif value is not None:
            lines.append(f"{prefix}{key} = {json.dumps(value)}\n")
    return "".join(lines)


def call(words: list[str]) -> Result:
    answer = CliRunner().invoke(app, words, prog_name="advkit")
    if answer.exception is not None and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    return answer


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_is_understood(page: Path) -> None:
    """No fence escapes the tests by an indent, or a language or a comment that they do not know."""
    text = page.read_text(encoding="utf-8")
    found = blocks(page)
    assert len(re.findall(r"^\s*```", text, re.MULTILINE)) == 2 * len(found)
    assert text.count("<!-- test") == sum(block.skipped for block in found)
    for block in found:
        assert block.language in ("bash", "python", "toml", "yaml", "json", "text"), block.place
        if block.language == "python":
            compile(block.body, block.place, "exec")


def test_the_readme_links_to_what_is_there() -> None:
    """MkDocs looks after the links of the other pages."""
    for target in re.findall(r"\]\(([^)]+)\)", FENCE.sub("", PAGES[0].read_text(encoding="utf-8"))):
        assert (REPOSITORY / target).exists(), target


def test_the_readme_opens_with_two_commands() -> None:
    first, second, *_ = (line for block in blocks(PAGES[0]) for line in block.body.splitlines())
    assert first == "pip install . && advkit quickstart"
    assert second == "pip install -e '.[test]' && pytest"
