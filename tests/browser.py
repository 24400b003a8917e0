"""A real browser for tests of pages: keys and pointers as a reader's, over Chromium's debugging pipe."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "tools")]

from site_check import CHROMIUM, FLAGS  # noqa: E402

KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " "), "End": (35, ""), "Home": (36, ""), "ArrowLeft": (37, ""),
        "ArrowUp": (38, ""), "ArrowRight": (39, ""), "ArrowDown": (40, "")}
LONGEST = 120  # seconds that a browser may take to answer, on a machine with much else to do


class Browser:
    """One page. `run` answers with the value of a piece of JavaScript, `press` and `drag` are what a reader does."""

    def __init__(self, to: int, back: int):
        self.to, self.back, self.number, self.session, self.rest = to, back, 0, None, b""

    def call(self, method: str, **parameters) -> dict:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _next(self) -> dict:
        while b"\0" not in self.rest:
            part = os.read(self.back, 1 << 16)
            if not part:
                raise RuntimeError("The browser has ended.")
            self.rest += part
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def open(self, page: Path, width: int = 390, height: int = 844, dark: bool = False, still: bool = False, scripts: bool = True):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
                    {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call("Page.enable")
        self.call("Page.navigate", url=page.as_uri())
        self.until("document.readyState === 'complete'")

    def until(self, condition: str) -> None:
        end = time.monotonic() + LONGEST
        while not self.run(condition):
            if time.monotonic() > end:
                raise TimeoutError(condition)
            time.sleep(0.05)

    def run(self, script: str):
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def press(self, *keys: str) -> None:
        for key in keys:
            code, text = KEYS[key]
            about = {"key": key, "code": {" ": "Space"}.get(key, key), "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
            self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def drag(self, *places: tuple[float, float]) -> None:
        kinds = ["mousePressed", *["mouseMoved"] * (len(places) - 1), "mouseReleased"]
        for kind, (x, y) in zip(kinds, [*places, places[-1]], strict=True):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)


@contextlib.contextmanager
def browser(folder: Path):
    """A browser that keeps its profile in a folder."""
    ends = [*os.pipe(), *os.pipe()]
    there, to, back, here = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)  # none of them is 3 or 4
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder}/profile", "--remote-debugging-pipe", "about:blank"]
    silent = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    pipes = [(os.POSIX_SPAWN_DUP2, there, 3), (os.POSIX_SPAWN_DUP2, here, 4)]  # where Chromium listens and answers
    process = os.posix_spawn(CHROMIUM, command, os.environ, file_actions=silent + pipes)
    for end in (*ends, there, here):
        os.close(end)
    try:
        yield Browser(to, back)
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(to)
        os.close(back)
