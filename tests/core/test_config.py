import math
from dataclasses import FrozenInstanceError
from typing import Annotated

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from advkit.core.config import Fraction, OneOf, ParametersOf, Seconds, StrictModel, assign, mark, validate
from advkit.core.errors import ConfigError

SOME = settings(max_examples=60)
ONE, OTHER = OneOf("a:b"), ParametersOf("a:b", "{arch}")


class Inner(StrictModel):
    steps: int = 40


class Never(StrictModel):
    @model_validator(mode="after")
    def _refuse(self):
        raise ValueError("never")


class Outer(StrictModel):
    eps: Fraction = Field(0.1, gt=0)
    """How far."""
    name: str
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    plain: Annotated[str, ONE] = ""
    deep: dict[str, tuple[Annotated[int, OTHER], ...] | None] = {}


def test_a_model_is_strict():
    made = Outer(name="a")
    assert Outer.model_fields["eps"].description == "How far."
    for fixed, name in ((made, "name"), (ONE, "place"), (OTHER, "name")):
        with pytest.raises((ValidationError, FrozenInstanceError)):
            setattr(fixed, name, "b")
    for value in (math.nan, math.inf, 0):
        with pytest.raises(ValidationError):
            Outer(name="a", eps=value)
    with pytest.raises(ValidationError):
        type("Wrong", (StrictModel,), {"__annotations__": {"steps": int}, "steps": "many"})()


def test_marks_are_found_at_any_depth():
    fields = Outer.model_fields
    assert {name: (mark(field, OneOf), mark(field, ParametersOf)) for name, field in fields.items()} == {
        **dict.fromkeys(fields, (None, None)),
        "plain": (ONE, None),
        "deep": (None, OTHER),
    }


@pytest.mark.parametrize(
    "values",
    [{"eps": True}, {"inner": {"steps": False}}, {"many": [{}, {"steps": True}]}, {"either": False}],
)
def test_a_truth_is_no_number(values):
    class Both(Outer):
        either: int | None = None
        flag: bool | int = 0

    assert validate(Both, {"name": "a", "flag": True, "inner": {"steps": 1}}, "here").flag is True
    with pytest.raises(ConfigError):
        validate(Both, {"name": "a", **values}, "here")


@SOME
@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
def test_any_fraction_is_read(above, below):
    class One(StrictModel):
        value: Fraction

    for text, wanted in ((f"{above}/{below}", below and above / below), (f"{above}", above), (above, above)):
        if text != f"{above}/{below}" or below:
            assert validate(One, {"value": text}, "here").value == wanted
    for wrong in (f"{above}/0", f"{above}/{below}/1", f"{above}/x", "/"):
        with pytest.raises(ConfigError, match="here"):
            validate(One, {"value": wrong}, "here")


@pytest.mark.parametrize("text,seconds", [("90s", 90), ("10m", 600), ("2h", 7200), (" 1.5h ", 5400), (7, 7)])
def test_times_have_units(text, seconds):
    class One(StrictModel):
        value: Seconds

    assert validate(One, {"value": text}, "here").value == seconds
    for wrong in ("10", "10x", "m", "", "ten m"):
        with pytest.raises(ConfigError, match="here"):
            validate(One, {"value": wrong}, "here")


def test_all_faults_at_once_each_with_its_place():
    values = {"eps": -1, "nmae": "a", "inner": {"stpes": 3, "steps": "many"}, "many": [{"x": 1}]}
    with pytest.raises(ConfigError) as caught:
        validate(Outer, values, "recipe.toml")
    said = str(caught.value)
    assert said.startswith("recipe.toml: ")
    faults = said.removeprefix("recipe.toml: ").split("; ")
    for part in ("eps: ", "'name' is missing", "unknown key 'nmae' (did you mean 'name'?)", "inner.steps: "):
        assert any(fault.startswith(part) for fault in faults)
    assert "known: eps, name, inner, many, plain, deep" in faults
    at = faults.index("unknown key 'inner.stpes' (did you mean 'steps'?)")
    assert faults[at + 1] == "known: steps" and "unknown key 'many.0.x'" in faults
    with pytest.raises(ConfigError, match=r"^here: never$"):
        validate(Never, {}, "here")


KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.integers() | st.booleans() | st.floats(allow_nan=False) | st.lists(st.integers(), max_size=2)


@SOME
@given(
    st.lists(st.tuples(st.lists(KEYS, min_size=1, max_size=3), VALUES), max_size=6),
    st.sampled_from(["", " "]),
)
def test_assignments_build_nested_values(assignments, space):
    values, wanted = {}, {}
    for path, value in assignments:
        inner = wanted
        for key in path[:-1]:
            inner = inner.setdefault(key, {}) if isinstance(inner, dict) else inner
        text = f"{space}{'.'.join(path)}{space}={space}{str(value).lower()}"
        if isinstance(inner, dict):
            inner[path[-1]] = value
            assign(values, text)
        else:
            with pytest.raises(ConfigError):
                assign(values, text)
    assert values == wanted


@pytest.mark.parametrize("text", ["8/255", "x", "a=b", "1 2", "[1"])
def test_what_is_no_toml_is_text(text):
    values = {}
    assign(values, f"a.b={text}")
    assert values == {"a": {"b": text}}
    for wrong in ("a", "", "=1", " =1"):
        with pytest.raises(ConfigError):
            assign(values, wrong)
