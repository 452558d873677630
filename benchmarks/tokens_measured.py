"""What benchmarks/tokens.py measures: pictures by a judge, the gap inside the last scale, and what a picture costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import minidit as md
from benchmarks.tokens_fed import fed_back
from minidit import metrics
from minidit.autoregressive.order import Order, by_scale, raster
from minidit.data import Dataset
from minidit.models.gpt import GPT, GPTConfig
from minidit.models.var import VAR, VARConfig
from minidit.models.vq import MultiScaleVQ, MultiScaleVQConfig
from minidit.pictures import grid, save_png, stack, strip
from minidit.processes import codes
from minidit.processes.coded import Codes
from minidit.processes.tokens import Raster, Scales, Writing, write
from minidit.random import Philox
from minidit.runs.evaluate import Evaluation
from minidit.runs.loading import load
from minidit.runs.phases import Run, resume
from minidit.runs.presets import PRESETS, DataConfig
from minidit.runs.token_kinds import RasterConfig, ScalesConfig
from minidit.runs.writer import Writer

WAYS: dict[str, list[dict[str, Any]]] = {  # how pictures are drawn
    "gpt": [{"guidance": 1.0}, {"guidance": 1.5}, {"guidance": 2.0}, {"guidance": 3.0}],
    "var": [{"guidance": 1.0}, {"guidance": 1.5, "rising": False}, {"guidance": 2.0, "rising": False}, {"guidance": 2.0},
            {"guidance": 3.0}],
}  # fmt: skip
SIX = (1, 2, 3, 4, 6, 8)
SCALED = {"var": "scales", "var6": "scales6"}


def file_of(out: Path, name: str, seed: int = 0) -> Path:
    """The weights of a training."""
    return out / f"{name}-{seed}" / f"{'model' if name.startswith(('gpt', 'var')) else 'tokenizer'}.safetensors"


def evaluation_of(out: Path, data: str, n: int) -> tuple[Evaluation, Dataset]:
    """The judge, trained here or read from `out`, and the held-out pictures."""
    folder = out / "judge"
    begun = (folder / "config.toml").exists()
    job = resume(folder) if begun else Run(folder, replace(PRESETS["fashion"], data=DataConfig(source=data)))
    job.config = replace(job.config, judge_train=replace(job.config.judge_train, shards=1))
    train, held_out = job.data()
    assert held_out is not None
    job.fit_to(train)
    if not begun:
        job.create()
    return Evaluation(job.judge(train), train, held_out, n=n), held_out


def writer_of(out: Path, name: str, seed: int) -> Writer:
    """The pipeline of a trained network and its tokenizer."""
    tokenizer = md.load(file_of(out, "vq" if name == "gpt" else SCALED[name]))
    config = RasterConfig() if name == "gpt" else ScalesConfig()
    names = tuple(md.load().class_names)
    process: Any = config.written(tokenizer)
    writer = Writer(md.load(file_of(out, name, seed)), Codes(tokenizer), process, names, 2, usual=config.usual)
    writer.rises = config.rises
    return writer


def measures(out: Path, data: str, n: int) -> dict[str, Any]:
    """Rows of references, tokenizers, models; scales; the gap."""
    e, held_out = evaluation_of(out, data, n)
    x, y = held_out.x_0(slice(n)), held_out.labels[:n]
    e.references(md.load())
    e.row("shipped DiT, 8 steps", *drawn(md.load(), n, steps=8, solver="ab2_arc"))
    e.row("shipped DiT, 5 steps", *drawn(md.load(), n, steps=5, solver="ab2_arc"))
    unit, own, scales, gaps, nats = e.rows[1]["frechet"], dict[str, float](), {}, {}, {}
    for name in ("vq", "fsq", "scales", "scales6"):
        if file_of(out, name).exists():
            network = md.load(file_of(out, name))
            row = e.row(f"{name}: reconstructions", codes.pictures_of(network, codes.numbers_of(network, x), 8, 8), y)
            own[name] = row["frechet"]
            if name.startswith("scales"):
                scales[name] = by_scale_table(e, network, x, y)
    for name in ("gpt", "var", "var6"):
        for seed in (0, 1):
            if not file_of(out, name, seed).exists():
                continue
            writer, tokenizer = writer_of(out, name, seed), "vq" if name == "gpt" else SCALED[name]
            nats[f"{name}-{seed}"] = writer.nats(writer.tokenizer.held_out(held_out))
            for way in WAYS[name[:3]]:
                began = time.process_time()
                pictures, labels = drawn(writer, n, **way)
                row = e.row(f"{name} seed {seed}, {words(way)}", pictures, labels)
                row.update(own=row["frechet"] / own[tokenizer], cpu_s_per_100=100 * (time.process_time() - began) / n)
                print(row["name"], f"{row['own']:.2f} own, {row['accuracy']:.3f}", flush=True)
                if way == WAYS[name[:3]][1 if name == "gpt" else 3]:
                    save_png(out / f"{name}-{seed}.png", grid(pictures[:80], columns=20))
            if name != "gpt":
                gaps[f"{name}-{seed}"] = gap(e, writer, x, y)
    for row in e.rows:
        row["multiple"] = row["frechet"] / unit
    show(out)
    fed = fed_back(e, writer_of(out, "gpt", 0), writer_of(out, "var", 0), n)
    for row in fed:
        row["multiple"] = row["frechet"] / unit
    return {"rows": e.rows, "scales": scales, "gap": gaps, "nats": baselines(out, held_out, data) | nats, "fed_back": fed}


def drawn(pipeline: Any, n: int, **options: Any) -> tuple[Any, Any]:
    """(pictures, labels), the classes in turn."""
    labels = pipeline.labels(None, n)
    return pipeline.sample(labels, n=n, seed=0, shards=1, **options), np.asarray(labels)


def words(way: dict[str, Any]) -> str:
    return f"w {way['guidance']:g}" + (" constant" if way.get("rising") is False else "")


def by_scale_table(e: Evaluation, network: Any, x: Any, y: Any) -> list[dict[str, Any]]:
    """Reconstructions from the first scales alone."""
    index, ends, rows = codes.numbers_of(network, x), by_scale(network.config.sizes).ends, []
    for p, end in zip(network.config.sizes, ends, strict=True):
        pictures = np.clip(codes.pictures_of(network, index[:, :end], 8, 8), -1, 1)
        row = e.row("", pictures, y)
        e.rows.pop()
        used, perplexity = codes.codes_in_use(index[:, end - p * p : end], network.config.vocabulary)
        rows.append({"scale": p, "psnr": metrics.psnr(pictures, x, crop=2), "frechet": row["frechet"],
                     "accuracy": row["accuracy"], "used": used, "perplexity": perplexity})  # fmt: skip
    return rows


def gap(e: Evaluation, writer: Writer, x: Any, y: Any) -> list[dict[str, Any]]:
    """Pictures whose first scales are those of real ones, and the others written, unguided: where the excess comes from."""
    index, rows = writer.encode(x), []
    for k, end in enumerate((0, *writer.writes.order.ends)):
        given = index[:, :end]
        whole = end == index.shape[1]
        written = given if whole else write(writer.model, writer.writes, y, Writing(seed=1), given=given if end else None)
        row = e.row("", writer.tokenizer.decode(written), y)
        e.rows.pop()
        rows.append({"true_scales": k, "frechet": row["frechet"], "accuracy": row["accuracy"]})
    return rows


def baselines(out: Path, held_out: Dataset, data: str) -> dict[str, float]:
    """Nats per code of held-out pictures by counts of 20,000 training pictures: of codes, per place, of pairs in raster order."""
    network, K = md.load(file_of(out, "vq")), 512
    a = codes.numbers_of(network, md.data.load(data, part="train").x_0(slice(20000)))
    b = codes.numbers_of(network, held_out.x_0(slice(2000)))
    one = np.bincount(a.ravel(), minlength=K) + 0.5
    place = np.stack([np.bincount(column, minlength=K) + 0.5 for column in a.T])
    place /= place.sum(1, keepdims=True)
    two = np.full((K, K), 0.02)
    np.add.at(two, (a[:, :-1].ravel(), a[:, 1:].ravel()), 1)
    two /= two.sum(1, keepdims=True)
    first = np.log(place[0][b[:, 0]])
    return {
        "unigram": -float(np.log(one / one.sum())[b].mean()),
        "unigram per place": -float(np.mean([np.log(place[k][b[:, k]]) for k in range(64)])),
        "bigram": -float((first.sum() + np.log(two[b[:, :-1], b[:, 1:]]).sum()) / b.size),
    }


def show(out: Path) -> None:
    """docs/tokens.png: pictures of GPT and VAR; docs/coarse-to-fine.png: VAR's pictures scale by scale."""
    if not file_of(out, "var").exists():
        return
    both = [np.concatenate([w.sample(list(range(10)) * 2, seed=s, guidance=g) for s in (1, 2)])
            for w, g in ((writer_of(out, "gpt", 0), 1.5), (writer_of(out, "var", 0), 2.0))]  # fmt: skip
    sheets = [grid(x, columns=20) for x in both]
    save_png("docs/tokens.png", stack(sheets, ["GPT, 64 passes, w 1.5", "VAR, 4 passes, w 1 to 2"]))
    writer = writer_of(out, "var", 0)
    *moments, _ = writer.latents(list(range(10)), trace=True, seed=1, guidance=2.0)
    frames = [writer.pictures(m.x_t) for m in moments]
    save_png("docs/coarse-to-fine.png", strip(frames, [f"{p} × {p}" for p in (1, 2, 4, 8)]))


# ------------------------------------------------------------------------------------------------ what a picture costs


def timed(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The median CPU seconds of each, all in turn in every round, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for k in range(rounds + 1):
        for name, run in runs.items():
            began = time.process_time()
            run()
            if k:
                seconds[name].append(time.process_time() - began)
    return {name: float(np.median(s)) for name, s in seconds.items()}


def costs(rounds: int = 5) -> dict[str, Any]:
    """CPU seconds of random weights, guided, with and without a cache, beside the shipped DiT; orders, tokens and pairs."""
    nets: dict[str, tuple[Any, Any]] = {}
    for width, heads in ((64, 2), (128, 4)):
        gpt = GPT(GPTConfig(hidden_size=width, num_heads=heads, inner=3 * width), Philox(0))
        gpt.output.weight.data[...] = Philox(1).normal(gpt.output.weight.data.shape, dtype=np.float32)
        nets[f"gpt {width}"] = gpt, Raster(64)
        for sizes in ((1, 2, 4, 8), SIX):
            tokenizer = MultiScaleVQ(MultiScaleVQConfig(sizes=sizes), Philox(0))
            nets[f"var {width} {len(sizes)}"] = (
                VAR(VARConfig(sizes=sizes, hidden_size=width, num_heads=heads), Philox(0)), Scales(codes.quantiser_of(tokenizer)),
            )  # fmt: skip
    rows: list[dict[str, Any]] = []
    dit = load()
    for batch in (1, 8, 100):
        y = np.arange(batch) % 10
        runs: dict[str, Callable[[], Any]] = {}
        for name, (network, process) in nets.items():
            for cached in (True, False) if batch < 100 else (True,):
                how = Writing(guidance=2.0, seed=0, cached=cached)
                runs[f"{name}, {'cache' if cached else 'no cache'}"] = lambda n=network, p=process, h=how, y=y: write(n, p, y, h)
        for steps in (5, 8):
            runs[f"shipped DiT, {steps} steps"] = lambda s=steps, y=y: dit.latents(list(y), steps=s, solver="ab2_arc", shards=1)
        same = all(np.array_equal(runs[f"{n}, cache"](), runs[f"{n}, no cache"]()) for n in nets) if batch < 100 else None
        seconds = timed(runs, rounds)
        rows += [{"name": name, "batch": batch, "cpu_s": s} for name, s in seconds.items()]
        rows.append({"name": "identical codes with and without a cache", "batch": batch, "same": same})
        for row in rows[-len(runs) - 1 :]:
            print(row, flush=True)
    orders = {"raster 64": raster(64)} | {f"scales {' '.join(map(str, s))}": by_scale(s) for s in ((1, 2, 4, 8), SIX)}
    return {"costs": rows, "orders": {name: counted(order) for name, order in orders.items()}}


def counted(order: Order) -> dict[str, int]:
    return {"passes": order.passes, "tokens": order.tokens, "pairs": order.pairs(), "pairs_without": order.pairs(cached=False)}
