"""Small projects under verification: their laws as targets of the kit, and the packages without their many dependencies.

They import trainers, metrics and data sets at their top. What is not installed of these is replaced by empty stand-ins while
the package is imported, and taken away afterwards, so that no other package mistakes a stand-in for the real one. Only laws and
layers are asked, which use none of it.
"""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import subprocess
import sys
import types
import warnings
from pathlib import Path

DISTRIBUTION = {
    "smalldiffusion": "smalldiffusion", "k_diffusion": "k-diffusion", "torchcfm": "torchcfm",
    "denoising_diffusion_pytorch": "denoising-diffusion-pytorch", "flow_matching": "flow-matching",
}  # fmt: skip
CHECKOUT = {"cm": "consistency_models", "training": "EDM", "transport": "SiT"}  # packages of projects without releases
UNUSED = {
    "accelerate", "blobfile", "cleanfid", "clip", "dctorch", "ema_pytorch", "flash_attn", "jsonmerge", "kornia", "matplotlib",
    "mpi4py", "ot", "pandas", "piq", "pytorch_fid", "skimage", "timm", "torchdiffeq", "torchdyn", "torchsde", "torchvision",
    "wandb",
}  # fmt: skip


class Empty(type):
    """A class of which every attribute is such a class."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Empty(name, (), {"__init__": lambda self, *args, **options: None})


class StandIn(types.ModuleType):
    """A module in which every name is an empty class."""

    def __getattr__(self, name):
        return getattr(Empty("StandIn", (), {}), name)


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Asked last: finds what is unused and not installed."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in UNUSED else None

    def create_module(self, spec):
        return StandIn(spec.name)

    def exec_module(self, module):
        pass


def stranger(name):
    """The package. Raises ImportError where it (or PyTorch, or einops) is not installed."""
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
    """The package with its installed version, as findings name it; a checkout with its commit."""
    if name in CHECKOUT:
        folder = Path(importlib.util.find_spec(name).submodule_search_locations[0])
        asked = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
        return f"{CHECKOUT[name]} {subprocess.run(asked, capture_output=True, text=True).stdout.strip()}".strip()
    return f"{DISTRIBUTION[name]} {importlib.metadata.version(DISTRIBUTION[name])}"


@contextlib.contextmanager
def drawing(*drawn):
    """torch.randn and randn_like hand out these tensors one after the other, the last one for ever."""
    import torch

    queue, before = list(drawn), (torch.randn, torch.randn_like)
    torch.randn = torch.randn_like = lambda *args, **options: queue.pop(0) if len(queue) > 1 else queue[0]
    try:
        yield
    finally:
        torch.randn, torch.randn_like = before
