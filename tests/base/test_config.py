import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from advkit.config import Fraction, StrictModel, assign, validate
from advkit.errors import ConfigError


class Inner(StrictModel):
    steps: int = 40


class Outer(StrictModel):
    eps: Fraction = Field(0.1, gt=0)
    name: str
    inner: Inner = Inner()


def test_fractions():
    assert validate(Outer, {"name": "a", "eps": "8/255"}, "here").eps == pytest.approx(8 / 255)
    with pytest.raises(ConfigError, match="no fraction"):
        validate(Outer, {"name": "a", "eps": "8/x"}, "here")


def test_all_faults_at_once_each_with_its_place():
    with pytest.raises(ConfigError) as caught:
        validate(Outer, {"eps": -1, "nmae": "a", "inner": {"stpes": 3, "steps": "many"}}, "recipe.toml")
    said = str(caught.value)
    assert said.startswith("recipe.toml: ")
    for part in (
        "eps: ",
        "'nmae' (did you mean 'name'?)",
        "'name' is missing",
        "'inner.stpes'",
        "inner.steps: ",
    ):
        assert part in said
    assert "did you mean 'steps'" in said and "inner.steps: " in said


def test_assignments():
    values = {"a": 1}
    for text in ("inner.steps=3", "eps=8/255", "name=x", "flag=true", 'list=["a", "b"]'):
        assign(values, text)
    assert values == {
        "a": 1,
        "inner": {"steps": 3},
        "eps": "8/255",
        "name": "x",
        "flag": True,
        "list": ["a", "b"],
    }
    with pytest.raises(ConfigError, match="has no '='"):
        assign(values, "steps")
    with pytest.raises(ConfigError, match="holds a value"):
        assign(values, "a.b=1")


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_any_fraction_is_read(above, below):
    class One(StrictModel):
        value: Fraction

    assert One(value=f"{above}/{below}").value == above / below
