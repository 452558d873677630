"""The numbers of metrics.jsonl in the forms of other programs: a table (CSV), and events of TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FIRST = ("run", "phase", "step", "wall_s", "loss", "held_out_loss")  # columns; the others follow as they come

Metrics = Mapping[str, Sequence[dict[str, Any]]]  # name of a run -> its lines, one per update


def csv_of(runs: Metrics) -> str:
    """One row per recorded update, one column per number; a number that was not recorded there is empty."""
    rows = [{"run": name, **line} for name, lines in runs.items() for line in lines]
    present = dict.fromkeys(key for row in rows for key in row)
    columns = [key for key in FIRST if key in present] + [key for key in present if key not in FIRST]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_events(folder: Path, runs: Metrics) -> list[Path]:
    """One folder of events per run, with tags such as model/loss. Raises ValueError if TensorBoard is not installed.

    The times of the events are the seconds since a phase began, so that the same run gives the same curves.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        raise ValueError(f"events need TensorBoard: pip install 'minidit[tensorboard]' ({error})") from error
    folders = []
    for name, lines in runs.items():
        folders.append(folder / name)
        writer = EventFileWriter(str(folders[-1]))
        for line in lines:
            numbers = {k: v for k, v in line.items() if k not in ("phase", "step", "wall_s") and isinstance(v, int | float)}
            values = [Summary.Value(tag=f"{line['phase']}/{k}", simple_value=float(v)) for k, v in numbers.items()]
            when = line.get("wall_s", 0.0)
            writer.add_event(Event(step=int(line["step"]), wall_time=float(when), summary=Summary(value=values)))
        writer.close()
    return folders
