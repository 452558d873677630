"""The readers that tools/fuzz.py damages inputs for, each with a few undamaged ones."""

from __future__ import annotations

import atexit
import gzip
import io
import json
import pickle
import shlex
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import small
from checkpoint.torch_zip import Call, Name, Zip
from PIL import Image
from run_folder import write_run

from minidit import data
from minidit.checkpoint import load_model, read_json, save
from minidit.html.report import write_report
from minidit.models.autoencoder import Autoencoder, AutoencoderConfig
from minidit.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from minidit.models.classifier import Classifier, ClassifierConfig
from minidit.models.dit import DiT, DiTConfig
from minidit.random import Philox
from minidit.runs.config import read_config, tables_of, to_toml
from minidit.runs.phases import resume
from minidit.runs.pipeline import load
from minidit.runs.presets import RunConfig
from minidit.runs.state import state_of
from minidit.verify import vectors
from minidit.verify.borders.process import Program
from tools.fuzz_mutations import (
    Mutation,
    bytes_damaged,
    json_damaged,
    lines_damaged,
    png_damaged,
    safetensors_damaged,
    zip_damaged,
)

DIT = DiTConfig(input_size=4, patch_size=2, in_channels=1, hidden_size=16, depth=1, num_heads=2, num_classes=3)


@dataclass
class Target:
    """A reader. prepare(folder) puts beside the input what it needs, and says where the input goes.

    names: what an error must name, "" for the input itself.
    """

    name: str
    seeds: list[bytes]
    read: Callable[[Path], object]
    mutations: tuple[Mutation, ...]
    prepare: Callable[[Path], Path]
    names: str = ""
    seeds_may_fail: bool = False


def file_named(name: str) -> Callable[[Path], Path]:
    return lambda folder: folder / name


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
        yield Target(name, [saved(model, folder)], load_model, mutations, file_named("m.safetensors"))
    foreign = [saved(models["dit"], folder, "official"), saved(kl, folder, "ldm")]
    yield Target("foreign", foreign, load_model, mutations, file_named("m.safetensors"))
    save(folder / "d", models["dit"], grammar="diffusers")
    save(folder / "k", kl, grammar="diffusers")
    for name in "dk":
        yield Target(
            f"config-{name}", [(folder / name / "config.json").read_bytes()], lambda path: load_model(path.parent),
            (json_damaged, json_damaged, bytes_damaged), beside(folder / name, "config.json"), names="input",
        )  # fmt: skip
    save(folder / "s", models["dit"], grammar="diffusers", shard_bytes=3000)
    index = "diffusion_pytorch_model.safetensors.index.json"
    yield Target("index", [(folder / "s" / index).read_bytes()], lambda path: load_model(path.parent),
                 (json_damaged, bytes_damaged), beside(folder / "s", index), names="input")  # fmt: skip
    yield Target("json", [b'{"a": [1, 2.5, null, "x"]}'], read_json, (json_damaged, bytes_damaged), file_named("a.json"))


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
                picture.save(out, suffix)
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
    toml = to_toml(tables_of(RunConfig())).encode()
    yield Target("toml", [toml], read_config, (lines_damaged, lines_damaged, bytes_damaged), file_named("config.toml"))
    group = "schedules"
    for name in ("manifest.json", f"{group}.json"):
        seed = (vectors.SHIPPED / name).read_bytes()
        yield Target(f"vectors-{name[:-5]}", [seed], lambda path: (vectors.check(path.parent), list(vectors.read(path.parent))),
                     (lines_damaged, json_damaged, bytes_damaged), beside(vectors.SHIPPED, name), names="input")  # fmt: skip


def runs(folder: Path) -> Iterator[Target]:
    """A run of a second with its report, one of its files damaged at a time."""
    run = folder / "input"
    small.interrupted(run, small.run_config(steps=4), 2)
    small.resumed(run)
    heads = (safetensors_damaged, safetensors_damaged, bytes_damaged)
    files: dict[str, tuple[Callable[[Path], object], tuple[Mutation, ...]]] = {
        "model.safetensors": (load, heads),
        "states/model-00000004.safetensors": (resume_of, heads),
        "config.toml": (resume_of, (lines_damaged, bytes_damaged)),
        "metrics.jsonl": (write_report, (lines_damaged, lines_damaged, bytes_damaged)),
    }
    for name, (read, mutations) in files.items():
        names = " " if name == "config.toml" else "input"  # a data set or a setting may be what is refused
        depth = name.count("/")
        yield Target(f"run-{name.partition('.safe')[0].replace('/', '-')}", [(run / name).read_bytes()],
                     lambda path, read=read, depth=depth: read(path.parents[depth]),
                     mutations, beside(run, name), names)  # fmt: skip
    shown = write_run(folder / "report" / "input")
    for name, mutation in (("trace.npz", zip_damaged), ("eval.json", json_damaged)):
        yield Target(f"report-{name}", [(shown / name).read_bytes()], lambda path: write_report(path.parent),
                     (mutation, mutation, bytes_damaged), beside(shown, name), names="input")  # fmt: skip


def resume_of(folder: Path) -> object:
    job = resume(folder)
    train, _ = job.data()
    job.fit_to(train)
    return state_of(folder, "model", job.config)


def programs(_: Path) -> Iterator[Target]:
    """A program that says the lines of the input, whatever it is asked."""
    hello = {
        "protocol": 1,
        "topics": ["ddim_step"],
        "name": "mine",
        "inline": 4096,
        "precision": "float32",
        "dialect": "diffusers",
    }
    array = {"dtype": "float64", "shape": [2], "data": [0.5, "NaN"]}
    lines = [hello, {"id": 1, "call": "f0", "args": [array]}, {"id": 1, "answer": [array, 1, "Infinity", None]}]

    def ask(path: Path) -> object:
        words = shlex.join(["sh", "-c", f"cat {shlex.quote(str(path))}; exec cat > /dev/null"])
        with Program(words, timeout=0.5) as program:
            return program.functions["ddim_step"](lambda x: x, np.ones(2)) if program.functions else None

    seed = b"\n".join(json.dumps(line).encode() for line in lines) + b"\n"
    yield Target("process", [seed], ask, (lines_damaged, lines_damaged, bytes_damaged), file_named("lines"), names=" ")


def targets() -> list[Target]:
    folder = Path(tempfile.mkdtemp(prefix="minidit-seeds-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    out: list[Target] = []
    for make in (networks, torch_zips, data_sets, texts, runs, programs):
        place = folder / make.__name__
        place.mkdir()
        out += make(place)
    return out
