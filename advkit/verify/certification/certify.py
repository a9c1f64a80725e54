"""Certified accuracy from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advkit.attacks.perturb import device_of, logits_of
from advkit.core import distributed
from advkit.core.bars import shown
from advkit.core.config import validate
from advkit.core.device import coarse_float32, exact_float32
from advkit.core.errors import ModelError
from advkit.core.journal import Record
from advkit.core.modes import own_modes
from advkit.core.progress import SILENT, Progress, Share
from advkit.core.runs import RunFolder
from advkit.core.shards import Sharded, ShardResult
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.data.subjects import Subject
from advkit.data.threats import resolve
from advkit.models.card import ThreatFacts
from advkit.models.model import Model, evaluation_mode
from advkit.verify.bounds.ball import refuse_l0
from advkit.verify.bounds.read import check, read
from advkit.verify.certification.complete import Completion, gap_notes
from advkit.verify.certification.prove import METHODS, Prover
from advkit.verify.certification.result import CertificationResult, CertifiedVerdict, finite
from advkit.verify.certification.settings import TIMEOUT, Certification, Method

BATCH = 64
"""Default batch size."""
LOOKED_AT = 8
"""Images on which graph and model are compared."""


@own_modes()
def certify(
    model: nn.Module | str | Path,
    data: Any,
    threat: Threat | None = None,
    method: Method = "auto",
    *,
    timeout: float = TIMEOUT,
    subproblems: int | None = None,
    n: int | None = None,
    first: bool = False,
    batch_size: int = BATCH,
    run: RunFolder | None = None,
    progress: Progress | bool | None = None,
) -> CertificationResult:
    """Certified accuracy: the share of images on whose whole ball the classification is proved correct.

    A certificate means: for every image within ``eps`` (plus the slack of 1e-6 that `Threat.contains` allows)
    and inside [0, 1], the logit of the true class is the largest, in exact arithmetic and in the model's own
    float32 pass. The bounds are computed in float64, those of hidden neurons partly in float32, and widened
    by a bound of their rounding error; the margin must also exceed a bound of the rounding error of a float32
    pass, summed in any order. Passes here are float32; a note warns if PyTorch is set to a lower precision
    for float32 (TF32, bfloat16). Nothing is certified where a value may overflow. Assumption: convolutions
    are not computed by Winograd's method.

    Args:
        model: a module from images (N, C, H, W) in [0, 1] to logits (N, K), or whatever `load_model` takes;
            certified in eval mode, and its mode is restored.
        data: `Data`, a data set's name, (images, labels), or a ``Dataset`` or ``DataLoader`` of such pairs.
        threat: linf, l2 or l1; None: that of the model's robust training, else the default of the data set.
        method: ``interval``, ``linear`` or ``optimised`` bounds, or ``auto``: each in turn, on the images
            that are not certified yet. ``complete``: then branch and bound over the signs of the ReLUs'
            inputs, which certifies an image, finds an adversarial example, or runs out of time.
        timeout: seconds of branch and bound for each image, of its own time, and of the attack on what that
            leaves open.
        subproblems: number of subproblems after which branch and bound gives an image up, and of ascents of
            that attack.
        n: number of images; None: all.
        first: the first ``n``, also of rows that are in the order of their classes (`Data.limit`).
        batch_size: images in a batch; it changes the result by rounding at most.
        run: folder for the record; an interrupted run resumes from it.
        progress: True: bars or lines; False: none; None: bars in a terminal or a notebook; or your own.

    Raises:
        ModelError: an unsupported layer, which is named; or the model is no classifier.
        DataError: the images or labels do not fit.
        ConfigError: an unknown method, the norm l0, or no default threat model.
    """
    given = {
        "model": "",
        "method": method,
        "timeout": timeout,
        "subproblems": subproblems,
        "n": n,
        "batch_size": batch_size,
    }
    config = validate(Certification, given, "advkit.certify")
    subject = Subject.of(model, data, config.n, first=first)
    result = certified_subject(subject, threat, config, run=run, progress=shown(progress))
    assert isinstance(result, CertificationResult)  # no shard is named
    return result


@distributed.together()
@own_modes()
def certified_subject(
    subject: Subject,
    threat: Threat | None,
    config: Certification,
    *,
    run: RunFolder | None = None,
    progress: Progress = SILENT,
) -> CertificationResult | ShardResult:
    """As `certify`, of a model and images that were inspected; those of the configuration are ignored. Of a
    shard (``config.shard``) its batches are certified."""
    if distributed.rank():
        progress = SILENT
    model, images, method = subject.model, subject.images, config.method
    threat = resolve(threat, model, images)
    refuse_l0(threat)
    config.refuse(len(images), min_certified=config.min_certified)
    with evaluation_mode(model):
        if run is not None:
            plan: dict[str, Any] = {"threat": threat.model_dump(), "method": method}
            if method == "complete":  # only then, so that runs of earlier versions can resume
                plan |= {"timeout": config.timeout, "subproblems": config.subproblems}
            run.begin_with(**subject.beginning, **{"plan of proof": plan})
        verdicts = certified(
            model,
            images,
            logits_of(model, images).argmax(1) == images.labels,
            threat,
            method,
            timeout=config.timeout,
            subproblems=config.subproblems,
            batch_size=config.batch_size,
            shard=config,
            folder=run.path if run is not None else None,
            parts=() if run is None else run.parts,
            progress=progress,
        )
    if config.shard is not None:
        return ShardResult.of(config, len(images), verdicts, subject.about())
    notes = [*subject.notes, *precision_notes(device_of(model))]
    if method == "complete" and any(verdict.status == "undecided" for verdict in verdicts):
        notes += gap_notes(model, threat)
    return CertificationResult.of(
        verdicts,
        (*METHODS, method) if method == "complete" else METHODS if method == "auto" else (method,),
        **subject.about() | {"notes": tuple(notes)},
        threat=ThreatFacts(norm=threat.norm, eps=threat.eps),
        method=method,
    )


def certified(
    model: Model,
    images: Data,
    correct: Tensor,
    threat: Threat,
    method: Method = "auto",
    *,
    timeout: float = TIMEOUT,
    subproblems: int | None = None,
    batch_size: int = BATCH,
    shard: Sharded | None = None,
    folder: Path | None = None,
    parts: Sequence[Path] = (),
    progress: Progress = SILENT,
    broke: Callable[[int, Tensor], None] | None = None,
) -> tuple[CertifiedVerdict, ...]:
    """One verdict for each image of the shard, in the order of the data; several processes share the work.

    Args:
        model: a classifier in eval mode.
        images: the images to certify.
        correct: (N,) bool: classified correctly.
        threat: linf, l2 or l1.
        method: as in `certify`.
        timeout: as in `certify`.
        subproblems: as in `certify`.
        batch_size: images in a batch.
        shard: says which batches, and which of the misclassified images, are its; None: all.
        folder: of the record, whose verdicts are not computed again.
        parts: run folders of shards, as in `Record`.
        progress: shows how many images are done.
        broke: gets the row of an image and its adversarial example (C, H, W), before this is recorded.

    Raises:
        ModelError: an unsupported layer, which is named.
        ConfigError: the norm l0.
    """
    device = device_of(model)
    refuse_l0(threat)
    _refuse_half(model)
    graph = read(model)
    with exact_float32():
        few = images.batch(torch.arange(min(LOOKED_AT, len(images))), device)[0]
        check(graph, model, few.double() if model.casts else few)  # of float64, as half is refused
    complete = method == "complete"
    prover = Prover(graph, threat, "auto" if complete else method, device)
    ids = images.ids.tolist()
    mine = (shard or Sharded()).mine
    record = Record[int, CertifiedVerdict](
        folder, "certified", 1, CertifiedVerdict, ids, parts=parts, progress=progress
    )
    with record, exact_float32():
        record.take(ids)
        known = record.entries
        if known:
            progress.say(f"{len(known)} of {len(images)} images were decided earlier")
        for row in mine((~correct).nonzero()[:, 0].tolist()):
            if ids[row] not in known:
                label = int(images.labels[row])
                record.add(CertifiedVerdict(id=ids[row], label=label, status="misclassified"))
        proved = sum(verdict.status == "certified" for verdict in known.values())
        name = f"certifying by {method} bounds" if method in METHODS else "certifying"
        left: list[int] = []
        with progress.task(name, len(images), done=len(known), unit="image") as task:
            # Batches do not depend on earlier verdicts, since the last bits depend on the batches.
            batches = mine(correct.nonzero()[:, 0].split(batch_size))
            for rows in batches[distributed.rank() :: distributed.world()]:
                if all(ids[row] in known for row in rows.tolist()):
                    continue
                found = _batch(prover, images, rows)
                new = [one for one in found if one.id not in known]
                if complete:
                    left += [record.rows[one.id] for one in new if one.status == "undecided"]
                    new = [one for one in new if one.status != "undecided"]
                for verdict in new:
                    record.add(verdict)
                    proved += verdict.status == "certified"
                task.advance(len(new), proved=Share(proved / max(1, len(known))))
            if left:
                search = Completion(model, graph, threat, timeout=timeout, subproblems=subproblems)
                for verdict, example, facts in search.verdicts(images, torch.tensor(left)):
                    if example is not None and broke is not None:
                        broke(record.rows[verdict.id], example)
                    record.add(verdict)
                    proved += verdict.status == "certified"
                    task.advance(1, proved=Share(proved / len(known)), **facts)
        record.finish()
        return tuple(known[sample] for sample in ids if sample in known)


def precision_notes(device: torch.device) -> list[str]:
    """Notes for people about precisions that certificates do not cover."""
    if not coarse_float32(device):
        return []
    return [
        "certificates hold for passes in float32, but PyTorch is set to a lower precision for it on this "
        f"{device.type} (TF32 or bfloat16); turn that off where the model is used"
    ]


def _refuse_half(model: Model) -> None:
    """Raises ModelError for weights in half precision, which has no known error bound."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
            raise ModelError(
                f"{name} is {str(tensor.dtype).removeprefix('torch.')}, but certificates need float32; "
                "certify model.float()"
            )


def _batch(prover: Prover, images: Data, rows: Tensor) -> Sequence[CertifiedVerdict]:
    x, label = images.batch(rows)
    proof = prover.prove(x, label)
    facts = (images.ids[rows], label, proof.margin, proof.rounding, proof.method)
    return [
        CertifiedVerdict(
            id=sample,
            label=own,
            status="certified" if margin > 0 else "undecided",
            method=METHODS[by],
            margin=finite(margin),
            rounding=finite(rounding),
        )
        for sample, own, margin, rounding, by in zip(*(fact.tolist() for fact in facts), strict=True)
    ]
