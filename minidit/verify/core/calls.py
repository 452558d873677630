"""How a target is called: by the names of its arguments where these are known, otherwise by their places.

    x_0, eps, t, alpha_bar        the topic's names: by keyword, in whatever order they stand
    x0, t, noise, alphas_cumprod  names of other projects: by keyword too, and the report says so         by_name
    a, b, c, d                    anything else: by position                                              passed
    x0, t, noise                  too few or too many: the call cannot be made, and is not                Misfit

A name that may mean two of the topic's arguments means neither.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

SEVERAL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
ELSEWHERE = {  # the topics' names -> what others call them, in small letters without underscores
    "x_0": "x xstart clean data image images img original originalsamples sample samples latent latents pixels",
    "x_t": "x noisy noisysample noisysamples xnoisy image images img sample samples latent latents",
    "eps": "noise epsilon epst epsilont noisepred prednoise predictednoise epspred epshat epstheta modeloutput modelpred",
    "v": "vpred velocity vhat vprediction modeloutput modelpred",
    "t": "ts timestep timesteps time tt",
    "s": "tprev prevt prevtimestep previoustimestep tnext nextt nexttimestep",
    "alpha_bar": "ab abar acp alphabars alphasbar alphascumprod alphacumprod alphahat alphahats abars",
    "betas": "beta",
    "eta": "η ddimeta",
    "z": "noise freshnoise variancenoise newnoise randomnoise",
    "w": "scale guidance guidancescale cfgscale cfg",
    "eps_u": "uncond epsuncond noisepreduncond epsuncondition",
    "eps_c": "cond epscond noisepredcond noisepredtext epscondition",
    "N": "steps nsteps numsteps numinferencesteps",
    "T": "numtimesteps numtraintimesteps numdiffusiontimesteps timesteps",
}  # fmt: skip


class Misfit(TypeError):
    """A call that cannot be made; the message says what the target takes and what the topic gives."""


@dataclass(frozen=True)
class ByName:
    """A target that is called by the names of its arguments. places: its name of each of the topic's arguments, in order."""

    function: Callable[..., Any]
    places: Sequence[str]
    names: Sequence[str]
    sure: bool  # whether every name is known: one may also be what was left over

    def __call__(self, *args: Any) -> Any:
        return self.function(**dict(zip(self.places, args, strict=True)))

    def __str__(self) -> str:
        renamed = ", ".join(f"{n} as {p}" for n, p in zip(self.names, self.places, strict=True) if n != p)
        return f"its arguments do not stand in the topic's order, so they were passed by name ({renamed})"


def called(function: Callable[..., Any], names: Sequence[str], args: Sequence[Any]) -> Any:
    """The target's answer: by keyword where its arguments are called as the topic's are, otherwise by position.

    Raises whatever the target raises, and Misfit where it cannot be called with these arguments.
    """
    signature = _signature(function)
    if signature is None:
        return function(*args)
    if _plain(signature) and len(args) == len(names) and set(names) == set(_needed(signature, names)):
        return function(**dict(zip(names, args, strict=True)))
    try:
        signature.bind(*args)
    except TypeError:
        raise Misfit(_misfit(signature, names)) from None
    return function(*args)


def by_name(function: Callable[..., Any], names: Sequence[str]) -> ByName | None:
    """The target called by names, where all of them are known and stand in another order than the topic's; otherwise None."""
    signature = _signature(function)
    if signature is None or not _plain(signature):
        return None
    mine = _offered(signature, names)
    meant = _meant(mine, names)
    over, left = [p for p in mine if p not in meant], [n for n in names if n not in meant.values()]
    if len(over) == len(left) == 1:
        meant[over[0]] = left[0]
    needed = _needed(signature, names)
    if set(meant.values()) != set(names) or not set(needed) <= meant.keys() or set(needed) == set(names):
        return None
    of = {n: p for p, n in meant.items()}
    places = [of[n] for n in names]
    keyword = any(signature.parameters[p].kind is inspect.Parameter.KEYWORD_ONLY for p in places)
    return ByName(function, places, names, not over) if keyword or places != list(signature.parameters)[: len(names)] else None


def passed(function: Callable[..., Any], names: Sequence[str], *, always: bool = False) -> str:
    """Which argument of the topic became which of the target's, in words; "" where their names agree or say nothing.

    always: also where the target's names are unknown ones.
    """
    signature = _signature(function)
    if signature is None or not _plain(signature):
        return ""
    places = list(signature.parameters)[: len(names)]
    meant = _meant(places, names)
    agree = {p: meant.get(p) for p in places} == dict(zip(places, names, strict=False))
    conflict = any(p in meant and meant[p] != n for p, n in zip(places, names, strict=False))
    if set(places) == set(names) or agree or not (conflict or always):
        return ""
    pairs = ", ".join(f"{n} → {p}" for n, p in zip(names, places, strict=False))
    return f"passed by position: {pairs}; rename the arguments to the topic's and they go by name"


def lacking(function: Callable[..., Any], names: Sequence[str]) -> list[str]:
    """The topic's arguments that a target has no place for, where it knows all the others."""
    signature = _signature(function)
    if signature is None or {p.kind for p in signature.parameters.values()} & {*SEVERAL}:
        return []
    mine = _needed(signature, names)
    meant = _meant(mine, names)
    return [n for n in names if n not in meant.values()] if set(mine) == meant.keys() else []


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C have none
        return None


def _plain(signature: inspect.Signature) -> bool:
    """Whether every argument has a name by which it can be passed."""
    kinds = {p.kind for p in signature.parameters.values()}
    return not kinds & {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL}


def _needed(signature: inspect.Signature, names: Sequence[str]) -> list[str]:
    """The arguments of a target without a default, and those that are called as the topic's."""
    return [n for n, p in signature.parameters.items() if p.kind not in SEVERAL and (p.default is p.empty or n in names)]


def _offered(signature: inspect.Signature, names: Sequence[str]) -> list[str]:
    """The same, and those with a default that others call so."""
    known = {bare(n) for n in names} | {w for n in names for w in ELSEWHERE.get(n, "").split()}
    needed = _needed(signature, names)
    return [n for n, p in signature.parameters.items() if n in needed or (p.kind not in SEVERAL and bare(n) in known)]


def bare(name: str) -> str:
    """A name as it is looked up: in small letters, without underscores."""
    return name.lower().replace("_", "")


def _spelt_otherwise(mine: str, name: str) -> bool:
    return bare(mine) == bare(name)


def _called_elsewhere(mine: str, name: str) -> bool:
    return bare(mine) in ELSEWHERE.get(name, "").split()


def _meant(mine: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """A target's name -> the topic's, as far as it is known and only one can be meant."""
    meant = {p: n for p in mine for n in names if p == n}
    for same in (_spelt_otherwise, _called_elsewhere):
        while True:
            free = [n for n in names if n not in meant.values()]
            may = {p: [n for n in free if same(p, n)] for p in mine if p not in meant}
            single = {p: ns[0] for p, ns in may.items() if len(ns) == 1 and sum(ns[0] in others for others in may.values()) == 1}
            if not single:
                break
            meant |= single
    return meant


def _misfit(signature: inspect.Signature, names: Sequence[str]) -> str:
    """Why a target cannot be called with the topic's arguments."""
    mine = _needed(signature, names)
    count = f"{len(mine)} argument{'' if len(mine) == 1 else 's'}" + (f" ({', '.join(mine)})" if mine else "")
    by = " by keyword only" if any(p.kind is p.KEYWORD_ONLY for p in signature.parameters.values()) else ""
    meant = _meant(mine, names)
    lacks = [n for n in names if n not in meant.values()] if set(mine) == meant.keys() else []
    more = f"; it lacks {', '.join(lacks)}" if lacks else ""
    return f"it takes {count}{by}, the topic gives {len(names)}: {', '.join(names)}{more}"
