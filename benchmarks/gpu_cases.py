"""Arguments for every primitive, and its values and gradients on a device, for the checks of `gpu_checks.py`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.imitation import TESTS
from minidit.backend import to_host

Row = dict[str, Any]
Case = tuple[tuple[Any, ...], Row]  # arrays, static arguments


def model_cases(small: bool) -> dict[str, list[Case]]:
    """Arguments of the shapes of DiT-S/2 and XL/2, and of odd ones, for the primitives with a twin."""
    r = np.random.default_rng(0)
    f = lambda *shape: r.standard_normal(shape, np.float32)
    cases: dict[str, list[Case]] = {}
    for B, N, h, K in ((2, 5, 2, 12),) if small else ((4, 256, 6, 64), (2, 256, 16, 72), (3, 77, 3, 33), (1, 1, 1, 128)):
        D = h * K
        both = f(B, 2 * D)
        q, k, v = (f(B, h, N, K) for _ in range(3))
        causal = np.where(np.tri(N, dtype=bool), 0, -np.inf).astype(np.float32)
        weight, wide, bias = f(3 * D, D) * D**-0.5, f(4 * D, D) * D**-0.5, f(4 * D)
        for name, args, static in (
            ("linear", (f(B, N, D), weight, f(3 * D)), {}),
            ("linear", (f(B, D), wide), {}),
            ("linear_gelu", (f(B, N, D), wide, bias), {}),
            ("layer_norm", (f(B, N, D), f(D), f(D)), {}),
            ("layer_norm_modulate", (f(B, N, D), both[:, :D], both[:, D:]), {}),
            ("gated_residual", (f(B, N, D), both[:, D:], f(B, N, D)), {}),
            ("self_attention", (f(B, N, 3 * D),), {"heads": h}),
            ("attention", (q, k, v), {}),
            ("attention", (q, k, v, causal), {}),
            ("softmax", (3 * f(B, h, N, N),), {}),
            ("projected_attention", (f(B, N, D), weight, f(3 * D)), {"heads": h}),
            ("linear_residual", (f(B, N, D), both[:, D:], f(B, N, 4 * D), wide.T.copy() / 2, f(D)), {}),
            ("linear_residual_modulate", (f(B, N, D), both[:, D:], f(B, N, D), weight[:D], f(D), both[:, :D], f(B, D)), {}),
            ("mlp_residual", (f(B, N, D), both[:, D:], f(B, N, D), wide, bias, wide.T.copy() / 2, f(D)), {}),
            ("mlp_residual_modulate", (f(B, N, D), both[:, D:], f(B, N, D), wide, bias, wide.T.copy() / 2, f(D), both[:, :D],
                                       f(B, D)), {}),
            ("silu", (4 * f(B, D),), {}),
            ("embedding", (f(11, D),), {"index": r.integers(0, 11, 4 * B)}),
        ):
            cases.setdefault(name, []).append((args, static))
    return cases


def drawn_cases(name: str, n: int) -> list[Case]:
    """n cases drawn from the tests' strategy for a primitive. Raises ImportError without hypothesis."""
    sys.path.insert(0, str(TESTS))
    from hypothesis import HealthCheck, Phase, given, settings

    strategy = importlib.import_module("ops.cases").CASES[name]
    cases: list[Case] = []
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
    """The values and the gradients of the arguments, on the host in float64; None for an argument without gradient."""
    y, vjp = pair(*map(move, args), **{k: move(v) for k, v in static.items()})
    ys = y if isinstance(y, tuple) else (y,)
    theirs = [b() if callable(b) else b for a, b in zip(args, vjp(*map(move, bars)), strict=False) if isinstance(a, np.ndarray)]
    return [None if a is None else np.asarray(to_host(a)).astype(np.float64) for a in (*ys, *theirs)]
