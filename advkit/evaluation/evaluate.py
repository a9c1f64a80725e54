"""Clean and robust accuracy: the cascade of attacks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from advkit.attacks.attack import Attack
from advkit.attacks.engine.oracle import query
from advkit.attacks.ensemble import ENSEMBLES, Stage
from advkit.attacks.loss import ATTACK_LOSSES
from advkit.attacks.perturb import logits_by_piece, logits_of, make, refuse_beyond, refuse_misfit
from advkit.core import distributed, rng
from advkit.core.bars import shown
from advkit.core.config import Precision, validate
from advkit.core.device import arithmetic, repeatable
from advkit.core.errors import ConfigError, listed
from advkit.core.modes import own_modes
from advkit.core.progress import SILENT, Progress
from advkit.core.runs import RunFolder
from advkit.core.shards import ShardResult
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.data.subjects import Subject
from advkit.data.threats import resolve
from advkit.evaluation.broken_in_checks import checked, stage_names
from advkit.evaluation.cascade import Cascade, certain, few_of
from advkit.evaluation.cost import cost
from advkit.evaluation.evidence import Evidence
from advkit.evaluation.ledger import Entry, Ledger, confirming
from advkit.evaluation.missing import again, look, sample_attacks, sample_size
from advkit.evaluation.result import COMPLETE, Check, EvaluationResult, Limited
from advkit.evaluation.result import Stage as StageResult
from advkit.evaluation.settings import Evaluation
from advkit.evaluation.surrogate import open_surrogate, refuse_idle_surrogate
from advkit.evaluation.time_limit import limited, refuse_unforetold
from advkit.models.black_box import Account, BlackBox, black_box, counted
from advkit.models.bpda import straight_through
from advkit.models.card import ThreatFacts
from advkit.models.model import Model, evaluation_mode
from advkit.verify.certification.certify import certified, precision_notes
from advkit.verify.certification.complete import gap_notes

CLEAN_BATCH = 500
"""Batch size of the pass that computes clean logits."""
QUERIED = 50
"""The same of a black box: as many queries at most are asked again after a crash."""
QUERIES = "queries.jsonl"
"""The file of a run folder that counts the queries to a black box."""
VOTES = 10
"""Passes of a randomised model whose mean probabilities confirm a success."""


@distributed.together()
@own_modes()
def evaluate(
    model: nn.Module | str | Path,
    data: Any,
    threat: Threat | None = None,
    attack: str | Sequence[str] = "cascade",
    *,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    n: int | None = None,
    first: bool = False,
    batch_size: int | None = None,
    precision: Precision = "auto",
    budget: int | None = None,
    keep: bool = False,
    eight_bit: bool = False,
    bpda: Sequence[str] = (),
    surrogate: nn.Module | str | Path | None = None,
    allow_random: bool = False,
    classes: int | None = None,
    certify: bool | Literal["complete"] = False,
    check_sample: int | None = None,
    time_limit: float | str | None = None,
    run: RunFolder | None = None,
    progress: Progress | bool | None = None,
) -> EvaluationResult:
    """Clean and robust accuracy of a classifier.

    The attacks run in the given order, each only on the images that are still classified correctly.

    In a process group (`torch.distributed`), every process calls this at the same time, with its own copy of
    the model. They divide the images among them, and all return the result of a single process.

    Args:
        model: a module from images (N, C, H, W) in [0, 1] to logits (N, K), or whatever `load_model` takes.
            It is attacked on its own device, in eval mode, and its mode is restored.
        data: `Data`, a data set's name, (images, labels), or a ``Dataset`` or ``DataLoader`` of such pairs.
        threat: the threat model; None: that of the model's robust training, else the default of the data
            set.
        attack: attacks and ensembles: one name, several separated by commas, or a sequence of names.
        parameters: of the attacks, by name: ``{"pgd": {"steps": 100}}``.
        seed: every random number follows from it.
        n: number of images; None: all.
        first: the first ``n``, also of rows that are in the order of their classes (`Data.limit`).
        batch_size: images attacked at once; None: measured. Verdicts do not depend on it, except for an image
            within rounding of the decision boundary; with one thread on a CPU all bits are equal.
        precision: arithmetic of the search (auto: bfloat16 where the processor computes in it); successes
            are confirmed in the model's own.
        budget: average number of passes per image after which no further attack begins.
        keep: keep the adversarial images, in ``.adversarial``.
        eight_bit: round adversarial images to multiples of 1/255, as in a PNG file; a success counts if the
            rounded image is inside the threat model and misclassified.
        bpda: layers that the search replaces by the identity in the backward pass
            (`advkit.models.bpda`); successes are confirmed on the unchanged model.
        surrogate: another classifier of the same images and classes, or its name: gradient attacks search on
            it, and the model only confirms (a transfer attack). Black-box attacks query the model itself.
        allow_random: accept a model whose outputs change from pass to pass.
        classes: how many there are; with 2, one output is read as the logit of class 1.
        certify: certify images before any attack (`advkit.certify`). Certified images are not attacked, and
            the result has a lower and an upper bound of the robust accuracy. ``"complete"``: also by branch
            and bound, whose adversarial examples count as those of an attack (not with ``eight_bit``).
        check_sample: survivors, drawn at random, that Square with 5,000 queries and targeted Auto-PGD (in l2
            and l1 targeted FMN, too) attack to bound what is missing (`advkit.evaluation.missing`); None:
            twice the root of ``n`` after ``cascade``, none after other attacks.
        time_limit: time for all of it on this machine, in seconds or as ``"10m"``: a pilot chooses the part
            of the plan that fits (`advkit.evaluation.time_limit`); ``result.limited`` and the notes say what
            is left out. A resumed run keeps what was chosen.
        run: folder for the ledger; an interrupted run resumes from it, also with another number of processes.
        progress: True: bars or lines; False: none; None: bars in a terminal or a notebook; or your own.

    Raises:
        ModelError: the model does not behave as a classifier, or ``certify`` meets a layer that cannot be
            bounded.
        DataError: the images or labels do not fit, or ``eight_bit`` is set and the images are not 8-bit.
        ConfigError: unknown attacks or parameters, or no default threat model.
    """
    given = {
        "model": "",
        "n": n,
        "attack": attack,
        "parameters": parameters or {},
        "budget": budget,
        "seed": seed,
        "precision": precision,
        "batch_size": batch_size,
        "eight_bit": eight_bit,
        "certify": certify,
        "check_sample": check_sample,
        "time_limit": time_limit,
        "bpda": tuple(bpda),
        "allow_random": allow_random,
    }
    config = validate(Evaluation, given, "advkit.evaluate")
    subject = Subject.of(model, data, config.n, first=first, allow_random=allow_random, classes=classes)
    result = attacked(
        subject, threat, config, surrogate=surrogate, keep=keep, run=run, progress=shown(progress)
    )
    assert isinstance(result, EvaluationResult)  # no shard is named
    return result


@distributed.together()
@own_modes()
def attacked(
    subject: Subject,
    threat: Threat | None,
    config: Evaluation,
    *,
    surrogate: nn.Module | str | Path | None = None,
    keep: bool = False,
    run: RunFolder | None = None,
    progress: Progress = SILENT,
) -> EvaluationResult | ShardResult:
    """As `evaluate`, of a model and images that were inspected; those of the configuration are ignored.

    Of a shard (``config.shard``) the stages that do not depend on other images attack its images.
    """
    if distributed.rank():
        progress = SILENT
    model, facts, device, box = subject.model, subject.facts, subject.few.device, black_box(subject.model)
    if config.eight_bit:
        subject.images.refuse_fractions()
    if box is not None:
        _refuse_inner(config)
    asked = config.model_dump(include={"budget", "certify", "min_robust", "save", "time_limit"})
    config.refuse(len(subject.images), **asked, access=box, allow_random=not facts.deterministic)
    threat = resolve(threat, model, subject.images)
    whole, chosen = subject, None
    if config.time_limit is not None:
        chosen = _chosen(subject, threat, config, surrogate, run)
        subject = subject.limit(chosen.images, first=config.first)
        config = config.model_copy(update={"budget": chosen.budget, "check_sample": chosen.sample})
    images = subject.images
    searched, other, how = _searched(subject, config, surrogate)
    other_hash = None if other is None else other.hash
    notes = [*subject.notes, *(precision_notes(device) if config.certify else ()), *how]
    folder = run.path if run is not None else None
    mine = images.take(config.mine(torch.arange(len(images)))) if config.shard else images
    if box is not None and box.known is not None:  # mistakes are reported before the first query
        plan(config.attack, threat, box.known, config.parameters, box, other is not None)
    with (
        counted(model, images.ids.tolist(), None if folder is None else folder / QUERIES) as account,
        repeatable(),
        evaluation_mode(model),
        evaluation_mode(other or model),
        rng.scope(device, config.seed, "model"),
    ):
        begun = time.perf_counter()
        clean = _clean_logits(model, mine) if account is None else _asked_once(model, mine, account)
        looked = time.perf_counter() - begun
        refuse_misfit(clean, mine)
        stages = plan(config.attack, threat, clean.shape[1], config.parameters, box, other is not None)
        if chosen is not None:
            stages = tuple(stage for stage in stages if stage.name in chosen.stages)
        made = {stage.name: make(stage.attack, threat, stage.parameters) for stage in stages}
        if other is not None:
            refuse_idle_surrogate(made)
        given = config
        config = config.model_copy(update={"precision": arithmetic(config.precision, device)})
        inputs = {**whole.inputs, "plan of attack": _determining(threat, stages, made, config, other_hash)}
        _refuse_disagreement(inputs)
        if run is not None:
            run.begin_with(**whole.beginning | inputs)
        confirm = confirming(model if facts.deterministic else None, images, threat)
        size = sample_size(config.check_sample, config.attack, len(images)) if box is None else 0
        sampled = sample_attacks(threat, clean.shape[1]) if size else ()
        names = [COMPLETE, *(stage.name for stage in (*stages, *sampled, *again(sampled))), *stage_names()]
        parts = () if run is None else run.parts
        with Ledger(
            folder, images, names, keep=keep, confirm=confirm, parts=parts, progress=progress
        ) as ledger:
            proved = _proved(model, images, clean, threat, config, ledger, folder, progress)
            cascade = Cascade(
                model,
                searched,
                mine,
                clean,
                threat,
                ledger,
                config,
                votes=1 if facts.deterministic else VOTES,
                progress=progress,
                surrogate=other,
                proved=proved,
                few=few_of(images, device),
            )
            if config.shard is not None:
                for stage in certain(stages):
                    cascade.run(stage)
                ledger.finish()
                return ShardResult.of(given, len(images), ledger.entries.values(), subject.about())
            done = tuple(cascade.run(stage) for stage in stages)
            more, cascade.missing = look(cascade, sampled, size)
            done += more
            if chosen is not None:
                cut_short = tuple(dict.fromkeys(cascade.cut_short))
                cascade.limited = chosen.model_copy(update={"cut_short": cut_short})
                notes += [cascade.limited.shortened] if cascade.limited.shortened else []
            evidence, found, late = checked(Evidence(cascade, model, done, facts, config.attack), progress)
            if chosen is None and (cut_short := tuple(dict.fromkeys(cascade.cut_short))):
                notes.append(f"the budget of {config.budget} passes per image cut short {listed(cut_short)}")
            result = _result(subject, evidence, found, late, notes, looked, account, other_hash)
            ledger.finish()
            result._adversarial = cascade.adversarial() if keep else None
    return result


def _result(
    subject: Subject,
    evidence: Evidence,
    checks: tuple[Check, ...],
    late: tuple[StageResult, ...],
    notes: Sequence[str],
    looked: float,
    account: Account | None,
    surrogate: str | None,
) -> EvaluationResult:
    """After the checks, and what they broke; the pass over the clean images took ``looked`` seconds."""
    cascade, done = evidence.cascade, (*evidence.stages, *late)
    config, threat, n = cascade.config, cascade.threat, len(cascade.images)
    verdicts, notes = cascade.verdicts(), list(notes)
    forwards = n + sum(stage.forwards for stage in done) + evidence.forwards
    queries = None
    if evidence.box is not None and account is not None:
        queries, forwards = account.count(evidence.box.access), account.total
        verdicts = tuple(
            verdict.model_copy(update={"forwards": account.sent[verdict.id]}) for verdict in verdicts
        )
        if queries.stopped:
            notes.append(f"the limit of queries ended the attacks on {queries.stopped} of {n} images")
    if config.certify == "complete" and cascade.undecided.any():
        notes += gap_notes(subject.model, threat)
    return EvaluationResult.of(
        n,
        int(cascade.correct.sum()),
        int(cascade.robust.sum()),
        int(cascade.proved.sum()) if config.certify else None,
        **subject.about() | {"notes": tuple(notes)},
        threat=ThreatFacts(norm=threat.norm, eps=threat.eps),
        surrogate_hash=surrogate,
        seed=config.seed,
        precision=config.precision,
        eight_bit=config.eight_bit,
        stages=done,
        checks=checks,
        missing=cascade.missing,
        limited=cascade.limited,
        cost=cost(cascade, evidence.stages, looked, subject.available),
        forwards=forwards,
        backwards=sum(stage.backwards for stage in done) + evidence.backwards,
        verdicts=verdicts,
        queries=queries,
    )


def _chosen(
    subject: Subject,
    threat: Threat,
    config: Evaluation,
    surrogate: nn.Module | str | Path | None,
    run: RunFolder | None,
) -> Limited:
    """The part of the plan that fits into the time limit."""
    model = subject.model
    refuse_unforetold(model, config, surrogate)
    with torch.no_grad(), evaluation_mode(model):
        stages = plan(config.attack, threat, query(model, subject.few).shape[1], config.parameters)
    return limited(subject, threat, config, stages, run)


def _searched(
    subject: Subject, config: Evaluation, surrogate: nn.Module | str | Path | None
) -> tuple[nn.Module, Model | None, list[str]]:
    """(the module that the searches copy, the surrogate if there is one, a note of what is not the model)"""
    model, few = subject.model, subject.few
    if surrogate is not None:
        other = open_surrogate(surrogate, model, few, config.bpda)
        return model, other, ["gradient attacks used a surrogate in place of the model (transfer)"]
    if config.bpda:
        how = f"backward pass of {', '.join(config.bpda)} replaced by the identity (BPDA)"
        return straight_through(model, config.bpda, few), None, [how]
    return model, None, []


def _determining(
    threat: Threat,
    stages: Sequence[Stage],
    made: Mapping[str, Attack[Any]],
    config: Evaluation,
    surrogate: str | None,
) -> dict[str, Any]:
    """What determines the result beside the model and the images. What earlier versions did not have is there
    only where it is used, so that their runs can resume."""
    artifacts = {name: each.artifact_hash for name, each in made.items() if each.artifact_hash}
    used = {"made of": artifacts, "surrogate": surrogate, "certify": config.certify}
    return {
        "threat": threat.model_dump(),
        "stages": [stage.identity for stage in stages],
        **config.model_dump(mode="json", include={"budget", "seed", "precision", "eight_bit", "bpda"}),
        **{name: value for name, value in used.items() if value},
    }


def _proved(
    model: Model,
    images: Data,
    clean: Tensor,
    threat: Threat,
    config: Evaluation,
    ledger: Ledger,
    folder: Path | None,
    progress: Progress,
) -> Tensor | None:
    """(N,) bool: certified images, None without certification. Adversarial examples that complete
    verification finds go into the ledger."""
    if not config.certify:
        return None

    def broke(row: int, example: Tensor) -> None:
        if not config.eight_bit:  # where examples have to survive rounding
            x, _ = images.batch(torch.tensor([row]))
            distance = float(threat.distance(example[None], x))
            ledger.add(Entry.verified(int(images.ids[row]), distance), example)

    bounds = certified(
        model,
        images,
        clean.argmax(1) == images.labels,
        threat,
        "complete" if config.certify == "complete" else "auto",
        folder=folder,
        progress=progress,
        broke=broke,
    )
    ledger.exchange()
    return torch.tensor([verdict.status == "certified" for verdict in bounds])


def plan(
    names: Sequence[str],
    threat: Threat,
    classes: int,
    parameters: Mapping[str, Mapping[str, Any]],
    box: BlackBox | None = None,
    surrogated: bool = False,
) -> tuple[Stage, ...]:
    """The stages of the requested attacks: one for an attack, several for an ensemble.

    On a black box ``cascade`` is ``black-box``, with the queries that the black box allows.

    Raises:
        ConfigError: unknown names or parameters, or an attack that does not support the norm or the number of
            classes.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{', '.join(twice)} is named twice among the attacks; name each once")
    stray = sorted(parameters.keys() - set(names))
    if stray:
        raise ConfigError(
            f"parameters are given for {', '.join(stray)}, but the attacks are {', '.join(names)}; "
            "name it among them or leave its parameters out"
        )
    stages: list[Stage] = []
    for name in names:
        chosen = parameters.get(name, {})
        if box is not None and name in ("cascade", "black-box") and not surrogated:
            limits = {} if box.max_queries is None else {"queries": max(box.max_queries, 2)}
            name, chosen = "black-box", {"access": box.access, **limits, **chosen}
        if name in ENSEMBLES:
            kind = ENSEMBLES.get(name)
            parts = kind(validate(kind.Config, chosen, f"ensemble {name!r}")).stages(threat, classes)
            stages += _distinct(parts, stages, name)
        else:
            stages.append(Stage(name, name, chosen))
    for stage in stages:
        # So that every mistake is reported before the work begins.
        made = make(stage.attack, threat, stage.parameters)
        _refuse_few_classes(stage.name, made, classes)
        if box is not None:
            refuse_beyond(box, stage.name, made, surrogated=surrogated)
    return tuple(stages)


def _distinct(parts: Sequence[Stage], before: Sequence[Stage], ensemble: str) -> list[Stage]:
    """The parts of an ensemble, with other names and keys where earlier stages have them."""
    names, keys = {stage.name for stage in before}, {stage.key for stage in before}
    renamed = {part.name: f"{ensemble}/{part.name}" if part.name in names else part.name for part in parts}
    return [
        replace(
            part,
            name=renamed[part.name],
            key=f"{ensemble}/{part.key}" if part.key in keys else part.key,
            after=part.after and renamed[part.after],
        )
        for part in parts
    ]


def _refuse_few_classes(stage: str, attack: Attack[Any], classes: int) -> None:
    """Raises a ConfigError if the attack's loss needs more classes; the difference of logits ratio, for
    example, needs 3, and 4 if it is targeted."""
    name = getattr(attack, "loss_name", None) or getattr(attack.config, "loss", None)
    if name not in {entry.name for entry in ATTACK_LOSSES}:
        return
    label = torch.zeros(1, dtype=torch.int64)
    try:
        ATTACK_LOSSES.get(name)(torch.zeros(1, classes), label, label + 1 if attack.targets else None)
    except ConfigError as fault:
        raise ConfigError(f"{stage}: {fault}") from fault


def _clean_logits(model: nn.Module, images: Data) -> Tensor:
    """(N, K) as `logits_of`, with the batches divided among the processes."""
    batches = images.pieces(CLEAN_BATCH)
    mine = batches[distributed.rank() :: distributed.world()]
    shares = distributed.gather([*logits_by_piece(model, images, mine)])
    return torch.cat([shares[i % len(shares)][i // len(shares)] for i in range(len(batches))])


def _asked_once(model: nn.Module, images: Data, account: Account) -> Tensor:
    """(N, K) as `logits_of` of a black box; what an earlier process asked is not asked again."""
    ids = images.ids.tolist()
    new = torch.tensor([row for row, sample in enumerate(ids) if sample not in account.clean])
    for rows in new.split(QUERIED) if len(new) else ():
        account.keep_clean(images.ids[rows].tolist(), logits_of(model, images.take(rows)))
    return torch.tensor([account.clean[sample] for sample in ids])


def _refuse_inner(config: Evaluation) -> None:
    """Raises a ConfigError for what looks inside a model, or needs several processes."""
    inner = [name for name, used in (("--bpda", config.bpda), ("--certify", config.certify)) if used]
    if inner:
        raise ConfigError(f"{inner[0]} needs the layers of the model, which a black box hides; leave it out")
    if distributed.world() > 1:
        raise ConfigError("the queries to a black box are counted in one process; start a single one")


def _refuse_disagreement(inputs: Mapping[str, Any]) -> None:
    for other, theirs in enumerate(distributed.gather(inputs)):
        if differing := [name for name in inputs if theirs[name] != inputs[name]]:
            raise ConfigError(
                f"processes {distributed.rank()} and {other} differ in {' and '.join(differing)}; call "
                "evaluate with the same arguments in all of them"
            )
