"""A run that is killed again and again ends as one that is left alone.

    python recipes/bench/kills.py --kills 20 -- gan-train --data digits --steps 1500

Runs the command once, then again in another folder, where kill -9 ends it at a moment between its start and
the time that the whole run took, drawn anew each time. When it gets through, another folder is begun, until
it was killed so often. The models of all folders must have the same hashes, that is the same bits. Expected
time: about ten times that of the command, since it is killed after half of it on average.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from advkit.models.checkpoint import load_checkpoint


def models(folder: Path) -> dict[str, str]:
    """Hashes of the models in a run folder."""
    return {path.name: load_checkpoint(path).hash for path in sorted(folder.glob("*.safetensors"))}


def main() -> None:
    """Kills and compares."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--seed", type=int, default=0, help="of the moments")
    options.add_argument("command", nargs="+", help="of advkit, with its options, behind --")
    chosen = options.parse_args()
    moments = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole, cut = Path(scratch) / "whole", Path(scratch) / "cut"
        command = [sys.executable, "-m", "advkit", *chosen.command]
        begun = time.perf_counter()
        subprocess.run([*command, "--out", whole], check=True, capture_output=True)
        took = time.perf_counter() - begun
        print(f"left alone: {took:.1f} s")
        killed = finished = 0
        while killed < chosen.kills:
            if (cut / "result.json").exists():  # begin again: there is nothing left to kill
                finished += 1
                cut = Path(scratch) / f"cut-{finished}"
            nowhere = subprocess.DEVNULL
            running = subprocess.Popen([*command, "--out", cut], stdout=nowhere, stderr=nowhere)
            try:
                running.wait(moments.uniform(0, took))
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
                killed += 1
        subprocess.run([*command, "--out", cut], check=True, capture_output=True)
        folders = [path for path in Path(scratch).glob("cut*") if (path / "result.json").exists()]
        same = [models(folder) == models(whole) for folder in folders]
        print(f"killed {killed} times; {sum(same)} of {len(same)} finished runs have the bits of the first")
        sys.exit(0 if all(same) else 1)


if __name__ == "__main__":
    main()
