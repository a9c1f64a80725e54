"""The lock of a run folder."""

from filelock import FileLock

from advkit.core.config import StrictModel
from advkit.core.runs import RunFolder


def test_going_on_takes_the_lock_once_and_keeps_it(tmp_path, monkeypatch):
    """Taken, released and taken again, it let two identical starts refuse each other."""
    monkeypatch.chdir(tmp_path)
    with RunFolder.open("attack", "toy", StrictModel()):
        pass
    taken = []
    lock = FileLock.acquire
    monkeypatch.setattr(FileLock, "acquire", lambda *me, **how: (taken.append(how), lock(*me, **how))[1])
    with RunFolder.open("attack", "toy", StrictModel()) as run:
        assert run.resumed and len(taken) == 1
