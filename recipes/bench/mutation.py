"""Would the tests notice? One operator, comparison, constant or condition is changed at a time.

A seeded sample of places is changed, each alone, and the tests of its part are run: those that reach the
changed line, the fastest first, until one fails. A person reads what nobody notices, listed with its line.
Changes that change nothing are listed in ``mutation-equivalent.txt``: file, statement before and after (of a
compound one its first line), and the reason. Declarations that no input reaches are left alone: the arguments
of ``dataclass``, ``strict=`` of ``zip`` and ``if TYPE_CHECKING``.

    python recipes/bench/mutation.py --parts proofs --n 300 --seed 1
    python recipes/bench/mutation.py --only advkit/core/stats.py --n 50 --seed 1     # of some files alone
    python recipes/bench/mutation.py --parts proofs --n 300 --seed 1 --again    # what survived the last run

Expected: 300 changes of the trust-critical parts in about 20 minutes on 2 cores, after 4 minutes for the map
of which test reaches which line (kept under ``--cache`` until the code or the tests change).

Of the kept tools, mutmut 3 leaves out every decorated function and class, which is everything registered, and
cosmic-ray starts an interpreter for each change, of which importing PyTorch takes 5 seconds. Here PyTorch is
imported once, and each change is tried in a fork.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EQUIVALENT = Path(__file__).with_name("mutation-equivalent.txt")

PARTS: dict[str, dict[str, str]] = {
    "proofs": {
        "verify/bounds": "verify/bounds verify/certification",
        "verify/certification": "verify/certification verify/bounds",
        "verify/smoothing": "verify/smoothing",
        "core/stats.py": "core",
        "core/l1_ball.py": "core attacks",
        "core/water_filling.py": "core attacks",
        "core/levels.py": "core attacks",
        "core/rng.py": "core",
    },
    "engine": {
        "attacks/engine": "attacks",
        "attacks/losses": "attacks",
        "core/threat.py": "core attacks",
        "evaluation/curve": "evaluation/curve",
        "evaluation/spatial": "evaluation/spatial",
        "evaluation/corruptions": "evaluation",
        "evaluation": "evaluation",
    },
    "records": {
        "core/journal.py": "core",
        "core/files.py": "core",
        "core/runs.py": "core",
        "core/stored.py": "core",
        "models/onnx_graph": "models/onnx_graph",
        "models/doors/onnx_file.py": "models/onnx_graph",
        "models/store.py": "models",
        "models/checkpoint.py": "models",
        "models/load.py": "models",
        "models/door.py": "models",
        "models/doors": "models",
        "models/weights.py": "models",
        "models/zoo.py": "models",
        "models/match.py": "models",
        "models/card.py": "models",
        "models/inspect.py": "models",
    },
    "rest": {
        "attacks": "attacks",
        "core": "core cli",
        "data": "data",
        "defences": "defences",
        "gan": "gan",
        "integrations": "integrations",
        "models": "models",
        "report/defences.py": "report defences",
        "report/evaluation.py": "report evaluation",
        "report/gan.py": "report gan",
        "report/trained_attacks.py": "report trained_attacks",
        "report/training.py": "report training reuse",
        "report/verification.py": "report verify",
        "report/figures": "report gan evaluation verify trained_attacks",
        "report": "report",
        "reuse": "reuse",
        "trained_attacks/generators": "trained_attacks/generators",
        "trained_attacks/latent": "trained_attacks/latent",
        "trained_attacks/transfer": "trained_attacks/transfer",
        "trained_attacks/universal": "trained_attacks/universal",
        "training": "training",
        "cli": "cli",
    },
}
"""Of each group, places under ``advkit/`` and the folders of ``tests/`` that are to notice. ``trust`` is the
first three groups together. A file belongs to the first group that names it or a folder above it."""

LEFT_OUT = {"__init__.py", "settings.py"}
"""What only presents or declares."""

SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def places(tree: ast.Module) -> Iterator[ast.AST]:
    """What can be changed, in a fixed order."""
    declared = {
        id(word.value)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        for word in call.keywords
        if call.func.id == "dataclass" or (call.func.id == "zip" and word.arg == "strict")
    }
    for node in ast.walk(tree):
        if id(node) in declared or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Compare | ast.BinOp | ast.BoolOp | ast.AugAssign):
            text = isinstance(node, ast.BinOp) and isinstance(node.left, ast.Constant | ast.JoinedStr)
            text = text and not isinstance(getattr(node.left, "value", ""), int | float)
            if type(_operator(node)) in SWAPPED and not text:
                yield node
        elif (
            (isinstance(node, ast.Constant) and type(node.value) in (int, float, bool))
            or isinstance(node, ast.If | ast.IfExp)
            or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub))
        ):
            yield node


def _operator(node: ast.AST) -> ast.AST:
    return node.ops[0] if isinstance(node, ast.Compare) else node.op  # type: ignore[attr-defined]


def change(node: ast.AST) -> None:
    """Changes a place."""
    if isinstance(node, ast.Compare):
        node.ops[0] = SWAPPED[type(node.ops[0])]()  # type: ignore[assignment]
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        node.op = SWAPPED[type(node.op)]()  # type: ignore[assignment]
    elif isinstance(node, ast.If | ast.IfExp):
        node.test = ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.UnaryOp):
        node.op = ast.UAdd() if isinstance(node.op, ast.USub) else ast.Not()
        if isinstance(node.op, ast.Not):
            node.operand = ast.UnaryOp(ast.Not(), node.operand)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            node.value = not node.value
        else:
            node.value = node.value + 1 if node.value in (0, 1) else node.value * 2  # type: ignore[operator]


def changed(source: str, number: int) -> tuple[str, int, str, str]:
    """The source with its place ``number`` changed; the line, and the statement before and after."""
    tree = ast.parse(source)
    node = list(places(tree))[number]
    around = [one for one in ast.walk(tree) if isinstance(one, ast.stmt) and node in ast.walk(one)]
    statement = min(around, key=lambda one: sum(1 for _ in ast.walk(one)))
    before = ast.unparse(statement).splitlines()
    change(node)
    ast.fix_missing_locations(tree)
    after = ast.unparse(statement).splitlines()
    first = next((i for i, lines in enumerate(zip(before, after, strict=False)) if lines[0] != lines[1]), 0)
    return ast.unparse(tree), node.lineno, before[first].strip(), after[first].strip()  # type: ignore[attr-defined]


def owners(root: Path, group: str) -> dict[Path, list[str]]:
    """The files of a group (``trust``: of all but the rest), each with the folders of its tests."""
    found: dict[Path, tuple[str, list[str]]] = {}
    for name, part in PARTS.items():
        for place, folders in part.items():
            at = root / "advkit" / place
            for file in [at] if at.suffix else sorted(at.rglob("*.py")):
                if file.name not in LEFT_OUT and file.exists():
                    found.setdefault(file, (name, folders.split()))
    wanted = set(PARTS) - {"rest"} if group == "trust" else set(PARTS) if group == "all" else {group}
    return {file: folders for file, (name, folders) in found.items() if name in wanted}


# The map of which test reaches which line.

PLUGIN = """
import json, os, time
import coverage, pytest

cov = coverage.Coverage(data_file=None, source=[os.environ["MUTATION_SOURCE"]], config_file=False)
times, running, users = {}, "", {}

def pytest_sessionstart(session):
    cov.start()

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item, nextitem):
    global running
    running = item.nodeid
    cov.switch_context(running)
    for fixtures in item._fixtureinfo.name2fixturedefs.values():
        users.setdefault(shared(fixtures[-1]), []).append(running)
    begun = time.perf_counter()
    yield
    times[item.nodeid] = time.perf_counter() - begun

def shared(fixture):
    return f"{fixture.baseid}::@{fixture.argname}"

@pytest.hookimpl(hookwrapper=True)
def pytest_fixture_setup(fixturedef, request):
    # What a fixture reaches that several tests share belongs to all of them, not to the first one.
    if fixturedef.scope != "function":
        cov.switch_context(shared(fixturedef))
    yield
    cov.switch_context(running)

def pytest_sessionfinish(session):
    cov.stop()
    if not hasattr(session.config, "workerinput"):
        return  # the controller runs nothing
    data = cov.get_data()
    lines = {}
    for file in data.measured_files():
        for line, contexts in data.contexts_by_lineno(file).items():
            for test in {test for context in contexts for test in users.get(context, [context])}:
                lines.setdefault(file, {}).setdefault(test, []).append(line)
    with open(os.environ["MUTATION_MAP"] + f".{os.getpid()}", "w") as out:
        json.dump({"times": times, "lines": lines}, out)
"""


def environment(root: Path) -> dict[str, str]:
    """Variables under which tests run on the checkout at ``root``."""
    return {
        **os.environ,
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "HYPOTHESIS_PROFILE": "mutation",
    }


def reached(root: Path, folder: str, cache: Path) -> tuple[dict[str, float], dict[str, dict[str, list[int]]]]:
    """Seconds of each test of a folder, and the lines of each file that it reaches."""
    digest = hashlib.sha256()
    for file in sorted([*(root / "advkit").rglob("*.py"), *(root / "tests" / folder).rglob("*.py")]):
        digest.update(file.read_bytes())
    name = folder.replace("/", "+")
    kept = cache / f"{name}-{digest.hexdigest()[:16]}.json"
    if not kept.exists():
        print(f"mapping tests/{folder} ...", flush=True)
        cache.mkdir(parents=True, exist_ok=True)
        for old in cache.glob(f"{name}-*.json*"):
            old.unlink()
        with tempfile.TemporaryDirectory() as plugins:
            Path(plugins, "mutation_map.py").write_text(PLUGIN, encoding="utf-8")
            more = {
                "PYTHONPATH": f"{root}{os.pathsep}{plugins}",
                "MUTATION_SOURCE": str(root / "advkit"),
                "MUTATION_MAP": str(kept),
            }
            words = [sys.executable, "-m", "pytest", "-q", "-p", "mutation_map", "-p", "no:cacheprovider"]
            words += ["-n", str(os.cpu_count()), f"tests/{folder}"]
            done = subprocess.run(
                words, cwd=root, env=environment(root) | more, capture_output=True, text=True, check=False
            )
            if done.returncode:
                sys.exit(
                    f"tests/{folder} fail without any change:\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
                )
        times: dict[str, float] = {}
        lines: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for piece in cache.glob(f"{kept.name}.*"):
            said = json.loads(piece.read_text())
            piece.unlink()
            times.update(said["times"])
            for file, tests in said["lines"].items():
                for test, found in tests.items():
                    lines[str(Path(file).relative_to(root))][test] += found
        kept.write_text(json.dumps({"times": times, "lines": lines}))
    said = json.loads(kept.read_text())
    return said["times"], said["lines"]


def tests_of(root: Path, file: Path, line: int, folders: list[str], cache: Path) -> tuple[list[str], float]:
    """The tests that reach a line, fastest first, and their seconds; all of the folders' if none is known to.

    A line that runs at import is reached by all: first by those that run something of its file.
    """
    times: dict[str, float] = {}
    near: set[str] = set()
    name = str(file.relative_to(root))
    tree = ast.parse(file.read_text(encoding="utf-8"))
    spans = [
        (node.lineno, node.end_lineno or node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    first, last = max(spans, default=(line, line))
    if isinstance(next((s for s in ast.walk(tree) if getattr(s, "lineno", 0) == first), None), ast.If):
        last = line
    functions = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.body[0].lineno <= line <= (node.end_lineno or 0)
    ]
    for folder in folders:
        seconds, lines = reached(root, folder, cache)
        times |= seconds
        for test, found in lines.get(name, {}).items():
            if test and (not functions or any(first <= one <= last for one in found)):
                near.add(test)
    chosen = sorted(near & times.keys(), key=times.__getitem__)
    if not chosen or not functions:
        chosen += sorted(times.keys() - near, key=times.__getitem__)
    return chosen, sum(times[test] for test in chosen)


# One change after the other, each in a fork that finds PyTorch imported.


def preload(root: Path) -> None:
    """Imports what forks are to find, and nothing of the checkout."""
    sys.path.insert(0, str(root))
    os.chdir(root)
    os.environ.update(environment(root))
    sys.dont_write_bytecode = True
    import art.estimators.classification  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import pydantic  # noqa: F401
    import pytest  # noqa: F401
    import rich.progress  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torch
    import torch.fx  # noqa: F401
    import torchvision  # noqa: F401

    torch.set_num_threads(1)


def noticed(root: Path, tests: list[str], seconds: float) -> bool:
    """Whether any of the tests fails, in a fork of this process."""
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setsid()
            quiet = os.open(
                os.environ.get("MUTATION_LOG", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND
            )
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            import pytest

            words = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
            code = int(pytest.main([*words, "-o", "addopts=--import-mode=importlib", *tests]))
        finally:
            os._exit(code)
    until = time.monotonic() + 30 + 5 * seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status != 0
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def worker(root: Path, jobs: list[list[object]], cache: Path, out: Path) -> None:
    """Tries the changes on a copy of its own."""
    copy = Path(tempfile.mkdtemp()) / "copy"
    shutil.copytree(
        root, copy, ignore=shutil.ignore_patterns(".git", "__pycache__", ".*_cache", ".hypothesis", "runs")
    )
    preload(copy)
    if noticed(copy, ["tests/core/test_stats_images.py"], 10):
        sys.exit("tests fail without any change; MUTATION_LOG=FILE keeps what they say")
    try:
        with out.open("a", encoding="utf-8") as log:
            for name, number, folders in jobs:
                file = root / str(name)
                source = file.read_text()
                text, line, before, after = changed(source, int(str(number)))
                tests, seconds = tests_of(root, file, line, list(folders), cache)  # type: ignore[call-overload]
                (copy / str(name)).write_text(text)
                found = noticed(copy, tests, seconds)
                (copy / str(name)).write_text(source)
                row = {"file": name, "place": number, "line": line, "before": before, "after": after}
                print(json.dumps(row | {"noticed": found, "tests": len(tests)}), file=log, flush=True)
    finally:
        shutil.rmtree(copy.parent)


def excused(name: str, before: str, after: str) -> bool:
    """Whether a change is known to change nothing that anybody could see."""
    if not EQUIVALENT.exists():
        return False
    wanted = f"{name} | {before} | {after} | "
    return any(row.startswith(wanted) for row in EQUIVALENT.read_text().splitlines())


def main() -> None:
    """Draws the sample, tries it, and says what survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", default="trust", choices=[*PARTS, "trust", "all"])
    parser.add_argument("--only", nargs="*", help="files or folders, from the root")
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="only what survived the last run with --out")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "advkit-mutation")
    parser.add_argument("--out", type=Path, default=Path("mutation.jsonl"))
    asked = parser.parse_args()

    files = owners(ROOT, asked.parts if not asked.only else "all")
    if asked.only:
        chosen = [(ROOT / only).resolve() for only in asked.only]
        files = {f: t for f, t in files.items() if any(f == one or one in f.parents for one in chosen)}
    pool = [
        [str(file.relative_to(ROOT)), number, folders]
        for file, folders in sorted(files.items())
        for number in range(len(list(places(ast.parse(file.read_text())))))
    ]
    picked = random.Random(asked.seed).sample(pool, min(asked.n, len(pool)))
    if asked.again:
        last = [json.loads(line) for line in asked.out.read_text().splitlines()]
        left = {(row["file"], row["place"]) for row in last if not row["noticed"]}
        picked = [job for job in picked if (job[0], job[1]) in left]
    for folder in sorted({folder for _, _, folders in picked for folder in folders}):  # type: ignore[attr-defined]
        reached(ROOT, folder, asked.cache)
    asked.out.write_text("")
    children = []
    for k in range(asked.processes):
        child = os.fork()
        if not child:
            worker(ROOT, picked[k :: asked.processes], asked.cache, asked.out)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    rows = [json.loads(line) for line in asked.out.read_text().splitlines()]
    same = [r for r in rows if not r["noticed"] and excused(r["file"], r["before"], r["after"])]
    left = [r for r in rows if not r["noticed"] and r not in same]
    for row in sorted(left, key=lambda row: (row["file"], row["line"])):
        print(f"survived {row['file']}:{row['line']}  {row['before']}  ->  {row['after']}")
    counted = len(rows) - len(same)
    share = 100 * (counted - len(left)) / max(counted, 1)
    print(
        f"{counted - len(left)} of {counted} noticed ({share:.1f} %); {len(same)} change nothing; "
        f"seed {asked.seed}, {len(pool)} places"
    )


if __name__ == "__main__":
    main()
