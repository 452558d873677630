"""Prints the record of a benchmark as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HEAD = ("size", "task", "engine", "ms", "quartiles", "speed", "quartiles", "GFLOP/s", "of peak", "MB", "above base", "base")
WIDTHS = (8, 7, 16, 9, 19, 7, 15, 9, 9, 8, 12, 8)


def line(cells: Sequence[str], widths: Sequence[int] = WIDTHS, names: int = 3) -> str:
    """One row; the first cells are names and aligned left, the others are numbers and aligned right."""
    return "".join(f"{c:<{w}}" if i < names else f"{c:>{w}}" for i, (c, w) in enumerate(zip(cells, widths, strict=True)))


def cells(row: dict[str, Any]) -> list[str]:
    ms, speed, base, after = row["ms"], row.get("speed"), row["memory"]["base"], row["memory"]["after"]
    quartiles = (f"{ms['q1']:.1f} … {ms['q3']:.1f}", f"{speed['q1']:.3f} … {speed['q3']:.3f}" if speed else "")
    megabytes = ("?", "?", "?")
    if base and after:
        megabytes = tuple(f"{mb:.0f}" for mb in (after["pss"], after["own"] - base["own"], base["pss"]))
    return [
        *(row[k] for k in ("size", "task", "engine")),
        f"{ms['median']:.1f}",
        quartiles[0],
        f"{speed['median']:.2f}x" if speed else "",
        quartiles[1],
        f"{row['gflops']:.0f}",
        f"{row['of_peak']:.0%}",
        *megabytes,
    ]


def print_rows(rows: list[dict[str, Any]]) -> None:
    print(line(HEAD))
    for row in rows:
        print(line(cells(row)), flush=True)


def print_check(row: dict[str, Any]) -> None:
    errors = ", ".join(f"{name} {row[name]:.1e}" for name in ("loss", "x_s", "gradient"))
    print(f"{row['size']}: {row['engine']} against float64: {errors} (worst: {row['worst']})", flush=True)


def print_gemm(record: dict[str, Any]) -> None:
    for name, rates in record["gemm"].items():
        products = ", ".join(f"{rate:.0f} on {threads}" for threads, rate in rates.items())
        versions = ", ".join(f"{k} {v}" for k, v in record["engines"][name].items())
        print(f"{name}: {versions}; matrix product GFLOP/s {products}", flush=True)


GPU_NAMES = ("size", "batch", "task", "precision", "engine")
GPU_HEAD = (*GPU_NAMES, "ms", "quartiles", "eager", "compile", "TFLOP/s", "MFU", "of product", "GB")
GPU_WIDTHS = (10, 6, 7, 10, 15, 9, 19, 8, 8, 9, 7, 11, 7)


def print_gpu_rows(rows: list[dict[str, Any]]) -> None:
    """eager, compile: speed relative to that engine. *: timed alone, because it did not fit into the memory beside the others."""
    print(line(GPU_HEAD, GPU_WIDTHS, names=5))
    for r in rows:
        names = [r["size"], str(r["batch"]), r["task"], r["precision"], r["engine"] + ("*" if r["alone"] else "")]
        if "ms" not in r:
            print(line(names, GPU_WIDTHS[:5], names=5) + "   does not fit into the memory", flush=True)
            continue
        beside = [f"{r['speed beside'][b]:.2f}x" if b in r["speed beside"] else "" for b in ("eager", "compile")]
        parts = ["" if r[k] is None else f"{r[k]:.1%}" for k in ("mfu", "of the measured product")]
        ms = r["ms"]
        figures = [f"{ms['median']:.2f}", f"{ms['q1']:.2f} … {ms['q3']:.2f}", *beside, f"{r['tflops']:.1f}", *parts]
        more = "  recomputed" if r.get("recomputed") else ""
        more += "".join(f"\n    NOT RECORDED: {why}" for why in r.get("not recorded", ()))
        more += "".join(f"\n    attention of {shape}: {choice}" for shape, choice in r.get("attention", {}).items())
        print(line([*names, *figures, f"{r.get('peak_gb', 0):.1f}"], GPU_WIDTHS, names=5) + more, flush=True)
