"""A scheduler of diffusers as answers to the kit's topics: its ladder, its timesteps, its walk, and one step with its variance.

Where a topic brings a table ᾱ, the table is put in as float64, so that the comparison sees the equations and not the float32 of
the tables. A step gets its noise z in place of what its module's randn_tensor would draw.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.verify.borders.torch import to_numpy, torch

Answers = dict[str, Callable[..., Any]]
Denoise = Callable[[Array, Array], Array]  # (x, t) -> ε̂
BETAS = {  # beta_schedule, beta_start, beta_end -> the topic that states it
    ("linear", 1e-4, 0.02): "linear_betas", ("scaled_linear", 8.5e-4, 0.012): "scaled_linear_betas",
    ("squaredcos_cap_v2", None, None): "cosine_betas",
}  # fmt: skip
OBJECTIVE = {"eps": "epsilon", "x_0": "sample", "v": "v_prediction"}


class Like:
    """Schedulers like an original one with other options."""

    def __init__(self, original: Any) -> None:
        self.kind, self.config = type(original), dict(original.config)

    def make(self, **options: Any) -> Any:
        known = inspect.signature(self.kind.__init__).parameters
        return self.kind(**{k: v for k, v in {**self.config, **options}.items() if k in known and k != "kwargs"})


class Schedulers(Like):
    """Those of a ladder with other options or tables, and their answers."""

    def __init__(self, original: Any, rederive: bool) -> None:
        super().__init__(original)
        self.rederive = rederive

    def on(self, alpha_bar: Array) -> Any:
        """A scheduler on this table, in float64."""
        made = self.make(num_train_timesteps=len(alpha_bar))
        made.alphas_cumprod = torch().tensor(np.asarray(alpha_bar, np.float64))
        for name in ("final_alpha_cumprod", "initial_alpha_cumprod"):
            if hasattr(made, name) and not made.config.set_alpha_to_one:
                setattr(made, name, made.alphas_cumprod[0])
        return made

    # ------------------------------------------------------------------------------------------------ what both share

    def ladder(self) -> Answers:
        """Schedules, timesteps and noising."""
        c = self.config
        ends = (None, None) if c["beta_schedule"] == "squaredcos_cap_v2" else (c["beta_start"], c["beta_end"])
        out: Answers = {"alpha_bar": lambda betas: to_numpy(self.make(trained_betas=betas).alphas_cumprod)}
        if c["rescale_betas_zero_snr"]:
            out = {"zero_snr_betas": lambda betas: to_numpy(self.make(trained_betas=betas).betas)}
        elif c["trained_betas"] is None and (topic := BETAS.get((c["beta_schedule"], *ends))):
            out[topic] = lambda T: to_numpy(self.make(num_train_timesteps=T).betas)
            if topic == "cosine_betas":
                out["cosine_alpha_bar"] = lambda T: to_numpy(self.make(num_train_timesteps=T).alphas_cumprod)
        spacing = c["timestep_spacing"]
        out["sampling_timesteps"] = self.timesteps
        if spacing == "leading":
            out["leading_timesteps"] = lambda T, N, offset: self.timesteps(T, N, steps_offset=offset)
        else:
            out[f"{spacing}_timesteps"] = self.timesteps
        if hasattr(self.kind, "add_noise"):
            out["q_sample"] = lambda x_0, eps, t, alpha_bar: self.noised("add_noise", x_0, eps, t, alpha_bar)
            out["v_from_pair"] = lambda x_0, eps, t, alpha_bar: self.noised("get_velocity", x_0, eps, t, alpha_bar)
        if c.get("thresholding"):
            out["clip_dynamic"] = self.clip_dynamic
        return out

    def timesteps(self, T: int, N: int, **options: Any) -> Array:
        made = self.make(num_train_timesteps=T, **options)
        made.set_timesteps(N)
        return to_numpy(made.timesteps)

    def noised(self, method: str, x_0: Array, eps: Array, t: Array, alpha_bar: Array) -> Array:
        t_ = torch()
        return to_numpy(getattr(self.on(alpha_bar), method)(t_.tensor(x_0), t_.tensor(eps), t_.tensor(t)))

    def clip_dynamic(self, x_0: Array, p: float, most: float) -> Array:
        made = self.make(dynamic_thresholding_ratio=p, sample_max_value=most)
        return to_numpy(made._threshold_sample(torch().tensor(x_0)))

    def output(self, x_t: Array, eps: Array, a_t: float) -> Any:
        """What a network of this prediction type says where the noise is eps."""
        x_0 = (x_t - (1 - a_t) ** 0.5 * eps) / a_t**0.5
        kind = self.config["prediction_type"]
        out = eps if kind == "epsilon" else x_0 if kind == "sample" else a_t**0.5 * eps - (1 - a_t) ** 0.5 * x_0
        return torch().tensor(out)

    @property
    def variant(self) -> str | None:
        """ "" without a limit on x̂_0, "_clipped" for [-1, 1], None for what no topic states."""
        c = self.config
        if c.get("thresholding"):
            return None
        return "" if not c["clip_sample"] else "_clipped" if c["clip_sample_range"] == 1 else None

    def along(self, denoise: Denoise, x: Array, timesteps: Array, alpha_bar: Array, z: Array, **more: Any) -> Array:
        """A walk down a list that is given to it."""
        made, t_ = self.on(alpha_bar), torch()
        made.set_timesteps(len(timesteps))
        made.timesteps, made.custom_timesteps = t_.tensor(timesteps), True
        for t, noise in zip(timesteps.tolist(), z, strict=True):
            with drawing(self.kind, noise):
                out = self.output(x, denoise(x, np.array(t)), alpha_bar[t])
                x = to_numpy(made.step(out, t, t_.tensor(x), **more).prev_sample)
        return x

    # ------------------------------------------------------------------------------------------------ DDPM

    def ddpm(self) -> Answers:
        out = self.ladder() | {"step_pairs": self.ddpm_pairs}
        kind = self.config["variance_type"]
        if self.variant == "" and kind == "fixed_small":
            out["ddpm_scheduler"] = lambda alpha_bar: WholeScheduler(self, alpha_bar)
        if self.variant == "" and kind == "fixed_large":
            out["ddpm_along"] = self.along
        table = {"fixed_small": "posterior_variance", "fixed_small_log": "posterior_log_variance"}
        table["fixed_large"] = "fixed_large_variance"
        if kind in table:
            out[table[kind]] = self.variances
        if self.variant is not None:
            names = {"fixed_small": "ddpm_step", "fixed_small_log": "ddpm_step", "fixed_large": "ddpm_step_large"}
            names |= {"fixed_large_log": "ddpm_step_large", "learned_range": "ddpm_step_learned"}
            name = names.get(kind, "") + self.variant
            if kind == "learned_range" and not self.variant:
                out[name] = self.ddpm_learned
            elif name in ("ddpm_step", "ddpm_step_large", "ddpm_step_clipped"):
                out[name] = self.ddpm_step
        return out

    def variances(self, alpha_bar: Array) -> Array:
        made, kind = self.on(alpha_bar), self.config["variance_type"]
        values = np.array([float(made._get_variance(t)) for t in range(len(alpha_bar))])
        return 2 * np.log(values) if kind == "fixed_small_log" else values  # that one hands out the standard deviation

    def ddpm_pairs(self, timesteps: Array, T: int) -> Array:
        made = self.make(num_train_timesteps=T)
        made.set_timesteps(len(timesteps))
        made.timesteps = torch().tensor(np.asarray(timesteps))
        return np.array([(int(t), max(-1, int(made.previous_timestep(int(t))))) for t in timesteps])

    def _ddpm(self, made: Any, out: Any, x_t: Array, t: int, s: int, z: Array) -> Array:
        made.timesteps, made.custom_timesteps = torch().tensor([t, s] if s >= 0 else [t]), True
        with drawing(self.kind, z):
            return to_numpy(made.step(out, t, torch().tensor(x_t)).prev_sample)

    def ddpm_step(self, x_t: Array, eps: Array, t: int, s: int, alpha_bar: Array, z: Array) -> Array:
        return self._ddpm(self.on(alpha_bar), self.output(x_t, eps, alpha_bar[t]), x_t, t, s, z)

    def ddpm_learned(self, x_t: Array, out: Any, t: int, s: int, alpha_bar: Array, z: Array, objective: str) -> Array:
        made = self.on(alpha_bar)
        made.register_to_config(prediction_type=OBJECTIVE[objective])
        return self._ddpm(made, torch().tensor(out), x_t, t, s, z)

    # ------------------------------------------------------------------------------------------------ DDIM

    def ddim(self) -> Answers:
        out = self.ladder() | {"step_pairs": self.ddim_pairs}
        if self.variant is not None:
            out[f"ddim_step{self.variant}"] = self.ddim_step
            if not self.variant:
                out["ddim_scheduler"] = lambda alpha_bar: WholeScheduler(self, alpha_bar)
                out["ddim_along"] = self.ddim_along
            if self.config["prediction_type"] == "v_prediction" and not self.variant:
                out["ddim_step_v"] = self.ddim_step_v
        if not self.variant:
            out["posterior_variance"] = self.ddim_variances
        return out

    def ddim_variances(self, alpha_bar: Array) -> Array:
        made = self.on(alpha_bar)
        return np.array([float(made._get_variance(t, t - 1)) for t in range(len(alpha_bar))])

    def ddim_pairs(self, timesteps: Array, T: int) -> Array:
        """The walk is not to be asked for: a step of a sample 1 with ε̂ = 0 gives √(ᾱ_s/ᾱ_t), which tells s."""
        made, t_ = self.make(num_train_timesteps=T, prediction_type="epsilon", clip_sample=False, thresholding=False), torch()
        made.alphas_cumprod = t_.linspace(0.99, 0.01, T, dtype=t_.float64)
        made.final_alpha_cumprod = t_.tensor(1.0, dtype=t_.float64)
        made.set_timesteps(len(timesteps))
        made.timesteps = t_.tensor(np.asarray(timesteps))
        table, out = np.append(to_numpy(made.alphas_cumprod), 1.0), []
        for t in map(int, timesteps):
            x = made.step(t_.zeros(1, 1, dtype=t_.float64), t, t_.ones(1, 1, dtype=t_.float64), eta=0.0).prev_sample
            k = int(np.argmin(abs(table - float(x) ** 2 * table[t])))
            out.append((t, k if k < T else -1))
        return np.array(out)

    def _stride(self, made: Any, t: int, s: int) -> Any:
        """DDIM goes down by T // N: a ladder of t - s and one step."""
        made.register_to_config(num_train_timesteps=t - s)
        made.num_inference_steps = 1
        return made

    def ddim_step(self, x_t: Array, eps: Array, t: int, s: int, alpha_bar: Array, eta: float, z: Array) -> Array:
        made, t_ = self._stride(self.on(alpha_bar), t, s), torch()
        out = self.output(x_t, eps, alpha_bar[t])
        more = {"eta": eta, "variance_noise": t_.tensor(z), "use_clipped_model_output": self.rederive}
        return to_numpy(made.step(out, t, t_.tensor(x_t), **more).prev_sample)

    def ddim_along(self, denoise: Denoise, x: Array, timesteps: Array, alpha_bar: Array, eta: float, z: Array) -> Array:
        return self.along(denoise, x, timesteps, alpha_bar, z, eta=eta)

    def ddim_step_v(self, x_t: Array, v: Array, t: int, s: int, alpha_bar: Array) -> Array:
        made, t_ = self._stride(self.on(alpha_bar), t, s), torch()
        return to_numpy(made.step(t_.tensor(v), t, t_.tensor(x_t), eta=0.0).prev_sample)

    def inverse(self) -> Answers:
        """Up the ladder. The scheduler is told the rung that it climbs to and the output of the network."""
        return {"ddim_invert_step": self.ddim_invert_step} if not self.config["clip_sample"] else {}

    def ddim_invert_step(self, x_s: Array, eps: Array, s: int, t: int, alpha_bar: Array) -> Array:
        made = self._stride(self.on(alpha_bar), t, s)
        made.register_to_config(num_train_timesteps=max(t - s, len(alpha_bar)))
        made.num_inference_steps = max(t - s, len(alpha_bar)) // (t - s)
        if made.config.num_train_timesteps // made.num_inference_steps != t - s:
            made.register_to_config(num_train_timesteps=t - s)
            made.num_inference_steps = 1
        return to_numpy(made.step(self.output(x_s, eps, alpha_bar[s] if s >= 0 else 1.0), t, torch().tensor(x_s)).prev_sample)


class WholeScheduler:
    """A scheduler object as the kit drives one: its own timesteps, and a step from each of them."""

    def __init__(self, made: Schedulers, alpha_bar: Array) -> None:
        self.made, self.alpha_bar, self.scheduler = made, alpha_bar, made.on(alpha_bar)

    def timesteps(self, N: int) -> Array:
        self.scheduler.set_timesteps(N)
        return to_numpy(self.scheduler.timesteps)

    def step(self, x_t: Array, eps: Array, t: int, z: Array) -> Array:
        with drawing(self.made.kind, z):
            out = self.made.output(x_t, eps, self.alpha_bar[t])
            return to_numpy(self.scheduler.step(out, t, torch().tensor(x_t)).prev_sample)


@contextlib.contextmanager
def drawing(kind: Any, z: Array) -> Iterator[None]:
    """Schedulers of this class draw z: their module's randn_tensor hands it out."""
    module: Any = importlib.import_module(kind.__module__)
    drawn = module.randn_tensor
    module.randn_tensor = lambda *args, **options: torch().tensor(z)
    try:
        yield
    finally:
        module.randn_tensor = drawn
