"""Is a GPU right? Every primitive, the random streams, a training run and samples, held against NumPy. An engine of `gpu.py`.

The tolerance of a primitive is a multiple of the error of NumPy's float32 against the plain text in float64, and a few rounding
units of the largest number. Other checks state their own tolerance.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import minidit as md
from benchmarks.gpu_cases import Row, cast, drawn_cases, model_cases, results
from benchmarks.imitation import imitated_gpu
from benchmarks.launches import counted
from benchmarks.minidit_engine import CAPTURE, MiniditEngine, capturable
from benchmarks.serve import serve
from minidit.autograd import PRIMITIVES, NoTwin
from minidit.backend import bytes_held, module_of, to_device, to_host
from minidit.kernels import cublaslt, cuda_blas, cuda_trust, cudnn_attention
from minidit.kernels.cuda_laws import DevicePhilox
from minidit.models.dit import DiTConfig
from minidit.nn.precision import check_precision, computing_in
from minidit.processes.train import loop_for
from minidit.training.launches import launches_of
from minidit.training.loop import LoopConfig

U64, U, B16 = 2.0**-53, 2.0**-24, 2.0**-8  # rounding units of the three types
DRAWS = 12  # drawn cases per primitive
PATIENCE = 30.0, 4.0  # seconds (and in a rehearsal) after which a primitive begins no more cases: most is compilation
MODEL = DiTConfig(input_size=8, hidden_size=128, depth=4, num_heads=4, num_classes=10, learn_sigma=False)
SMALL = replace(MODEL, hidden_size=24, num_heads=3, depth=2, input_size=4)  # in a rehearsal
TRAIN = LoopConfig(steps=20, batch_size=32, lr=1e-3, clip=1.0, eps=1e-6, weight_decay=0.01)
DDPM = md.Diffusion.on_ladder(md.Schedule.linear())


@contextlib.contextmanager
def reasons() -> Iterator[list[str]]:
    """`with reasons() as why:` collects the warnings in which the package says what it could not capture."""
    why: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            why.append(record.getMessage())

    handler = Collector(logging.WARNING)
    with contextlib.suppress(ImportError):  # each warning is given once per process: allow it again
        importlib.import_module("minidit.kernels.cuda_graph").explain.cache_clear()
    logging.getLogger("minidit").addHandler(handler)
    try:
        yield why
    finally:
        logging.getLogger("minidit").removeHandler(handler)


@contextlib.contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """`with environment("MINIDIT_CUDNN", "auto"):` sets a variable inside the block."""
    before = os.environ.get(name, "off")
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ[name] = before


def twin_of(name: str) -> Callable[..., Any]:
    """The CUDA twin of a primitive that has one."""
    twin = PRIMITIVES[name].cuda
    assert twin is not None
    return twin


class Checks(MiniditEngine):
    """`check(name)` -> {"worst", "ok", …}; worst is the largest error as a fraction of the tolerance: ok up to 1."""

    def __init__(self, device: str, small: bool) -> None:
        super().__init__(None, device, eager=True)
        self.small = small
        self.cases = model_cases(small)

    def names(self) -> list[str]:
        """The most important first."""
        primitives = [n for n, p in PRIMITIVES.items() if p.__module__.startswith("minidit")]
        runs = ["losses", "losses in tf32", "losses in bf16", "captured step", "samples", "captured sampling", "recompute"]
        twins = [n for n in primitives if PRIMITIVES[n].cuda is not None]
        more = ["attention by cuDNN", "epilogues", "memory", "launches", "exchange"]
        return ["integers", *runs, *twins, *more, *(n for n in primitives if n not in twins)]

    def check(self, name: str) -> Row:
        if name in PRIMITIVES:
            return self.primitive(name)
        row: Row = getattr(self, name.replace(" ", "_"))()
        return row

    def move(self, x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(map(self.move, x))
        return to_device(x, self.device) if isinstance(x, np.ndarray) else x

    # -------------------------------------------------------------------------------------- primitives

    def primitive(self, name: str) -> Row:
        p, worst, where, n, twins, until = PRIMITIVES[name], 0.0, "", 0, 0, time.monotonic() + PATIENCE[self.small]
        kinds: list[tuple[str, Any]] = [("float64", np.float64), ("float32", np.float32)]
        with contextlib.suppress(NoTwin):
            kinds.append(("bfloat16", cuda_blas.bfloat16()))
        known, cases = len(cuda_trust.refused), [*self.cases.get(name, []), *drawn_cases(name, 3 if self.small else DRAWS)]
        for (args, static), (kind, dtype) in itertools.product(cases, kinds):
            if time.monotonic() > until:
                break
            if kind == "bfloat16" and (p.cuda is None or max(np.size(a) for a in args) < 64):
                continue  # only twins have bfloat16, and its rounding needs many numbers to be judged
            error, served = self.compared(p, [cast(a, dtype) for a in args], static, kind)
            n, twins = n + 1, twins + served
            if error > worst or not math.isfinite(error):
                worst, where = error, f"{kind} {[np.shape(a) for a in args]} {static if 'index' not in static else ''}"
            if not math.isfinite(error):
                break
        refused = cuda_trust.refused[known:]  # by kernels that were asked here for the first time
        row = {"worst": worst, "cases": n, "by the twin": twins, "where": where, "refused": refused}
        return {**row, "ok": worst <= 1 and not refused}

    def compared(self, p: Any, args: list[Any], static: Row, kind: str) -> tuple[float, int]:
        """(error over tolerance, 1 if the twin served)"""
        y, _ = p.plain(*(cast(a, np.float64) for a in args), **static)
        r = np.random.default_rng(1)
        dtype = next(a.dtype for a in args if isinstance(a, np.ndarray))
        dtype = np.dtype(static["dtype"]) if p.__name__ == "cast" else dtype
        bars = [cast(r.standard_normal(np.shape(a)), dtype) for a in (y if isinstance(y, tuple) else (y,))]
        true = results(p.plain, [cast(a, np.float64) for a in args], static, [cast(b, np.float64) for b in bars])
        served = 0
        try:
            if p.cuda is None or kind == "float64":
                raise NoTwin
            values, served = results(p.cuda, args, static, bars, self.move), 1
        except NoTwin:
            if kind == "bfloat16":
                return 0.0, 0
            values = results(p.plain, args, static, bars, self.move)
        rounded = results(p.plain, args, static, bars) if kind == "float32" else true
        (few, least), worst = {"float64": (512 * U64, 0.1), "float32": (64 * U, 1e-6), "bfloat16": (12 * B16, 0.1)}[kind], 0.0
        for f, t, n in zip(values, true, rounded, strict=False):
            if (f is None) != (t is None):
                return math.inf, served
            if f is None or t is None or not t.size:
                continue
            if f.shape != t.shape:
                return math.inf, served
            allowed = 16 * float(np.abs(n - t).max()) + few * max(float(np.abs(t).max()), least)
            error = float(np.abs(f - t).max()) / allowed
            worst = max(worst, error if math.isfinite(error) else math.inf)
        return worst, served

    # -------------------------------------------------------------------------------------- libraries that are not always there

    def attention_by_cuDNN(self) -> Row:
        """Whether cuDNN's frontend is installed, agrees with our kernels (asked before it is used), and is faster."""
        if not cudnn_attention.installed():
            return {"absent": "pip install nvidia-cudnn-frontend", "ok": True}
        r, shapes = np.random.default_rng(0), ((64, 256, 6, 64), (64, 256, 16, 72), (2, 77, 3, 64))
        shapes = ((2, 5, 2, 8),) if self.small else shapes
        with environment("MINIDIT_CUDNN", "auto"):
            for B, N, h, K in shapes:
                qkv = to_device(r.standard_normal((B, N, 3 * h * K), np.float32), self.device).astype(cuda_blas.bfloat16())
                _, vjp = twin_of("self_attention")(qkv, heads=h)
                vjp(qkv[..., : h * K])
        choices = cudnn_attention.choices()
        return {"taken": choices, "ok": len(choices) >= len(shapes) and all("ms" in line for line in choices.values())}

    def epilogues(self) -> Row:
        """A linear layer and its gradients in tf32, with the epilogues of cublasLt, which are off by default, and without."""
        r, both, loaded = np.random.default_rng(0), [], False
        x, weight, bias, bar = (self.move(r.standard_normal(s, np.float32)) for s in ((48, 64), (96, 64), (96,), (48, 96)))
        for setting in ("off", "on"):
            with environment("MINIDIT_CUBLASLT", setting), computing_in("tf32", self.device):
                y, vjp = twin_of("linear")(x, weight, bias)
                _, weight_bar, bias_bar = vjp(bar)
                loaded = cublaslt.handle() is not None
            both.append([to_host(a) for a in (y, weight_bar, bias_bar)])
        worst = max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(*both, strict=True)) / 2.0**-10
        return {"worst": worst, **({} if loaded else {"absent": "cublasLt does not load"}), "ok": worst <= 1}

    # -------------------------------------------------------------------------------------- the same seed on both homes

    def integers(self) -> Row:
        """The same integers and uniforms, bit for bit; normals within a rounding unit."""
        shape, same, worst = (5, 1025), True, 0.0
        for seed, stream in ((0, 0), (2**63 + 1, 7)):
            host, device = md.Philox(seed, stream), DevicePhilox(seed, stream)
            for low, high in ((0, 10), (-5, 2**31), (1, 1001)):
                n = device.integers(low, high, shape, None, self.device)
                same &= np.array_equal(host.integers(low, high, shape), to_host(n))
            same &= np.array_equal(host.uniform(shape), to_host(device.uniform(shape, None, self.device)))
            z, other = host.normal(shape), to_host(device.normal(shape, None, self.device))
            worst = max(worst, float(np.abs(z - other).max()) / 1e-6)
        return {"worst": worst if same else math.inf, "equal": same, "ok": same and worst <= 1}

    def config(self, **changes: Any) -> LoopConfig:
        small = {"steps": 3, "batch_size": 4} if self.small else {}
        return replace(TRAIN, **(small | changes))

    def trained(self, device: str, **changes: Any) -> tuple[list[float], md.DiT, Any]:
        """(losses, the model, the loop) of a short run from one seed; 20 steps."""
        config = SMALL if self.small else MODEL
        model = md.DiT(config, md.Philox(3), device=device)
        noise = 0.05 * md.Philox(4).normal((model.layout.size,))  # adaLN-Zero starts with most gradients at zero
        model.flat += to_device(noise, device)
        x_0 = md.Philox(5).normal((256, config.in_channels, *config.size))
        loop = loop_for(model, (x_0, np.arange(256) % config.num_classes), DDPM, self.config(**changes))
        return [float(record["loss"]) for record in loop.run()], model, loop

    def compared_losses(self, bound: float, **changes: Any) -> Row:
        host, device = self.trained("cpu", shards=1)[0], self.trained(self.device, **changes)[0]
        worst = max(abs(a / b - 1) for a, b in zip(device, host, strict=True))
        return {"worst": worst / bound, "relative": worst, "steps": len(host), "last": device[-1], "ok": worst <= bound}

    def losses(self) -> Row:
        return self.compared_losses(1e-4)

    def losses_in_tf32(self) -> Row:
        check_precision("tf32", self.device)
        return self.compared_losses(1e-2, precision="tf32")

    def losses_in_bf16(self) -> Row:
        check_precision("bf16", self.device)
        return self.compared_losses(5e-2, precision="bf16")

    def samples(self) -> Row:
        """Guided samples of the weights that NumPy trained: at least 40 dB of each other."""
        _, model, _ = self.trained("cpu", shards=1)
        other = md.DiT(model.config, device=self.device)
        other.load_state_dict(model.state_dict())
        settings = {"steps": 5 if self.small else 50, "guidance": 2.0, "seed": 1, "shards": 1}
        sch, labels = md.Schedule.linear(), np.arange(4 if self.small else 16) % model.config.num_classes
        a, b = (to_host(md.sample(m, sch, labels, **settings)).astype(np.float64) for m in (model, other))
        psnr = 10 * math.log10(float(np.ptp(a)) ** 2 / max(float(((a - b) ** 2).mean()), 1e-30))
        return {"worst": 40 / psnr, "dB": psnr, "ok": psnr >= 40}

    # -------------------------------------------------------------------------------------- the captured step, memory, exchange

    def captured_step(self) -> Row:
        """The losses and weights of the eager step, bit for bit, in every precision; and the step was really captured."""
        if not capturable():
            return {"missing": f"LoopConfig has no field {CAPTURE!r}: this build has no captured step", "ok": False}
        same = {}
        with reasons() as why:
            for precision in ("float32", "tf32", "bf16"):
                runs = [self.trained(self.device, precision=precision, **{CAPTURE: on}) for on in (False, True)]
                (a, m, _), (b, n, _) = runs
                same[precision] = a == b and bool((m.flat == n.flat).all())
        good = all(same.values()) and not why
        return {"worst": 0.0 if good else math.inf, "equal": same, "not captured": why, "ok": good}

    def captured_sampling(self) -> Row:
        """The samples of a traced walk, which is never captured, bit for bit."""
        _, model, _ = self.trained(self.device)
        sch, labels = md.Schedule.linear(), np.arange(6) % model.config.num_classes
        settings = {"steps": 5 if self.small else 50, "guidance": 2.0, "seed": 1}
        *_, traced = md.sample(model, sch, labels, trace=True, **settings)
        with reasons() as why:
            same = bool((md.sample(model, sch, labels, **settings) == traced).all())
        return {"worst": 0.0 if same and not why else math.inf, "equal": same, "not captured": why, "ok": same and not why}

    def recompute(self) -> Row:
        """Gradient checkpointing changes no bit."""
        runs = [self.trained(self.device, steps=3, checkpoint_blocks=on) for on in (False, True)]
        same = runs[0][0] == runs[1][0] and bool((runs[0][1].flat == runs[1][1].flat).all())
        return {"worst": 0.0 if same else math.inf, "ok": same}

    def exchange(self) -> Row:
        """Memory shared with torch and JAX on the device, both ways: the addresses are equal."""
        x = module_of(self.device).arange(6, dtype=np.float32)
        shared: Row = {}
        for name in ("torch", "jax"):
            try:
                library = importlib.import_module("torch" if name == "torch" else "jax.numpy")
                theirs = library.from_dlpack(md.Tensor(x))
                ours = md.from_dlpack(theirs)
                shared[name] = ours.data.ptr == x.data.ptr
            except Exception as error:  # not installed, or built for a CPU only: reported, not a failure
                shared[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return {"worst": math.inf if False in shared.values() else 0.0, **shared, "ok": False not in shared.values()}

    def memory(self) -> Row:
        """The peak of a training step beside the prediction of `minidit info --memory`: within 15 %."""
        from minidit.training.memory import LIBRARIES, memory_of_step

        rows, worst = {}, 0.0
        config = replace(MODEL, hidden_size=64, depth=6) if self.small else md.DIT["DiT-S/2"]
        for precision, again in itertools.product(("float32", "bf16"), (False, True)):
            # the stand-in never frees the memory of a recording
            changes = {"batch_size": 16, "graph": False} if self.small else {"batch_size": 64}
            train = LoopConfig(steps=2, precision=precision, checkpoint_blocks=again, **changes)
            self.stepped(replace(config, depth=1), replace(train, batch_size=1))  # libraries, counters, tables: loaded once
            self.drop()
            before = bytes_held(self.device)
            peak = self.stepped(config, train) - before
            predicted = memory_of_step(config, train, self.device).total - LIBRARIES
            rows[f"{precision}{' recomputed' if again else ''}"] = [peak / 1e9, predicted / 1e9]
            worst = max(worst, abs(predicted / peak - 1) / 0.15)
        return {"worst": worst, "GB measured and predicted": rows, "ok": worst <= 1}

    def stepped(self, config: DiTConfig, train: LoopConfig) -> float:
        """The bytes that the pools hold after two steps, the second of them a recording."""
        model = md.DiT(config, md.Philox(0), device=self.device)
        x_0 = np.zeros((train.batch_size, config.in_channels, *config.size), np.float32)
        loop = loop_for(model, (x_0, np.zeros(len(x_0), np.int64)), DDPM, train)
        module_of(self.device).get_default_memory_pool().free_all_blocks()  # what drawing the weights took
        steps = loop.run()  # kept in a variable: a recording that ends gives its pool back
        for _ in range(train.steps):
            next(steps)
        return float(bytes_held(self.device))

    def launches(self) -> Row:
        return {"worst": 0.0, **launches_of(SMALL if self.small else MODEL, 2, counted if self.small else None), "ok": True}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--standin", action="store_true")
    args = parser.parse_args()
    with imitated_gpu() if args.standin else contextlib.nullcontext():
        serve(Checks(args.device, small=args.standin))
