"""Run folders that a command line names."""

from __future__ import annotations

from pathlib import Path


def refuse_misspelt(name: str | None) -> None:
    """Raises ValueError, with the one that was probably meant, for a path that does not exist but is like one of a run."""
    from minidit.cli.parser import near

    if name is None or Path(name).exists():
        return
    path = Path(name)
    places = [path.parent, *([Path("runs")] if path.parent == Path(".") else [])]
    runs = [str(file.parent) for place in places for file in sorted(place.glob("*/config.toml"))]
    if hint := near(name, runs) or (f", did you mean {Path('runs', name)}?" if str(Path("runs", name)) in runs else ""):
        raise ValueError(f"{name}: there is no such run{hint}")
