"""Are the lower bounds of pyproject.toml true? Installs just these versions where this is run, and runs tests with them.

    python3.11 -m venv low && low/bin/python tools/lowest.py tests/test_autograd.py tests/nn …
    low/bin/python tools/lowest.py --extras test,tensorboard tests/cli/test_report.py

The Python is the lowest too: newer ones have no wheels of such old versions. A bound fails in one line: where it cannot be had
together with the others, and where a test fails with it and passes once that one package is raised to its newest version.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BOUND = re.compile(r"([\w.-]+)(\[[\w,-]+\])?>=([\d.]+)(;.*)?")


def pinned(requirements: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(name, lower bound) of each; ValueError for a requirement that has another form."""
    for line in requirements:
        match = BOUND.fullmatch(line.replace(" ", ""))
        if match is None:
            raise ValueError(f"{line!r} has no lower bound of the form NAME>=VERSION")
        yield match[1], match[3]


def lowest(project: dict[str, Any], extras: list[str]) -> dict[str, str]:
    """The lower bounds of what the package needs at run time, by name, and of what these extras add."""
    tables, bounds = project["project"]["optional-dependencies"], dict(pinned(project["project"]["dependencies"]))
    for extra in extras:
        of_others = [line for line in tables[extra] if line.startswith("minidit[")]  # dev holds minidit[test]
        bounds |= dict(pinned(line for line in tables[extra] if line not in of_others))
        for line in of_others:
            bounds |= lowest(project, line[len("minidit[") : -1].split(","))
    return bounds


def why_not(output: str) -> str:
    """What pip says in many lines, in one: what is not there, who asks for something else, or what the builder raised."""
    lines = [line.strip() for line in output.splitlines()]
    for kind in (r"No matching distribution", r" depends on |user requested ", r"^\w+Error: ", r"ERROR|error"):
        if matches := [line.removeprefix("ERROR: ") for line in lines if re.search(kind, line)]:
            return "; ".join(dict.fromkeys(matches)) if "depends" in kind else matches[-1]
    return lines[-1] if lines else "pip fails silently"


def pip(*arguments: str, builder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Wheels only: a version without one needs a compiler, which a user does not have. `builder` pins what builds the package."""
    held = {} if builder is None else {"PIP_CONSTRAINT": str(builder), "PIP_BUILD_CONSTRAINT": str(builder)}
    command = [sys.executable, "-m", "pip", "install", "--only-binary", ":all:", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **held}, capture_output=True, text=True, check=False)


def too_low(bounds: dict[str, str], again: list[str]) -> str:
    """The bound without which the tests that failed pass: one at a time is raised as far as the others, which stay, allow."""
    for name, version in bounds.items():
        pip("--upgrade", name, *(f"{other}=={held}" for other, held in bounds.items() if other != name))
        raised = importlib.metadata.version(name)
        passed = raised != version and subprocess.run(again, cwd=ROOT, capture_output=True, check=False).returncode == 0
        pip("--no-deps", f"{name}=={version}")
        if passed:
            return f"{name}>={version} is too low: with it the test above fails, with {name} {raised} it passes"
    return "the test above fails with the lowest versions, and raising no single bound mends it"


def problem(extras: list[str], tests: list[str], room: Path) -> str:
    """Installs and tests; what is wrong in one line, or nothing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    python = ".".join(map(str, sys.version_info[:2]))
    if project["project"]["requires-python"] != f">={python}":
        return f"requires-python is {project['project']['requires-python']}, and this is Python {python}"
    builder = room / "builder.txt"
    builder.write_text("".join(f"{name}=={version}\n" for name, version in pinned(project["build-system"]["requires"])), "utf-8")
    bounds = lowest(project, extras)
    exactly = [f"{name}=={version}" for name, version in bounds.items()]
    installed = pip("-e", f".[{','.join(extras)}]", *exactly, builder=builder)
    if installed.returncode:
        return f"the lower bounds cannot be installed together: {why_not(installed.stdout + installed.stderr)}"
    print("the lowest versions:", *exactly, flush=True)
    run = [sys.executable, "-m", "pytest", "-x", "-o", f"cache_dir={room / 'cache'}"]
    if subprocess.run([*run, "-n", "auto", "--dist", "loadfile", *tests], cwd=ROOT, check=False).returncode:
        return too_low(bounds, [*run, "--last-failed", *tests])
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tests", nargs="+", help="files or folders of tests")
    parser.add_argument("--extras", default="test", help="installed with the package; `test` is needed")
    args = parser.parse_args()
    if sys.prefix == sys.base_prefix:
        parser.error("run this in a virtual environment of its own: it installs old versions")
    with tempfile.TemporaryDirectory(prefix="lowest-") as room:
        try:
            wrong = problem(args.extras.split(","), args.tests, Path(room))
        except ValueError as e:
            wrong = str(e)
    if wrong:
        print(f"pyproject.toml: {wrong}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
