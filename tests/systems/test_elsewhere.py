"""Systems other than the one at hand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_nothing_needs_posix(tmp_path: Path) -> None:
    script = Path(__file__).with_name("elsewhere.py")
    words = [sys.executable, "-X", "warn_default_encoding", str(script)]
    told = {**os.environ, "ADVKIT_HOME": str(tmp_path / "home"), "PYTHONPATH": str(script.parents[2])}
    done = subprocess.run(words, cwd=tmp_path, env=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
