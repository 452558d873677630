"""From the words of a command line to functions: `module:object`, `mine.py`, `mine.py:object`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any


def load(words: str) -> Any:
    """The module, or the object in it, that these words name; a class is called without arguments.

    Raises ValueError that says what is missing: the file, the module, or the name in it.
    """
    place, _, name = words.partition(":")
    path = Path(place)
    if path.suffix == ".py" or path.is_file():
        if not path.is_file():
            raise ValueError(f"there is no file {place}")
        module = _module_from(path)
    else:
        module = _module_named(place)
    target: Any = module
    for step in filter(None, name.split(".")):
        if not hasattr(target, step):
            raise ValueError(f"{place} has no {step!r}")
        target = getattr(target, step)
    return target


def _module_from(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path}: no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(spec.name, module)  # a dataclass looks for its own module there
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _module_named(name: str) -> Any:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        top = (error.name or "").partition(".")[0]
        why = f"there is no module {error.name!r}" if name.startswith(top) else f"{name} needs {error.name!r}, which is not here"
        raise ValueError(why) from error
    except Exception as error:
        raise ValueError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)


def instance(target: Any) -> Any:
    """An object to ask: a class is called without arguments, anything else is itself."""
    return target() if isinstance(target, type) else target
