"""Is an implementation right? Asks it, compares with the equations, and names the mistake.

    import minidit as md
    print(md.verify.check({"ddim_step": my_ddim_step}))

A topic is what can be asked for (`minidit verify --list`); a target is a mapping topic -> callable, a module, or an object with
such methods. `cases` gives the same to a foreign test suite; `verify.torch`, `verify.diffusers` and `verify.process` bring
PyTorch, diffusers and programs in any language to that form.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from minidit.verify.bank import DEVIATIONS
from minidit.verify.bank.dialects import DIALECTS
from minidit.verify.cases import Case, cases, judged, topics_named
from minidit.verify.core.check import functions_of
from minidit.verify.core.reference import TOPICS
from minidit.verify.report import Report
from minidit.verify.topics import (  # noqa: F401  their topics register themselves
    chains,
    checkpoints,
    conversions,
    embeddings,
    guidance,
    latents,
    layers,
    likelihood,
    losses,
    network,
    parameters,
    samplers,
    schedules,
    squares,
    training,
)

__all__ = ["DEVIATIONS", "DIALECTS", "TOPICS", "Case", "Report", "cases", "check"]
_LATER = {name: f"borders.{name}" for name in ("diffusers", "process", "torch")} | {"vectors": "vectors"}  # imported when used


def check(
    target: Any, *, topics: str | Iterable[str] | None = None, dialect: str | None = None, precision: str | None = None
) -> Report:
    """Asks `target` (a mapping topic -> callable, a module, or an object) and returns the Report.

    topics: only these (names of topics, or of groups such as "samplers"); dialect: whose conventions count as right;
    precision: float64, float32, bfloat16 or float16, if the answers' own type does not tell. Raises ValueError for an unknown
    topic or dialect, for a target that answers to none, and for one that lacks a topic asked for by its own name.
    """
    if precision not in (None, "float64", "float32", "bfloat16", "float16"):
        raise ValueError(f"precision {precision!r} is not one of float64, float32, bfloat16, float16")
    functions = functions_of(target)
    asked = None if topics is None else list(topics)
    chosen = [t for t in topics_named(asked) if t.name in functions]
    lacking = [name for name in asked or () if name in TOPICS and name not in functions]
    if lacking or not chosen:
        raise ValueError(f"the target does not answer {', '.join(lacking or asked or ['any topic'])}")
    name = getattr(target, "__name__", "") or ("" if isinstance(target, dict) else type(target).__name__)
    return judged(functions, chosen, dialect, precision, name)


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return importlib.import_module(f"minidit.verify.{_LATER[name]}")
    raise AttributeError(f"minidit.verify has no {name!r}; it has {', '.join([*__all__, *_LATER])}")
