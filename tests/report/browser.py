"""A Chromium to look at pages with, spoken to through its pipe; its path is in ``ADVKIT_CHROMIUM``."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = ("--headless=shell", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "about:blank")


class Browser:
    """One page of it."""

    def __init__(self, to: int, answers: Any) -> None:
        self.to, self.answers, self.calls, self.session = to, answers, 0, None
        targets = self("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self.session = self("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        self("Page.enable")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the devtools protocol and waits for its answer."""
        self.calls += 1
        to = {"sessionId": self.session} if self.session else {}
        text = json.dumps({"id": self.calls, "method": method, "params": parameters, **to})
        os.write(self.to, text.encode() + b"\0")
        return self.wait(lambda said: said.get("id") == self.calls)["result"]

    def wait(self, wanted: Any) -> dict[str, Any]:
        """What it says next that is wanted."""
        while True:
            text = b""
            while (sign := self.answers.read(1)) != b"\0":
                assert sign, "Chromium has ended"
                text += sign
            if wanted(said := json.loads(text)):
                return said

    def show(self, path: Path, width: int) -> None:
        """Opens a file in a window of this width."""
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        self("Emulation.setDeviceMetricsOverride", **size)
        self("Page.navigate", url=path.absolute().as_uri())
        self.wait(lambda said: said.get("method") == "Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """Of a JavaScript expression on the page."""
        answer = self("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")


@contextmanager
def chromium(path: str) -> Iterator[Browser]:
    """Starts it, and ends it."""
    ours, its = os.pipe(), os.pipe()
    read, write = (fcntl.fcntl(number, fcntl.F_DUPFD, 10) for number in (ours[0], its[1]))
    for number in (ours[0], its[1]):
        os.close(number)

    def connect() -> None:
        os.dup2(read, 3)
        os.dup2(write, 4)

    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        [path, *FLAGS], pass_fds=(3, 4), preexec_fn=connect, stdout=quiet, stderr=quiet
    ) as process:
        for number in (read, write):
            os.close(number)
        try:
            with os.fdopen(its[0], "rb") as answers:
                yield Browser(ours[1], answers)
        finally:
            process.kill()
            os.close(ours[1])
