"""Is a GPU right? Every primitive, the streams, a training run and samples there, held against NumPy. An engine of `gpu.py`.

A number of the GPU may be as far from the plain text in float64 as NumPy's own float32 is, times a small factor, and a few
rounding units of the largest number; in bfloat16, of its rounding unit. Where that is not the measure, the check says what is.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import minidit as md
from benchmarks.imitation import TESTS, imitated_gpu
from benchmarks.minidit_engine import CAPTURE, MiniditEngine, capturable
from benchmarks.serve import serve
from minidit.autograd import PRIMITIVES, NoTwin
from minidit.backend import bytes_held, module_of, to_device, to_host
from minidit.kernels import cublaslt, cuda_blas, cudnn_attention
from minidit.kernels.cuda_laws import Philox
from minidit.models.dit import DiTConfig
from minidit.nn.precision import check_precision, computing_in
from minidit.recipes.train import TrainConfig, loop_for
from minidit.training.launches import launches_of

Row = dict[str, Any]
U64, U, B16 = 2.0**-53, 2.0**-24, 2.0**-8  # rounding units of the three types
DRAWS = 12  # drawn cases of a primitive
PATIENCE = 30.0, 4.0  # seconds, and in a rehearsal, after which a primitive begins no case more: most of them is compilation
MODEL = DiTConfig(input_size=8, hidden_size=128, depth=4, num_heads=4, num_classes=10, learn_sigma=False)
SMALL = replace(MODEL, hidden_size=24, num_heads=3, depth=2, input_size=4)  # of a rehearsal
TRAIN = TrainConfig(steps=20, batch_size=32, lr=1e-3, clip=1.0, eps=1e-6, weight_decay=0.01)


def shaped(small: bool) -> dict[str, list[tuple[tuple[Any, ...], Row]]]:
    """Arguments as DiT-S/2 and XL/2 have them, and odd ones, for the primitives with a twin."""
    r = np.random.default_rng(0)
    f = lambda *shape: r.standard_normal(shape, np.float32)
    found: dict[str, list[tuple[tuple[Any, ...], Row]]] = {}
    for B, N, h, K in ((2, 5, 2, 12),) if small else ((4, 256, 6, 64), (2, 256, 16, 72), (3, 77, 3, 33), (1, 1, 1, 128)):
        D = h * K
        both = f(B, 2 * D)
        weight, wide, bias = f(3 * D, D) * D**-0.5, f(4 * D, D) * D**-0.5, f(4 * D)
        for name, args, static in (
            ("linear", (f(B, N, D), weight, f(3 * D)), {}),
            ("linear", (f(B, D), wide), {}),
            ("linear_gelu", (f(B, N, D), wide, bias), {}),
            ("layer_norm", (f(B, N, D), f(D), f(D)), {}),
            ("layer_norm_modulate", (f(B, N, D), both[:, :D], both[:, D:]), {}),
            ("gated_residual", (f(B, N, D), both[:, D:], f(B, N, D)), {}),
            ("self_attention", (f(B, N, 3 * D),), {"heads": h}),
            ("softmax", (3 * f(B, h, N, N),), {}),
            ("projected_attention", (f(B, N, D), weight, f(3 * D)), {"heads": h}),
            ("linear_residual", (f(B, N, D), both[:, D:], f(B, N, 4 * D), wide.T.copy() / 2, f(D)), {}),
            ("linear_residual_modulate", (f(B, N, D), both[:, D:], f(B, N, D), weight[:D], f(D), both[:, :D], f(B, D)), {}),
            ("silu", (4 * f(B, D),), {}),
            ("embedding", (f(11, D),), {"index": r.integers(0, 11, 4 * B)}),
        ):
            found.setdefault(name, []).append((args, static))
    return found


def drawn(name: str, n: int) -> list[tuple[tuple[Any, ...], Row]]:
    """Cases of the tests' own strategy for a primitive. Raises ImportError without hypothesis."""
    sys.path.insert(0, str(TESTS))
    from hypothesis import HealthCheck, Phase, given, settings

    strategy = importlib.import_module("ops.cases").CASES[name]
    cases: list[tuple[tuple[Any, ...], Row]] = []
    quiet = {"database": None, "deadline": None, "derandomize": True, "phases": [Phase.generate]}

    @settings(max_examples=n, suppress_health_check=list(HealthCheck), **quiet)
    @given(strategy)
    def take(case: Any) -> None:
        cases.append(case)

    take()
    return cases


def cast(x: Any, dtype: Any) -> Any:
    return np.asarray(x, dtype) if isinstance(x, np.ndarray) and x.dtype.kind in "fV" else x


def results(pair: Callable[..., Any], args: Any, static: Row, bars: Any, move: Callable[[Any], Any] = lambda x: x) -> list[Any]:
    """Values, then the bars of the arguments, on the host in float64; None where there is no gradient."""
    y, vjp = pair(*map(move, args), **{k: move(v) for k, v in static.items()})
    ys = y if isinstance(y, tuple) else (y,)
    theirs = [b() if callable(b) else b for a, b in zip(args, vjp(*map(move, bars)), strict=False) if isinstance(a, np.ndarray)]
    return [None if a is None else np.asarray(to_host(a)).astype(np.float64) for a in (*ys, *theirs)]


@contextlib.contextmanager
def reasons() -> Iterator[list[str]]:
    """`with reasons() as why:` what the package says inside of that which it could not capture."""
    why: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: why.append(record.getMessage())  # type: ignore[method-assign]
    with contextlib.suppress(ImportError):  # said once a process: forget what was said
        importlib.import_module("minidit.kernels.cuda_graph").explain.cache_clear()
    logging.getLogger("minidit").addHandler(handler)
    try:
        yield why
    finally:
        logging.getLogger("minidit").removeHandler(handler)


@contextlib.contextmanager
def wishing(name: str, value: str) -> Iterator[None]:
    """`with wishing("MINIDIT_CUDNN", "auto"):` the environment inside."""
    before = os.environ.get(name, "off")
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ[name] = before


class Checks(MiniditEngine):
    """`check(name)` -> {"worst", "bound", "ok", …}; worst is the largest error as a part of what is allowed: ok below 1."""

    def __init__(self, device: str, small: bool) -> None:
        super().__init__(None, device, eager=True)
        self.small = small
        self.shaped = shaped(small)

    def names(self) -> list[str]:
        """The most wanted first."""
        own = [n for n, p in PRIMITIVES.items() if p.__module__.startswith("minidit")]
        runs = ["losses", "losses in tf32", "losses in bf16", "captured step", "samples", "captured sampling", "recompute"]
        twins = [n for n in own if PRIMITIVES[n].cuda is not None]
        more = ["attention by cuDNN", "epilogues", "memory", "launches", "exchange"]
        return ["integers", *runs, *twins, *more, *(n for n in own if n not in twins)]

    def check(self, name: str) -> Row:
        if name in PRIMITIVES:
            return self.primitive(name)
        return getattr(self, name.replace(" ", "_"))()  # type: ignore[no-any-return]

    def move(self, x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(map(self.move, x))
        return to_device(x, self.device) if isinstance(x, np.ndarray) else x

    # -------------------------------------------------------------------------------------- primitives

    def primitive(self, name: str) -> Row:
        p, worst, told, n, twins, until = PRIMITIVES[name], 0.0, "", 0, 0, time.monotonic() + PATIENCE[self.small]
        kinds: list[tuple[str, Any]] = [("float64", np.float64), ("float32", np.float32)]
        with contextlib.suppress(NoTwin):
            kinds.append(("bfloat16", cuda_blas.bfloat16()))
        cases = [*self.shaped.get(name, []), *drawn(name, 3 if self.small else DRAWS)]
        for (args, static), (kind, dtype) in itertools.product(cases, kinds):
            if time.monotonic() > until:
                break
            if kind == "bfloat16" and (p.cuda is None or max(np.size(a) for a in args) < 64):
                continue  # bfloat16 is the twins' only, and in a handful of numbers its rounding says nothing
            error, served = self.compared(p, [cast(a, dtype) for a in args], static, kind)
            n, twins = n + 1, twins + served
            if error > worst or not math.isfinite(error):
                worst, told = error, f"{kind} {[np.shape(a) for a in args]} {static if 'index' not in static else ''}"
            if not math.isfinite(error):
                break
        return {"worst": worst, "cases": n, "by the twin": twins, "where": told, "ok": worst <= 1}

    def compared(self, p: Any, args: list[Any], static: Row, kind: str) -> tuple[float, int]:
        """(error over what is allowed, 1 if a twin served)"""
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
            found, served = results(p.cuda, args, static, bars, self.move), 1
        except NoTwin:
            if kind == "bfloat16":
                return 0.0, 0
            found = results(p.plain, args, static, bars, self.move)
        rounded = results(p.plain, args, static, bars) if kind == "float32" else true
        (few, least), worst = {"float64": (512 * U64, 0.1), "float32": (64 * U, 1e-6), "bfloat16": (12 * B16, 0.1)}[kind], 0.0
        for f, t, n in zip(found, true, rounded, strict=False):
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
        """Whether its frontend is there, agrees with our kernels (that is asked before it is used), and is faster."""
        if not cudnn_attention.installed():
            return {"absent": "pip install nvidia-cudnn-frontend", "ok": True}
        r, shapes = np.random.default_rng(0), ((64, 256, 6, 64), (64, 256, 16, 72), (2, 77, 3, 64))
        shapes = ((2, 5, 2, 8),) if self.small else shapes
        with wishing("MINIDIT_CUDNN", "auto"):
            for B, N, h, K in shapes:
                qkv = to_device(r.standard_normal((B, N, 3 * h * K), np.float32), self.device).astype(cuda_blas.bfloat16())
                _, vjp = PRIMITIVES["self_attention"].cuda(qkv, heads=h)  # type: ignore[misc]
                vjp(qkv[..., : h * K])
        told = cudnn_attention.choices()
        return {"taken": told, "ok": len(told) >= len(shapes) and all("ms" in line for line in told.values())}

    def epilogues(self) -> Row:
        """A linear layer and its gradients in tf32, by the epilogues of cublasLt, which are off otherwise, and without."""
        r, found, there = np.random.default_rng(0), [], False
        x, weight, bias, bar = (self.move(r.standard_normal(s, np.float32)) for s in ((48, 64), (96, 64), (96,), (48, 96)))
        for wish in ("off", "on"):
            with wishing("MINIDIT_CUBLASLT", wish), computing_in("tf32", self.device):
                y, vjp = PRIMITIVES["linear"].cuda(x, weight, bias)  # type: ignore[misc]
                _, weight_bar, bias_bar = vjp(bar)
                there = cublaslt.handle() is not None
            found.append([to_host(a) for a in (y, weight_bar, bias_bar)])
        worst = max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(*found, strict=True)) / 2.0**-10
        return {"worst": worst, **({} if there else {"absent": "cublasLt does not load"}), "ok": worst <= 1}

    # -------------------------------------------------------------------------------------- the same seed on both homes

    def integers(self) -> Row:
        """The same integers and uniforms, bit for bit; normals within a rounding unit."""
        shape, same, worst = (5, 1025), True, 0.0
        for seed, stream in ((0, 0), (2**63 + 1, 7)):
            here, there = md.Philox(seed, stream), Philox(seed, stream)
            for low, high in ((0, 10), (-5, 2**31), (1, 1001)):
                n = there.integers(low, high, shape, None, self.device)
                same &= np.array_equal(here.integers(low, high, shape), to_host(n))
            same &= np.array_equal(here.uniform(shape), to_host(there.uniform(shape, None, self.device)))
            z, other = here.normal(shape), to_host(there.normal(shape, None, self.device))
            worst = max(worst, float(np.abs(z - other).max()) / 1e-6)
        return {"worst": worst if same else math.inf, "equal": same, "ok": same and worst <= 1}

    def config(self, **changes: Any) -> TrainConfig:
        small = {"steps": 3, "batch_size": 4} if self.small else {}
        return replace(TRAIN, **(small | changes))

    def trained(self, device: str, **changes: Any) -> tuple[list[float], md.DiT, Any]:
        """(losses, the model, the loop) of a short run from one seed; 20 steps."""
        config = SMALL if self.small else MODEL
        model = md.DiT(config, md.Philox(3), device=device)
        noise = 0.05 * md.Philox(4).normal((model.layout.size,))  # adaLN-Zero starts with most gradients at zero
        model.flat += to_device(noise, device)
        x_0 = md.Philox(5).normal((256, config.in_channels, *config.size))
        loop = loop_for(model, (x_0, np.arange(256) % config.num_classes), self.config(**changes))
        return [float(record["loss"]) for record in loop.run()], model, loop

    def far(self, bound: float, **changes: Any) -> Row:
        here, there = self.trained("cpu", shards=1)[0], self.trained(self.device, **changes)[0]
        worst = max(abs(a / b - 1) for a, b in zip(there, here, strict=True))
        return {"worst": worst / bound, "relative": worst, "steps": len(here), "last": there[-1], "ok": worst <= bound}

    def losses(self) -> Row:
        return self.far(1e-4)

    def losses_in_tf32(self) -> Row:
        check_precision("tf32", self.device)
        return self.far(1e-2, precision="tf32")

    def losses_in_bf16(self) -> Row:
        check_precision("bf16", self.device)
        return self.far(5e-2, precision="bf16")

    def samples(self) -> Row:
        """Guided samples of the weights that NumPy trained: at least 40 dB of each other."""
        _, model, _ = self.trained("cpu", shards=1)
        other = md.DiT(model.config, device=self.device)
        other.load_state_dict(model.state_dict())
        how = {"steps": 5 if self.small else 50, "guidance": 2.0, "seed": 1, "shards": 1}
        sch, labels = md.Schedule.linear(), np.arange(4 if self.small else 16) % model.config.num_classes
        a, b = (to_host(md.sample(m, sch, labels, **how)).astype(np.float64) for m in (model, other))
        psnr = 10 * math.log10(float(np.ptp(a)) ** 2 / max(float(((a - b) ** 2).mean()), 1e-30))
        return {"worst": 40 / psnr, "dB": psnr, "ok": psnr >= 40}

    # -------------------------------------------------------------------------------------- the captured step, memory, exchange

    def captured_step(self) -> Row:
        """Bit for bit the losses and weights of the eager step, in every precision; and it was captured indeed."""
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
        """Bit for bit the samples of a walk that is traced, which is never captured."""
        _, model, _ = self.trained(self.device)
        sch, labels = md.Schedule.linear(), np.arange(6) % model.config.num_classes
        how = {"steps": 5 if self.small else 50, "guidance": 2.0, "seed": 1}
        *_, traced = md.sample(model, sch, labels, trace=True, **how)
        with reasons() as why:
            same = bool((md.sample(model, sch, labels, **how) == traced).all())
        return {"worst": 0.0 if same and not why else math.inf, "equal": same, "not captured": why, "ok": same and not why}

    def recompute(self) -> Row:
        """Gradient checkpointing changes no bit."""
        runs = [self.trained(self.device, steps=3, checkpoint_blocks=on) for on in (False, True)]
        same = runs[0][0] == runs[1][0] and bool((runs[0][1].flat == runs[1][1].flat).all())
        return {"worst": 0.0 if same else math.inf, "ok": same}

    def exchange(self) -> Row:
        """Memory shared with torch and JAX on the device, both ways: told by the address."""
        x = module_of(self.device).arange(6, dtype=np.float32)
        shared: Row = {}
        for name in ("torch", "jax"):
            try:
                library = importlib.import_module("torch" if name == "torch" else "jax.numpy")
                theirs = library.from_dlpack(md.Tensor(x))
                ours = md.from_dlpack(theirs)
                shared[name] = ours.data.ptr == x.data.ptr
            except Exception as error:  # not installed, or built for a CPU only: said, and no failure of ours
                shared[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return {"worst": math.inf if False in shared.values() else 0.0, **shared, "ok": False not in shared.values()}

    def memory(self) -> Row:
        """The peak of a training step beside the prediction of `minidit info --memory`: within 15 %."""
        from minidit.recipes.memory import LIBRARIES, memory_of_step

        rows, worst = {}, 0.0
        config = replace(MODEL, hidden_size=64, depth=6) if self.small else md.DIT["DiT-S/2"]
        for precision, again in itertools.product(("float32", "bf16"), (False, True)):
            changes = {"batch_size": 16, "graph": False} if self.small else {"batch_size": 64}  # the imitation records for good
            train = TrainConfig(steps=2, precision=precision, checkpoint_blocks=again, **changes)
            self.stepped(replace(config, depth=1), replace(train, batch_size=1))  # libraries, counters, tables: they stay
            self.drop()
            before = bytes_held(self.device)
            peak = self.stepped(config, train) - before
            predicted = memory_of_step(config, train, self.device).total - LIBRARIES
            rows[f"{precision}{' recomputed' if again else ''}"] = [peak / 1e9, predicted / 1e9]
            worst = max(worst, abs(predicted / peak - 1) / 0.15)
        return {"worst": worst, "GB measured and predicted": rows, "ok": worst <= 1}

    def stepped(self, config: DiTConfig, train: TrainConfig) -> float:
        """The bytes that the pools hold after two steps, the second of them a recording."""
        model = md.DiT(config, md.Philox(0), device=self.device)
        x_0 = np.zeros((train.batch_size, config.in_channels, *config.size), np.float32)
        loop = loop_for(model, (x_0, np.zeros(len(x_0), np.int64)), train)
        module_of(self.device).get_default_memory_pool().free_all_blocks()  # of drawing the weights
        steps = loop.run()  # held: a recording that is over gives its pool back
        for _ in range(train.steps):
            next(steps)
        return float(bytes_held(self.device))

    def launches(self) -> Row:
        return {"worst": 0.0, **launches_of(SMALL if self.small else MODEL, 2), "ok": True}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--standin", action="store_true")
    args = parser.parse_args()
    with imitated_gpu() if args.standin else contextlib.nullcontext():
        serve(Checks(args.device, small=args.standin))
