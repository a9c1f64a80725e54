"""The lock of a run folder."""

import fcntl

from advkit.core.config import StrictModel
from advkit.core.runs import RunFolder


def test_going_on_takes_the_lock_once_and_keeps_it(tmp_path, monkeypatch):
    """Taken, released and taken again, it let two identical starts refuse each other."""
    monkeypatch.chdir(tmp_path)
    with RunFolder.open("attack", "toy", StrictModel()):
        pass
    taken = []
    lock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lambda file, how: (taken.append(how), lock(file, how)))
    with RunFolder.open("attack", "toy", StrictModel()) as run:
        assert run.resumed and len(taken) == 1
