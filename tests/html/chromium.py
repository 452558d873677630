"""A real browser for tests, without any dependency: headless Chromium over its DevTools pipe.

    with Page() as page:
        page.open(path)
        assert page.evaluate("document.title") == "..."
        assert page.errors == [] and page.requests == []

The browser reads commands from file descriptor 3 and writes answers and events to 4: JSON, each ended by a zero byte.
Every wait has a deadline, after which the browser is killed: a hung browser cannot hang the tests.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
         "--disable-dev-shm-usage", "--hide-scrollbars", "--mute-audio", "--remote-debugging-pipe"]
LEFT = "navigated or closed", "context was destroyed", "default execution context"  # DevTools about a page that was left
# the browser wants its pipes at 3 and 4; a small Python moves them there and becomes the browser
LAUNCH = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"


def reason_to_skip() -> str:
    """Why there is no browser to test with, or "" if there is one."""
    return "" if shutil.which("chromium") else "chromium is not installed"


class Page:
    """One tab of a fresh headless Chromium.

    errors : what the console showed as errors, and uncaught exceptions, since the last open
    requests : addresses fetched since the last open, other than the page itself and data: URIs
    """

    def __init__(self, timeout=20.0):
        self.timeout = timeout
        self.errors, self.requests, self._events, self._buffer, self._id = [], [], [], b"", 0
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        ours = os.pipe(), os.pipe()
        (theirs_in, self._to), (self._from, theirs_out) = ours
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (theirs_in, theirs_out)]  # so that 3 and 4 are free to be taken
        command = [sys.executable, "-c", LAUNCH, *map(str, high), shutil.which("chromium"), *FLAGS]
        try:
            self._process = subprocess.Popen(
                [*command, f"--user-data-dir={self._profile}", "about:blank"], pass_fds=high, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        finally:
            for fd in (theirs_in, theirs_out, *high):
                os.close(fd)
        try:
            self._session = None
            target = self._call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self._call(f"{domain}.enable")
            self.set_width(1280)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # -------------------------------------------------------------------------------------------- what a test does

    def open(self, path):
        """Loads a file and waits until everything in it is loaded."""
        self.errors, self.requests, self._events = [], [], []
        url = Path(path).resolve().as_uri()
        self._call("Page.navigate", url=url)
        deadline = time.monotonic() + self.timeout
        while not any(e["method"] == "Page.loadEventFired" for e in self._events):
            self._read(deadline, f"{path} to load")
        self.settle()
        self.requests = [u for u in self.requests if u != url and not u.startswith("data:")]

    def evaluate(self, script):
        """The value of a JavaScript expression (of a promise: what it comes to). Raises AssertionError if it throws."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise AssertionError(f"{script!r}: {details.get('exception', {}).get('description', details['text'])}")
        return answer["result"].get("value")

    def settle(self):
        """Waits for two drawn frames, so that what scripts have done is on the screen and in `errors`.

        A key or a click may lead to another page: what was asked of the one that is left is asked of the next one.
        """
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                return self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))")
            except RuntimeError as error:
                if not any(sign in str(error) for sign in LEFT) or time.monotonic() > deadline:
                    raise

    def press(self, key, shift=False):
        """A key at whatever has the focus: "ArrowRight", "Tab", "Enter", "Escape", or one character."""
        codes = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9, "Enter": 13, "Escape": 27, " ": 32,
                 "Home": 36, "End": 35}
        about = {"key": key, "code": key if len(key) > 1 else "", "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper())),
                 "modifiers": 8 if shift else 0}
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        self._call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **about)
        self._call("Input.dispatchKeyEvent", type="keyUp", **about)
        self.settle()

    def move_mouse(self, x, y):
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.settle()

    def set_width(self, pixels, height=900):
        """The size of the window; below 600 the browser behaves like a phone's."""
        self._call("Emulation.setDeviceMetricsOverride", width=pixels, height=height, deviceScaleFactor=1, mobile=pixels < 600)

    def set_dark(self, dark, reduced_motion=False):
        """What the reader prefers: a dark page, less motion."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
                    {"name": "prefers-reduced-motion", "value": "reduce" if reduced_motion else "no-preference"}]
        self._call("Emulation.setEmulatedMedia", features=features)

    def overflow(self):
        """By how many pixels the page is wider than the window: 0 where nothing has to be scrolled sideways."""
        return self.evaluate("Math.max(0, document.documentElement.scrollWidth - document.documentElement.clientWidth, "
                             "document.documentElement.scrollWidth - window.innerWidth)")

    def ended(self):
        """Whether the browser is gone (waits for it a moment)."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        return self._process.returncode is not None

    def close(self):
        for fd in (self._to, self._from):
            with contextlib.suppress(OSError):
                os.close(fd)  # at the end of its pipe the browser leaves by itself
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(3)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its own session: only what this page started
        self._process.wait(5)
        shutil.rmtree(self._profile, ignore_errors=True)

    # -------------------------------------------------------------------------------------------- the protocol

    def _call(self, method, **parameters):
        self._id += 1
        message = {"id": self._id, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._write(json.dumps(message).encode() + b"\0", method)
        deadline = time.monotonic() + self.timeout
        while (answer := self._read(deadline, method)) is None or answer["id"] != self._id:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _write(self, content, what):
        while content:
            if not select.select([], [self._to], [], self.timeout)[1]:
                self._give_up(what)
            content = content[os.write(self._to, content[:4096]):]

    def _read(self, deadline, what):
        """One message: an answer is returned, an event is kept (and None returned)."""
        while b"\0" not in self._buffer:
            if not select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self._give_up(what)
            chunk = os.read(self._from, 1 << 16)
            if not chunk:
                raise RuntimeError(f"the browser ended (exit status {self._process.poll()}) while waiting for {what}")
            self._buffer += chunk
        raw, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(raw)
        if "id" in message:
            return message
        self._note(message["method"], message["params"])
        self._events.append(message)
        return None

    def _note(self, method, what):
        if method == "Runtime.exceptionThrown":
            details = what["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and what["entry"]["level"] == "error":
            self.errors.append(what["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and what["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in what["args"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(what["request"]["url"])

    def _give_up(self, what):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        raise TimeoutError(f"the browser did not answer within {self.timeout} s: {what}")
