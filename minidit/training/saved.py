"""The state of a training in one file: all that a loop needs to go on bit for bit.

    theta, m, v, ema     raw weights, moments and average, as flat arrays; in the header the number of updates

`saving` writes the state of a loop every so many updates, at the end, and when it is stopped. The file is replaced as a whole,
so a kill at any moment leaves the state before or after it.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from minidit.backend import Array, to_device, to_host
from minidit.checkpoint import CheckpointError, read_arrays, write_arrays
from minidit.outgoing import check_writable
from minidit.training.loop import Diverged, Loop, gentler

ROUNDING = ("shards", "accumulate", "checkpoint_blocks", "graph", "detect_anomaly")  # options that affect rounding only


def finite_arrays(loop: Loop, what: str = "") -> dict[str, Array]:
    """The flat arrays of a state. Raises Diverged if any number is not finite.   what : the training, for the message"""
    arrays = {"theta": loop.model.flat, **loop.optimiser.state_dict()}
    for name, flat in arrays.items():
        if not np.isfinite(to_host(flat).sum(dtype=np.float64)):
            part = {"theta": "weights", "ema": "averaged weights"}.get(name, f"moments {name}")
            of = f" of the {what}" if what else ""
            raise Diverged(f"the {part}{of} are not finite after update {loop.done}: {gentler(loop.config)}")
    return arrays


def restore(loop: Loop, arrays: Mapping[str, Array], done: int) -> None:
    """Sets a loop to a state. Raises KeyError, TypeError or ValueError for arrays of another network."""
    loop.optimiser.load_state_dict(dict(arrays))
    loop.model.flat[...] = to_device(arrays["theta"], loop.device)
    loop.done = done


def facts_of(loop: Loop) -> dict[str, Any]:
    """What has to be the same when a training goes on: settings, network, process and data, as JSON knows them."""
    settings = {name: x for name, x in asdict(loop.config).items() if name not in (*ROUNDING, "steps")}
    network = {name: list(p.declared) for name, p in loop.model.named_parameters()}
    return {
        **{name: list(x) if isinstance(x, tuple) else x for name, x in settings.items()},
        "process": _in_words(loop.process), "samples": len(loop.source), "dtype": loop.model.dtype.name,
        "network": network,
    }  # fmt: skip


def _in_words(process: object) -> str:
    """A process as it shows itself, on one line: its path, answer and times; without addresses, which no two programs share."""
    return " ".join(re.sub(r" at 0x[0-9a-fA-F]+", "", repr(process)).split())


def save_state(path: str | PathLike[str], loop: Loop) -> None:
    """Writes the state of a loop, between two updates. Raises Diverged if numbers are not finite, OSError if it fails."""
    write_arrays(Path(path), finite_arrays(loop), {"step": loop.done, "training": facts_of(loop)})


def load_state(path: str | PathLike[str], loop: Loop) -> None:
    """Sets a loop to a saved state. Raises CheckpointError for a damaged file, and for one of another training."""
    arrays, header = read_arrays(Path(path))
    done, old = header.get("step"), header.get("training")
    if not isinstance(done, int) or isinstance(done, bool) or not isinstance(old, dict):
        raise CheckpointError(f"{path}: not the state of a training that was saved in Python")
    new = facts_of(loop)
    if old.get("network") != new["network"]:
        raise CheckpointError(f"{path}: was trained with another network: {_difference(old.get('network'), new['network'])}")
    if changes := [f"{name} is {x}, was {old.get(name)}" for name, x in new.items() if x != old.get(name)]:
        raise CheckpointError(f"{path}: belongs to another training: {', '.join(changes)}; name another file to begin anew")
    if done > loop.config.steps:
        raise CheckpointError(f"{path}: has made {done} updates already, more than steps = {loop.config.steps}")
    try:
        restore(loop, arrays, done)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _difference(old: Any, new: dict[str, list[int]]) -> str:
    """The first parameter that differs, as words."""
    old = old if isinstance(old, dict) else {}
    name = next((n for n in [*new, *old] if new.get(n) != old.get(n)), "their order")
    return f"{name} is {tuple(new.get(name, ())) or 'missing'}, was {tuple(old.get(name, ())) or 'missing'}"


@contextmanager
def whole_updates() -> Iterator[list[int]]:
    """Inside, a first Ctrl-C is noted in the list, and what runs is finished; a second one interrupts at once.

    Where Ctrl-C does something else than raise KeyboardInterrupt, or in another thread, it stays as it is.
    """
    noted: list[int] = []
    usual = signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not usual:
        yield noted
        return

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, usual)


def saving(loop: Loop, path: str | PathLike[str], every: int) -> Iterator[dict[str, Any]]:
    """The records of a loop, which goes on from the file if there is one, and saves its state there.

    It is saved every so many updates, at the end, where the caller leaves the records, and at Ctrl-C, which finishes the update
    and is raised again once the file is written.
    """
    if every < 1:
        raise ValueError(f"save_every = {every} must be at least 1")
    if Path(path).exists():
        load_state(path, loop)
    elif loop.ranks.first:  # now, and not after `every` updates that would be lost
        check_writable(Path(path), sum(flat.nbytes for flat in (loop.model.flat, *loop.optimiser.state_dict().values())))
    saved, interrupted, records = loop.done, False, loop.run()

    def save() -> None:
        nonlocal saved
        if loop.ranks.first and loop.done > saved:
            save_state(path, loop)
        saved = loop.done

    while True:
        with whole_updates() as noted:  # the file is written inside as well: a Ctrl-C there must not cost these updates
            record = next(records, None)
            if record is None or noted or loop.stop or loop.done % every == 0:
                save()
        interrupted = interrupted or bool(noted)
        loop.stop = loop.stop or interrupted
        if record is None:
            break
        try:
            yield record
        except GeneratorExit:
            save()
            raise
    if interrupted:
        raise KeyboardInterrupt
