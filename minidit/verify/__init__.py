"""Is an implementation right? Asks it, compares with the equations, and names the mistake.

    import minidit as md
    print(md.verify.check({"ddim_step": my_ddim_step}))

A topic is what can be asked for (`minidit verify --list`); a target is a mapping topic -> callable, a module, or an object with
such methods. `cases` gives the same to a foreign test suite; `verify.torch`, `verify.diffusers` and `verify.process` bring
PyTorch, diffusers and programs in any language to that form.

    core      how a part is replaced by a mistake, how answers are compared, how a mistake gets its name
    topics    what can be asked: the right answers and the questions
    bank      every known mistake, and the dialects of released projects
    borders   PyTorch, diffusers, other programs

An arrow of imports points up this list, never down; the files beside the folders put them together.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from minidit.verify.bank import DEVIATIONS
from minidit.verify.bank.dialects import DIALECTS
from minidit.verify.cases import Case, cases, check, question
from minidit.verify.report import Report
from minidit.verify.topics import TOPICS

__all__ = ["DEVIATIONS", "DIALECTS", "TOPICS", "Case", "Report", "cases", "check", "question"]
_LATER = {name: f"borders.{name}" for name in ("diffusers", "process", "torch")} | {"vectors": "vectors"}  # imported when used


def __getattr__(name: str) -> ModuleType:
    if name in _LATER:
        return importlib.import_module(f"minidit.verify.{_LATER[name]}")
    raise AttributeError(f"minidit.verify has no {name!r}; it has {', '.join([*__all__, *_LATER])}")
