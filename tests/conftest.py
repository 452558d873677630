"""Both backends for every test (`xp`, `device`), which tests run and on how many cores, and where residuals are kept."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# before NumPy is imported: small products gain nothing from threads, and the other cores run tests
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # pytest was started by nohup, and so would be every command of a test
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

import numpy as np
import pytest
import standin
import support

RESIDUALS = Path(__file__).parent.parent / "build" / "residuals.json"
CUPY = standin.install()  # before any test imports the package: the real CuPy if there is a GPU, else the stand-in
REAL = not getattr(CUPY, "__standin__", False)
SKIPPED: dict[str, None] = {}  # the tests and files that this run skipped, in order


@pytest.fixture(params=["numpy", "cupy"])
def xp(request):
    """The array module: one body of a test serves both."""
    return np if request.param == "numpy" else CUPY


@pytest.fixture
def device(xp):
    """The name of the device on which arrays of xp live."""
    return "cpu" if xp is np else "cuda"


@pytest.fixture
def gpu():
    """The stand-in with its kernels, compiled for the CPU, and an imitated cuBLAS: all that recordings need."""
    if REAL or standin.raw.compiler() is None:
        pytest.skip("the stand-in, and g++ to run kernels on the CPU")
    from standin.cublas import imitated_cublas

    from minidit.kernels import cuda_graph

    cuda_graph.explain.cache_clear()
    with standin.kernels(), imitated_cublas():
        yield


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")
    parser.addoption("--list-skipped", type=Path, metavar="FILE", help="write what was skipped, for another run: pytest @FILE")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the options
def pytest_cmdline_main(config):
    """A run of everything uses all cores, one file per worker at a time. A run of named files stays in this process."""
    everything = config.args_source is not pytest.Config.ArgsSource.ARGS
    worker = hasattr(config, "workerinput") or "PYTEST_XDIST_WORKER" in os.environ  # which comes here too, and starts nobody
    if everything and not worker and config.pluginmanager.hasplugin("xdist") and config.option.numprocesses is None:
        config.option.numprocesses, config.option.dist = "auto", "loadfile"


def pytest_configure(config):
    """A shell that starts a job in the background ignores Ctrl-C for it; the tests of Ctrl-C need the usual answer."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config, items):
    """Without --slow and without a -m expression that names them, slow tests stay out; GPU tests need a GPU."""
    if not config.getoption("--slow") and "slow" not in config.getoption("-m"):
        slow = [i for i in items if i.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [i for i in items if i not in slow]
    for item in items:
        if not REAL and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a real GPU"))


def pytest_collectreport(report):
    if report.skipped:
        SKIPPED[report.nodeid] = None


def pytest_runtest_logreport(report):
    if report.skipped:
        SKIPPED[report.nodeid] = None


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """A worker of xdist has ended: its residuals join those of the others."""
    support.RESIDUALS = support.worst_of(support.RESIDUALS, getattr(node, "workeroutput", {}).get("residuals", {}))


def pytest_sessionfinish(session, exitstatus):
    """Keeps the worst residual of every equation that a run without failures measured; the others stay as they were."""
    config = session.config
    if hasattr(config, "workeroutput"):  # a worker tells the process that started it
        config.workeroutput["residuals"] = support.RESIDUALS
        return
    if support.RESIDUALS and exitstatus == pytest.ExitCode.OK:
        support.keep_residuals(RESIDUALS, support.RESIDUALS)
    if path := config.getoption("--list-skipped"):
        path.write_text("".join(f"{name}\n" for name in SKIPPED))
