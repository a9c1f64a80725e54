"""Train, attack and harden a classifier in minutes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from advkit.commands import COMMANDS
from advkit.core import files, runs
from advkit.core.config import StrictModel, validate
from advkit.core.context import Context
from advkit.core.stats import accuracy
from advkit.evaluation.settings import Evaluation
from advkit.gan.settings import GanTraining
from advkit.report.outcome import Outcome, Table
from advkit.reuse.settings import FineTuning
from advkit.training.settings import AdversarialTraining

GROUP = "Start"
EXAMPLE = "advkit quickstart"

HARDENING: dict[str, Any] = {
    "objective": "small-box",
    "parameters": {"share": 0.4, "steps": 4, "eps_warmup": 0.4},
    "epochs": 60,
}
"""As in the recipe train/digits-linf, for half as many epochs, since the classifier is trained already. PGD
alone makes networks whose bounds are too loose for any proof."""


class Config(StrictModel):
    """The whole workflow on 1,797 real digits, without a download, in under three minutes on a laptop.

    gan-train trains a GAN on digits; finetune makes a classifier of its discriminator; attack measures its
    robust accuracy; adv-train hardens it so that proofs succeed, too; attack --certify complete measures
    again, exactly where no image stays open. The report compares the two.
    """

    seed: int = Field(0, ge=0)
    """Every random number follows from it."""


def run(config: Config, context: Context) -> Outcome:
    """Runs the five commands in one folder (``quickstart`` unless ``--out`` says otherwise)."""
    folder = context.out or Path("quickstart")
    ordinary, hardened = folder / "clf.pt", folder / "hard.pt"
    discriminator = folder / "1-gan-train" / "discriminator.safetensors"
    plan: list[tuple[str, str, StrictModel]] = [
        ("1-gan-train", "gan-train", GanTraining(seed=config.seed)),
        ("2-finetune", "finetune", FineTuning(model=str(discriminator), seed=config.seed)),
        ("3-attack", "attack", Evaluation(model=str(ordinary), seed=config.seed)),
        ("4-adv-train", "adv-train", AdversarialTraining(model=str(ordinary), seed=config.seed, **HARDENING)),
        ("5-attack", "attack", Evaluation(model=str(hardened), seed=config.seed, certify="complete")),
    ]
    if context.dry_run:
        rows = tuple((name, COMMANDS[command].summary) for name, command, _ in plan)
        return Outcome(title="what would be done", tables=(Table("in turn", ("folder", "what"), rows),))
    clock = _Clock(folder / "measured.json")
    outcomes: dict[str, Outcome] = {}
    for name, command, settings in plan:
        context.progress.say(f"{name[0]}/{len(plan)} advkit {command}: {COMMANDS[command].summary}")
        place = replace(context, out=folder / name, resume=False)
        known, begun = (folder / name / "result.json").exists(), time.perf_counter()
        outcomes[name] = COMMANDS[command].run(settings, place)
        if not known:
            clock.add(time.perf_counter() - begun)
        if command == "finetune":
            _publish(folder / name, ordinary)
        if command == "adv-train":
            _publish(folder / name, hardened)
    return _outcome(outcomes, folder, clock)


class _Clock:
    """Seconds of the work so far and when it ended, in a file: showing a finished run adds nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        known: dict[str, Any] = files.read_json(path) if path.exists() else {}
        self.seconds, self.measured = known.get("seconds", 0.0), known.get("measured", "")

    def add(self, seconds: float) -> None:
        """Adds the seconds of work that has just ended."""
        self.seconds, self.measured = self.seconds + seconds, runs.now()
        files.write_json(self._path, {"seconds": self.seconds, "measured": self.measured})


def _publish(run_folder: Path, file: Path) -> None:
    """The classifier of a run as a file of its own, as with ``--out clf.pt``."""
    from advkit.models.checkpoint import load_checkpoint, save_model

    save_model(load_checkpoint(run_folder / "model.safetensors"), file, overwrite=True)


def _outcome(outcomes: dict[str, Outcome], folder: Path, clock: _Clock) -> Outcome:
    from advkit.evaluation.result import EvaluationResult

    before, after = outcomes["3-attack"].result, outcomes["5-attack"].result
    n, threat = before["n"], before["threat"]
    gained = 100 * (after["robust_accuracy"] - before["robust_accuracy"])
    cleaner = 100 * (after["clean_accuracy"] - before["clean_accuracy"])
    rows, trust, robust = [], [], []
    for who, found in (("ordinary (clf.pt)", before), ("hardened (hard.pt)", after)):
        result = validate(EvaluationResult, found, who)
        trusted = "yes" if result.trusted else "doubted"
        accuracies = (accuracy(result.clean_correct, n), accuracy(result.robust_correct, n))
        rows.append((who, *accuracies, str(n), trusted))
        trust.append(f"{who[0].upper()}{who[1:]}: {result.trust}")
        exact = result.certified_correct == result.robust_correct
        robust.append(f"{'exactly' if exact else 'at most'} {result.robust_accuracy:.1%}")
    gan = f"{GanTraining().data}-{GanTraining().arch}"
    grid = outcomes["1-gan-train"].pictures[0]
    pairs = zip(outcomes["3-attack"].pictures, outcomes["5-attack"].pictures, strict=False)
    beside = [
        replace(picture, title=f"{picture.title}: {who} classifier")
        for pair in pairs
        for who, picture in zip(("ordinary", "hardened"), pair, strict=True)
    ]
    attacks = {"ordinary": outcomes["3-attack"], "hardened": outcomes["5-attack"]}
    return Outcome(
        title="quickstart",
        sentences=(
            f"Under an attacker who may change every pixel by {threat['eps']:.4g} of the range, the ordinary "
            f"classifier has a robust accuracy of {robust[0]}, the hardened one of {robust[1]}: "
            f"{gained:+.1f} points. Clean accuracy: {cleaner:+.1f} points.",
            *trust,
            f"Measured on {n} test images that no training used, in {clock.seconds:.0f} s "
            f"({clock.measured[:16].replace('T', ' ')} UTC).",
        ),
        bars=tuple(
            replace(bar, name=f"{who}: {bar.name}") for who, each in attacks.items() for bar in each.bars
        ),
        legend=attacks["ordinary"].legend,
        tables=(
            Table(
                f"before and after hardening ({threat['norm']} eps {threat['eps']:.4g})",
                ("classifier", "clean accuracy [95 %]", "robust accuracy [95 %]", "n", "trusted"),
                tuple(rows),
            ),
            *(
                replace(each.tables[0], title=f"{who} classifier, attack by attack")
                for who, each in attacks.items()
            ),
        ),
        pictures=(*beside, *outcomes["4-adv-train"].pictures, grid),
        files=(folder / "clf.pt", folder / "hard.pt", folder),
        next=(
            f"advkit attack --model {folder / 'hard.pt'} --eps 0.2",
            f"advkit models lineage {gan}-discriminator",
            f"advkit gan-sample --model {gan}-ema --n 400 --out digits.png",
        ),
        result=_result(outcomes, clock.seconds),
    )


def _result(outcomes: dict[str, Outcome], seconds: float) -> dict[str, Any]:
    return {"seconds": seconds, **{name: outcome.result for name, outcome in outcomes.items()}}
