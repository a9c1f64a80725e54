"""A process alone; what several do is in tests/evaluation/test_crashes.py."""

import subprocess
import sys

import pytest

from advkit import distributed
from advkit.errors import ConfigError


def test_alone_nothing_happens(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert (distributed.rank(), distributed.local_rank(), distributed.world()) == (0, 0, 1)
    assert distributed.gather("x") == ["x"] and distributed.share("x") == "x"
    with pytest.raises(ConfigError, match="told"), distributed.together():
        raise ConfigError("told")
    with distributed.joined():
        distributed.wait()


def test_asking_imports_nothing():
    code = (
        "import sys; from advkit import distributed\n"
        "assert distributed.world() == 1 and distributed.rank() == 0\n"
        "with distributed.joined(): assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Stubborn(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def test_any_fault_can_be_told_to_another_process():
    copy = distributed._portable(ConfigError("what; where; what to do"))
    assert isinstance(copy, ConfigError) and str(copy) == "what; where; what to do" and copy.told
    assert not hasattr(copy, "__notes__")
    try:
        raise Stubborn(1, 2)
    except Stubborn as fault:
        copy = distributed._portable(fault)
    assert str(copy) == "Stubborn: 1 and 2" and "in process 0:" in copy.__notes__[0]
    assert "raise Stubborn(1, 2)" in copy.__notes__[0]
