"""Run folders that a command line names."""

from __future__ import annotations

from pathlib import Path

SHOWN = 6  # runs that are named where none is like the one that was asked for


def runs_near(name: str) -> list[str]:
    """The runs beside the place that a path names, and those in runs/ where it is a name alone."""
    path = Path(name)
    places = [path.parent, *([Path("runs")] if path.parent == Path(".") else [])]
    return [str(file.parent) for place in places for file in sorted(place.glob("*/config.toml"))]


def run_meant(name: str) -> str:
    """The run that was probably meant by a path that does not exist, as the end of a sentence; "" where none is like it."""
    from minidit.keywords import alike

    runs = {Path(run).name: run for run in runs_near(name)}
    near = [runs[word] for word in alike(Path(name).name, runs)]
    return f", did you mean {' or '.join(near)}?" if near else ""


def refuse_missing(name: str | None, what: str = "run") -> None:
    """Raises ValueError for a path that does not exist, with the run that was probably meant, else with those that there are."""
    if name is None or Path(name).exists():
        return
    runs = runs_near(name)
    more = f", and {len(runs) - SHOWN} more" if len(runs) > SHOWN else ""
    known = f"; there are {', '.join(runs[:SHOWN])}{more}" if runs else " (minidit train makes one)"
    raise ValueError(f"{name}: there is no such {what}{run_meant(name) or known}")
