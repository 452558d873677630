"""Sets larger than memory: batches from the cache are those from memory, bit for bit, and memory does not grow with the set."""

import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import standin
from PIL import Image
from small import DIT, awake
from standin.cublas import imitated_cublas
from support import host

from minidit import data
from minidit.data.cache import Cache
from minidit.diffusion.schedule import Schedule
from minidit.models.autoencoder import Autoencoder, AutoencoderConfig
from minidit.processes import latents as latents_module
from minidit.processes.diffusion import Diffusion
from minidit.processes.latents import latents_of
from minidit.processes.tokenizer import Latent, Pixels, posterior_of
from minidit.processes.train import loop_for
from minidit.random import Philox
from minidit.training import forward
from minidit.training.augment import Augment, flips
from minidit.training.draws import Draws
from minidit.training.loop import LoopConfig
from minidit.training.source import Latents, Pictures, Stored, source_of

CUPY = standin.install()
REAL = not getattr(CUPY, "__standin__", False)
ROOT = Path(__file__).parents[2]
CONFIG = LoopConfig(steps=4, batch_size=6, lr=1e-2, warmup=2, shards=2)
PROCESS = Diffusion.on_ladder(Schedule.linear(30))
SMALL = AutoencoderConfig(channels=3, latent_channels=2, widths=(4, 4, 8), size=8)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The same 33 pictures of three classes, in memory and on disk, and the cache."""
    path = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    for i in range(33):
        file = path / "p" / "abc"[i % 3] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(file)
    cache = Cache(path / "cache", least=0)
    return data.load(path / "p"), data.load(path / "p", cache=cache), cache


def draws(n=9, update=0, **more):
    return Draws(5, 9, np.arange(n), per=8, when=update, batch_size=n, **more)


# ------------------------------------------------------------------------------------------------ pixels


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("augment", [Augment(), Augment(True, 2)])
def test_a_batch_from_the_disk_is_the_batch_from_memory(sets, dtype, augment):
    here, there = (source_of(d, dtype=dtype) for d in sets[:2])
    assert isinstance(here, Pictures) and isinstance(there, Stored) and len(here) == len(there) == 33
    assert there.levels == here.levels and np.array_equal(there.labels, here.labels)
    for update in range(8):  # more than an epoch
        index = draws(update=update).pictures(33)
        (x, y), (x_0, labels) = (source.draw(index, draws(update=update)) for source in (there, here))
        assert x.tobytes() == x_0.tobytes() and x.dtype == dtype and np.array_equal(y, labels) and type(x) is np.ndarray
    a, b = (Pixels().source(d, augment).draw(index, draws(update=7))[0] for d in sets[:2])
    assert a.tobytes() == b.tobytes()


def trained(source, device="cpu", **changes):
    model = awake(replace(DIT, input_size=8, in_channels=3), device=device)
    loop = loop_for(model, source, PROCESS, replace(CONFIG, **changes))
    return [float(host(r["loss"])) for r in loop.run()], host(loop.model.flat).tobytes()


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_training_on_stored_pictures_is_training_on_pictures(sets, shards):
    assert trained(sets[1], shards=shards) == trained(sets[0], shards=shards)


def test_a_large_set_in_memory_stays_bytes(sets, monkeypatch):
    monkeypatch.setattr("minidit.training.source.IN_MEMORY", sets[0].images.nbytes)
    assert isinstance(source_of(sets[0]), Stored) and trained(sets[0]) == trained(sets[1])


@pytest.mark.skipif(REAL or standin.raw.compiler() is None, reason="the stand-in, and g++ to run kernels on the CPU")
@pytest.mark.parametrize("changes", [{}, {"graph": False}, {"accumulate": 2}])
def test_a_device_gets_the_batch_of_every_update_and_nothing_else(sets, changes, caplog):
    with standin.kernels(), imitated_cublas():
        stored, here = (trained(Pixels("cuda").source(d, Augment(flip=True)), "cuda", **changes) for d in sets[1::-1])
    assert stored == here and caplog.messages == []


@pytest.mark.skipif(REAL or standin.raw.compiler() is None, reason="the stand-in, and g++ to run kernels on the CPU")
def test_latents_on_disk_are_copied_to_a_device_by_the_batch(sets):
    model = awake(replace(DIT, input_size=2, patch_size=1, in_channels=2), device="cuda")
    found = []
    with standin.kernels(), imitated_cublas():
        for d, cache in ((sets[1], sets[2]), (sets[0], None)):
            source = Latent(Autoencoder(SMALL, Philox(1), device="cuda")).source(d, Augment(flip=True), cache)
            assert isinstance(source.mean, np.memmap) == (cache is not None)
            loop = loop_for(awake(model.config, device="cuda"), source, PROCESS, CONFIG)
            found.append([float(host(r["loss"])) for r in loop.run()])
    assert found[0] == found[1]


# ------------------------------------------------------------------------------------------------ latents


@pytest.fixture
def several_blocks(monkeypatch):
    monkeypatch.setattr(forward, "CHUNK", 4)
    monkeypatch.setattr("minidit.processes.sets.BLOCK", 8)


@pytest.mark.parametrize("flip", [False, True])
def test_latents_from_the_disk_are_those_from_memory(sets, several_blocks, flip):
    one, other = Autoencoder(SMALL, Philox(1)), Autoencoder(SMALL, Philox(1))
    here, there = latents_of(one, sets[0], flip=flip), latents_of(other, sets[1], flip=flip, cache=sets[2])
    assert isinstance(there.mean, np.memmap) and not there.mean.flags.writeable and there.scale == here.scale
    assert one.scale == other.scale and there.mean.tobytes() == here.mean.tobytes() and there.std.tobytes() == here.std.tobytes()
    for update in range(6):
        index = draws(update=update).pictures(33)
        (z, y), (z_0, labels) = (source.draw(index, draws(update=update)) for source in (there, here))
        assert z.tobytes() == z_0.tobytes() and np.array_equal(y, labels) and type(z) is np.ndarray


def test_latents_are_encoded_once_and_again_where_the_autoencoder_differs(sets, several_blocks, monkeypatch):
    def never(*_, **__):
        raise AssertionError("a picture was encoded")

    first = latents_of(Autoencoder(SMALL, Philox(2)), sets[1], cache=sets[2])
    model = Autoencoder(SMALL, Philox(2))
    model.scale[...] = 3  # a measured number, no weight
    with monkeypatch.context() as patch:
        patch.setattr(latents_module, "_posterior", never)
        again = latents_of(model, sets[1], cache=sets[2])
        assert again.mean.filename == first.mean.filename and float(model.scale) == np.float32(first.scale)
        for other in (sets[1].take(slice(9)), sets[1].take(np.arange(33)[::-1])):  # other pictures, another order
            with pytest.raises(AssertionError, match="was encoded"):
                latents_of(model, other, cache=sets[2])
        next(iter(model.parameters())).data.flat[0] += 1e-6
        with pytest.raises(AssertionError, match="was encoded"):
            latents_of(model, sets[1], cache=sets[2])


def test_latents_of_a_small_part_of_a_stored_set_stay_in_memory(sets):
    cache = Cache(sets[2].folder, least=sets[1].images.nbytes)
    assert not isinstance(latents_of(Autoencoder(SMALL, Philox(3)), sets[1], cache=cache).mean, np.memmap)
    held = latents_of(Autoencoder(SMALL, Philox(3)), sets[1], scale=0.5, cache=sets[2])
    assert held.scale == 0.5 and isinstance(held.mean, np.memmap)  # compared on, and nothing is measured


def test_a_mirrored_sample_is_a_sample_of_the_mirrored_picture_s_posterior(sets):
    model, here = Autoencoder(SMALL, Philox(1)), sets[0]
    source = Latent(model).source(here, Augment(flip=True, crop=2))
    mean, std = posterior_of(model, np.ascontiguousarray(here.x_0()[..., ::-1]))
    mirrored = Latents(mean, std, source.scale, here.labels)
    plain = Latents(source.mean, source.std, source.scale, here.labels)
    index, d = draws(update=3).pictures(33), draws(update=3)
    z, _ = source.draw(index, d)
    chosen = flips(draws(update=3))
    assert 0 < chosen.sum() < len(chosen)
    for which, other in ((chosen, mirrored), (~chosen, plain)):
        assert np.array_equal(z[which], other.draw(index, draws(update=3))[0][which])


def test_pictures_are_encoded_in_the_same_passes_on_any_number_of_cores(sets, monkeypatch):
    model, x, found = Autoencoder(SMALL, Philox(1)), sets[0].x_0(), []
    monkeypatch.setattr(forward, "CHUNK", 4)
    for cores in (1, 2, 3):
        monkeypatch.setattr("minidit.training.workers.cores", lambda cores=cores: cores)
        parts = []

        def noted(model, n, shapes, run, parts=parts, **options):
            return forward.forward(model, n, shapes, lambda part: parts.append((part.start, part.stop)) or run(part), **options)

        monkeypatch.setattr(latents_module, "forward", noted)
        with monkeypatch.context() as patch:
            patch.setattr("minidit.training.workers.kind_of_workers", lambda shards, device: "serial")
            posterior_of(model, x)
        found.append(sorted(parts))
    assert found[0] == found[1] == found[2] == [(k, k + 3) for k in range(0, 33, 3)]  # sixteen passes or fewer


# ------------------------------------------------------------------------------------------------ memory

BIG = """
import resource, sys
from pathlib import Path
import numpy as np
from minidit.data.cache import Cache
from minidit.processes.tokenizer import Pixels
from minidit.runs.fitting import parts_of
from minidit.runs.presets import DataConfig
from minidit.training.augment import Augment
from minidit.training.draws import Draws

path, cache = Path(sys.argv[1]), Cache(Path(sys.argv[2])) if len(sys.argv) > 2 else None
kilobytes = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData"))
limit = kilobytes * 1024 + (100 << 20)  # of private memory; file-backed maps do not count
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
if cache:
    cache = Cache(cache.folder, least=100 << 20)
parts = parts_of(DataConfig(source=str(path), size=256), cache)
source = Pixels().source(parts.train, Augment(True, 4))
total = 0.0
for update in range(len(source) // 16):
    draws = Draws(0, 1, np.arange(16), per=8, when=update, batch_size=16)
    total += float(source.draw(draws.pictures(len(source)), draws)[0].sum())
print(parts.train.images.nbytes + parts.held_out.images.nbytes, total)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs the limit RLIMIT_DATA of Linux")
def test_memory_does_not_grow_with_the_set(tmp_path):
    """640 pictures are 126 MB of bytes. A process with 100 MB reads an epoch of them, and fails without the cache."""
    rng = np.random.default_rng(0)
    for k in range(16):
        Image.fromarray(rng.integers(0, 256, (256, 256, 3), np.uint8)).save(tmp_path / f"{k}.bmp")
    source = tmp_path / "pictures"
    for k in range(640):
        source.mkdir(exist_ok=True)
        os.link(tmp_path / f"{k % 16}.bmp", source / f"{k:04d}.bmp")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}

    def run(*words):
        command = [sys.executable, "-c", textwrap.dedent(BIG), str(source), *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)

    without = run()
    assert without.returncode and "MemoryError" in without.stderr
    first, second = (run(str(tmp_path / "cache")) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stdout == second.stdout and int(first.stdout.split()[0]) == 640 * 3 * 256**2
