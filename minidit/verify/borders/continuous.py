"""Schedulers of diffusers for flows, EDM and consistency models as answers to the kit's topics.

A scheduler is given the noise levels of the question in place of its own grid. Two of them compute in float32 inside, so their
answers are equal to rounding. A step gets its noise z in place of what its module's randn_tensor would draw.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from minidit.backend import Array
from minidit.verify.borders.schedulers import Answers, Like, drawing
from minidit.verify.borders.torch import to_numpy, torch

Net = Callable[[Array, Array], Array]


class Continuous(Like):
    """Those of continuous time, on levels that are given to them."""

    def on(self, *sigmas: float, **options: Any) -> Any:
        """One whose grid are these levels; its first step goes from the first to the second."""
        made, t_ = self.make(**options), torch()
        made.set_timesteps(2)
        made.sigmas = t_.tensor(np.array(sigmas, np.float64))
        made.timesteps = t_.arange(len(sigmas) - 1, 0, -1).double()
        made.set_begin_index(0)
        made.is_scale_input_called = True
        return made

    def moved(self, made: Any, output: Array, x: Array, k: int = 0, z: Array | None = None, **more: Any) -> Array:
        """Its step from the k-th level, where the network answered `output`."""
        with drawing(self.kind, z):
            return to_numpy(made.step(_tensor(output), float(made.timesteps[k]), _tensor(x), **more).prev_sample)

    # ------------------------------------------------------------------------------------------------ flows

    def flow(self) -> Answers:
        """What both schedulers of flow matching answer."""
        return {
            "straight_sample": self.straight_sample, "straight_time": lambda t: to_numpy(self.make()._sigma_to_t(_tensor(t))),
            "linear_grid": lambda n: each_once(self.grid(n, shift=1.0)),
            "shifted_grid": lambda n, a: each_once(self.grid(n, shift=a)),
        }  # fmt: skip

    def flow_euler(self) -> Answers:
        return self.flow() | {
            "users_grid": lambda times, a: self.grid(None, shift=a, sigmas=list(times[:-1])),
            "flow_euler_step": lambda x, u, t, s: self.moved(self.on(t, s), u, x), "flow_euler": self.walk,
            "shift_time": lambda t, a: to_numpy(self.make().time_shift(math.log(a), 1.0, _tensor(np.asarray(t)))),
        }  # fmt: skip

    def flow_heun(self) -> Answers:
        return self.flow() | {"flow_heun_step": self.heun, "straight_climb": self.churned}

    def straight_sample(self, x_0: Array, eps: Array, t: Array) -> Array:
        rows = []
        for k, level in enumerate(t):
            made = self.on(level, 0.0)
            at = made.timesteps if self.kind.__name__ == "FlowMatchEulerDiscreteScheduler" else made.timesteps[0]
            rows.append(to_numpy(made.scale_noise(_tensor(x_0[k : k + 1]), at, _tensor(eps[k : k + 1]))))
        return np.concatenate(rows)

    def grid(self, n: int | None, sigmas: list[float] | None = None, **options: Any) -> Array:
        made = self.make(**options)
        made.set_timesteps(n, **({} if sigmas is None else {"sigmas": sigmas}))
        return to_numpy(made.sigmas)

    def walk(self, net: Net, x: Array, N: int, a: float, own_grid: bool = True) -> Array:
        """A whole walk down its own grid, or down i/N, given to it as `sigmas`."""
        made = self.make(shift=a)
        made.set_timesteps(**({"num_inference_steps": N} if own_grid else {"sigmas": [i / N for i in range(N, 0, -1)]}))
        for k, t in enumerate(to_numpy(made.timesteps)):
            x = self.moved(made, net(x, np.array(float(t))), x, k)
        return x.astype(np.float32)  # as it computes

    def heun(self, x: Array, u_t: Array, u_s: Array, t: float, s: float) -> Array:
        made = self.on(t, s, s)
        return self.moved(made, u_s, self.moved(made, u_t, x), 1)

    def churned(self, x: Array, z: Array, s: float, t: float) -> Array:
        """Its churn from s up to t, and no step: the network answers 0."""
        return self.moved(self.on(s, 0.0), 0 * x, x, z=z, s_churn=t / s - 1)

    # ------------------------------------------------------------------------------------------------ EDM

    def edm(self) -> Answers:
        return {
            "edm_scalings": self.edm_scalings, "edm_denoised": self.edm_denoised,
            "edm_euler_step": lambda x, D, sigma, next: self.edm_step(x, D, sigma, next),
            "edm_churn": lambda x, z, sigma, raised: self.edm_step(x, x, sigma, raised, z, s_churn=raised / sigma - 1),
            "edm_grid": lambda n, low, high, rho: self.grid(n, sigma_min=low, sigma_max=high, rho=rho),
        }  # fmt: skip

    def edm_scalings(self, sigma: Array, sigma_data: float) -> tuple[Array, ...]:
        made, s = self.make(sigma_data=sigma_data), _tensor(sigma)
        one, zero = torch().ones_like(s), torch().zeros_like(s)
        read = made.precondition_outputs
        out = read(one, zero, s), read(zero, one, s), made.precondition_inputs(one, s), made.precondition_noise(s)
        return tuple(map(to_numpy, out))

    def edm_denoised(self, F: Array, x: Array, sigma: Array, sigma_data: float) -> Array:
        s = _tensor(sigma.reshape(-1, *[1] * (x.ndim - 1)))
        return to_numpy(self.make(sigma_data=sigma_data).precondition_outputs(_tensor(x), _tensor(F), s))

    def edm_step(self, x: Array, D: Array, sigma: float, next: float, z: Array | None = None, **more: Any) -> Array:
        return self.moved(self.on(sigma, next), D, x, z=z, pred_original_sample=_tensor(D), **more)

    # ------------------------------------------------------------------------------------------------ consistency models

    def consistency(self) -> Answers:
        return {
            "consistency_scalings": self.scalings, "consistency_end": self.end, "consistency_inputs": self.inputs,
            "consistency_step": self.renoised, "consistency_sample": self.calls,
            "consistency_grid": lambda N, low, high, rho: to_numpy(
                self.make(num_train_timesteps=N, sigma_min=low, sigma_max=high, rho=rho).sigmas
            ),
        }  # fmt: skip

    def scalings(self, t: Array, end: float, sigma_data: float) -> tuple[Array, Array]:
        made = self.make(sigma_min=end, sigma_data=sigma_data)
        c_skip, c_out = made.get_scalings_for_boundary_condition(_tensor(t))
        return to_numpy(c_skip), to_numpy(c_out)

    def end(self, F: Array, x: Array, t: Array, end: float, sigma_data: float) -> Array:
        """One call per sample: with a single level no noise is added."""
        options = {"sigma_min": end, "sigma_data": sigma_data}
        rows = [self.moved(self.on(level, end, **options), F[k : k + 1], x[k : k + 1]) for k, level in enumerate(t)]
        return np.concatenate(rows)

    def inputs(self, x: Array, t: Array, sigma_data: float) -> tuple[Array, Array]:
        rows = []
        for k, level in enumerate(t):
            made = self.on(level, 0.0, sigma_data=sigma_data)
            rows.append(to_numpy(made.scale_model_input(_tensor(x[k : k + 1]), made.timesteps[0])))
        return np.concatenate(rows), self.make().sigma_to_t(t)

    def renoised(self, f: Array, z: Array, s: float, end: float) -> Array:
        """A call at σ_max that answers f, and the noise for s."""
        c_out, options = self.scalings(np.array([80.0]), end, 0.5)[1], unclipped(end)
        made = self.on(80.0, s, end, **options)
        return self.moved(made, f / c_out[0], 0 * f, z=z)

    def calls(self, f: Net, x: Array, times: Array, end: float, z: Array) -> Array:
        made = self.on(*times, end, **unclipped(end))
        for k, t in enumerate(times):
            c_skip, c_out = self.scalings(np.array([t]), end, 0.5)
            x = self.moved(made, (f(x, np.array(t)) - c_skip[0] * x) / c_out[0], x, k, z[k])
        return x


def unclipped(end: float) -> dict[str, Any]:
    """Options of a consistency scheduler."""
    return {"sigma_min": end, "sigma_data": 0.5, "clip_denoised": False}


def each_once(sigmas: Array) -> Array:
    """A grid of Heun's, in which levels stand twice."""
    return sigmas[np.append(True, np.diff(sigmas) != 0)]


def _tensor(a: Array) -> Any:
    return torch().tensor(np.asarray(a, np.float64))


def time_laws() -> Answers:
    """The laws of training times in its training_utils, with draws in place of those that it would make."""
    tools, t_ = importlib.import_module("diffusers.training_utils"), torch()

    def drawn(name: str, draw: Callable[..., Any], scheme: str, **options: Any) -> Array:
        before = getattr(t_, name)
        setattr(t_, name, draw)
        try:
            return to_numpy(tools.compute_density_for_timestep_sampling(scheme, 1, **options))
        finally:
            setattr(t_, name, before)

    def normal(u: Array) -> Callable[..., Any]:
        return lambda mean, std, **options: t_.tensor(mean + std * special.ndtri(u))

    def denoised_flow_loss(x_0_hat: Array, x_0: Array, t: Array) -> Array:
        weight = to_numpy(tools.compute_loss_weighting_for_sd3("sigma_sqrt", sigmas=t_.tensor(t)))
        return np.asarray(weight * ((x_0_hat - x_0) ** 2).mean(axis=(1, 2)), weight.dtype)

    return {
        "denoised_flow_loss": denoised_flow_loss,
        "logit_normal_times": lambda u, mean, std: drawn("normal", normal(u), "logit_normal", logit_mean=mean, logit_std=std),
        "mode_times": lambda u, scale: drawn("rand", lambda **options: t_.tensor(u), "mode", mode_scale=scale),
        "logit_normal_weight": lambda t, mean, std: to_numpy(
            tools.compute_loss_weighting_for_sd3("logit_normal", sigmas=t_.tensor(t))
        ),
    }  # fmt: skip
