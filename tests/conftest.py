"""Both backends for every test (`xp`, `device`), which tests run by default, and where measured residuals are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import standin
import support

RESIDUALS = Path(__file__).parent.parent / "build" / "residuals.json"
CUPY = standin.install()  # before any test imports the package: the real CuPy if there is a GPU, else the stand-in
REAL = not getattr(CUPY, "__standin__", False)


@pytest.fixture(params=["numpy", "cupy"])
def xp(request):
    """The array module: one body of a test serves both."""
    return np if request.param == "numpy" else CUPY


@pytest.fixture
def device(xp):
    """The name of the device on which arrays of xp live."""
    return "cpu" if xp is np else "cuda"


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")


def pytest_collection_modifyitems(config, items):
    """Without --slow and without a -m expression that names them, slow tests stay out; GPU tests need a GPU."""
    if not config.getoption("--slow") and "slow" not in config.getoption("-m"):
        slow = [i for i in items if i.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [i for i in items if i not in slow]
    for item in items:
        if not REAL and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a real GPU"))


def pytest_sessionfinish(exitstatus):
    """Keeps the worst residual of every equation that a run without failures measured; the others stay as they were."""
    if support.RESIDUALS and exitstatus == pytest.ExitCode.OK:
        support.keep_residuals(RESIDUALS, support.RESIDUALS)
