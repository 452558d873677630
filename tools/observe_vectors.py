"""Measures what independent implementations need of the vectors' tolerances, and writes it beside them.

    python tools/observe_vectors.py        (PyTorch, diffusers, node, g++, as far as they are there)

minidit/verify/observed.json: topic -> {implementation: worst error over the topic's questions}. Only answers that are right
count; what an implementation does wrong says nothing about rounding. Afterwards: minidit vectors export minidit/vectors
"""

import contextlib
import importlib
import importlib.util
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
findings = importlib.import_module("tools.findings")

from minidit import verify  # noqa: E402
from minidit.verify.vectors import OBSERVED  # noqa: E402


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def implementations():
    """(name, report) of everything that is here."""
    laws = module(ROOT / "tests" / "verify" / "test_laws_foreign.py").answers
    for kind in ("float64", "float32"):
        yield f"NumPy tables, {kind}", verify.check(laws(getattr(np, kind)), precision=kind)
    loops = module(ROOT / "tests" / "verify" / "foreign_dit.py").dit
    yield "NumPy loops, float64", verify.check({"dit": loops()})
    examples = ROOT / "examples"
    torch, more = (module(examples / "verify" / f"torch_{name}.py") for name in ("functions", "training"))
    net = module(examples / "verify" / "torch_dit.py")
    for kind in ("float64", "float32"):
        answers = verify.torch.functions(torch.mine() | more.mine(), dtype=getattr(torch.torch, kind))
        name = f"PyTorch {torch.torch.__version__.split('+')[0]}, {kind}"
        yield name, verify.check(answers, precision=kind)
        network = verify.torch.network(net.Net, names=net.name, dtype=kind)
        yield name, verify.check(network, topics=["network"], precision=kind)
    yield f"{verify.diffusers.version()}, float64", verify.check(verify.diffusers.target(), precision="float64")
    for project, (_, package, precision) in findings.STRANGERS.items():
        with contextlib.suppress(ImportError):
            report, kind = findings.report_on(project), precision or "float64"
            yield f"{importlib.import_module('tools.strangers').version(package)}, {kind}", report
    with tempfile.TemporaryDirectory() as folder:
        built = f"{folder}/mine"
        subprocess.run(["g++", "-std=c++17", "-O1", "-o", built, examples / "process" / "mine.cpp"], check=True)
        for name, command in (("C++, float64", built), ("JavaScript, float64", f"node {examples / 'process' / 'mine.mjs'}")):
            with verify.process.Program(command) as program:
                yield name, program.check()


def main():
    observed = {}
    for name, report in implementations():
        for f in report.findings:
            if f.verdict == "equal" and math.isfinite(f.worst.error) and not f.topic.allowed:
                observed.setdefault(f.topic.name, {})[name] = float(f"{f.worst.error:.1e}")
    ordered = {topic: dict(sorted(observed[topic].items())) for topic in verify.TOPICS if topic in observed}
    OBSERVED.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", "utf-8")
    twice = sum(len({who.split(",")[0] for who in found}) > 1 for found in ordered.values())
    print(f"{OBSERVED}: {len(ordered)} topics, {twice} of them by two implementations or more, of {len(verify.TOPICS)}")


if __name__ == "__main__":
    main()
