"""The machine as the operating system tells it (Linux; elsewhere the fields that it does not tell are None)."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
from pathlib import Path
from typing import Any

from minidit.recipes.workers import cores

GOVERNOR = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
MEMORY = {"pss": "Pss", "anonymous": "Pss_Anon", "shared": "Pss_Shmem", "files": "Pss_File"}


def read(path: str | Path) -> str | None:
    with contextlib.suppress(OSError):
        return Path(path).read_text()
    return None


def field(text: str | None, name: str) -> str | None:
    """The value of the first line `name : value`."""
    for line in (text or "").splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip()
    return None


def machine() -> dict[str, Any]:
    governor = read(GOVERNOR)
    return {
        "cpu": field(read("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine(),
        "cores": cores(),
        "memory_gb": round(int((field(read("/proc/meminfo"), "MemTotal") or "0").split()[0]) / 2**20, 1) or None,
        "system": platform.platform(),
        "governor": governor and governor.strip(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load": load(),
    }


def load() -> float | None:
    """How many processes wanted to run during the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def family(pid: int) -> list[int]:
    """A process and everything below it."""
    children = [int(child) for tasks in Path(f"/proc/{pid}/task").glob("*/children") for child in (read(tasks) or "").split()]
    return [pid, *(p for child in children for p in family(child))]


def memory(pid: int) -> dict[str, float] | None:
    """MB of a process and its children, pages that several of them share counted once (PSS).

    own = anonymous + shared memory: what the program allocated. The rest, pages of files, is mostly libraries; its share
    depends on who else has them open.
    """
    total = dict.fromkeys(MEMORY, 0.0)
    for member in family(pid):
        text = read(f"/proc/{member}/smaps_rollup")
        if text is None:
            return None
        for name, key in MEMORY.items():
            total[name] += int((field(text, key) or "0").split()[0]) / 1024
    return {name: round(mb, 1) for name, mb in (total | {"own": total["anonymous"] + total["shared"]}).items()}
