"""How a mutant is tried: which tests may notice it, and their run in a fork of this process."""

from __future__ import annotations

import compileall
import gc
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.extra.numpy
import hypothesis.internal.conjecture.providers as providers
import mpmath  # noqa: F401  (imported here once, for all forks)
import numpy as np  # noqa: F401
import PIL.Image  # noqa: F401
import pytest
import scipy.special  # noqa: F401
from mutation.draw import Mutant, around, hashed, remembered

FEW = 8  # examples of the first round
providers._get_local_constants = lambda: providers._local_constants  # reads every module's text for numbers to try: too slow here


class Session:
    """A pytest plugin: these tests in this order with so many examples; who failed, how long each took, what each called."""

    def __init__(self, wanted: list[str] | None, examples: int | None, watch: str = "", usual: Any = None) -> None:
        self.wanted, self.examples, self.watch, self.usual = wanted, examples, watch, usual
        self.failed: list[str] = []
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, list[str]] = {}
        self.cites: dict[str, list[str]] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if self.wanted is not None:
            by_name = {item.nodeid: item for item in items}
            items[:] = [by_name[name] for name in self.wanted if name in by_name]
        for item in items:
            self.cites[item.nodeid] = [i for mark in item.iter_markers("spec") for i in mark.args]
            test = getattr(item, "obj", None)
            usual = getattr(test, "_hypothesis_internal_use_settings", None)
            if usual is not None:
                n = usual.max_examples if self.examples is None else min(usual.max_examples, self.examples)
                phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
                quick = hypothesis.settings(usual, max_examples=n, derandomize=True, database=None, phases=phases)
                getattr(test, "__func__", test)._hypothesis_internal_use_settings = quick

    @pytest.hookimpl(hookwrapper=True)
    def pytest_collection(self) -> Any:
        seen: set[Any] = set()
        if self.watch:
            sys.settrace(lambda frame, event, arg: seen.add(frame.f_code))
        yield
        if self.watch:
            sys.settrace(None)
            self.calls["import"] = self._ours(seen)

    def _ours(self, seen: set[Any]) -> list[str]:
        """file:line of the functions of the package among those that were called."""
        names = [(c.co_filename.removeprefix(self.watch), c) for c in seen if c.co_filename.startswith(self.watch)]
        return [f"{name}:{c.co_firstlineno}" for name, c in names if c.co_name != "<module>"]

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: Any) -> Any:
        seen: set[Any] = set()
        if self.watch:
            sys.settrace(lambda frame, event, arg: seen.add(frame.f_code))
        if self.usual is not None:
            signal.setitimer(signal.ITIMER_PROF, 15 + 30 * self.usual[item.nodeid])  # seconds of CPU; ends an endless loop
        yield
        signal.setitimer(signal.ITIMER_PROF, 0)
        if self.watch:
            sys.settrace(None)
            self.calls[item.nodeid] = self._ours(seen)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(f"{report.nodeid} (cannot be imported)")


def in_fork(copy: Path, files: list[str], session: Session, *, limit: float, stop: bool = True) -> dict[str, Any] | None:
    """The session's findings, run in a child process; None if it took longer than `limit` seconds or died."""
    answer = copy / "answer.json"
    answer.unlink(missing_ok=True)
    gc.freeze()  # the child need not look at what it inherits
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.chdir(copy)
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit)))
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
            sys.path[:0] = [str(copy)]
            if stop:
                sys.dont_write_bytecode = True
            flags = ["-p", "_hypothesis_pytestplugin", "-p", "no:cacheprovider", "--tb=no", "--rootdir", str(copy)]
            code = pytest.main([*flags, *(["-x"] if stop else []), *files], plugins=[session])
            findings = {k: getattr(session, k) for k in ("failed", "seconds", "calls", "cites")}
            answer.with_suffix(".part").write_text(json.dumps({"code": int(code), **findings}))
            os.replace(answer.with_suffix(".part"), answer)
        finally:
            os._exit(0)
    ends = time.monotonic() + limit
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > ends:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.01)
    return json.loads(answer.read_text()) if answer.exists() else None


def checkout_copy(root: Path, folder: Path) -> Path:
    """A private copy of what is under version control, and what is new beside it."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    for name in subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines():
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, folder / name)
    compileall.compile_dir(folder / "minidit", quiet=1)
    return folder


class Tests:
    """Which tests belong to a file, what they call, how long they take: found by running them once, unchanged.

    That is kept in the file `memory`, for as long as the checkout stays the same.
    """

    def __init__(self, copy: Path, files: list[str], memory: Path) -> None:
        self.copy, self.killed = copy, Counter[str]()
        texts = [(str(p.relative_to(copy)), p.read_bytes()) for p in sorted(copy.rglob("*.py"))]
        key = hashed(texts, (copy / "SPEC.md").read_bytes(), files)
        self.pool, self.seconds, self.callers = remembered(memory, key, lambda: self._look(files))

    def _look(self, files: list[str]) -> tuple[dict[str, list[str]], dict[str, float], dict[str, list[str]]]:
        """(file -> its tests, test -> seconds, function -> the tests that call it)."""
        homes, copy = self._homes(), self.copy
        looked = in_fork(copy, ["tests", "--collect-only"], Session(None, FEW), limit=300, stop=False)
        assert looked is not None and looked["code"] == 0, "the tests cannot be collected"
        pool: dict[str, list[str]] = {}
        for path in files:
            room = path.removeprefix("minidit/").split("/")
            mirror = f"tests/{room[0]}/" if len(room) > 1 else f"tests/test_{room[0].removesuffix('.py')}"
            pool[path] = [
                n for n, ids in looked["cites"].items() if n.startswith(mirror) or any(path in homes.get(i, ()) for i in ids)
            ]
        names = sorted({name for tests in pool.values() for name in tests})
        watch = Session(names, FEW, watch=f"{copy}/minidit/")
        ran = in_fork(copy, self._files(names), watch, limit=1800, stop=False)
        if ran is None or ran["code"] not in (0, 1):
            raise SystemExit("the tests do not run before anything is mutated")
        if ran["failed"]:  # such a test can kill nothing: it fails anyway
            print("left out, they fail on the unchanged text:", *ran["failed"], sep="\n  ")
        callers = defaultdict(list)
        for name, calls in ran["calls"].items():
            for call in calls:
                callers[call].append(name)
        fair = {path: [n for n in tests if n not in ran["failed"]] for path, tests in pool.items()}
        return fair, ran["seconds"], dict(callers)

    def _homes(self) -> dict[str, set[str]]:
        """Equation -> the files of its homes, as SPEC.md says."""
        code = (
            "import json; from pathlib import Path; from minidit.html.spec import read; s = read(Path('.'));"
            "print(json.dumps({e.id: ['minidit/' + p.path for p in (*e.homes, *e.also)] for e in s.entries.values()}))"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=self.copy, capture_output=True, text=True, check=True)
        return {k: set(v) for k, v in json.loads(done.stdout).items()}

    @staticmethod
    def _files(names: list[str]) -> list[str]:
        return sorted({name.partition("::")[0] for name in names})

    def judge(self, mutant: Mutant) -> tuple[bool, dict[str, Any]]:
        """(killed, by whom and after how many seconds)."""
        began = time.monotonic()
        first, _, inside = around(mutant.original, mutant.start[0])
        callers = self.callers.get(f"{mutant.path.removeprefix('minidit/')}:{first}", [])
        everywhere = not inside or "import" in callers or not callers
        worth = {n: (-min(self.killed[n], 3) / (0.05 + self.seconds[n]), self.seconds[n]) for n in self.pool[mutant.path]}
        fastest = sorted(worth, key=lambda n: worth[n])
        reached = [n for n in fastest if n in callers]
        near = [n for n in reached if n.partition("::")[0] == reached[0].partition("::")[0]]  # one file to import
        rest = [n for n in reached if n not in near]
        rounds = [(near, FEW), (rest, FEW), (fastest if everywhere else reached, None)]
        target = self.copy / mutant.path
        stamp = target.stat()
        by = ""
        try:
            target.write_text(mutant.text)
            for names, examples in rounds:
                if not names:
                    continue
                patience = 600 + 10 * sum(self.seconds[n] for n in names)  # of the clock, which other programs may hold up
                ran = in_fork(self.copy, self._files(names), Session(names, examples, usual=self.seconds), limit=patience)
                by = "timeout" if ran is None else ran["failed"][0] if ran["failed"] else ""
                by = by or ("pytest stopped" if ran and ran["code"] not in (0, 5) else "")
                if by:
                    self.killed[by] += 1
                    break
        finally:
            target.write_text(mutant.original)
            os.utime(target, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        return bool(by), {"by": by, "seconds": round(time.monotonic() - began, 2)}
