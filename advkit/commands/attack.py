"""Measure robust accuracy under strong attacks."""

from __future__ import annotations

from advkit.attacks.perturb import make
from advkit.core import distributed
from advkit.core.bars import duration
from advkit.core.context import Context
from advkit.core.shards import ShardResult
from advkit.core.threat import Threat
from advkit.data import threats
from advkit.data.subjects import Subject
from advkit.evaluation.evaluate import attacked, plan
from advkit.evaluation.forecast import forecast
from advkit.evaluation.ledger import Adversarial
from advkit.evaluation.result import EvaluationResult
from advkit.evaluation.save import place_to_save, save
from advkit.evaluation.settings import Evaluation as Config
from advkit.evaluation.surrogate import open_surrogate
from advkit.evaluation.time_limit import pilot, refuse_unforetold
from advkit.models.black_box import black_box
from advkit.models.bpda import straight_through
from advkit.report import evaluation as report
from advkit.report.outcome import Outcome, Picture, Table, planned
from advkit.report.shards import shard
from advkit.verify.bounds.read import read

GROUP = "Robustness"
EXAMPLE = (
    "advkit attack --model clf.pt --norm linf --eps 0.15 --attack pgd,apgd-ce\n"
    "advkit attack --model advkit:digits-robust --certify"
)
DISTRIBUTED = True


def run(config: Config, context: Context) -> Outcome:
    """Attacks a classifier and reports its robust accuracy."""
    kept = place_to_save(config, overwrite=context.overwrite)
    subject = Subject.open(config, context, allow_random=config.allow_random)
    model, images = subject.model, subject.images
    against = threats.choose(config.norm, config.eps, model, images, context.progress)
    if context.dry_run:
        return _plan(config, subject, against)
    inputs, other = subject.beginning, None
    if config.surrogate is not None:
        other = open_surrogate(config.surrogate, model, subject.few, config.bpda)
        inputs = inputs | other.beginning("surrogate")
    with context.run_folder("attack", images.name, config, inputs) as run:

        def work() -> EvaluationResult | ShardResult:
            return attacked(subject, against, config, surrogate=other, run=run, progress=context.progress)

        if config.shard is not None:
            return shard(run.once(ShardResult, work), run.path)
        result = run.once(EvaluationResult, work)
        images = images.limit(result.n, first=config.first)  # a time limit may leave some out
        if distributed.rank() > 0:  # the first process draws and writes for all
            return report.attack(config, result, images, (), (run.path,))
        adversarial = Adversarial(run.path, images, result.verdicts)
        pictures: tuple[Picture, ...] = ()
        if result.queries is None:  # a picture names the class of each image, and would ask for it again
            pictures = report.nearest(run.path, result, model, images, adversarial)
        if kept is not None:
            save(kept, images, adversarial, result)
        return report.attack(config, result, images, pictures, (*([kept] if kept else []), run.path))


def _plan(config: Config, subject: Subject, against: Threat) -> Outcome:
    model, images, count = subject.model, subject.images, len(subject.images)
    if config.bpda:
        straight_through(model, config.bpda, subject.few)
    if config.certify:
        read(model)  # fails now on a layer that cannot be bounded
    classes = model.card.classes or len(images.class_names)
    box, surrogated = black_box(model), config.surrogate is not None
    stages = plan(config.attack, against, classes, config.parameters, box, surrogated)
    attacks = {stage.name: make(stage.attack, against, stage.parameters) for stage in stages}
    expected = chosen = None
    if config.time_limit is not None:
        refuse_unforetold(model, config)
        expected, chosen = pilot(subject, against, config, stages)
    elif not (box or surrogated or config.certify or any(made.cost for made in attacks.values())):
        expected = forecast(subject, against, config, stages)
    about = {one.name: one for one in expected.stages} if expected else {}
    rows = []
    for stage in stages:
        made, one = attacks[stage.name], about.get(stage.name)
        each = made.variants(classes)
        forwards = f"{(made.steps + 1) * each * count:,}"  # one more to confirm
        likely = ("-", "-") if one is None else (f"{one.passes:,.0f}", duration(one.seconds))
        rows.append((stage.name, stage.attack, str(made.steps), str(each), made.cost or forwards, *likely))
    for name in [name for name in about if name not in attacks]:  # the check on a sample
        likely = (f"{about[name].passes:,.0f}", duration(about[name].seconds))
        rows.append((name, "", "", "", "", *likely))
    columns = (
        "stage",
        "attack",
        "steps",
        "starts",
        "forward passes at most",
        "passes expected",
        "time expected",
    )
    return planned(
        f"{model.card.architecture} on {count} images of {images.name} ({images.split}), {against}.",
        "An image is not attacked again once it is misclassified, so this is the largest possible cost.",
        *report.expected(expected),
        *(report.chosen(chosen) if chosen else ()),
        table=Table("attacks", columns, tuple(rows)),
        n=count,
        threat=against.model_dump(),
        attacks=list(attacks),
        expected=None if expected is None else expected.to_dict(),
        limited=None if chosen is None else chosen.model_dump(mode="json"),
    )
