"""The kernels of a step by their time on the device, as CUPTI sees them: of graphs, libraries and compilers alike.

PyTorch's profiler reads it, for whatever runs in its process, CuPy included. One look at this table says which kernel a slow
row is slow by.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROWS, NAME = 40, 100  # kernels in the table, and characters of a name


def kernel_times(step: Callable[[], Any], wait: Callable[[], Any], steps: int = 1, calls: int = 3) -> dict[str, Any]:
    """{"busy_ms", "span_ms" per step, "rows"}; steps: how many one call of `step` takes.

    busy_ms : the sum of the kernels' times;  span_ms : from the first kernel's start to the last one's end
    """
    try:
        from torch.profiler import ProfilerActivity, profile
    except ImportError:
        return {"absent": "PyTorch, whose profiler is used, is not installed"}
    wait()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        with contextlib.redirect_stdout(None), profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(calls):
                step()
            wait()
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    return summary(events, calls * steps)


def summary(events: list[dict[str, Any]], steps: int) -> dict[str, Any]:
    """The events of a trace whose category is a kernel or a transfer, added up per name and grid, the longest first."""
    device = [e for e in events if e.get("ph") == "X" and e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    if not device:
        return {"absent": "the profiler saw no kernel"}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for e in device:
        args = e.get("args", {})
        key = e["name"][:NAME], str(args.get("grid", args.get("bytes", "")))
        row = rows.setdefault(key, {"name": key[0], "grid": key[1], "per step": 0.0, "us": 0.0})
        row["per step"] += 1 / steps
        row["us"] += e["dur"] / steps
        row |= {k: args[name] for k, name in (("block", "block"), ("registers", "registers per thread"),
                                              ("shared", "shared memory")) if name in args}  # fmt: skip
    ordered = sorted(rows.values(), key=lambda row: -row["us"])
    begun, ended = min(e["ts"] for e in device), max(e["ts"] + e["dur"] for e in device)
    for row in ordered:
        row["each us"] = round(row["us"] / row["per step"], 2)
        row |= {"per step": round(row["per step"], 2), "us": round(row["us"], 2)}
    busy = sum(row["us"] for row in ordered) / 1e3
    rest = sum(row["us"] for row in ordered[ROWS:]) / 1e3
    return {"busy_ms": busy, "span_ms": (ended - begun) / 1e3 / steps, "launches": len(device) / steps,
            "rest_ms": rest, "rows": ordered[:ROWS]}  # fmt: skip


def print_kernels(title: str, kernels: dict[str, Any], rows: int = 16) -> None:
    if "absent" in kernels:
        print(f"{title}: no kernel times: {kernels['absent']}", flush=True)
        return
    print(f"{title}: {kernels['busy_ms']:.2f} ms in {kernels['launches']:.0f} kernels of a span of {kernels['span_ms']:.2f} ms")
    for row in kernels["rows"][:rows]:
        print(f"  {row['us']:9.1f} us = {row['per step']:5.1f} x {row['each us']:8.2f}  {row['grid']:18s} {row['name'][:80]}")
    print(end="", flush=True)
