"""Clean and robust accuracy: the cascade of attacks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advkit.attacks.attack import Attack
from advkit.attacks.oracle import Oracle, Precision
from advkit.attacks.perturb import device_of, logits_of, make
from advkit.data.data import Data
from advkit.data.load import as_data, load_data
from advkit.data.threats import customary
from advkit.errors import ConfigError, DataError, ModelError
from advkit.evaluation import checks
from advkit.evaluation.cascade import Cascade
from advkit.evaluation.ledger import Ledger
from advkit.evaluation.result import EvaluationResult
from advkit.models.card import ThreatFacts
from advkit.models.inspect import inspect_classifier
from advkit.models.load import load_model, wrap
from advkit.models.mode import evaluation_mode
from advkit.progress import SILENT, Progress
from advkit.runs import RunFolder, environment
from advkit.stats import clopper_pearson
from advkit.threat import Threat

BATCH_SIZE = {"cpu": 128}
"""Rows at work at once, by type of device; elsewhere 1,024."""


def evaluate(
    model: nn.Module | str | Path,
    data: Data | str | tuple[Any, Any],
    threat: Threat | None = None,
    attack: str | Sequence[str] = ("noise", "fgsm", "pgd", "apgd-ce"),
    *,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    n: int | None = None,
    batch_size: int | None = None,
    precision: Precision = "float32",
    keep: bool = False,
    allow_random: bool = False,
    run: RunFolder | None = None,
    progress: Progress = SILENT,
) -> EvaluationResult:
    """Clean and robust accuracy of a classifier.

    The attacks run in the given order, each only on the images that are still classified correctly.

    Args:
        model: a module from images (N, C, H, W) in [0, 1] to logits (N, K), or whatever `load_model` takes.
            It is attacked on the device where it is, in eval mode, and left in the mode it was in.
        data: `Data`, a data set's name (its test split), or (images, labels).
        threat: what the attacker may change; None: what the model was hardened for, else the customary
            one of the data.
        attack: one name, several separated by commas, or a sequence of names.
        parameters: of the attacks, by name: ``{"pgd": {"steps": 100}}``.
        seed: every random number follows from it.
        n: only the first so many images.
        batch_size: images at work at once; changes the speed, not the result.
        precision: arithmetic of the search; successes are confirmed in the model's own.
        keep: keep the adversarial images, in ``.adversarial``.
        allow_random: accept a model whose answers change from pass to pass.
        run: folder for the ledger; a run that was killed goes on from there.
        progress: told how many images were decided.

    Raises:
        ModelError: the model does not behave as a classifier.
        DataError: the images or labels do not fit.
        ConfigError: unknown attacks or parameters, or no threat model to assume.
    """
    begun = time.perf_counter()
    whole = load_data(data) if isinstance(data, str) else as_data(data)
    images = whole.limit(n)
    if isinstance(model, nn.Module):
        judged = wrap(model, shape=images.shape)
    else:
        judged = load_model(model, role="classifier", shape=images.shape)
    device = device_of(judged)
    if batch_size is None:
        batch_size = BATCH_SIZE.get(device.type, 1024)
    few, _ = images.batch(torch.arange(min(8, len(images))), device)
    classes = images.classes if images.classes_known else None
    notes = inspect_classifier(judged, few, classes, allow_random=allow_random)
    threat = threat or customary(judged, images)
    names = [name.strip() for name in attack.split(",")] if isinstance(attack, str) else list(attack)
    attacks = _attacks(names, threat, parameters or {})
    digest = judged.hash
    identity = {
        "model": digest,
        "data": images.fingerprint,
        "threat": threat.model_dump(),
        "attacks": {name: made.config.model_dump(mode="json") for name, made in attacks.items()},
        "seed": seed,
        "precision": precision,
    }
    folder = run.path if run is not None else None
    with evaluation_mode(judged), Ledger(folder, identity, images.shape) as ledger:
        clean = logits_of(judged, images, batch_size)
        _refuse_misfit(clean, images)
        oracle = Oracle(judged, threat, precision)
        cascade = Cascade(judged, images, clean, attacks, oracle, ledger)
        stages = tuple(
            cascade.run(name, seed=seed, batch_size=batch_size, progress=progress) for name in attacks
        )
        found = (
            checks.gradients(judged, Oracle(judged, threat), images),
            checks.confirmation(oracle.noticed, oracle.confirmed),
            checks.randomness(notes),
        )
        right, robust = int(cascade.correct.sum()), int(cascade.standing.sum())
        result = EvaluationResult(
            status="complete" if len(images) == len(whole) else "partial",
            threat=ThreatFacts(norm=threat.norm, eps=threat.eps),
            model_hash=digest,
            card=judged.card,
            data=images.facts,
            seed=seed,
            precision=precision,
            n=len(images),
            clean_correct=right,
            robust_correct=robust,
            stages=stages,
            checks=found,
            notes=tuple(notes),
            forwards=len(images) + sum(stage.forwards for stage in stages),
            backwards=sum(stage.backwards for stage in stages),
            seconds=time.perf_counter() - begun,
            environment=environment(),
            verdicts=cascade.verdicts(),
            clean_accuracy=right / len(images),
            robust_accuracy=robust / len(images),
            clean_interval=clopper_pearson(right, len(images)),
            interval=clopper_pearson(robust, len(images)),
        )
        if keep:
            result._adversarial = cascade.adversarial()
    return result


def _attacks(
    names: Sequence[str], threat: Threat, parameters: Mapping[str, Mapping[str, Any]]
) -> dict[str, Attack]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{', '.join(twice)} is named twice among the attacks; name each once")
    stray = sorted(parameters.keys() - set(names))
    if stray:
        raise ConfigError(
            f"parameters are given for {', '.join(stray)}, but the attacks are {', '.join(names)}; "
            "name it among them or leave its parameters out"
        )
    return {name: make(name, threat, parameters.get(name)) for name in names}


def _refuse_misfit(clean: Tensor, images: Data) -> None:
    if int(images.labels.max()) >= clean.shape[1]:
        raise DataError(
            f"data {images.name!r} has label {int(images.labels.max())} but the model tells only "
            f"{clean.shape[1]} classes apart (0 to {clean.shape[1] - 1}); choose data or a model that fits"
        )
    bad = int((~clean.isfinite().all(1)).sum())
    if bad:
        raise ModelError(
            f"the model gives NaN or infinite logits on {bad} of {len(clean)} clean images; "
            "mend the model or its normalisation before attacking it"
        )
