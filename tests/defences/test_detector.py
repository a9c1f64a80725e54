"""Detectors: what they learn, which score is flagged, and attacks that know of them."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advkit.attacks.ensemble import Stage
from advkit.commands.detector_eval import run as detector_eval
from advkit.commands.detector_train import run as detector_train
from advkit.core.context import Context
from advkit.core.errors import DataError, ModelError, UserError
from advkit.core.threat import Threat
from advkit.defences.detector import Detect, as_detector, learner
from advkit.defences.evade import adaptive_attacks, evade
from advkit.defences.examples import examples, fooled
from advkit.defences.guarded import Guarded, Joint
from advkit.defences.result import DetectionResult
from advkit.defences.settings import Detection, DetectorTraining
from advkit.defences.threshold import divided, scores, threshold
from advkit.models.checkpoint import save_model
from advkit.models.load import load_model

BALL = Threat("linf", 0.1)
TRAINING = DetectorTraining(
    model="clf.pt",
    data="npz:toy.npz",
    norm="linf",
    eps=0.1,
    detector_arch="mlp",
    architecture={"hidden": (16,)},
    parameters={"pgd": {"steps": 3}},
    epochs=2,
    checks=1,
    n=60,
    name="toy-detector",
)
JUDGING = Detection(
    model="clf.pt",
    detector="det.pt",
    data="npz:toy.npz",
    norm="linf",
    eps=0.02,
    n=40,
    attack=("pgd",),
    parameters={"pgd": {"steps": 10}},
)


@settings(max_examples=50)
@given(
    values=st.lists(st.integers(-20, 20), min_size=1, max_size=60),
    share=st.sampled_from([0.02, 0.05, 0.1, 0.34]),
)
def test_a_threshold_is_the_least_score_that_flags_no_more_than_its_share(values, share):
    clean = torch.tensor(values).float()
    if len(values) * share < 1 - 1e-9:
        with pytest.raises(DataError, match=rf"\b{math.ceil(1 / share - 1e-9)}\b"):
            threshold(clean, share)
        return
    least = min(value for value in values if sum(v > value for v in values) <= share * len(values) + 1e-9)
    assert threshold(clean, share) == least


def test_the_images_of_the_threshold_are_not_judged(images):
    judged, held = divided(images[1], 1000, 50)
    assert (len(judged), len(held)) == (50, 120)
    assert not set(judged.ids.tolist()) & set(held.ids.tolist())
    assert [len(part) for part in divided(images[1].limit(2), 10, None)] == [1, 1]
    with pytest.raises(DataError):
        divided(images[1].limit(1), 10, None)


@pytest.mark.parametrize("kind", [Guarded, Joint])
def test_what_is_flagged_counts_as_right_and_nothing_else_does(model, detector, images, kind):
    x, _ = images[1].batch(torch.arange(200))
    level = float(scores(detector, x).median())
    guarded = kind(model, detector, level, 1, 0.3)
    with torch.no_grad():
        said, bare = guarded(x), model(x)
    flagged = scores(detector, x) > level
    assert flagged.any() and not flagged.all()
    assert (said[flagged].argmax(1) == 1).all()
    assert torch.equal(said[~flagged], bare[~flagged])
    excess = 0.3 * (scores(detector, x)[flagged] - level)
    torch.testing.assert_close(said[flagged, 1], bare[flagged].amax(1) + excess)
    others = [0, 2]
    assert torch.equal(said[:, others], bare[:, others])


def test_no_rounding_lets_a_flagged_image_through(model, detector, images):
    """However little the score is above the threshold, and where it is no number."""
    x, _ = images[1].batch(torch.arange(50))
    with torch.no_grad():
        bare = model(x)
        for excess in (1e-12, torch.nan):
            said = Guarded(model, detector, 0.0, 0)._guarded(bare + 1e6, torch.full((50, 1), excess))
            assert (said.argmax(1) == 0).all()


def test_the_joint_gradient_is_of_both_networks_before_the_detector_flags(model, detector, images):
    x, _ = images[1].batch(torch.arange(4))
    x.requires_grad_(True)
    level = float(scores(detector, x.detach()).max()) + 1

    def slope(network):
        return torch.autograd.grad(network(x)[:, 0].sum(), x)[0]

    label, own = slope(model), torch.autograd.grad(detector(x).sum(), x)[0]
    assert torch.equal(slope(Guarded(model, detector, level, 0)), label)
    excess = detector(x).detach() - level
    felt = 2.0 * torch.sigmoid(excess).view(-1, 1, 1, 1) * own
    torch.testing.assert_close(slope(Joint(model, detector, level, 0, 2.0)), label + felt)


def test_what_evades_is_allowed_misclassified_and_not_flagged(model, detector, images):
    judged, held = divided(images[1], 120, 60)
    level = threshold(scores(detector, held), 0.05)
    passed = scores(detector, judged) <= level
    stages = (Stage("pgd", "pgd", {"steps": 20}), Stage("square", "square", {"queries": 100}))
    bare = fooled(model, judged, BALL, "pgd", {"steps": 20})
    found = evade(model, detector, level, judged, passed, BALL, stages, (0.1, 1.0))
    rows = torch.tensor(sorted(found.images))
    assert torch.equal(rows, (passed & ~found.robust).nonzero()[:, 0])
    assert 0 < len(rows) <= len(bare)
    x, y = judged.batch(rows)
    evading = torch.stack([found.images[row] for row in rows.tolist()])
    assert (model(evading).argmax(1) != y).all()
    assert (scores(detector, evading) <= level).all()
    assert BALL.contains(evading, x).all()
    assert [one.name for one, _, _ in found.stages] == ["pgd, weight 0.1", "pgd, weight 1", "square"]
    assert found.stages[1][1] == found.stages[0][1] - found.stages[0][2]


def test_who_knows_of_the_detector_has_what_others_have_found(model, detector, images):
    judged, _ = divided(images[1], 120, 60)
    every = torch.ones(len(judged), dtype=torch.bool)
    bare = fooled(model, judged, BALL, "pgd", {"steps": 20})
    flagged = scores(detector, bare.images) > 0
    nothing = (Stage("noise", "noise", {"draws": 2}),)
    found = evade(model, detector, 0.0, judged, every, BALL, nothing, (1.0,), known=[bare], flagged=[flagged])
    assert not found.robust[bare.rows[~flagged]].any()


def test_only_successes_on_images_that_were_right_are_learnt(model, images):
    train, _ = images
    wrong = train.take(torch.arange(80))
    wrong.labels[:10] = (wrong.labels[:10] + 1) % 3
    found = fooled(model, wrong, BALL, "pgd", {"steps": 5})
    assert len(found) > 0 and int(found.rows.min()) >= 10
    assert (model(found.images).argmax(1) != wrong.labels[found.rows]).all()
    learn = examples(model, wrong, BALL, ["pgd"], {"pgd": {"steps": 5}})
    assert learn.labels.bincount().tolist() == [80, len(found)]
    assert torch.equal(learn.images[80:], found.images)


def test_clean_and_adversarial_have_the_same_say(images):
    train, _ = images
    data = replace(train, labels=torch.tensor([0] * 150 + [1] * 50), class_names=("clean", "adversarial"))
    objective = Detect(data)

    class Flat(torch.nn.Module):
        def forward(self, x):
            return torch.tensor([[2.0, 0.0]]).expand(len(x), 2)

    x, y = data.batch(torch.arange(len(data)))
    loss, _ = objective.loss(Flat(), x, y, None)
    errors = torch.tensor([[2.0, 0.0]]).log_softmax(1)[0]
    assert loss.item() == pytest.approx(-errors.mean().item(), rel=1e-5)


def test_a_discriminator_lends_its_features(images, built):
    source, other = (
        built("conv-gan-discriminator", "discriminator", shape=(1, side, side)) for side in (8, 9)
    )
    begun = learner(TRAINING, images[0], source).eval()
    x, _ = images[0].batch(torch.arange(5))
    assert torch.equal(begun.network.features(x), source.network.features(x))
    made = as_detector(begun)
    with torch.no_grad():
        logits = begun(x)
        assert torch.equal(made(x), logits[:, 1] - logits[:, 0])
    with pytest.raises(DataError):
        learner(TRAINING, images[0], other)


def test_a_detector_is_trained_and_found_in_the_store(here, stopping):
    with pytest.raises(KeyboardInterrupt):
        detector_train(TRAINING, Context(progress=stopping))
    outcome = detector_train(TRAINING, Context())
    again = detector_train(TRAINING.model_copy(update={"name": "whole"}), Context(out=None))
    assert outcome.result["model"]["hash"] == again.result["model"]["hash"]
    made = load_model("toy-detector", role="detector")
    assert made.card.lineage[0].relation == "trained-against"
    assert made.card.threat.eps == 0.1
    clean, adversarial = outcome.result["learnt"]
    assert clean == 54 and 0 < adversarial <= 54


def test_both_numbers_stand_in_one_sentence_the_adaptive_first(here):
    outcome = detector_eval(JUDGING, Context())
    result = DetectionResult.load(outcome.files[-1])
    first, second = result.points
    assert (first.rate, second.rate) == (0.01, 0.05)
    assert first.threshold > second.threshold
    assert first.flagged_held <= 1 and second.flagged_held <= 6
    for point in result.points:
        assert point.adaptive <= point.unaware <= point.passed <= result.clean_correct == result.n == 40
    assert 0 < first.adaptive < first.passed
    sentence = outcome.sentences[0]
    share = f"{100 * first.adaptive / result.n:.1f} %"
    assert sentence.index(share) <= sentence.index(f"{100 * first.unaware / result.n:.1f} %")
    for row, point in zip(outcome.tables[0].rows[:2], result.points, strict=True):
        counts = point.adaptive, point.unaware, point.passed, point.flagged_clean
        shown = [float(text.split()[0]) for text in row]
        assert shown == pytest.approx([100 * point.rate, *(100 * c / 40 for c in counts)], abs=0.051)
    (unaware,) = outcome.tables[2].rows
    shares = [100 * point.detected[0] / result.attacks[0].fooled for point in result.points]
    assert [float(text.split()[0]) for text in unaware[2:]] == pytest.approx(shares, abs=0.051)
    config = JUDGING.model_copy(update={"eps": 1e-7, "n": 4, "parameters": {"pgd": {"steps": 1}}})
    nobody = detector_eval(config, Context()).result
    assert nobody["attacks"][0]["fooled"] == 0
    for point in nobody["points"]:
        assert point["adaptive"] == point["unaware"] == point["passed"] > 0


def test_a_killed_run_attacks_only_what_is_undecided(model, detector, images, tmp_path):
    judged, _ = divided(images[1], 120, 30)
    every = torch.ones(len(judged), dtype=torch.bool)
    stages = (Stage("pgd", "pgd", {"steps": 5}),)

    def run(folder):
        return evade(model, detector, 0.0, judged, every, BALL, stages, (1.0,), folder=folder)

    whole = run(tmp_path / "whole")
    lines = (tmp_path / "whole/verdicts.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "part").mkdir()
    (tmp_path / "part/verdicts.jsonl").write_text("".join(lines[:12]))
    (tmp_path / "part/adversarial.bin").write_bytes((tmp_path / "whole/adversarial.bin").read_bytes())
    again = run(tmp_path / "part")
    assert torch.equal(again.robust, whole.robust)
    assert (tmp_path / "part/verdicts.jsonl").read_text() == "".join(lines)


def test_attacks_without_gradients_know_of_no_weight():
    stages = (Stage("pgd", "pgd", {}), Stage("square", "square", {}))
    assert [one.weight for one in adaptive_attacks(stages, (0.1, 2.0))] == [0.1, 2.0, 1.0]


@pytest.mark.parametrize(
    ("run", "plan", "changes", "code"),
    [
        (detector_train, TRAINING, {"eps": 1e-6}, "invalid-data"),
        (
            detector_train,
            TRAINING,
            {"detector_arch": "conv-gan-generator", "architecture": {}},
            "invalid-config",
        ),
        (detector_train, TRAINING, {"attack": ("pgdd",)}, "unknown-name"),
        (detector_train, TRAINING, {"discriminator": "clf.pt", "architecture": {}}, "invalid-model"),
        (detector_eval, JUDGING, {"held": 50}, "invalid-data"),
        (detector_eval, JUDGING, {"detector": "clf.pt"}, "invalid-model"),
        (detector_eval, JUDGING, {"detector": "other.pt"}, "invalid-data"),
        (detector_eval, JUDGING, {"attack": ("apgd-t",), "parameters": {}}, "invalid-config"),
        (detector_eval, JUDGING, {"parameters": {"square": {}}}, "invalid-config"),
    ],
)
def test_what_cannot_be_is_refused(here, built, detector, images, run, plan, changes, code):
    large = built("detector", "detector", shape=(1, 9, 9), network="mlp", network_config={"hidden": ()})
    save_model(large, "other.pt")
    with pytest.raises(UserError) as fault:
        run(plan.model_copy(update=changes), Context())
    assert fault.value.code == code
    with torch.no_grad():
        detector.network.network.layers[-1].bias.fill_(torch.nan)
    with pytest.raises(ModelError):
        scores(detector, images[1])


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Detection, {"rates": (0.0,)}),
        (Detection, {"detector_weights": (-1.0,)}),
        (Detection, {"rates": (0.1, 0.1)}),
        (DetectorTraining, {"discriminator": "d", "architecture": {"width": 3}}),
        (DetectorTraining, {"extra_data": "digits"}),
    ],
)
def test_contradictions_are_told(kind, values):
    detector = {"detector": "det.pt"} if kind is Detection else {}
    with pytest.raises(ValueError):
        kind(model="clf.pt", **detector, **values)


def test_a_dry_run_says_the_cost_and_writes_nothing(here, tmp_path):
    before = set(tmp_path.rglob("*"))
    plan = detector_eval(JUDGING, Context(dry_run=True))
    assert plan.result == {"n": 40, "held": 120, "stages": ["pgd, weight 0.1", "pgd, weight 1"]}
    assert detector_train(TRAINING, Context(dry_run=True)).result["images"] == 54
    assert set(tmp_path.rglob("*")) == before
