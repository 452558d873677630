"""The weights and inputs of every engine, and the float64 answer that each is held against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import minidit as md
from benchmarks.sizes import GUIDANCE, S, Size, T
from minidit import ops
from minidit.autograd import plain_text
from minidit.models.dit import DiTConfig
from minidit.processes.sample import Sampling
from minidit.processes.walk import Walk
from minidit.training.draws import Draws


def config_of(size: Size) -> DiTConfig:
    return DiTConfig(
        input_size=size.input_size,
        patch_size=size.patch,
        in_channels=size.channels,
        hidden_size=size.width,
        depth=size.depth,
        num_heads=size.heads,
        num_classes=size.classes,
        learn_sigma=False,
    )


def gflop(size: Size, task: str) -> float:
    """Of matrix products, two operations per multiply-accumulate. Backward counts as two forwards, guidance as two batches."""
    return 2e-9 * config_of(size).macs() * size.batch * (3 if task == "train" else 2)


def parameters(size: Size) -> int:
    return config_of(size).parameters()


def draw_weights(size: Size, seed: int = 0, *, initial: bool = True) -> dict[str, Any]:
    """Weights under official names. Those that adaLN-Zero starts at zero are drawn too: else most gradients would be zero.

    initial=False draws all weights in the same way, which takes seconds even for the largest networks.
    """
    state = md.DiT(config_of(size), md.Philox(seed) if initial else None).state_dict()
    rng = np.random.default_rng(seed)
    return {n: a if a.any() else 0.02 * rng.standard_normal(a.shape, np.float32) for n, a in state.items()}


def draw_inputs(size: Size, batch: int, seed: int = 1) -> dict[str, Any]:
    """x_t, target : (B, C, H, W);  t : (B,), the time that the network sees;  y : (B,), some of them the null label."""
    rng = np.random.default_rng(seed)
    shape = (batch, size.channels, size.input_size, size.input_size)
    x_t, target = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    y = np.where(rng.random(batch) < 0.1, size.classes, rng.integers(0, size.classes, batch))
    labels = rng.integers(0, size.classes, batch)  # of the guided step, to which guidance adds the null label
    return {"x_t": x_t, "target": target, "t": rng.integers(0, 1000, batch), "y": y, "labels": labels}


def ladder() -> dict[str, float]:
    """The numbers of the schedule for a guided step, for an engine that has no schedule."""
    sch = md.Schedule.linear()
    return {"time": float(sch.time[T]), "a_t": float(sch.alpha_bar[T]), "a_s": float(sch.alpha_bar[S]), "w": GUIDANCE}


def write(folder: Path, size: Size, *, initial: bool = True) -> None:
    """weights.npz, inputs.npz (timed) and check.npz (a smaller batch)."""
    np.savez(folder / "weights.npz", **draw_weights(size, initial=initial))
    write_inputs(folder, size)
    np.savez(folder / "check.npz", **draw_inputs(size, size.check_batch), **ladder())


def write_inputs(folder: Path, size: Size) -> None:
    np.savez(folder / "inputs.npz", **draw_inputs(size, size.batch), **ladder())


def walk_of(model: md.DiT, labels: Any) -> Walk:
    """The guided step that is timed, for pictures with these labels."""
    path, how = md.Schedule.linear(), Sampling(grid=[(T, S)], guidance=GUIDANCE)
    draws = Draws(0, 0, np.arange(len(labels)), model.device, model.dtype)  # none are made: the step is deterministic
    return Walk(how.denoiser(model, path), how.times(path), how.fresh, draws, labels)


def truth(folder: Path, size: Size) -> dict[str, Any]:
    """{"loss", "x_s", gradient of every parameter}: minidit's plain text in float64, unsharded, on the check batch."""
    data = np.load(folder / "check.npz")
    model = md.DiT(config_of(size), dtype=np.float64)
    model.load_state_dict(dict(np.load(folder / "weights.npz")))
    x_t, target = data["x_t"].astype(np.float64), data["target"].astype(np.float64)
    with plain_text():
        loss = ops.mse(model(x_t, data["t"], data["y"]), target).mean()
        loss.backward()
        with md.no_grad():
            *_, x_s = walk_of(model, data["labels"]).moments(x_t)
    return {"loss": float(loss), "x_s": x_s, **{n: p.grad for n, p in model.named_parameters()}}


def distance(value: Any, true: Any) -> float:
    """max |value - true| / max |true|"""
    return float(np.abs(np.asarray(value, np.float64) - true).max() / np.abs(true).max())


def compare(answer: dict[str, Any], true: dict[str, Any]) -> dict[str, Any]:
    """Relative errors of an engine's answer. Raises ValueError if its names differ."""
    if set(answer) != set(true):
        raise ValueError(f"the engine's gradients have other names: {sorted(set(answer) ^ set(true))[:6]}")
    errors = {n: distance(answer[n], a) for n, a in true.items() if n not in ("loss", "x_s")}
    worst = max(errors, key=lambda n: errors[n])
    return {
        "loss": abs(float(answer["loss"]) - true["loss"]) / true["loss"],
        "x_s": distance(answer["x_s"], true["x_s"]),
        "gradient": errors[worst],
        "worst": worst,
    }
