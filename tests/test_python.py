"""What a Python caller may rely on: names, forms of arguments, contexts, and short representations."""

import copy
import sys
import types
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

import advkit
from advkit.attacks.attack import ATTACKS
from advkit.core.errors import ConfigError, DataError, ModelError

THREAT = advkit.Threat("linf", 0.2)


class AlwaysDropout(nn.Module):
    """Random in eval mode, too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, training=True)


@pytest.fixture(scope="module")
def subject():
    """(linear model, images, labels that it gives)"""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), torch.rand(12, 1, 8, 8)
    return model, x, model(x).argmax(1)


def test_names_are_listed_by_wildcards():
    assert {"apgd", "apgd-ce", "apgd-t"} <= set(advkit.list_attacks("apgd*"))
    assert {entry.name for entry in ATTACKS} | {"cascade", "art:DeepFool"} <= set(advkit.list_attacks())
    assert set(advkit.list_architectures("*-generator")) < set(advkit.list_architectures())
    assert advkit.list_datasets("dig*") == ["digits"] and advkit.list_datasets("no such") == []


def test_modules_that_scripts_of_older_versions_import_are_found():
    from advkit import images

    assert images.png_bytes(torch.zeros(1, 8, 8, dtype=torch.uint8)).startswith(b"\x89PNG")


def test_perturbed_says_what_holds_of_each_image(subject):
    model, x, y = subject
    made = advkit.perturb(model, x, y, THREAT, "pgd", parameters={"steps": 5}, progress=False)
    assert torch.equal(made.success, model(made.x).argmax(1) != y) and int(made.success.sum()) > 0
    torch.testing.assert_close(made.distance, (made.x - x).abs().flatten(1).amax(1))
    assert bool((made.backwards <= 5).all()) and bool((made.forwards >= made.backwards).all())
    assert len(made) == 12 and len(repr(made)) < 100
    assert isinstance(made, torch.Tensor) and type(made - x) is type(made.x) is torch.Tensor
    assert torch.equal(model(made), model(made.x))


@contextmanager
def float64_by_default():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


def other_device():
    return torch.device("meta")


@pytest.mark.parametrize(
    "context", [torch.no_grad, torch.inference_mode, autocast, float64_by_default, other_device]
)
def test_results_do_not_depend_on_modes_of_the_caller(context, subject):
    model, x, y = subject
    with context():
        loaded = advkit.load_model("advkit:digits-standard"), advkit.load_data("digits", limit=12)
    found = advkit.certify(*loaded, advkit.Threat("linf", 0.01), "optimised", progress=False)
    plain = advkit.certify("advkit:digits-standard", "digits", advkit.Threat("linf", 0.01), "optimised", n=12)
    assert found.certified_correct == plain.certified_correct > 0
    with torch.inference_mode():
        twin = copy.deepcopy(model)
    assert advkit.certify(twin, (x, y), advkit.Threat("linf", 0.001)).certified_correct > 0
    free = advkit.perturb(model, x, y, THREAT)
    with context():
        inside = advkit.perturb(model, x.clone(), y.clone(), THREAT)
        result = advkit.evaluate(model, (x, y), THREAT, "pgd")
        proved = advkit.certify(model, (x, y), advkit.Threat("linf", 0.001), progress=False)
    assert torch.equal(free.x, inside.x) and result.robust_correct == int((~free.success).sum())
    assert proved.certified_correct > 0


@pytest.mark.parametrize("form", [list, np.asarray, lambda t: t[:, None], lambda t: t.to(torch.int32)])
def test_targets_in_any_form(form, subject):
    model, x, y = subject
    target = (y + 1) % 10
    wanted = advkit.perturb(model, x, y, advkit.Threat("linf", 0.5), target=target)
    made = advkit.perturb(model, x, y, advkit.Threat("linf", 0.5), target=form(target))
    assert torch.equal(made.x, wanted.x) and bool(made.success.any())
    one = advkit.perturb(model, x, y, advkit.Threat("linf", 0.5), target=3)
    assert torch.equal(one.success, model(one.x).argmax(1) == 3)


@pytest.mark.parametrize(
    "target", [-1, 10, [1, 2], 0.5, True, "one", torch.eye(12)[:, :10], torch.zeros(12, 2, dtype=torch.long)]
)
def test_targets_that_are_none(target, subject):
    model, x, y = subject
    with pytest.raises(ConfigError):
        advkit.perturb(model, x, y, THREAT, target=target)
    with pytest.raises(ConfigError):  # classified as the target, and nothing was attacked
        advkit.perturb(model, x, y, THREAT, target=y)


def test_perturb_inspects_the_model_as_an_evaluation_does(subject):
    model, x, y = subject
    for last in (nn.Softmax(1), nn.Threshold(1e9, float("nan")), AlwaysDropout()):
        with pytest.raises(ModelError):
            advkit.perturb(nn.Sequential(model, last), x, y, THREAT)
    noisy = nn.Sequential(model, AlwaysDropout())
    assert len(advkit.perturb(noisy, x, y, THREAT, "fgsm", allow_random=True)) == 12
    with pytest.raises(DataError):
        advkit.perturb(model, x, y + 10, THREAT)


def test_representations_are_a_line(subject, tmp_path):
    model, x, y = subject
    results = [
        advkit.load_data("digits"),
        advkit.evaluate(model, (x, y), THREAT, "fgsm"),
        advkit.certify(model, (x, y), THREAT),
        advkit.security_curve(model, (x, y), "linf", "deepfool"),
        advkit.perturb(model, x, y, THREAT, "fgsm"),
    ]
    for each in results:
        assert len(repr(each)) < 400 and "\n" not in repr(each)


def test_a_data_frame_has_a_row_for_each_image(subject, monkeypatch):
    """Without pandas, which is no requirement: what it would be given."""
    model, x, y = subject
    result = advkit.evaluate(model, (x, y), THREAT, "fgsm")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError):
        result.to_dataframe()
    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=list))
    rows = result.to_dataframe()
    assert [row["id"] for row in rows] == list(range(12)) and rows[0].keys() >= {"status", "distance"}


@pytest.mark.parametrize(
    "given",
    [
        *({"seed": seed} for seed in (-1, 1.5, "a", None)),
        *({"batch_size": size} for size in (-1, 0, 1.5, "x")),
        *({"attack": name} for name in ("PGD", "pgdd", "", None, 3, [])),
        *({"threat": threat} for threat in ("linf", 0.1, {"norm": "linf", "eps": 0.1}, ("l7", 1), ("l2", 9))),
        {"precision": "float16"}, {"parameters": {"stepz": 3}},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_in_the_same_words(given, subject):
    model, x, y = subject
    rest = {"threat": THREAT, "attack": "pgd", "progress": False} | given
    with pytest.raises(ConfigError):
        advkit.perturb(model, x, y, **rest)
    if "parameters" in rest:
        rest["parameters"] = {"pgd": rest["parameters"]}
    with pytest.raises(ConfigError):
        advkit.evaluate(model, (x, y), **rest)


@pytest.mark.parametrize(
    "given", [{"budget": -5}, {"budget": 1.5}, {"n": 0}, {"n": 1.5}, {"attack": "pgd,pgd"}], ids=str
)
def test_an_evaluation_refuses_impossible_numbers(given, subject):
    model, x, y = subject
    with pytest.raises(ConfigError):
        advkit.evaluate(model, (x, y), **{"threat": THREAT, "attack": "fgsm", "progress": False} | given)


@pytest.mark.parametrize(
    ("threat", "attack", "n"), [(("Linf", "1/5"), " fgsm, pgd", "8"), ([np.inf, 0.2], ["fgsm", "pgd"], 8.0)]
)
def test_the_same_is_meant_by_other_forms(threat, attack, n, subject):
    model, x, y = subject
    usual = advkit.evaluate(model, (x, y), THREAT, "fgsm,pgd", n=8, progress=False)
    assert advkit.evaluate(model, (x, y), threat, attack, n=n, progress=False).verdicts == usual.verdicts


def test_norm_and_eps_of_a_curve_have_other_forms(subject):
    model, x, y = subject
    usual = advkit.security_curve(model, (x, y), "linf", eps=[0.1])
    for norm, eps in (("Linf", "0.1"), (np.inf, np.array([0.1]))):
        assert advkit.security_curve(model, (x, y), norm, eps=eps).points == usual.points


def test_training_inside_autocast_is_training_outside(tmp_path):
    """Autocast keeps copies of weights until the outermost one ends, where a training would see old ones."""
    given = {"data": "digits", "arch": "mlp-gan", "steps": 6, "batch_size": 8, "precision": "bfloat16"}
    outside = advkit.gan_train(**given, out=tmp_path / "a", progress=False)
    for enabled in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            inside = advkit.gan_train(**given, out=tmp_path / f"{enabled}", progress=False)
            assert torch.is_autocast_enabled("cpu") == enabled
        assert inside.model.hash == outside.model.hash
    assert torch.autocast_increment_nesting() == 1
    torch.autocast_decrement_nesting()
