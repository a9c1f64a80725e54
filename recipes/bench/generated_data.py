"""What generated images are worth to adversarial training, beside Gaussians and beside nothing.

    python recipes/bench/generated_data.py --out generated.jsonl --data mnist

For every number of real images and every seed: a class-balanced set of them is drawn, a tenth of it held out
to choose checkpoints by, and three classifiers are hardened on the rest, for as many updates each: without
more images, with a share of every batch from Gaussians fitted to each class, and with as large a share from a
conditional GAN. Gaussians and GAN have seen the same rest and nothing else. Of both, only images are used of
which a classifier, trained on the rest too, is sure (`advkit gan-sample --classifier`). Test images are
attacked once, at the end.

A line of JSON for each hardened classifier goes to `--out`. What is there already is not done again, so a
bench that was stopped goes on with the same command, and may be done in parts; generators and classifiers
that several lines share are kept in the folder `--work`.

Expected time: the 8x8 digits as in docs/howto/augment-with-a-gan.md six minutes, 1,000 images of
MNIST as there half an hour, on one core that others share; MNIST with the defaults, not run yet, an estimated
15 hours on two cores, half of it for the GANs.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import advkit
from advkit.core import rng
from advkit.core.config import validate
from advkit.core.errors import DataError
from advkit.core.stats import accuracy
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.data.load import as_data, load_data
from advkit.gan.gaussian import gaussians
from advkit.gan.labelled import sample_labelled
from advkit.gan.settings import GanTraining
from advkit.gan.train import train_gan
from advkit.models.card import ModelCard
from advkit.models.checkpoint import load_checkpoint, save_model
from advkit.models.model import Model
from advkit.models.network import build
from advkit.training.loop import fit
from advkit.training.objective import OBJECTIVES
from advkit.training.settings import Fitting

SOURCES = ("none", "gaussian", "generator")
KEY = ("data", "threat", "options", "source", "n", "seed")
"""What a line is about; with it, a training is known to be done."""


def key_of(source: str, n: Any, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Identity of a line, as JSON gives it back."""
    identity = {
        name: getattr(options, name) for name in ("objective", "arch", "updates", "attack", "test", "set")
    }
    if source != "none":
        identity |= {name: getattr(options, name) for name in ("fraction", "samples", "confidence")}
    if source == "generator":
        identity["gan"] = options.gan
    values = (options.data, str(options.threat), json.dumps(identity, sort_keys=True), source, n, seed)
    return dict(zip(KEY, values, strict=True))


def fresh(data: Data, options: argparse.Namespace, seed: int) -> Model:
    """A classifier that has learnt nothing."""
    with rng.scope("cpu", seed, "init"):
        network = build(options.arch, shape=data.shape, classes=data.classes)
    about = {"role": "classifier", "architecture": options.arch}
    return Model(network, ModelCard(**about, shape=data.shape, classes=data.classes, labels=data.class_names))


def trained(
    objective: str, rest: Data, held: Data, seed: int, options: argparse.Namespace, extra: Data | None = None
) -> Model:
    """A classifier, with its best checkpoint on the held-out images."""
    kind = OBJECTIVES.get(objective)
    own = options.set if objective == options.objective else {}
    config = Fitting(seed=seed, extra_fraction=options.fraction, checks=5)
    epochs = -(-options.updates // config.batches(len(rest)))
    config = config.model_copy(update={"epochs": epochs})
    return fit(
        fresh(rest, options, seed),
        config,
        rest,
        held,
        objective=kind(validate(kind.Config, own, objective)),
        extra=extra,
        threat=options.threat if kind.needs_threat else None,
        device=options.device,
    ).best


def kept(path: Path, make: Any) -> Model:
    """The model at ``path``, made now if it is not there."""
    if not path.exists():
        save_model(make(), path)
    return load_checkpoint(path)


def more(source: str, rest: Data, held: Data, n: Any, seed: int, options: argparse.Namespace) -> Data:
    """Extra images, the same number of each class."""
    place = f"{options.data}-{n}-{seed}"
    teller = options.work / f"{place}-{options.arch}-standard.safetensors"
    classifier = kept(teller, lambda: trained("standard", rest, held, seed, options)).to(options.device)
    if source == "gaussian":
        generator = gaussians(rest)
    else:
        config = GanTraining(**{"conditional": "projection", **options.gan, "seed": seed})
        digest = rng.derive(0, json.dumps(options.gan, sort_keys=True)) % 10**8
        file = options.work / f"{place}-generator-{digest}.safetensors"
        generator = kept(file, lambda: train_gan(config, rest, device=options.device).models["ema"])
    generator = generator.to(options.device)
    found = sample_labelled(
        generator, classifier.eval(), options.samples, confidence=options.confidence, seed=seed
    )
    print(f"{source}, n {n}, seed {seed}: kept {options.samples} of {found.drawn} images", flush=True)
    return as_data((found.images, found.labels))


def line(source: str, n: Any, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """What a hardened classifier comes to."""
    train, test = (load_data(options.data, split) for split in ("train", "test"))
    real = train if n == "all" else train.take(train.balanced(n, seed))
    rest, held = real.holdout(min(0.1, 1000 / len(real)), seed)
    key = key_of(source, n, seed, options)
    try:
        extra = None if source == "none" else more(source, rest, held, n, seed, options)
    except DataError as fault:  # the generator does not draw all classes
        return {**key, "fault": str(fault)}
    model = trained(options.objective, rest, held, seed, options, extra)
    judged = (
        test if options.test is None or options.test >= len(test) else test.take(test.balanced(options.test))
    )
    result = advkit.evaluate(model, judged, options.threat, attack=options.attack)
    return {**key, "clean": result.clean_correct, "robust": result.robust_correct, "tested": result.n}


def read(path: Path) -> list[dict[str, Any]]:
    """Lines of earlier parts; a last one that was cut short is dropped."""
    rows = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: means over the seeds, their spread (standard deviation), and the interval that as many test
    images give a single classifier of the mean accuracy."""
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((str(row["n"]).zfill(6), SOURCES.index(row["source"]), row["options"]), []).append(
            row
        )
    said = ["| real images | more images | clean | robust [95 %] | seeds | n |", "| --- " * 6 + "|"]
    for _, group in sorted(groups.items()):
        done = [row for row in group if "fault" not in row]
        if done:
            tested = done[0]["tested"]
            clean = spread([100 * row["clean"] / tested for row in done])
            shares = [row["robust"] for row in done]
            robust = f"{accuracy(round(statistics.mean(shares)), tested)}, +- {deviation(shares, tested)}"
            cells = (group[0]["n"], group[0]["source"], clean, robust, len(done), tested)
        else:
            cells = (group[0]["n"], group[0]["source"], "-", group[0]["fault"], 0, 0)
        said.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(said)


def spread(values: list[float]) -> str:
    """``"97.5 +- 0.40"``"""
    off = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.1f} +- {off:.1f}"


def deviation(counts: list[int], n: int) -> str:
    """Standard deviation of the shares, in percentage points."""
    return f"{100 * statistics.stdev(counts) / n:.1f}" if len(counts) > 1 else "nan"


def parse() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON lines")
    parser.add_argument("--work", type=Path, default=Path("generated-data"), help="folder of shared models")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--norm", default=None)
    parser.add_argument("--eps", default=None)
    parser.add_argument("--real", default="1000,5000,all", help="numbers of real images")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sources", default=",".join(SOURCES))
    parser.add_argument("--objective", default="trades")
    parser.add_argument("--arch", default="small-cnn")
    parser.add_argument("--updates", type=int, default=10000, help="of each classifier, in whole epochs")
    parser.add_argument("--fraction", type=float, default=0.5, help="of every batch that is generated")
    parser.add_argument("--samples", type=int, default=50000, help="generated images")
    parser.add_argument("--confidence", type=float, default=0.9, help="of the classifier that filters them")
    parser.add_argument("--attack", default="apgd-ce")
    parser.add_argument("--test", type=int, default=None, help="test images; by default all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", action="append", default=[], help="KEY=JSON of the objective")
    parser.add_argument("--gan", action="append", default=[], help="KEY=JSON of gan-train")
    options = parser.parse_args()
    for name in ("set", "gan"):
        pairs = (text.split("=", 1) for text in getattr(options, name))
        setattr(options, name, {key: json.loads(value) for key, value in pairs})
    options.gan = {"steps": 12000, "data": options.data, **options.gan}
    return options


def main() -> None:
    """Trains what is missing and prints the table."""
    options = parse()
    sources = options.sources.split(",")
    if unknown := set(sources) - set(SOURCES):
        raise SystemExit(f"unknown sources: {', '.join(sorted(unknown))}; known: {', '.join(SOURCES)}")
    test = load_data(options.data, "test")
    said = options.norm and Threat(options.norm, float(options.eps))
    options.threat = said or test.threat
    if options.threat is None:
        raise SystemExit(f"{options.data} has no default threat model; give --norm and --eps")
    options.work.mkdir(parents=True, exist_ok=True)
    rows = read(options.out)
    options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))  # without a line cut short
    for seed in range(options.seeds):
        for n in [text if text == "all" else int(text) for text in options.real.split(",")]:
            for source in sources:
                done = [{name: row[name] for name in KEY} for row in read(options.out)]
                if key_of(source, n, seed, options) in done:
                    continue
                row = line(source, n, seed, options)
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)
    wanted = (options.data, str(options.threat))
    print(table([row for row in read(options.out) if (row["data"], row["threat"]) == wanted]))


if __name__ == "__main__":
    main()
