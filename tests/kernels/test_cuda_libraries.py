"""Where NVIDIA's libraries come from: through CuPy, which knows the wheels, and of the version that CuPy was built for."""

import ctypes
import sys
from types import ModuleType

import pytest
import standin

from minidit.kernels import cuda_blas
from minidit.kernels.cublaslt import NAMES, first_that_loads

CUPY = standin.install()


class Libs(ModuleType):
    """CuPy's package of libraries: as an attribute one is looked for in the wheels, by its full name it is not."""

    found = False

    def __getattr__(self, name):
        if name != "cublas":
            raise AttributeError(name)
        self.found = True
        return ModuleType(name)


@pytest.mark.skipif(not getattr(CUPY, "__standin__", False), reason="there is a real GPU")
@pytest.mark.parametrize("version", [12090, 13000])
def test_cublas_is_found_in_the_wheels_and_of_cupy_s_own_version(monkeypatch, version):
    libs, asked = Libs("cupy_backends.cuda.libs"), []
    for name in ("cupy_backends", "cupy_backends.cuda"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, libs.__name__, libs)
    monkeypatch.setattr(CUPY.cuda.runtime, "runtimeGetVersion", lambda: version)

    def load(name):
        asked.append(name)
        if not libs.found:
            raise OSError(name)
        return name

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert cuda_blas._library(CUPY) == f"libcublas.so.{version // 1000}" and asked == [f"libcublas.so.{version // 1000}"]
    asked.clear()
    libs.found = False  # every name is refused
    assert first_that_loads(NAMES, CUPY, load) is None
    assert asked[0] == f"libcublasLt.so.{version // 1000}" and sorted(asked) == sorted(NAMES)
    libs.__class__ = ModuleType  # a CuPy without such a package: every name is tried
    monkeypatch.setattr(ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    assert cuda_blas._library(CUPY) is None
