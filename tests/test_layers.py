"""The import law, read from the source: a file knows only what lies below it, and laws and networks meet only in recipes."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYER = {
    "version": 0, "choices": 0, "incoming": 0, "outgoing": 0, "backend": 0, "random": 0, "pictures": 0, "curves": 0, "frames": 0,
    "keywords": 0, "shown": 0, "images": 0,
    "autograd": 1, "kernels": 1,
    "ops": 2,
    "nn": 3, "optim": 3,
    "models": 4, "data": 4,
    "checkpoint": 5, "metrics": 5,
    "training": 6,
    "processes": 7,
    "runs": 8,
    "verify": 9, "html": 9,
    "cli": 10,
    "__init__": 11, "__main__": 11,
}  # fmt: skip
LAWS = {  # and what they know; of tokens some equations have stop-gradients
    "diffusion": {"backend", "ops", "shown"}, "autoregressive": {"autograd", "backend", "ops"},
}  # fmt: skip
A_LAW_IS_KNOWN_FROM = LAYER["training"]
BESIDE = {  # the only arrows between two rooms of one layer
    ("outgoing", "incoming"), ("pictures", "outgoing"), ("pictures", "frames"), ("curves", "pictures"), ("random", "backend"),
    ("choices", "keywords"),
    ("kernels", "autograd"), ("optim", "nn"), ("images", "shown"), ("images", "pictures"), ("images", "frames"),
}  # fmt: skip
CUPY = {"backend", "kernels"}
KNOW_NO_KERNELS = {"training", "processes", "runs"}
LIBRARIES = {  # the package imports nothing else that stands outside it
    "numpy", "scipy", "PIL", "safetensors", "tqdm", "threadpoolctl",  # always there
    "cupy", "cupyx", "cupy_backends", "mpi4py", "ml_dtypes", "cudnn",
    "latex2mathml", "markdown_it", "torch", "diffusers", "tensorboard",  # asked for by name when used
}  # fmt: skip
PRINTS = {"cli", "html"}
LINES = 400


# ------------------------------------------------------------------------------------------------ reading


def room(path):
    """The room of a file, given relative to the package: its folder, or its own name at the top."""
    return path.parts[0].removesuffix(".py")


def imports(tree, package):
    """(line, module, names) for every import anywhere in the file, also inside functions and by importlib."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            yield node.lineno, ".".join([*base, *filter(None, [node.module])]), [alias.name for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            texts = [c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str)]
            yield from ((node.lineno, text, ()) for text in texts)


def files_meant(root, module, names):
    """The files of the package, relative to it, that an import reaches: of `from a.b import c` it is a/b/c.py if there is one."""
    inside = Path(*module.split(".")[1:])
    for name in names or [None]:
        places = [inside / name, inside] if name else [inside]
        files = [f for p in places for f in (p.with_name(f"{p.name}.py") if p.name else None, p / "__init__.py") if f]
        yield next((f for f in files if (root / f).exists()), files[0])


def why_forbidden(here, there):
    """Why a file in the room `here` may not import from the room `there`; None if it may."""
    if here == there and here not in ("__init__", "__main__"):
        return None
    for name in (here, there):
        if name not in LAYER and name not in LAWS:
            return f"{name} has no layer"
    if here in LAWS:
        return None if there in LAWS[here] else "a law knows only " + " and ".join(sorted(LAWS[here]))
    if there in LAWS:
        return None if LAYER[here] >= A_LAW_IS_KNOWN_FROM else "laws and networks meet only in processes"
    if there == "kernels" and here in KNOW_NO_KERNELS:
        return "training, processes and runs reach kernels through nn only"
    if LAYER[there] < LAYER[here] or (here, there) in BESIDE:
        return None
    return f"layer {LAYER[here]} may not know layer {LAYER[there]}"


def breaches(root):
    """Every forbidden arrow of the package in the folder root, and every circle inside a room, as sentences."""
    arrows = {}
    for path in sorted(root.rglob("*.py")):
        file = path.relative_to(root)
        package = [root.name, *file.parts[:-1]]
        for line, module, names in imports(ast.parse(path.read_text()), package):
            top = module.partition(".")[0]
            if top in ("cupy", "cupyx", "cupy_backends") and room(file) not in CUPY:
                yield f"{file}:{line} imports CuPy"
            if top != root.name:
                if top and top not in LIBRARIES | sys.stdlib_module_names:
                    yield f"{file}:{line} imports {top}, which stands outside the package"
                continue
            for target in files_meant(root, module, names):
                reason = why_forbidden(room(file), room(target))
                if reason:
                    yield f"{file}:{line} imports {target}: {reason}"
                elif target != file or target.name != "__init__.py":
                    arrows.setdefault(file, set()).add(target)
    for circle in circles(arrows):
        yield "a circle: " + " -> ".join(map(str, circle))


def circles(arrows):
    """A way from a file back to itself, for every file that has one."""
    for start in arrows:
        ways, seen = [[start]], set()
        while ways:
            way = ways.pop()
            for target in arrows.get(way[-1], ()):
                if target == start:
                    yield [*way, start]
                    ways = []
                    break
                if target not in seen:
                    seen.add(target)
                    ways.append([*way, target])


# ------------------------------------------------------------------------------------------------ the law

SOURCES = sorted((ROOT / "minidit").rglob("*.py"))


def test_no_import_points_upward_or_across():
    assert list(breaches(ROOT / "minidit")) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_has_a_layer_and_a_docstring_and_is_short_and_silent(path):
    tree = ast.parse(path.read_text())
    name = room(path.relative_to(ROOT / "minidit"))
    assert name in LAYER or name in LAWS, f"{name} has no layer in the list above"
    assert ast.get_docstring(tree), "no docstring"
    assert len(path.read_text().splitlines()) <= LINES, f"more than {LINES} lines"
    prints = [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "print"]
    assert name in PRINTS or not prints, f"print in lines {prints}"


def test_tests_are_short_too():
    assert [p.name for p in (ROOT / "tests").rglob("*.py") if len(p.read_text().splitlines()) > LINES] == []


# ------------------------------------------------------------------------------------------------ the law bites


def tree_of(tmp_path, files):
    root = tmp_path / "minidit"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("diffusion/step.py", "from minidit.nn import layers"),
        ("diffusion/step.py", "from minidit.autograd import Tensor"),
        ("diffusion/step.py", "from minidit.random import Philox"),
        ("models/dit.py", "from minidit.diffusion.schedule import Schedule"),
        ("models/dit.py", "from ..diffusion import schedule"),
        ("models/dit.py", "def f():\n    from minidit import diffusion"),
        ("models/dit.py", "import minidit as md"),
        ("models/dit.py", "from minidit import DiT"),
        ("models/dit.py", "from minidit.data import digits"),
        ("metrics.py", "import minidit.processes.train"),
        ("ops/linear.py", "import importlib\nimportlib.import_module('minidit.nn.layers')"),
        ("ops/linear.py", "import cupy"),
        ("ops/linear.py", "def f():\n    from cupyx.scipy import special"),
        ("ops/linear.py", "from importlib import import_module\nimport_module('cupy' if 1 else 'numpy')"),
        ("ops/linear.py", "__import__('cupy')"),
        ("verify/cases.py", "from minidit.html import page"),
        ("backend.py", "from minidit.random import Philox"),
        ("cli/__init__.py", "import cupyish"),
        ("cli/bench.py", "from benchmarks.imitation import imitated_gpu"),
        ("cli/bench.py", "import importlib\nimportlib.import_module('benchmarks.imitation')"),
        ("mystery/room.py", "from minidit.backend import empty"),
        ("processes/walk.py", "from minidit.kernels import cuda_laws"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path, file, text):
    found = list(breaches(tree_of(tmp_path, {file: text})))
    assert len(found) == 1 and found[0].startswith(f"{file}:")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("diffusion/step.py", "from minidit.diffusion.schedule import at\nfrom minidit import backend, ops"),
        ("random.py", "from minidit.backend import empty\nimport numpy"),
        ("processes/train.py", "from minidit.diffusion import step\nfrom minidit.models.dit import DiT"),
        ("kernels/cuda.py", "import cupy"),
        ("__init__.py", "from minidit.processes.train import train"),
        ("__main__.py", "from minidit.cli import main"),
        ("ops/__init__.py", "from minidit.ops.linear import linear"),
        ("verify/torch.py", "import torch, json"),
    ],
)
def test_an_allowed_import_is_not(tmp_path, file, text):
    assert list(breaches(tree_of(tmp_path, {"ops/linear.py": "'''x'''", file: text}))) == []


def test_a_circle_inside_a_room_is_found(tmp_path):
    files = {"nn/a.py": "from minidit.nn import b", "nn/b.py": "def f():\n    from . import c", "nn/c.py": "import minidit.nn.a"}
    found = list(breaches(tree_of(tmp_path, files)))
    assert len(found) == 3 and all("a circle" in sentence for sentence in found)
    assert list(breaches(tree_of(tmp_path / "straight", {**files, "nn/c.py": ""}))) == []
