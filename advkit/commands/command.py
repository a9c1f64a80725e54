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

from advkit.core.config import StrictModel
from advkit.core.context import Context
from advkit.report.outcome import Outcome


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
            "advkit.commands.quickstart:Quickstart",
            "advkit.commands.quickstart:run",
            "advkit quickstart",
            heading="Begin here",
        ),
        Trade(
            "gan-train",
            "train a generator and a discriminator on images",
            "advkit.gan.settings:GanTraining",
            "advkit.commands.gan_train:train",
            "advkit gan-train --data mnist --arch conv-gan --steps 12001",
            divides=True,
            heading="Train GANs",
        ),
        Trade(
            "gan-sample",
            "draw images from a trained generator",
            "advkit.gan.settings:Sampling",
            "advkit.commands.gan_train:sample",
            "advkit gan-sample --model digits-conv-gan-ema --n 400 --out digits.png",
            heading="Train GANs",
        ),
        Trade(
            "gan-eval",
            "measure how good a generator is, beside real images",
            "advkit.gan.evaluation.settings:GanEvaluation",
            "advkit.commands.gan_eval:evaluate",
            "advkit gan-eval --model mnist-conv-gan-ema --data mnist --n 10000",
            heading="Train GANs",
        ),
        Trade(
            "gan-compare",
            "measure several generators side by side",
            "advkit.gan.evaluation.settings:GanComparison",
            "advkit.commands.gan_eval:compare",
            "advkit gan-compare mnist-conv-gan-ema mnist-mlp-gan-ema --data mnist",
            operands="model",
            heading="Train GANs",
        ),
        Trade(
            "gan-invert",
            "find the latent vectors of which a generator makes given images",
            "advkit.trained_attacks.latent.settings:GanInversion",
            "advkit.commands.gan_invert:gan_invert",
            "advkit gan-invert --model digits-conv-gan-ema --n 20",
            heading="Train GANs",
        ),
        Trade(
            "finetune",
            "make a classifier of a GAN's discriminator",
            "advkit.reuse.settings:FineTuning",
            "advkit.commands.finetune:finetune",
            "advkit finetune --model digits-conv-gan-discriminator --labels 100 --out clf.pt",
            heading="Train classifiers",
        ),
        Trade(
            "semi-train",
            "train a classifier on few labels and many images, in a GAN's game",
            "advkit.reuse.semi_settings:SemiSupervised",
            "advkit.commands.semi_train:semi_train",
            "advkit semi-train --data mnist --labels 100 --out clf.pt",
            heading="Train classifiers",
        ),
        Trade(
            "adv-train",
            "train a classifier that withstands attacks",
            "advkit.training.settings:AdversarialTraining",
            "advkit.commands.adv_train:adv_train",
            "advkit adv-train --model clf.pt --objective pgd --epochs 30 --out hard.pt",
            divides=True,
            heading="Train classifiers",
        ),
        Trade(
            "detector-train",
            "train a detector of a classifier's adversarial images",
            "advkit.defences.settings:DetectorTraining",
            "advkit.commands.detector_train:detector_train",
            "advkit detector-train --model clf.pt --attack pgd --out det.pt",
            heading="Defend",
        ),
        Trade(
            "detector-eval",
            "judge a detector by an attack that knows of it",
            "advkit.defences.settings:Detection",
            "advkit.commands.detector_eval:detector_eval",
            "advkit detector-eval --model clf.pt --detector det.pt --norm linf --eps 0.15",
            heading="Defend",
        ),
        Trade(
            "defence-eval",
            "judge what is done to images before they are classified",
            "advkit.defences.settings:Purification",
            "advkit.commands.defence_eval:defence_eval",
            "advkit defence-eval --model clf.pt --defence jpeg --norm linf --eps 0.15",
            heading="Defend",
        ),
        Trade(
            "attack",
            "measure how much accuracy survives an attacker",
            "advkit.evaluation.settings:Evaluation",
            "advkit.commands.attack:attack",
            "advkit attack --model clf.pt --norm linf --eps 0.15 --attack pgd,apgd-ce",
            divides=True,
            heading="Measure robustness",
        ),
        Trade(
            "certify",
            "prove how much accuracy survives any attacker",
            "advkit.verify.certification.settings:Certification",
            "advkit.commands.certify:run",
            "advkit certify --model clf.pt --norm linf --eps 0.05",
            heading="Measure robustness",
        ),
        Trade(
            "smooth",
            "certify how far images may move, by a classifier's votes under noise",
            "advkit.verify.smoothing.settings:SmoothedCertification",
            "advkit.commands.smooth:run",
            "advkit smooth --model clf.pt --data mnist --sigma 0.5 --skip 20",
            divides=True,
            heading="Measure robustness",
        ),
        Trade(
            "curve",
            "measure how accuracy falls as an attacker may change more",
            "advkit.evaluation.curve.settings:Curve",
            "advkit.commands.curve:curve",
            "advkit curve --model clf.pt --norm linf --n 300 --eps 0.05,0.1,0.15",
            heading="Measure robustness",
        ),
        Trade(
            "spatial",
            "measure how much accuracy survives turning and shifting",
            "advkit.evaluation.spatial.settings:Spatial",
            "advkit.commands.spatial:spatial",
            "advkit spatial --model clf.pt --rotation 30 --shift 3",
            heading="Measure robustness",
        ),
        Trade(
            "natural",
            "look for adversarial examples in a generator's latent space",
            "advkit.trained_attacks.latent.natural_settings:Natural",
            "advkit.commands.natural:natural",
            "advkit natural --model clf.pt --generator digits-conv-gan-ema --n 100",
            heading="Measure robustness",
        ),
        Trade(
            "unrestricted",
            "make images of a class that a classifier takes for another",
            "advkit.trained_attacks.latent.unrestricted_settings:Unrestricted",
            "advkit.commands.unrestricted:unrestricted",
            "advkit unrestricted --model clf.pt --generator digits-conditional-ema",
            heading="Measure robustness",
        ),
        Trade(
            "patch",
            "make a patch that misleads a classifier wherever it lies",
            "advkit.trained_attacks.universal.settings:PatchTraining",
            "advkit.commands.patch:patch",
            "advkit patch --model clf.pt --target 3 --out patch.png",
            heading="Make attacks",
        ),
        Trade(
            "universal",
            "make one perturbation that misleads a classifier on all images",
            "advkit.trained_attacks.universal.settings:PerturbationTraining",
            "advkit.commands.universal:universal",
            "advkit universal --model clf.pt --norm linf --eps 0.1",
            heading="Make attacks",
        ),
        Trade(
            "advgan-train",
            "train a network that makes adversarial examples in one pass",
            "advkit.trained_attacks.generators.settings:AdvGanTraining",
            "advkit.commands.advgan_train:advgan_train",
            "advkit advgan-train --model clf.pt --norm linf --eps 0.15",
            heading="Make attacks",
        ),
        Trade(
            "substitute",
            "copy a classifier from its answers, for attacks that transfer",
            "advkit.trained_attacks.transfer.settings:SubstituteTraining",
            "advkit.commands.substitute:substitute",
            "advkit substitute --model clf.pt --data mnist --queries 10000",
            heading="Make attacks",
        ),
    )
}
