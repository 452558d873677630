"""What Linux and nvidia-smi say about this machine. Elsewhere, fields without an answer are None."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from minidit.training.workers import cores

GOVERNOR = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
PACKAGES = ("numpy", "scipy", "cupy-cuda12x", "cupy-cuda13x", "torch", "triton", "jax", "ml_dtypes", "hypothesis", "pytest",
            "threadpoolctl", "tqdm", "pillow", "safetensors")  # fmt: skip
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


def card() -> dict[str, Any]:
    """The GPU and its driver, from nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return {"gpu": None}
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        line = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip().partition("\n")[0]
        return dict(zip(("gpu", "driver", "gpu memory", "gpu clock"), re.split(r",\s*", line), strict=False))
    return {"gpu": None}


def packages() -> dict[str, str]:
    """Versions of those PACKAGES that are installed."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def load() -> float | None:
    """The mean number of runnable processes during the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def busy() -> float | None:
    """CPU seconds used by everything since the machine started, on all cores, time stolen by other guests included."""
    times = (read("/proc/stat") or "").partition("\n")[0].split()[1:9]
    if len(times) < 8:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, times)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def used(pid: int) -> float:
    """CPU seconds of a process and its descendants."""
    spent = [(read(f"/proc/{p}/stat") or ") " + "0 " * 20).rpartition(")")[2].split()[11:13] for p in family(pid)]
    return sum(int(n) for pair in spent for n in pair) / os.sysconf("SC_CLK_TCK")


class Others:
    """`with Others() as others:` … others.share: how many cores other programs kept busy during the block; None if unknown.

    Descendants of this process are not counted as others; they must live as long as the block.
    """

    share: float | None = None

    def now(self) -> tuple[float, float | None, float]:
        return time.perf_counter(), busy(), used(os.getpid())

    def __enter__(self) -> Others:
        self.before = self.now()
        return self

    def __exit__(self, *_: object) -> None:
        (start, all_before, own_before), (end, all_after, own_after) = self.before, self.now()
        if all_before is not None and all_after is not None:
            self.share = round(max(0.0, all_after - all_before - own_after + own_before) / (end - start), 3)


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    children = [int(child) for tasks in Path(f"/proc/{pid}/task").glob("*/children") for child in (read(tasks) or "").split()]
    return [pid, *(p for child in children for p in family(child))]


def memory(pid: int) -> dict[str, float] | None:
    """MB of a process and its descendants; pages that several of them share are counted once (PSS).

    own = anonymous + shared memory, which the program allocated. The rest, pages of files, is mostly libraries, and depends on
    which other programs have them open.
    """
    total = dict.fromkeys(MEMORY, 0.0)
    for member in family(pid):
        text = read(f"/proc/{member}/smaps_rollup")
        if text is None:
            return None
        for name, key in MEMORY.items():
            total[name] += int((field(text, key) or "0").split()[0]) / 1024
    return {name: round(mb, 1) for name, mb in (total | {"own": total["anonymous"] + total["shared"]}).items()}
