"""The codes of errors: what callers may rely on when a sentence is reworded."""

import pickle
import re

import pytest

from advkit.core import errors
from advkit.core.config import StrictModel
from advkit.core.errors import ConfigError, UserError
from advkit.core.registry import Registry
from advkit.core.runs import RunFolder

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, UserError)]


def test_every_class_has_a_documented_code_of_its_own():
    codes = [kind.code for kind in KINDS]
    assert len(set(codes)) == len(codes) > 6
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)
    assert all(f"``{kind.code}``" in (errors.__doc__ or "") for kind in KINDS if kind is not UserError)


@pytest.mark.parametrize("kind", KINDS)
def test_a_narrower_code_survives_pickling(kind):
    plain, narrow = kind("sentence"), kind("sentence", code="narrow")
    for error, code in ((plain, kind.code), (narrow, "narrow")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.code) == (kind, "sentence", code)


def test_codes_of_unknown_names_and_other_runs(tmp_path):
    with pytest.raises(ConfigError) as raised:
        Registry("attack").entry("pgd")
    assert raised.value.code == "unknown-name"
    with RunFolder.open("attack", "toy", StrictModel(), tmp_path):
        pass
    with pytest.raises(ConfigError) as raised:
        RunFolder.open("certify", "toy", StrictModel(), tmp_path)
    assert raised.value.code == "run-differs"


def test_a_list_says_whether_it_is_cut():
    for many in range(9):
        shown = ", ".join([*map(str, range(min(many, 4))), *["..."] * (many > 4)])
        assert errors.listed(range(many), 4) == shown
