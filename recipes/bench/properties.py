r"""Properties of the verification competition (VNN-COMP), decided and compared with what others have found.

    python recipes/bench/properties.py benchmarks/acasxu benchmarks/mnistfc --timeout 20 \
        --known results_csv/a-b-CROWN.csv results_csv/VeriNet.csv results_csv/oval.csv

Each folder is one of a clone of vnncomp2021, with networks (ONNX), properties (VNN-LIB) and a list of
instances (*instances.csv); ``--known`` are results of its participants (vnncomp2021_results), as lines of
category, network, property, seconds and answer; some participants contradict all others. Expected time: the
time-out for each instance that stays open.

Printed is a line for each instance, and for each network how many hold, are violated or stay open, and how
many of these answers contradict one that others have given; with one of them the exit code is 1.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch

import advkit
from advkit.verify.vnnlib import decide, load_property

SAID = {"UNSAT": "holds", "HOLDS": "holds", "SAT": "violated", "VIOLATED": "violated"}
Key = tuple[str, str]


def known(files: list[Path]) -> dict[Key, set[str]]:
    """What others have answered for each network and property."""
    found: dict[Key, set[str]] = defaultdict(set)
    for file in files:
        for row in csv.reader(file.read_text().splitlines()):
            if len(row) > 4 and (answer := SAID.get(row[4].strip().upper())):
                found[Path(row[1]).name, Path(row[2]).name].add(answer)
    return found


def instances(folder: Path, every: int) -> Iterator[tuple[Path, Path]]:
    """Every so many of the networks and properties of a folder."""
    (table,) = folder.glob("*instances.csv")
    for row in [*csv.reader(table.read_text().splitlines())][::every]:
        yield folder / row[0].strip(), folder / row[1].strip()


def main() -> None:
    """Decides and prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("folders", type=Path, nargs="+")
    options.add_argument("--known", type=Path, nargs="*", default=[])
    options.add_argument("--every", type=int, default=1)
    options.add_argument("--timeout", type=float, default=20)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    others, counts = known(chosen.known), defaultdict[str, Counter[str]](Counter)
    for folder in chosen.folders:
        for network, file in instances(folder, chosen.every):
            begun = time.perf_counter()
            said = others.get((network.name, file.name), set())
            try:
                regions = load_property(str(file))
                model = advkit.load_model(network, shape=(1, 1, len(regions[0].low)))
                answer = decide(model, regions, timeout=chosen.timeout)
                status, margin = answer.status, answer.margin
            except advkit.UserError as error:
                print(f"{network.name} {file.name}: {error}", flush=True)
                status, margin = "refused", float("nan")
            wrong = status in ("holds", "violated") and bool(said - {status})
            more = "contradicts" if wrong else ""
            which = f"{folder.name}/{network.stem}" if folder.name != "acasxu" else folder.name
            seconds = time.perf_counter() - begun
            print(which, file.name, status, *sorted(said), f"{margin:.4g} {seconds:.1f} s", more, flush=True)
            counts[which].update([status, *([more] if wrong else [])])
    for which, outcomes in counts.items():
        print(which, dict(outcomes))
    sys.exit(any(outcomes["contradicts"] for outcomes in counts.values()))


if __name__ == "__main__":
    main()
