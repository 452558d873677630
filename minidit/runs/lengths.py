"""Other numbers of updates for a run that exists.

The learning rate at update n of N depends on N (O.5, O.6), so a run of 600 updates that is lengthened to 1,000 is not a run of
1,000: its first updates had the rates of 600, and the rate jumps up where it goes on. config.toml keeps that history.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from minidit.optim import learning_rate
from minidit.runs import former
from minidit.runs.presets import RunConfig
from minidit.runs.state import LENGTHS, paths_of, state_of
from minidit.training.loop import RunError


def more_updates(old: RunConfig, new: RunConfig) -> dict[str, int]:
    """Phase -> its number of updates in `new`, where it is another one than in `old`."""
    steps = {phase: (getattr(old, name).steps, getattr(new, name).steps) for phase, name in LENGTHS.items()}
    return {phase: wanted for phase, (made, wanted) in steps.items() if wanted != made}


def lengthened(folder: Path, config: RunConfig, lengths: dict[str, int]) -> tuple[RunConfig, dict[str, str], list[str]]:
    """(the configuration with other numbers of updates; phase -> what they were; what that means for the learning rate).

    Raises RunError for fewer updates than a phase has made, and for more of a tokenizer whose latents were trained on.
    """
    history: dict[str, str] = {}
    notes: list[str] = []
    for phase, steps in lengths.items():
        section = LENGTHS[phase]
        state, old = state_of(folder, phase, config)[0], getattr(config, section)
        done = state.done if state else old.steps if former.file_of(folder, phase).exists() else 0
        if steps < done or (steps > done and not state and done):
            why = "it kept no state to go on from" if steps > done else "an update cannot be taken back"
            raise RunError(f"{folder}: the {phase} has made {done} updates, {steps} is not possible: {why}")
        if phase == "tokenizer" and steps > done and paths_of(folder, "model"):
            raise RunError(f"{folder}: its model has been trained on this tokenizer's latents: make a new run")
        new = replace(old, steps=steps)
        config = replace(config, **{section: new})
        history[phase] = f"{old.steps} updates until update {done}, then {steps}"
        rates = [learning_rate(old, done, old.steps), learning_rate(new, done + 1, steps)] if 0 < done < steps else [0.0, 0.0]
        if steps != old.steps and rates[0] != rates[1]:
            now, before = (f"{rate:.3g}" for rate in reversed(rates))
            notes.append(f"{phase}: the learning rate goes on at {now}, as in a run of {steps} updates; it was {before}")
    return config, history, notes
