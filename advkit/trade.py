"""The commands: their names, and where the code of each is.

A trade (gan-train, finetune, attack, adv-train, ...) is a configuration class and one function
``run(config, context) -> Outcome``. The command line makes its flags, and recipes their keys, from the
configuration class, so the words are the same everywhere. `TRADES` names both by their place, so that
listing commands imports nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from advkit.config import StrictModel
from advkit.context import Context
from advkit.outcome import Outcome


@dataclass(frozen=True)
class Trade:
    """A command by its name, and where its code is."""

    name: str
    summary: str
    config_at: str
    run_at: str
    example: str
    heading: str = "Trades"
    """Under which ``advkit --help`` lists it."""
    divides: bool = False
    """Several processes, as ``torchrun`` starts them, share the work."""
    operands: str = ""
    """The key of the configuration, a list, whose values are typed without a flag."""

    @property
    def config(self) -> type[StrictModel]:
        """The configuration class."""
        found: type[StrictModel] = at(self.config_at)
        return found

    @property
    def run(self) -> Callable[[Any, Context], Outcome]:
        """The function that does the work."""
        found: Callable[[Any, Context], Outcome] = at(self.run_at)
        return found


def at(place: str) -> Any:
    """What is called ``name`` in ``module``, of ``"module:name"``."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


TRADES = {
    trade.name: trade
    for trade in (
        Trade(
            "quickstart",
            "train, attack and harden a digit classifier in a few minutes",
            "advkit.quickstart:Quickstart",
            "advkit.quickstart:run",
            "advkit quickstart",
            heading="Begin here",
        ),
        Trade(
            "gan-train",
            "train a generator and a discriminator on images",
            "advkit.gan.plan:GanTraining",
            "advkit.gan.command:train",
            "advkit gan-train --data mnist --arch conv-gan --steps 12001",
            divides=True,
            heading="Train GANs",
        ),
        Trade(
            "gan-sample",
            "draw images from a trained generator",
            "advkit.gan.plan:Sampling",
            "advkit.gan.command:sample",
            "advkit gan-sample --model digits-conv-gan-ema --n 400 --out digits.png",
            heading="Train GANs",
        ),
        Trade(
            "gan-eval",
            "measure how good a generator is, beside real images",
            "advkit.gan.evaluation.plan:GanEvaluation",
            "advkit.gan.evaluation.command:evaluate",
            "advkit gan-eval --model mnist-conv-gan-ema --data mnist --n 10000",
            heading="Train GANs",
        ),
        Trade(
            "gan-compare",
            "measure several generators side by side",
            "advkit.gan.evaluation.plan:GanComparison",
            "advkit.gan.evaluation.command:compare",
            "advkit gan-compare mnist-conv-gan-ema mnist-mlp-gan-ema --data mnist",
            operands="model",
            heading="Train GANs",
        ),
        Trade(
            "gan-invert",
            "find the latent vectors of which a generator makes given images",
            "advkit.inversion.plan:GanInversion",
            "advkit.inversion.command:gan_invert",
            "advkit gan-invert --model digits-conv-gan-ema --n 20",
            heading="Train GANs",
        ),
        Trade(
            "finetune",
            "make a classifier of a GAN's discriminator",
            "advkit.reuse.plan:FineTuning",
            "advkit.reuse.command:finetune",
            "advkit finetune --model digits-conv-gan-discriminator --labels 100 --out clf.pt",
            heading="Train classifiers",
        ),
        Trade(
            "semi-train",
            "train a classifier on few labels and many images, in a GAN's game",
            "advkit.reuse.semi_plan:SemiSupervised",
            "advkit.reuse.semi_command:semi_train",
            "advkit semi-train --data mnist --labels 100 --out clf.pt",
            heading="Train classifiers",
        ),
        Trade(
            "adv-train",
            "train a classifier that withstands attacks",
            "advkit.training.plan:AdversarialTraining",
            "advkit.training.command:adv_train",
            "advkit adv-train --model clf.pt --objective pgd --epochs 30 --out hard.pt",
            divides=True,
            heading="Train classifiers",
        ),
        Trade(
            "detector-train",
            "train a detector of a classifier's adversarial images",
            "advkit.defences.plan:DetectorTraining",
            "advkit.defences.train_command:detector_train",
            "advkit detector-train --model clf.pt --attack pgd --out det.pt",
            heading="Defend",
        ),
        Trade(
            "detector-eval",
            "judge a detector by an attack that knows of it",
            "advkit.defences.plan:Detection",
            "advkit.defences.detect_command:detector_eval",
            "advkit detector-eval --model clf.pt --detector det.pt --norm linf --eps 0.15",
            heading="Defend",
        ),
        Trade(
            "defence-eval",
            "judge what is done to images before they are classified",
            "advkit.defences.plan:Purification",
            "advkit.defences.defend_command:defence_eval",
            "advkit defence-eval --model clf.pt --defence jpeg --norm linf --eps 0.15",
            heading="Defend",
        ),
        Trade(
            "attack",
            "measure how much accuracy survives an attacker",
            "advkit.evaluation.plan:Evaluation",
            "advkit.evaluation.command:attack",
            "advkit attack --model clf.pt --norm linf --eps 0.15 --attack pgd,apgd-ce",
            divides=True,
            heading="Measure robustness",
        ),
        Trade(
            "certify",
            "prove how much accuracy survives any attacker",
            "advkit.certification.plan:Certification",
            "advkit.certification.command:run",
            "advkit certify --model clf.pt --norm linf --eps 0.05",
            heading="Measure robustness",
        ),
        Trade(
            "smooth",
            "certify how far images may move, by a classifier's votes under noise",
            "advkit.smoothing.plan:SmoothedCertification",
            "advkit.smoothing.command:run",
            "advkit smooth --model clf.pt --data mnist --sigma 0.5 --skip 20",
            divides=True,
            heading="Measure robustness",
        ),
        Trade(
            "curve",
            "measure how accuracy falls as an attacker may change more",
            "advkit.curve.plan:Curve",
            "advkit.curve.command:curve",
            "advkit curve --model clf.pt --norm linf --n 300 --eps 0.05,0.1,0.15",
            heading="Measure robustness",
        ),
        Trade(
            "spatial",
            "measure how much accuracy survives turning and shifting",
            "advkit.spatial.plan:Spatial",
            "advkit.spatial.command:spatial",
            "advkit spatial --model clf.pt --rotation 30 --shift 3",
            heading="Measure robustness",
        ),
        Trade(
            "natural",
            "look for adversarial examples in a generator's latent space",
            "advkit.inversion.natural_plan:Natural",
            "advkit.inversion.natural_command:natural",
            "advkit natural --model clf.pt --generator digits-conv-gan-ema --n 100",
            heading="Measure robustness",
        ),
        Trade(
            "unrestricted",
            "make images of a class that a classifier takes for another",
            "advkit.inversion.unrestricted_plan:Unrestricted",
            "advkit.inversion.unrestricted_command:unrestricted",
            "advkit unrestricted --model clf.pt --generator digits-conditional-ema",
            heading="Measure robustness",
        ),
        Trade(
            "patch",
            "make a patch that misleads a classifier wherever it lies",
            "advkit.universal.plan:PatchTraining",
            "advkit.universal.patch_command:patch",
            "advkit patch --model clf.pt --target 3 --out patch.png",
            heading="Make attacks",
        ),
        Trade(
            "universal",
            "make one perturbation that misleads a classifier on all images",
            "advkit.universal.plan:PerturbationTraining",
            "advkit.universal.perturbation_command:universal",
            "advkit universal --model clf.pt --norm linf --eps 0.1",
            heading="Make attacks",
        ),
        Trade(
            "advgan-train",
            "train a network that makes adversarial examples in one pass",
            "advkit.advgan.plan:AdvGanTraining",
            "advkit.advgan.command:advgan_train",
            "advkit advgan-train --model clf.pt --norm linf --eps 0.15",
            heading="Make attacks",
        ),
        Trade(
            "substitute",
            "copy a classifier from its answers, for attacks that transfer",
            "advkit.substitute.plan:SubstituteTraining",
            "advkit.substitute.command:substitute",
            "advkit substitute --model clf.pt --data mnist --queries 10000",
            heading="Make attacks",
        ),
    )
}
