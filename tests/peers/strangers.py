"""Small packages without their many dependencies: `stranger("k_diffusion")` imports one of which only the laws are asked.

They import trainers, metrics and data sets at their top. What is not installed of these is replaced by empty stand-ins while
the package is imported, and taken away afterwards, so that no other package mistakes a stand-in for the real one.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
import types
import warnings

import pytest

DISTRIBUTION = {
    "smalldiffusion": "smalldiffusion", "k_diffusion": "k-diffusion", "denoising_diffusion_pytorch": "denoising-diffusion-pytorch",
    "torchcfm": "torchcfm",
}  # fmt: skip
UNUSED = {
    "accelerate", "cleanfid", "clip", "dctorch", "ema_pytorch", "jsonmerge", "kornia", "matplotlib", "ot", "pandas", "pytorch_fid",
    "skimage", "torchdiffeq", "torchdyn", "torchsde", "torchvision", "wandb",
}  # fmt: skip


class StandIn(types.ModuleType):
    """A module in which every name is an empty class."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Asked last: finds what is unused and not installed."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in UNUSED else None

    def create_module(self, spec):
        return StandIn(spec.name)

    def exec_module(self, module):
        pass


def stranger(name):
    """The package, or a skipped test with the reason."""
    pytest.importorskip("torch", reason="PyTorch is not installed (pip install 'minidit[peers]')")
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed (pip install --no-deps {DISTRIBUTION[name]} einops)", allow_module_level=True)
    finder = StandIns()
    sys.meta_path.append(finder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    finally:
        sys.meta_path.remove(finder)
        for other in [n for n, m in sys.modules.items() if isinstance(m, StandIn)]:
            del sys.modules[other]


def version(name):
    """The installed version, as findings name it."""
    return importlib.metadata.version(DISTRIBUTION[name])
