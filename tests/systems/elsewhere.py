"""Four jobs without what only POSIX has, as on Windows; run by `test_elsewhere.py` in a folder of its own.

Other packages are imported first, since they choose what they use by the system; the lock of files keeps what
it opens them with here. Then modules and functions
are taken away, files that are open can be neither replaced nor removed, names cannot hold ``:`` and the like,
and a text file must name its encoding.
"""

import errno
import importlib
import os
import pkgutil
import re
import signal
import sys
import warnings
from pathlib import Path
from unittest import mock

import art.estimators.classification
import filelock
import jinja2
import matplotlib.backends.backend_agg  # noqa: F401
import matplotlib.figure
import rich.progress
import rich.table  # noqa: F401
import scipy.stats
import sklearn.datasets
import torch.distributed
import torchvision
from click.testing import CliRunner

import advkit

IMPORTED = art, filelock, jinja2, matplotlib, rich, scipy, sklearn, torch, torchvision
MODULES = "fcntl grp posix pty pwd resource syslog termios tty"
OF_OS = (
    "fork forkpty getegid geteuid getgid getpgid getuid killpg mkfifo mknod nice openpty pathconf "
    "posix_spawn sched_getaffinity setsid setuid sync chown fchown O_DIRECTORY O_SYNC"
)
OF_SIGNAL = "SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGUSR1 SIGUSR2 alarm pause setitimer sigwait"
OPEN_FILES = Path("/proc/self/fd")


def in_use(path: str) -> bool:
    """Whether this process has the file open, or mapped into its memory."""
    where = str(Path(path).resolve())
    held = [str(link.readlink()) for link in OPEN_FILES.iterdir() if link.is_symlink()]
    return where in held or f" {where}\n" in Path("/proc/self/maps").read_text("utf-8", "replace")


def refuse(event: str, values: tuple[object, ...]) -> None:
    """An audit hook: what Windows refuses."""
    names = [os.fspath(value) for value in values if isinstance(value, str | os.PathLike)]
    if event == "open" and names and isinstance(values[2], int) and values[2] & (os.O_WRONLY | os.O_RDWR):
        refuse_name(names[0])
    elif event in ("os.mkdir", "os.rename"):
        refuse_name(names[-1])
        if event == "os.rename" and any(Path(name).is_file() and in_use(name) for name in names):
            raise PermissionError(errno.EACCES, "the file is in use", names[-1])
    elif event == "os.remove" and in_use(names[0]):
        raise PermissionError(errno.EACCES, "the file is in use", names[0])


def refuse_name(path: str) -> None:
    """Characters and endings that a name on Windows cannot have."""
    if isinstance(path, str) and re.search(r'[<>:"|?*\x00-\x1f]|[. ](/|$)', path.replace("../", "")):
        raise OSError(errno.EINVAL, "the name is invalid", path)


def take_away() -> None:
    """All that was listed."""
    for name in MODULES.split():
        sys.modules[name] = None  # type: ignore[assignment]
    for module, names in ((os, OF_OS), (signal, OF_SIGNAL)):
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    warnings.filterwarnings("error", category=EncodingWarning, module="advkit")
    sys.addaudithook(refuse)


def run(line: str, code: int = 0) -> str:
    """One command line; returns what it printed."""
    done = CliRunner().invoke(advkit.cli.app.app, line.split())
    assert done.exit_code == code, (line, done.output, done.exc_info)
    return done.output


def stopped(line: str) -> None:
    """The command, interrupted at its first state."""
    from advkit.core.runs import RunFolder

    save = RunFolder.save_state

    def once(folder: RunFolder, state: dict[str, object]) -> None:
        save(folder, state)
        raise KeyboardInterrupt

    with mock.patch.object(RunFolder, "save_state", once):
        run(line, 130)


def main() -> None:
    """Imports everything, then does the jobs."""
    take_away()
    for module in pkgutil.walk_packages(advkit.__path__, "advkit."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gan = "gan-train --data digits --arch mlp-gan --steps 40 --checkpoint-every 10 --name tiny --out gan"
    stopped(gan)
    run(f"{gan} --resume")
    run("train --data digits --arch mlp --epochs 1 --set checks=1 --name clf --out clf")
    attack = "attack --model clf --n 6 --attack fgsm,art:FastGradientMethod --save adv.npz --out attacked"
    run(attack)
    run(attack + " --overwrite")
    assert Path("attacked/report.html").exists()
    assert "clf" in run("models ls")
    run("models export clf out.pt")
    run("models import out.pt copy")
    run("models rm clf")
    run("attack --model copy --data npz:adv.npz --norm linf --eps 0.1 --n 3 --attack noise")


if __name__ == "__main__":
    main()
