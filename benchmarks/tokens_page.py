"""The tables of docs/tokens.md and docs/feeding-back.md, from the record of benchmarks/tokens.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGES = ("docs/tokens.md", "docs/feeding-back.md")


def page(record: dict[str, Any]) -> None:
    """Writes every table in its place, between `<!-- NAME -->` and `<!-- end -->`."""
    tables = {
        "trainings": trainings_table, "alive": alive_table, "pictures": pictures_table, "scales": scales_table, "gap": gap_table,
        "cost": cost_table, "fed back": fed_table,
    }  # fmt: skip
    for path in map(Path, PAGES):
        text = path.read_text("utf-8")
        for name, table in tables.items():
            place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.S)
            text = place.sub(lambda m, table=table: f"{m[1]}{chr(10).join(table(record))}\n{m[2]}", text)
        path.write_text(text, "utf-8")


def columns(*names: str) -> list[str]:
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]


def trainings_table(record: dict[str, Any]) -> list[str]:
    lines = columns("training", "updates of 32", "CPU s", "PSNR, dB", "codes in use", "perplexity", "nats per code, held out")
    for name, t in record["trainings"].items():
        quality = [f"{t['psnr']:.2f}", str(t["used"]), f"{t['perplexity']:.0f}"] if "psnr" in t else ["", "", ""]
        nats = f"{record['nats'][name]:.3f}" if name in record.get("nats", {}) else ""
        lines.append("| " + " | ".join([name, f"{t['steps']:,}", f"{t['cpu_s']:.0f}", *quality, nats]) + " |")
    return lines


def alive_table(record: dict[str, Any]) -> list[str]:
    lines = columns("codebook, 300 updates", "PSNR, dB", "codes in use", "perplexity", "in use after 37, 75, 150 updates")
    for row in record["alive"]:
        way = ", ".join(str(n) for n in row["on_the_way"].values())
        lines.append(f"| {row['name']} | {row['psnr']:.2f} | {row['used']} | {row['perplexity']:.0f} | {way} |")
    return lines


def pictures_table(record: dict[str, Any]) -> list[str]:
    lines = columns("pictures", "accuracy", "Fréchet", "of the autoencoder's", "of its own reconstructions'", "precision",
                    "recall", "CPU s per 100")  # fmt: skip
    for r in record["rows"]:
        own = f"{r['own']:.2f} ×" if "own" in r else ""
        seconds = f"{r['cpu_s_per_100']:.2f}" if "cpu_s_per_100" in r else ""
        cells = [r["name"], f"{r['accuracy']:.3f}", f"{r['frechet']:.2f}", f"{r['multiple']:.2f} ×", own, f"{r['precision']:.2f}",
                 f"{r['recall']:.2f}", seconds]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def scales_table(record: dict[str, Any]) -> list[str]:
    lines = columns("tokenizer", "up to scale", "PSNR, dB", "Fréchet", "accuracy", "codes in use at this scale", "perplexity")
    for name, rows in record["scales"].items():
        lines += [f"| {name} | {r['scale']} × {r['scale']} | {r['psnr']:.2f} | {r['frechet']:.1f} | {r['accuracy']:.3f} "
                  f"| {r['used']} | {r['perplexity']:.0f} |" for r in rows]  # fmt: skip
    return lines


def gap_table(record: dict[str, Any]) -> list[str]:
    """How much of the excess over reconstructions is there although all scales but the last are true."""
    lines = columns("model", "true scales", "Fréchet", "accuracy", "of the excess")
    for name, rows in record["gap"].items():
        floor, top = rows[-1]["frechet"], rows[0]["frechet"]
        lines += [f"| {name} | {r['true_scales']} | {r['frechet']:.2f} | {r['accuracy']:.3f} "
                  f"| {(r['frechet'] - floor) / (top - floor):.2f} |" for r in rows]  # fmt: skip
    return lines


def cost_table(record: dict[str, Any]) -> list[str]:
    cell = {(r["name"], r["batch"]): r["cpu_s"] for r in record["costs"] if "cpu_s" in r}
    lines = columns("what is drawn, guided", "one picture, CPU s", "eight", "a hundred")
    for name in dict.fromkeys(name for name, _ in cell):
        cells = [f"{cell[name, b]:.3f}" if (name, b) in cell else "" for b in (1, 8, 100)]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return lines


def fed_table(record: dict[str, Any]) -> list[str]:
    lines = columns("way", "calls", "tokens", "pairs with a cache", "without", "one picture, CPU s", "per 100", "Fréchet, of the "
                    "autoencoder's", "accuracy", "recall", "variety")  # fmt: skip
    for r in record["fed_back"]:
        seconds = [f"{r[key]:.{digits}f}" if key in r else "" for key, digits in (("cpu_s_1", 3), ("cpu_s_100", 2))]
        pairs = [f"{r['pairs']:,}", f"{r.get('pairs_without', r['pairs']):,}"]
        cells = [r["name"], str(r["calls"]), str(r["tokens"]), *pairs, *seconds, f"{r['multiple']:.2f} ×", f"{r['accuracy']:.3f}",
                 f"{r['recall']:.2f}", f"{r['variety']:.2f}"]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines
