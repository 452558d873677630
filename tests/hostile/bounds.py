"""What reading a hostile file costs: measured in a process of its own, beside what that process took before."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import time
from pathlib import Path

SECONDS = 1.0  # of CPU time
MEGABYTES = 64  # of memory, above the idle process


def refused(reader, path, words="", *, name=None, kind="ValueError"):
    """The reader's error, after checks: of the project's own kind, one printable line that names the file, within the bounds."""
    return refusal(measured(reader, path), path, words, name=name, kind=kind)


def refusal(seen, path, words="", *, name=None, kind="ValueError"):
    """The same of what has been measured."""
    assert seen["error"] is not None, f"{path} was read"
    kinds, text = seen["kinds"], seen["error"]
    assert kind in kinds, (kinds, text)
    assert text.isprintable() and (name or Path(path).name) in text, text
    assert re.search(words, text), text
    assert seen["seconds"] < SECONDS, f"{seen['seconds']:.2f} s: {text}"
    assert seen["bytes"] < MEGABYTES * 2**20, f"{seen['bytes'] >> 20} MB: {text}"
    return text


def measured(reader, path):
    """What happens when a forked process reads: its error, CPU seconds, and bytes of memory at most above the start."""
    return measured_each(reader, [path])[0]


def measured_each(reader, paths):
    """The same of several paths that one process reads, one after another."""
    with tempfile.NamedTemporaryFile() as file:
        pid = os.fork()
        if pid == 0:  # a child that may do what it likes
            with contextlib.suppress(BaseException), open(file.name, "w") as out:
                for path in paths:
                    print(json.dumps(_measured(reader, path)), file=out, flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        seen = [json.loads(line) for line in Path(file.name).read_text().splitlines()]
    assert len(seen) == len(paths), f"reading {paths[len(seen)]} ended the process"
    return seen


def _measured(reader, path):
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, began = memory("VmRSS"), time.process_time()
    error, kinds = None, []
    try:
        reader(path)
    except BaseException as caught:
        error, kinds = str(caught), [k.__name__ for k in type(caught).__mro__]
    return {"error": error, "kinds": kinds, "seconds": time.process_time() - began, "bytes": memory("VmHWM") - before}


def memory(key):
    """Bytes of this process, as Linux counts them."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) * 1024
