"""Pictures from words: does a network draw emoji in a style, or with a skin tone, that it has never seen them in?

    minidit train --preset words --out words/0 --threads 1                                       about an hour on one core
    python -m benchmarks.words measure words/0 [words/1 …] --out benchmarks/results/words.json   some minutes
    python -m benchmarks.words poster [words/0] --out docs/words.png                             24 prompts, and 8 more
    python -m benchmarks.words streams both --cpu 450        a bag of words and MM-DiT in equal CPU seconds, trained into both/
    python -m benchmarks.words scenes scenes/0 [bag/0 …] --out benchmarks/results/scenes.json    runs of --preset scenes

A drawn picture is compared with all 3,139 real ones of its style, in means of 4 × 4 pixels (E.11). Beside the network stand a
picture of the same emoji in another style (the mean over both), that of the nearest training caption in the style, and chance.
Exact tone: of the five real tones of the emoji in the style, the nearest one, where these five differ. Style: by a small
classifier that has learned the styles on the training pictures, and is itself measured on real pictures that are held out.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from minidit import metrics, pictures
from minidit.backend import Array
from minidit.data import emoji, from_uint8, shapes
from minidit.html.folder import seconds_of
from minidit.models.classifier import Classifier, ClassifierConfig
from minidit.processes.classify import Classification, judge
from minidit.random import Philox
from minidit.runs.loading import load
from minidit.runs.pipeline import Pipeline
from minidit.runs.prompted import shares, similarity
from minidit.runs.show import caption_grid
from minidit.training.loop import Loop, LoopConfig
from minidit.training.source import Pictures

STEPS, GUIDANCE, SEEN = 20, 2.0, 200
DIFFERS = 0.15  # standard deviation over the five tones, of a pixel that shows the tone
POSTER = {
    "trained on": (
        "red heart, noto", "pizza, fluent", "red apple, twemoji", "cat face, noto", "four leaf clover, fluent",
        "woman scientist, dark skin tone, noto", "man farmer, medium skin tone, fluent", "mermaid, dark skin tone, twemoji",
    ),
    "skin tones in which it has never seen the person": (
        "woman scientist, medium-dark skin tone, noto", "woman firefighter, medium-light skin tone, twemoji",
        "man detective, dark skin tone, twemoji", "woman pilot, dark skin tone, fluent",
        "woman scientist, medium-dark skin tone, fluent", "woman firefighter, medium-light skin tone, noto",
        "man detective, dark skin tone, noto", "thumbs up, medium skin tone, noto",
    ),
    "emoji that it has never seen in this style": (
        "frog, fluent", "sun, fluent", "dog face, fluent", "smiling face with sunglasses, twemoji", "crescent moon, twemoji",
        "hamburger, noto", "mermaid, medium skin tone, fluent", "man construction worker, dark skin tone, fluent",
    ),
    "things that nobody has drawn": (
        "purple pizza, noto", "blue frog, noto", "green cat face, noto", "red penguin, fluent", "heart pizza, fluent",
        "yellow book, noto", "blue apple, twemoji", "green snowman, noto",
    ),
}  # fmt: skip


class Judged:
    """All emoji, and the measures of pictures that stand for some of them."""

    def __init__(self) -> None:
        self.emoji = emoji.everything()
        self.x = from_uint8(self.emoji.images)
        self.rows = emoji.vocabulary().rows(self.emoji.captions)
        e = self.emoji
        self.place = {key: i for i, key in enumerate(zip(e.emoji.tolist(), e.tone.tolist(), e.style.tolist(), strict=True))}
        self.classifier = styles_learned(self)

    def groups(self) -> dict[str, Array]:
        e, seen = self.emoji, np.flatnonzero(~self.emoji.held_out)
        return {
            "new tone": np.flatnonzero(e.new_tone & ~e.new_style),
            "new style, no tone": np.flatnonzero(e.new_style & (e.tone == 0)),
            "new style, with tone": np.flatnonzero(e.new_style & (e.tone > 0)),
            "trained on": seen[np.linspace(0, len(seen) - 1, SEEN).astype(int)],
        }

    def measures(self, x: Array, index: Array) -> dict[str, Any]:
        """x : (n, 3, 32, 32), pictures in place of those at index."""
        ranks = np.zeros(len(index), int)
        for s in range(len(emoji.STYLES)):
            bank, mine = np.flatnonzero(self.emoji.style == s), np.flatnonzero(self.emoji.style[index] == s)
            ranks[mine] = metrics.ranks(x[mine], np.searchsorted(bank, index[mine]), self.x[bank])
        styles = judge(self.classifier, x)[0].argmax(1)
        tones = [t for t in (self.right_tone(a, i) for a, i in zip(x, index, strict=True)) if t is not None]
        tone = {"exact_tone": float(np.mean(tones)), "tones": len(tones)} if tones else {}
        return {"n": len(index), **shares(ranks), **tone, "style": float((styles == self.emoji.style[index]).mean())}

    def right_tone(self, x: Array, i: int) -> bool | None:
        """Whether a picture in place of the i-th has its tone; None where that cannot be seen."""
        e, tone, style = int(self.emoji.emoji[i]), int(self.emoji.tone[i]), int(self.emoji.style[i])
        five = [self.place.get((e, k, style)) for k in range(1, len(emoji.TONES))]
        if not tone or None in five:
            return None
        real = self.x[five]
        shows = real.std(axis=0).sum(axis=0) > DIFFERS
        if not shows.any():
            return None
        gap = np.abs(real[:, :, shows].mean(axis=2) - x[:, shows].mean(axis=1)).sum(axis=1)
        return bool(gap.argmin() + 1 == tone)

    def siblings(self, index: Array, k: int) -> Array:
        """The same emoji and tones, k styles further."""
        e = self.emoji
        places = [self.place[int(e.emoji[i]), int(e.tone[i]), (int(e.style[i]) + k) % len(emoji.STYLES)] for i in index]
        return self.x[places]

    def nearest_captions(self, index: Array) -> Array:
        """Training pictures of the same style whose captions have most words in common with those asked for."""
        e, out = self.emoji, np.zeros((len(index), *self.x.shape[1:]), np.float32)
        for s in range(len(emoji.STYLES)):
            bank, mine = np.flatnonzero(~e.held_out & (e.style == s)), np.flatnonzero(e.style[index] == s)
            alike = similarity(self.rows[index[mine]], self.rows[bank], len(emoji.vocabulary()))
            alike[index[mine][:, None] == bank[None]] = -1  # not the picture itself
            out[mine] = self.x[bank[alike.argmax(axis=1)]]
        return out


def styles_learned(judged: Judged) -> Classifier:
    """A classifier of the three styles, which has seen training pictures only."""
    e, network = judged.emoji, Classifier(ClassifierConfig(3, (32, 32), len(emoji.STYLES)), Philox(0, 0x7374796C))
    seen = np.flatnonzero(~e.held_out)
    config = LoopConfig(steps=1000, batch_size=64, lr=2e-3, betas=(0.9, 0.99), weight_decay=0.02, warmup=50, final_lr=0.02,
                        clip=1.0, ema=0.995, shards=1)  # fmt: skip
    loop = Loop(network, Classification(), Pictures(judged.x[seen], e.style[seen]), config)
    for _ in loop.run():
        pass
    network.flat[...] = loop.optimiser.average
    return network


def mean_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def table(judged: Judged, pipelines: dict[str, Pipeline]) -> dict[str, Any]:
    """For every group of pictures: the networks, and what reaches how much without one."""
    out: dict[str, Any] = {}
    for name, index in judged.groups().items():
        rows: dict[str, Any] = {"real": judged.measures(judged.x[index], index)}
        for run, pipeline in pipelines.items():
            began, captions = time.process_time(), judged.rows[index]
            x = pipeline.sample(captions, steps=STEPS, guidance=GUIDANCE, shards=1)
            rows[run] = judged.measures(x, index) | {"cpu_ms_per_picture": 1e3 * (time.process_time() - began) / len(index)}
        rows["another style"] = mean_of([judged.measures(judged.siblings(index, k), index) for k in (1, 2)])
        rows["nearest caption"] = judged.measures(judged.nearest_captions(index), index)
        among = len(judged.x) // len(emoji.STYLES)
        rows["chance"] = {"top_1": 1 / among, "top_5": 5 / among, "median": (among + 1) / 2, "exact_tone": 0.2, "style": 1 / 3}
        for row, numbers in rows.items():
            print(f"{name:22s} {row:18s} " + "  ".join(f"{k} {v:.3f}" for k, v in numbers.items()), flush=True)
        out[name] = rows
    return out


def training_of(run: Path, state: str) -> dict[str, Any]:
    """What a run took, to a state that is a number of updates or to its end: updates, minutes of the clock, its configuration."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    most = int(state) if state.isdigit() else max(line["step"] for line in lines)
    timed = [line for line in lines if "wall_s" in line and line["step"] <= most]
    text = (run / "config.toml").read_text()
    return {"updates": timed[-1]["step"], "wall_minutes": seconds_of(timed) / 60, "config": text}


def measure(args: argparse.Namespace) -> None:
    pipelines = {str(run): load(run, state=args.state) for run in args.runs}
    results = {
        "machine": machine(), "steps": STEPS, "guidance": GUIDANCE,
        "runs": {str(run): training_of(run, args.state) for run in args.runs},
        "measures": table(Judged(), pipelines),
    }  # fmt: skip
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(args.out)


NETWORKS = {"bag of words": ("dit", ["--no-learn-sigma"]), "MM-DiT": ("mmdit", [])}  # of one width and depth
PLAIN = ["--hidden-size", "128", "--depth", "4", "--num-heads", "4", "--patch-size", "8"]


def trained(out: Path, network: str, steps: int, seed: int) -> float:
    """CPU seconds of a process that trains a network of one preset on one core."""
    model, more = NETWORKS[network]
    words = f"train --preset words --model {model} --threads 1 --steps {steps} --seed {seed} --overwrite --no-gallery --quiet"
    command = [sys.executable, "-m", "minidit", *words.split(), *PLAIN, *more, "--out", str(out)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def updates_in(cpu: float, network: str, seed: int, few: int = 50, more: int = 250) -> int:
    """How many updates fit into so many CPU seconds, as two short trainings say."""
    with tempfile.TemporaryDirectory() as folder:
        short, long = (trained(Path(folder) / str(n), network, n, seed) for n in (few, more))
    return int((cpu - short) * (more - few) / (long - short) / 100) * 100


def streams(args: argparse.Namespace) -> None:
    """A bag of words beside two streams in equal CPU seconds. What a call before this one has trained is measured as it is."""
    pipelines, rows = {}, {}
    for network in NETWORKS:
        out = args.runs[0] / network.replace(" ", "-")
        record = out.with_suffix(".json")
        if not record.exists():
            steps = updates_in(args.cpu, network, args.seed)
            row = {"updates": steps, "cpu_s": trained(out, network, steps, args.seed)} | facts(out)
            record.write_text(json.dumps(row) + "\n")
        rows[network], pipelines[network] = json.loads(record.read_text()), load(out)
        print(network, rows[network], flush=True)
    measures = table(Judged(), pipelines)
    text = {"machine": machine(), "cpu": args.cpu, "seed": args.seed, "steps": STEPS, "guidance": GUIDANCE}
    args.out.write_text(json.dumps(text | {"networks": rows, "measures": measures}, indent=1) + "\n")
    print(args.out)


def facts(run: Path) -> dict[str, Any]:
    """The parameters and multiply-accumulates of a run's network."""
    config = load(run).model.config
    return {"parameters": config.parameters(), "macs": config.macs()}


def composed(args: argparse.Namespace) -> None:
    """What runs draw for scenes of two things: captions that were trained on, and those with pairs that are held out."""
    table: dict[str, Any] = {}
    for part in ("train", "test"):
        quarters, captions = (some[: args.n] for some in shapes.scenes(part))
        new = np.array([sum((t.colour, t.shape) in shapes.NEW_PAIRS for t in shapes.things(q)) for q in quarters])
        for run in args.runs:
            pipeline = load(run, state=args.state)
            x = pipeline.sample(captions, steps=STEPS, guidance=GUIDANCE, seed=args.seed, shards=1)
            for k in np.unique(new):
                row = {"n": int((new == k).sum()), **shapes.score(x[new == k], quarters[new == k])}
                table[f"{run}, {k} new pairs"] = row
                print(f"{run!s:20s} {k} new pairs  " + "  ".join(f"{name} {v:.3f}" for name, v in row.items()), flush=True)
    results = {
        "machine": machine(), "steps": STEPS, "guidance": GUIDANCE,
        "runs": {str(run): training_of(run, args.state) for run in args.runs},
        "measures": table,
    }  # fmt: skip
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(args.out)


def poster(args: argparse.Namespace) -> None:
    """24 prompts, of which 16 are held out, and eight more that ask too much, with what is drawn for them."""
    pipeline = load(args.runs[0], state=args.state) if args.runs else load(captions=True)
    whole = emoji.everything()
    seen = {caption for caption, out in zip(whole.captions, whole.held_out, strict=True) if not out}
    rows = []
    for title, prompts in POSTER.items():
        assert all((prompt in seen) == (title == "trained on") for prompt in prompts), title
        x = pipeline.sample(list(prompts), steps=STEPS, guidance=GUIDANCE, seed=args.seed)
        rows.append(caption_grid(x, prompts, title))
    pictures.save_png(args.out, pictures.stack(rows, gap=24))
    print(args.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, command, out in (
        ("measure", measure, "benchmarks/results/words.json"), ("poster", poster, "docs/words.png"),
        ("scenes", composed, "benchmarks/results/scenes.json"), ("streams", streams, "benchmarks/results/words_streams.json"),
    ):  # fmt: skip
        sub = commands.add_parser(name)
        sub.add_argument("runs", nargs="*" if command is poster else "+", type=Path)
        sub.add_argument("-n", type=int, default=600, help="scenes of each part")
        sub.add_argument("--out", type=Path, default=Path(out))
        sub.add_argument("--cpu", type=float, default=450.0, help="CPU seconds of each training")
        sub.add_argument("--seed", type=int, default=0)
        sub.add_argument("--state", default="", help="a saved state of the runs, such as latest, instead of the trained weights")
        sub.set_defaults(run=command)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
