"""Measures what independent implementations need of the vectors' tolerances, and writes it beside them.

    python tools/observe_vectors.py        (needs pytest, PyTorch, diffusers, node and g++)

minidit/verify/observed.json: topic -> {implementation: worst error over the topic's questions}. Only answers that are right
count; what an implementation does wrong says nothing about rounding. What is not installed here keeps its figures.
Afterwards: minidit vectors export minidit/vectors
"""

import contextlib
import importlib
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import scipy

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
findings, test_fresh = (importlib.import_module(name) for name in ("tools.findings", "verify.test_fresh"))

from minidit import verify  # noqa: E402
from minidit.verify.core.compare import allowed  # noqa: E402
from minidit.verify.vectors.writing import OBSERVED  # noqa: E402


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def in_float32(functions):
    """The same functions: what comes in and what goes out is rounded to float32."""
    return {name: test_fresh.FORMS["float32"](f) for name, f in functions.items()}


def implementations():
    """(name, report) of everything that is here."""
    laws = module(ROOT / "tests" / "verify" / "test_laws_foreign.py").answers
    for kind in ("float64", "float32"):
        yield f"NumPy tables, {kind}", verify.check(laws(getattr(np, kind)), precision=kind)
    loops = module(ROOT / "tests" / "verify" / "foreign_dit.py").dit
    yield "NumPy loops, float64", verify.check({"dit": loops(), "dit_square": loops()}, precision="float64")
    examples = ROOT / "examples"
    mine = {}
    for part in ("sampling", "network", "training", "continuous", "unet", "around", "tokens", "streams"):
        mine |= module(examples / "verify" / f"scipy_{part}.py").mine()
    for who, functions in ((f"SciPy {scipy.__version__}", mine), ("NumPy formulas", test_fresh.RIGHT)):
        yield f"{who}, float64", verify.check(functions, precision="float64")
        yield f"{who}, float32", verify.check(in_float32(functions), precision="float32")
    names = ("functions", "sampling", "training", "continuous", "unet", "around", "tokens", "streams")
    parts = [module(examples / "verify" / f"torch_{name}.py") for name in names]
    net, torch = module(examples / "verify" / "torch_dit.py"), parts[0].torch
    for kind in ("float64", "float32"):
        answers = net.mine(dtype=kind)
        for part in parts:
            answers |= verify.torch.functions(part.mine(), dtype=getattr(torch, kind))
        yield f"PyTorch {torch.__version__.split('+')[0]}, {kind}", verify.check(answers, precision=kind)
    yield f"{verify.diffusers.version()}, float64", verify.check(verify.diffusers.target(), precision="float64")
    for project, (_, package, precision, _) in findings.STRANGERS.items():
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
    observed, here = {}, set()
    for name, report in implementations():
        here.add(name)
        wrong = [f.topic.name for f in report.findings if f.verdict != "equal"]
        print(f"{name}: {len(report.findings) - len(wrong)} topics" + (f", not equal: {', '.join(wrong)}" if wrong else ""))
        for f in report.findings:
            if f.verdict == "equal" and f.worst.error <= allowed(f.topic, name.split(", ")[-1]) and not f.topic.allowed:
                observed.setdefault(f.topic.name, {})[name] = float(f"{f.worst.error:.1e}")
    for topic, who in json.loads(OBSERVED.read_text("utf-8")).items():
        observed.setdefault(topic, {}).update({name: error for name, error in who.items() if name not in here})
    ordered = {topic: dict(sorted(observed[topic].items())) for topic in verify.TOPICS if topic in observed}
    OBSERVED.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", "utf-8")
    exact = [topic for topic, about in verify.TOPICS.items() if not about.allowed]
    for kind in ("float64", "float32"):
        who = {t: {n.split(",")[0] for n in ordered.get(t, {}) if n.endswith(kind)} for t in exact}
        few = [t for t in exact if len(who[t]) < 2]
        print(f"{kind}: {len(exact) - len(few)} of {len(exact)} topics by two or more; fewer: {', '.join(few) or 'none'}")


if __name__ == "__main__":
    main()
