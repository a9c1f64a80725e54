"""Few labels: what a discriminator, a VAE's encoder and the K+1 game are worth, against from scratch.

    python recipes/bench/few_labels.py --out few_labels.jsonl --discriminator mnist-conv-gan-discriminator
    python recipes/bench/few_labels.py --out few_labels.jsonl --vae NAME --ways encoder
    python recipes/bench/few_labels.py --out few_labels.jsonl --ways K+1 --labels 100 --epochs 100

Each line of the file is one training: how, how many labels, which of the fixed sets of labels (they go with
the seed), and its errors on the test images, clean and under PGD. What is there already is not done again, so
a bench that was stopped goes on with the same command, and may be done in parts: the table at the end is of
all lines for the same data and threat.

Ways: `full` and `probe` (the discriminator, fine-tuned or under a linear layer), `scratch` (the same network
without its weights, as many updates), `encoder` (a VAE's encoder, fine-tuned), `K+1` (semi-supervised, from
scratch; `K+1 warm` begins with the discriminator). Test labels are used for the errors alone.

Expected time on MNIST, on one core: about 20 s each for up to 1,000 labels, the K+1 game an hour.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advkit.commands.finetune import run as finetune
from advkit.commands.semi_train import run as semi_train
from advkit.core.context import Context
from advkit.models.load import load_model
from advkit.report.outcome import Outcome
from advkit.reuse.settings import FineTuning, SemiSupervised

WAYS = ("full", "probe", "scratch", "encoder", "K+1", "K+1 warm")
KEY = ("data", "norm", "eps", "source", "options", "way", "labels", "seed")
"""What a line is about; with it, a training is known to be done."""


def train(way: str, labels: Any, seed: int, options: argparse.Namespace) -> Outcome:
    """One classifier, its run in a folder that is thrown away."""
    threat = {"norm": options.norm, "eps": options.eps}
    common = {"data": options.data, "labels": labels, "label_set": seed, "seed": seed, **threat}
    with tempfile.TemporaryDirectory() as folder:
        context = Context(out=Path(folder) / "run")
        if way.startswith("K+1"):
            game = {"epochs": options.epochs, **options.set, "name": "bench-semi"}
            if way == "K+1 warm":
                game["model"] = options.discriminator
            return semi_train(SemiSupervised.model_validate(common | game), context)
        source = options.vae if way == "encoder" else options.discriminator
        mode = "probe" if way == "probe" else "full"
        tuning = {
            "model": source,
            "mode": mode,
            "layer_decay": options.layer_decay,
            "shift": options.shift,
            "name": "bench-classifier",
        }
        if way == "scratch":
            tuning["scratch"] = True
        return finetune(FineTuning.model_validate(common | tuning), context)


def lines_of(way: str, labels: Any, seed: int, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What a training leaves: one line, or two where the network from scratch is trained beside it."""
    result = train(way, labels, seed, options).result
    test = result["test"]
    found = {"K+1": test} if way.startswith("K+1") else test["errors"]
    for how, row in found.items():
        name = {"fine-tuned": "full" if way == "scratch" else way, "from scratch": "scratch"}.get(how, way)
        key = key_of(name, labels, seed, options)
        figures = {name: row[name] for name in ("clean", "n", "robust", "attacked")}
        yield {**key, **figures, "updates": result["updates"]}


def key_of(way: str, labels: Any, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Identity of a line, as JSON gives it back."""
    source = {"encoder": options.vae, "K+1": None}.get(way, options.discriminator)
    settings = {"epochs": options.epochs, **options.set} if way.startswith("K+1") else {}
    if not way.startswith("K+1"):
        settings = {"layer_decay": options.layer_decay, "shift": options.shift}
    values = (
        options.data,
        options.norm,
        options.eps,
        source and load_model(source, role="vae" if way == "encoder" else "discriminator").hash[:12],
        json.dumps(settings, sort_keys=True),
        way,
        labels,
        seed,
    )
    return dict(zip(KEY, values, strict=True))


def read(path: Path) -> list[dict[str, Any]]:
    """Lines of earlier parts; a last one that was cut short is dropped."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def mend(path: Path) -> None:
    """Leaves a last line out that was cut short, so that the next one begins a line of its own."""
    if path.exists():
        path.write_text("".join(json.dumps(row) + "\n" for row in read(path)), encoding="utf-8")


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: mean and spread (standard deviation over the seeds) of both errors, in percent."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((str(row["labels"]).zfill(6), row["way"], row["options"]), []).append(row)
    said = ["| labels | way | clean error | error under PGD | seeds | options |", "| --- " * 6 + "|"]
    for (_, way, options), group in sorted(groups.items()):
        clean = spread([100 * row["clean"] / row["n"] for row in group])
        robust = [100 * row["robust"] / row["attacked"] for row in group if row["attacked"]]
        attacked = spread(robust) if robust else "-"
        labels = group[0]["labels"]
        said.append(f"| {labels} | {way} | {clean} | {attacked} | {len(group)} | {options} |")
    return "\n".join(said)


def spread(values: list[float]) -> str:
    """``"3.21 +- 0.40"``"""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.2f} +- {deviation:.2f}"


def parse() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON lines")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--norm", default=None)
    parser.add_argument("--eps", type=float, default=None)
    parser.add_argument("--labels", default="10,20,50,100,1000,all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", default=None, help=f"of {', '.join(WAYS)}")
    parser.add_argument("--discriminator", help="model in the store, file or run folder")
    parser.add_argument("--vae", help="model in the store, file or run folder")
    parser.add_argument("--layer-decay", type=float, default=1.0)
    parser.add_argument("--shift", type=int, default=0, help="pixels by which training images are moved")
    parser.add_argument("--epochs", type=int, default=100, help="of the K+1 game")
    parser.add_argument("--set", action="append", default=[], help="KEY=JSON of the K+1 game")
    options = parser.parse_args()
    options.set = {key: json.loads(value) for key, value in (text.split("=", 1) for text in options.set)}
    if options.ways is None:
        ways = ["full", "probe", "scratch"] if options.discriminator else []
        options.ways = ",".join([*ways, *(["encoder"] if options.vae else []), "K+1"])
    return options


def main() -> None:
    """Trains what is missing and prints the table."""
    options = parse()
    counts = [text if text == "all" else int(text) for text in options.labels.split(",")]
    ways = [way.strip() for way in options.ways.split(",")]
    if unknown := set(ways) - set(WAYS):
        raise SystemExit(f"unknown ways: {', '.join(sorted(unknown))}; known: {', '.join(WAYS)}")
    mend(options.out)
    for seed in range(options.seeds):
        for labels in counts:
            for way in ways:
                key = key_of(way, labels, seed, options)
                done = [{name: row[name] for name in KEY} for row in read(options.out)]
                if key in done or (way.startswith("K+1") and labels == "all"):
                    continue
                for row in lines_of(way, labels, seed, options):
                    if {name: row[name] for name in KEY} in done:
                        continue
                    with options.out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(json.dumps(row), flush=True)
    wanted = (options.data, options.norm, options.eps)
    print(table([row for row in read(options.out) if (row["data"], row["norm"], row["eps"]) == wanted]))


if __name__ == "__main__":
    main()
