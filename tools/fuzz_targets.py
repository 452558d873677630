"""The readers that tools/fuzz.py damages inputs for, each with a few undamaged ones."""

from __future__ import annotations

import atexit
import gzip
import io
import json
import os
import pickle
import shlex
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import small
from checkpoint.torch_zip import Call, Name, Zip
from PIL import Image
from run_folder import write_run

from minidit import data, verify
from minidit.checkpoint import load_model, read_arrays, read_json, save, write_arrays
from minidit.html.report import report_of
from minidit.models.autoencoder import Autoencoder, AutoencoderConfig
from minidit.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from minidit.models.classifier import Classifier, ClassifierConfig
from minidit.models.dit import DiT, DiTConfig
from minidit.random import Philox
from minidit.runs.config import read_config, tables_of, to_toml
from minidit.runs.diffusers_folder import process_from
from minidit.runs.loading import load
from minidit.runs.phases import resume
from minidit.runs.presets import RunConfig
from minidit.runs.state import load_state, state_of
from minidit.training.loop import Loop
from minidit.training.source import source_of
from minidit.verify import vectors
from minidit.verify.borders.process import Program
from minidit.verify.borders.talk import Talk
from minidit.verify.expect import surprises, write_expectation
from tools import fuzz_parts
from tools.fuzz_mutations import (
    Mutation,
    bytes_damaged,
    json_damaged,
    lines_damaged,
    png_damaged,
    safetensors_damaged,
    text_damaged,
    toml_damaged,
    without_digest,
    zip_damaged,
)
from tools.fuzz_target import Target, file_named

MEMORY_DISK = "/dev/shm" if os.path.isdir("/dev/shm") else None
DIT = DiTConfig(input_size=4, patch_size=2, in_channels=1, hidden_size=16, depth=1, num_heads=2, num_classes=3)


def both_ways(data: bytes) -> list[bytes]:
    """A safetensors file with its digest, and without it, so that damage reaches what lies behind."""
    n = int.from_bytes(data[:8], "little")
    header = without_digest(data[8 : 8 + n])
    return [data, len(header).to_bytes(8, "little") + header + data[8 + n :]]


def saved(model: Any, folder: Path, grammar: str = "minidit") -> bytes:
    path = folder / "m.safetensors"
    save(path, model, grammar=grammar)
    return path.read_bytes()


def networks(folder: Path) -> Iterator[Target]:
    kl = AutoencoderKL(AutoencoderKLConfig(widths=(4, 8), blocks=1, groups=2, size=8), Philox(1))
    models = {
        "dit": DiT(DIT, Philox(1)),
        "autoencoder": Autoencoder(AutoencoderConfig(widths=(8, 8, 8)), Philox(1)),
        "classifier": Classifier(ClassifierConfig(size=8, widths=(8, 8, 8), features=8), Philox(1)),
        "kl": kl,
    }
    mutations = (safetensors_damaged, safetensors_damaged, bytes_damaged)
    for name, model in models.items():
        yield Target(name, both_ways(saved(model, folder)), load_model, mutations, file_named("m.safetensors"))
    foreign = [saved(models["dit"], folder, "official"), saved(kl, folder, "ldm")]
    yield Target("foreign", foreign, load_model, mutations, file_named("m.safetensors"))
    save(folder / "d", models["dit"], grammar="diffusers")
    save(folder / "k", kl, grammar="diffusers")
    for name in "dk":
        yield Target(
            f"config-{name}", [(folder / name / "config.json").read_bytes()], lambda path: load_model(path.parent),
            (json_damaged, json_damaged, text_damaged, bytes_damaged), beside(folder / name, "config.json"), names="input",
        )  # fmt: skip
    save(folder / "s", models["dit"], grammar="diffusers", shard_bytes=3000)
    index = "diffusion_pytorch_model.safetensors.index.json"
    yield Target("index", [(folder / "s" / index).read_bytes()], lambda path: load_model(path.parent),
                 (json_damaged, bytes_damaged), beside(folder / "s", index), names="input")  # fmt: skip
    yield Target(
        "json", [b'{"a": [1, 2.5, null, "x"]}'], read_json, (json_damaged, text_damaged, bytes_damaged), file_named("a.json")
    )


def beside(folder: Path, name: str) -> Callable[[Path], Path]:
    """Links the other files of a folder to where the input goes."""

    def prepare(place: Path) -> Path:
        for file in [path for path in folder.rglob("*") if path.is_file()] + [folder / name]:
            link = place / file.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            if file != folder / name:
                link.symlink_to(file)
        return place / name

    return prepare


def torch_zips(folder: Path) -> Iterator[Target]:
    seeds = []
    state = DiT(DIT, Philox(1)).state_dict()
    for packed in (False, True):
        file = Zip()
        arrays = {name: file.array(a) for name, a in state.items()}
        device = Call(Name("torch", "device"), ("cpu",))
        opt = {"state": {0: {"exp_avg": arrays["pos_embed"]}}, "param_groups": [{"lr": 1e-3, "params": [0, 1]}]}
        file.write(
            folder / "w.pt", {"model": arrays, "opt": opt, "args": (device, None, True)} if packed else arrays, packed=packed
        )
        seeds.append((folder / "w.pt").read_bytes())
    yield Target("torch", seeds, lambda path: load_model(path, num_heads=2), (zip_damaged, zip_damaged, bytes_damaged),
                 file_named("w.pt"), seeds_may_fail=True)  # fmt: skip
    plain = pickle.dumps({"a": [1, (2.5, "x"), None], "b": {"c": True}}, 2)
    yield Target("pickle", [zip_of(plain)], lambda path: load_model(path, num_heads=2), (zip_damaged,), file_named("w.pt"),
                 seeds_may_fail=True)  # fmt: skip


def zip_of(program: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", program)
    return out.getvalue()


def data_sets(folder: Path) -> Iterator[Target]:
    r = np.random.default_rng(0)
    images, labels = r.integers(0, 256, (4, 8, 8)).astype(np.uint8), np.array([0, 1, 2, 1])
    np.savez(folder / "a.npz", images=images, labels=labels, class_names=["a", "b", "c"], levels=256)
    np.savez_compressed(folder / "b.npz", images=(images / 255).astype(np.float32), range=[0, 1], labels=labels)
    seeds = [(folder / name).read_bytes() for name in ("a.npz", "b.npz")]
    yield Target("npz", seeds, data.load, (zip_damaged, zip_damaged, bytes_damaged), file_named("x.npz"))
    idx = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in images.shape) + images.tobytes()
    yield Target("idx", [idx, gzip.compress(idx)], data.load, (bytes_damaged,), file_named("train-images-idx3-ubyte"))
    record = r.integers(0, 10, 3074).astype(np.uint8).tobytes()
    yield Target("cifar", [record[:3073] * 2], data.load, (bytes_damaged,), file_named("data_batch_1.bin"))
    yield Target("cifar-100", [record * 2], data.load, (bytes_damaged,), file_named("train.bin"))
    pictures: dict[str, list[bytes]] = {}
    colours = r.integers(0, 256, (8, 12, 3)).astype(np.uint8)
    for suffix in ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm", "ico", "tga"):
        for picture in (Image.fromarray(colours), Image.fromarray(colours[..., 0]), Image.fromarray(colours).convert("P")):
            out = io.BytesIO()
            try:
                picture.save(out, suffix, sizes=[picture.size])  # for ico: early Pillows write no small one unasked
            except (OSError, ValueError, KeyError):  # not a mode of this format
                continue
            pictures.setdefault(suffix, []).append(out.getvalue())
    wide = io.BytesIO()
    Image.fromarray(r.integers(0, 65536, (8, 8)).astype(np.uint16)).save(wide, "png")
    pictures["png"].append(wide.getvalue())
    for suffix, seeds in pictures.items():
        damage: tuple[Mutation, ...] = (png_damaged, bytes_damaged) if suffix == "png" else (bytes_damaged,)
        yield Target(suffix, seeds, lambda path: data.load(path.parent), damage, file_named(f"a.{suffix}"), names="input")


def texts(folder: Path) -> Iterator[Target]:
    tables = tables_of(RunConfig())
    toml = to_toml({n: dict(list(tables[n].items())[:4]) for n in ("data", "model", "process", "train")}).encode()
    damage = (toml_damaged, lines_damaged, text_damaged, bytes_damaged)
    yield Target("toml", [toml], read_config, damage, file_named("config.toml"))
    report = verify.check({"ddim_step": lambda *args: 0}, topics="ddim_step")
    write_expectation(folder / "e.json", report)
    yield Target("expect", [(folder / "e.json").read_bytes()], lambda path: surprises(path, report),
                 (json_damaged, text_damaged, bytes_damaged), file_named("e.json"))  # fmt: skip
    scheduler = {"_class_name": "DDIMScheduler", "num_train_timesteps": 20, "beta_schedule": "linear", "beta_start": 1e-4,
                 "beta_end": 0.02, "trained_betas": None, "clip_sample": False, "prediction_type": "epsilon"}  # fmt: skip
    yield Target("scheduler", [json.dumps(scheduler).encode()], lambda path: process_from(read_json(path), str(path)).path(),
                 (json_damaged, json_damaged, text_damaged, bytes_damaged), file_named("scheduler_config.json"))  # fmt: skip


def suites(folder: Path) -> Iterator[Target]:
    """A small suite of test vectors, one of its files damaged at a time."""
    small_suite(folder / "input")
    suite = folder / "input"
    for name in ("manifest.json", "guidance.json", "guidance.safetensors"):
        damage: tuple[Mutation, ...] = (json_damaged, lines_damaged, text_damaged, bytes_damaged)
        damage = (safetensors_damaged, bytes_damaged) if name.endswith("safetensors") else damage
        read = lambda path: (vectors.check(path.parent), list(vectors.read(path.parent)))
        yield Target(f"vectors-{name}", [(suite / name).read_bytes()], read, damage, beside(suite, name), names="input")

    def answers(path: Path) -> object:
        """The file with a manifest that is right about it: its answers are computed again."""
        manifest = json.loads((suite / "manifest.json").read_text())
        manifest["files"] = [vectors.suite.entry_of(path, e["cases"]) if e["path"] == path.name else e for e in manifest["files"]]
        (path.parent / "manifest.json").unlink()
        (path.parent / "manifest.json").write_text(json.dumps(manifest))
        return vectors.check(path.parent)

    yield Target("vectors-answers", [(suite / "guidance.json").read_bytes()], answers, (json_damaged, lines_damaged),
                 beside(suite, "guidance.json"), names="input")  # fmt: skip


def small_suite(folder: Path) -> None:
    """The shortest cases of one group of the shipped suite."""
    folder.mkdir()
    group = json.loads((vectors.SHIPPED / "guidance.json").read_text("utf-8"))
    for topic in group["topics"]:
        topic["cases"] = sorted(topic["cases"], key=lambda case: len(str(case)))[:2]
    group["topics"] = [t for t in group["topics"] if len(str(t)) < 3000]
    (folder / "guidance.json").write_text(json.dumps(group))
    text, arrays = json.dumps(group), read_arrays(vectors.SHIPPED / "guidance.safetensors")[0]
    write_arrays(folder / "guidance.safetensors", {k: a for k, a in arrays.items() if k in text} or {"a": np.zeros(2)}, {})
    (folder / "schema.json").write_bytes((vectors.SHIPPED / "schema.json").read_bytes())
    cases = sum(len(t["cases"]) for t in group["topics"])
    files = [vectors.suite.entry_of(folder / "guidance.json", cases), vectors.suite.entry_of(folder / "guidance.safetensors", 0),
             vectors.suite.entry_of(folder / "schema.json", 0)]  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(vectors.writing.manifest_of(files, [], False)))


def runs(folder: Path) -> Iterator[Target]:
    """A run of a second, one of its files damaged at a time; and what its report reads."""
    run = folder / "input"
    small.interrupted(run, replace(small.run_config(steps=4), model=DIT), 2)
    small.resumed(run)
    job = resume(run)
    train, _ = job.data()
    job.fit_to(train)
    heads, lines = (safetensors_damaged, safetensors_damaged, bytes_damaged), (lines_damaged, lines_damaged, bytes_damaged)
    phase = job.model_phase(None, source_of(train, "cpu"))
    loop = Loop(phase.network, phase.process, phase.source, phase.config)

    def state(path: Path) -> object:
        kept, _ = state_of(path.parents[1], "model", job.config)
        return kept and load_state(kept, loop)

    files: dict[str, tuple[Callable[[Path], object], tuple[Mutation, ...]]] = {
        "model.safetensors": (lambda path: load(path.parent), heads),
        "states/model-00000004.safetensors": (state, heads),
        "config.toml": (lambda path: resume(path.parent), (toml_damaged, lines_damaged, text_damaged, bytes_damaged)),
    }
    for name, (read, mutations) in files.items():
        names = " " if name == "config.toml" else "input"  # a setting may be what is refused
        seeds = both_ways((run / name).read_bytes()) if name.endswith("safetensors") else [(run / name).read_bytes()]
        short = name.partition(".safe")[0].partition("-")[0].replace("/", "-")
        yield Target(f"run-{short}", seeds, read, mutations, beside(run, name), names)
    shown = write_run(folder / "report" / "input")
    page = lambda path: report_of(path.parent)
    reports: dict[str, tuple[Mutation, ...]] = {
        "metrics.jsonl": (text_damaged, *lines), "eval.json": (json_damaged, json_damaged, text_damaged, bytes_damaged),
        "trace.npz": (zip_damaged, zip_damaged, bytes_damaged), "config.toml": (toml_damaged, lines_damaged, bytes_damaged),
    }  # fmt: skip
    for name, mutations in reports.items():
        seed = (run if name == "metrics.jsonl" else shown) / name
        yield Target(f"report-{name}", [seed.read_bytes()], page, mutations, file_named(name), names="input")
    pictures = [(shown / "pictures" / name).read_bytes() for name in ("ddim.png", "denoising.gif")]
    yield Target("report-picture", pictures, lambda path: report_of(path.parent.parent), (png_damaged, bytes_damaged),
                 lambda place: made(place / "pictures") / "ddim.png", names="input")  # fmt: skip


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def programs(_: Path) -> Iterator[Target]:
    """A program that says the lines of the input, whatever it is asked: in memory by the conversation, and as a process."""
    hello = {"protocol": 1, "topics": ["ddim_step"], "name": "mine", "inline": 4096, "precision": "float32",
             "dialect": "diffusers"}  # fmt: skip
    array = {"dtype": "float64", "shape": [2], "data": [0.5, "NaN"]}
    lines = [hello, {"id": 1, "call": "f0", "args": [array]}, {"id": 1, "answer": [array, 1, "Infinity", None]}]
    seed = b"\n".join(json.dumps(line).encode() for line in lines) + b"\n"
    nothing = os.open(os.devnull, os.O_WRONLY)

    def talk(path: Path) -> object:
        source = os.open(path, os.O_RDONLY)
        try:
            conversation = Talk("mine", nothing, source, path.parent, 0.5)
            conversation.greeting()
            return conversation.ask("ddim_step", (lambda x: x, np.ones(2)))
        finally:
            os.close(source)

    damage = (lines_damaged, lines_damaged, text_damaged, bytes_damaged)
    yield Target("talk", [seed], talk, damage, file_named("lines"), names=" ")

    def ask(path: Path) -> object:
        words = shlex.join(["sh", "-c", f"cat {shlex.quote(str(path))}; exec cat > /dev/null"])
        with Program(words, timeout=0.5) as program:
            return program.functions["ddim_step"](lambda x: x, np.ones(2)) if program.functions else None

    yield Target("process", [seed], ask, damage, file_named("lines"), names=" ")


def targets() -> list[Target]:
    folder = Path(tempfile.mkdtemp(prefix="minidit-seeds-", dir=MEMORY_DISK))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    out: list[Target] = []
    for make in (fuzz_parts.parts, networks, torch_zips, data_sets, texts, suites, runs, programs):
        place = folder / make.__name__
        place.mkdir()
        out += make(place)
    return out
