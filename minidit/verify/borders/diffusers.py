"""diffusers at the border: its schedulers, in any of their options, as answers to the kit's topics.

    print(md.verify.check(md.verify.diffusers.scheduler(DDIMScheduler(clip_sample=False))))

A scheduler answers the topics that its options speak of: the ladder of its beta_schedule, the timesteps of its spacing, the walk
through a list, noising, and a step with its variance, clipping and prediction type. Where a topic brings a table ᾱ, the table is
put in as float64, so that the comparison sees the equations and not the float32 of the tables.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minidit.verify.borders.torch import config_of, to_numpy, torch

Answers = dict[str, Callable[..., Any]]
BETAS = {  # beta_schedule, beta_start, beta_end -> the topic that states it
    ("linear", 1e-4, 0.02): "linear_betas", ("scaled_linear", 8.5e-4, 0.012): "scaled_linear_betas",
    ("squaredcos_cap_v2", None, None): "cosine_betas",
}  # fmt: skip
OBJECTIVE = {"eps": "epsilon", "x_0": "sample", "v": "v_prediction"}


def diffusers() -> Any:
    """The package, silenced; ValueError that says how to get it."""
    torch()
    try:
        found = importlib.import_module("diffusers")
        found.utils.logging.set_verbosity_error()
        return found
    except ImportError as error:
        raise ValueError("diffusers is not installed (pip install 'minidit[peers]')") from error


def version() -> str:
    """diffusers with its version, as reports name it."""
    return f"diffusers {diffusers().__version__}"


def scheduler(given: Any, *, use_clipped_model_output: bool = False) -> Answers:
    """The topics that a DDPMScheduler, DDIMScheduler or DDIMInverseScheduler answers with these options."""
    made = _Made(given, use_clipped_model_output)
    kinds = {"DDPMScheduler": made.ddpm, "DDIMScheduler": made.ddim, "DDIMInverseScheduler": made.inverse}
    name = type(given).__name__
    if name not in kinds:
        raise ValueError(f"{name} is not one of {', '.join(kinds)}")
    return kinds[name]()


def named(words: list[str]) -> Answers:
    """A scheduler from words: DDIMScheduler timestep_spacing=trailing clip_sample=false. Raises ValueError for what it lacks."""
    name, *pairs = words
    kind = getattr(diffusers(), name, None)
    if not (inspect.isclass(kind) and hasattr(kind, "set_timesteps")):
        raise ValueError(f"diffusers has no scheduler {name!r}")
    known = {k for k in inspect.signature(kind.__init__).parameters if k not in ("self", "kwargs")}
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise ValueError(f"{name} has no option {pair!r}" + (f", did you mean {near[0]}=…?" if near else ""))
        try:
            options[key] = json.loads(text)
        except ValueError:  # a word
            options[key] = text
    return scheduler(kind(**options))


def target() -> Answers:
    """Everything that the installed version can be asked: both schedulers with the options that the topics speak of, and DiT."""
    d = diffusers()
    out: Answers = {}
    for kind in (d.DDPMScheduler, d.DDIMScheduler):
        out |= scheduler(kind(clip_sample=True))  # the defaults, and what clips
        for options in (
            {"beta_schedule": "scaled_linear", "beta_start": 8.5e-4, "beta_end": 0.012}, {"beta_schedule": "squaredcos_cap_v2"},
            {"timestep_spacing": "linspace"}, {"timestep_spacing": "trailing"}, {"rescale_betas_zero_snr": True},
            {"thresholding": True}, {"prediction_type": "v_prediction"}, {},
        ):  # fmt: skip
            out = scheduler(kind(**{"clip_sample": False, **options})) | out
    for variance in ("fixed_large", "fixed_small_log", "learned_range"):
        out = scheduler(d.DDPMScheduler(variance_type=variance, clip_sample=False)) | out
    return out | scheduler(d.DDIMInverseScheduler(clip_sample=False)) | transformer()


# ------------------------------------------------------------------------------------------------ DiT


def transformer() -> Answers:
    """DiTTransformer2DModel: official weights by its names, its tables of time and place in float64.

    It takes the side of the grid for the root of the number of tokens (M99), so it is asked on square grids only.
    """
    t_ = torch()

    def dit(weights: Any, x: Any, t: Any, y: Any, heads: int, patch_size: int) -> Any:
        config = config_of(weights, x.shape[2:], heads, patch_size)
        size = config["input_size"]
        model = diffusers().DiTTransformer2DModel(
            num_attention_heads=heads, attention_head_dim=config["hidden_size"] // heads, in_channels=config["in_channels"],
            out_channels=weights["final_layer.linear.bias"].size // patch_size**2, num_layers=config["depth"],
            sample_size=size if isinstance(size, int) else max(size), patch_size=patch_size,
            num_embeds_ada_norm=config["num_classes"], activation_fn="gelu-approximate",
        )  # fmt: skip
        model = model.to(t_.float64).eval()
        model.load_state_dict({n: t_.tensor(np.array(a)) for n, a in named_by_diffusers(weights).items()})
        for part in model.transformer_blocks:
            part.norm1.emb.time_proj = _in_float64(part.norm1.emb.time_proj)
        _place_in_float64(model.pos_embed, x.shape[2] // patch_size, x.shape[3] // patch_size)
        with t_.no_grad():
            return to_numpy(model(t_.tensor(x), t_.tensor(t), t_.tensor(y), return_dict=False)[0])

    def label_dropout(y: Any, p: float, num_classes: int, depth: int, train: bool, seed: int) -> Any:
        """What each block's own embedder is told of the labels. It calls dropout "on" by its training flag."""
        model = diffusers().DiTTransformer2DModel(
            num_attention_heads=1, attention_head_dim=4, num_layers=depth, in_channels=1, sample_size=4,
            num_embeds_ada_norm=num_classes,
        )  # fmt: skip
        t_.manual_seed(seed)
        told = []
        for part in model.train(train).transformer_blocks:
            embedder = part.norm1.emb.class_embedder
            embedder.dropout_prob = p
            embedder.embedding_table.register_forward_pre_hook(lambda _, labels: told.append(to_numpy(labels[0])))
            embedder(t_.tensor(y))
        return np.stack(told)

    return {"dit_square": dit, "label_dropout": label_dropout}


def named_by_diffusers(weights: Any) -> dict[str, Any]:
    """Official names -> those of DiTTransformer2DModel: q, k, v apart, the embedders of time and class once in every block."""
    out = {n.replace("x_embedder", "pos_embed"): a for n, a in weights.items() if n.startswith("x_embedder")}
    tails = {"attn.proj": "attn1.to_out.0", "mlp.fc1": "ff.net.0.proj", "mlp.fc2": "ff.net.2"}
    tails["adaLN_modulation.1"] = "norm1.linear"
    blocks = [n.split(".", 2) for n in weights if n.startswith("blocks.")]
    for _, i, tail in blocks:
        place, (layer, kind) = f"transformer_blocks.{i}", tail.rsplit(".", 1)
        array = weights[f"blocks.{i}.{tail}"]
        if layer == "attn.qkv":
            out |= {f"{place}.attn1.to_{c}.{kind}": a for c, a in zip("qkv", np.split(array, 3), strict=True)}
        else:
            out[f"{place}.{tails[layer]}.{kind}"] = array
    for place in {f"transformer_blocks.{i}.norm1.emb" for _, i, _ in blocks}:
        for mine, theirs in (("0", "linear_1"), ("2", "linear_2")):
            for kind in ("weight", "bias"):
                out[f"{place}.timestep_embedder.{theirs}.{kind}"] = weights[f"t_embedder.mlp.{mine}.{kind}"]
        out[f"{place}.class_embedder.embedding_table.weight"] = weights["y_embedder.embedding_table.weight"]
    for kind in ("weight", "bias"):
        out[f"proj_out_1.{kind}"] = weights[f"final_layer.adaLN_modulation.1.{kind}"]
        out[f"proj_out_2.{kind}"] = weights[f"final_layer.linear.{kind}"]
    return out


def _in_float64(given: Any) -> Any:
    """A Timesteps module by its own options, but in float64; ValueError where it says something else than the given one."""
    t_ = torch()

    class Sinusoids(t_.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, t: Any) -> Any:
            half = given.num_channels // 2
            angle = t_.arange(half, dtype=t_.float64) / (half - given.downscale_freq_shift) * -np.log(10000)
            a = t[:, None] * angle.exp() * given.scale
            return t_.cat([a.cos(), a.sin()] if given.flip_sin_to_cos else [a.sin(), a.cos()], dim=1)

    ours, t = Sinusoids(), t_.tensor([0, 7])
    if float((ours(t) - given(t)).abs().max()) > 1e-5:
        raise ValueError("the time embedding of this version of diffusers is not what its options say")
    return ours


def _place_in_float64(embed: Any, h: int, w: int) -> None:
    """The table of places, which is made in float64 and kept in float32, as it was made; other grids stay as they are."""
    if h == w == embed.height == embed.width:
        make = importlib.import_module("diffusers.models.embeddings").get_2d_sincos_pos_embed
        table = torch().as_tensor(make(embed.pos_embed.shape[-1], h, base_size=embed.base_size, output_type="pt"))
        if float((table - embed.pos_embed[0]).abs().max()) < 1e-6:
            embed.pos_embed = table[None].to(torch().float64)


# ------------------------------------------------------------------------------------------------ schedulers


class _Made:
    """Makes schedulers like the given one with other options, and asks them."""

    def __init__(self, given: Any, rederive: bool) -> None:
        self.given, self.kind, self.config, self.rederive = given, type(given), dict(given.config), rederive

    def make(self, **options: Any) -> Any:
        known = inspect.signature(self.kind.__init__).parameters
        return self.kind(**{k: v for k, v in {**self.config, **options}.items() if k in known and k != "kwargs"})

    def on(self, alpha_bar: Any) -> Any:
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
        if hasattr(self.given, "add_noise"):
            out["q_sample"] = lambda x_0, eps, t, alpha_bar: self.noised("add_noise", x_0, eps, t, alpha_bar)
            out["v_from_pair"] = lambda x_0, eps, t, alpha_bar: self.noised("get_velocity", x_0, eps, t, alpha_bar)
        if c.get("thresholding"):
            out["clip_dynamic"] = self.clip_dynamic
        return out

    def timesteps(self, T: int, N: int, **options: Any) -> Any:
        made = self.make(num_train_timesteps=T, **options)
        made.set_timesteps(N)
        return to_numpy(made.timesteps)

    def noised(self, method: str, x_0: Any, eps: Any, t: Any, alpha_bar: Any) -> Any:
        t_ = torch()
        return to_numpy(getattr(self.on(alpha_bar), method)(t_.tensor(x_0), t_.tensor(eps), t_.tensor(t)))

    def clip_dynamic(self, x_0: Any, p: float, most: float) -> Any:
        made = self.make(dynamic_thresholding_ratio=p, sample_max_value=most)
        return to_numpy(made._threshold_sample(torch().tensor(x_0)))

    def output(self, x_t: Any, eps: Any, a_t: float) -> Any:
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

    # ------------------------------------------------------------------------------------------------ DDPM

    def ddpm(self) -> Answers:
        out = self.ladder() | {"step_pairs": self.ddpm_pairs}
        if self.variant == "" and self.config["variance_type"] == "fixed_small":
            out["ddpm_scheduler"] = lambda alpha_bar: _Whole(self, alpha_bar)
        kind = self.config["variance_type"]
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

    def variances(self, alpha_bar: Any) -> Any:
        made, kind = self.on(alpha_bar), self.config["variance_type"]
        found = np.array([float(made._get_variance(t)) for t in range(len(alpha_bar))])
        return 2 * np.log(found) if kind == "fixed_small_log" else found  # that one hands out the standard deviation

    def ddpm_pairs(self, timesteps: Any, T: int) -> Any:
        made = self.make(num_train_timesteps=T)
        made.set_timesteps(len(timesteps))
        made.timesteps = torch().tensor(np.asarray(timesteps))
        return np.array([(int(t), max(-1, int(made.previous_timestep(int(t))))) for t in timesteps])

    def _ddpm(self, made: Any, out: Any, x_t: Any, t: int, s: int, z: Any) -> Any:
        made.timesteps, made.custom_timesteps = torch().tensor([t, s] if s >= 0 else [t]), True
        with _noise(self.kind, z):
            return to_numpy(made.step(out, t, torch().tensor(x_t)).prev_sample)

    def ddpm_step(self, x_t: Any, eps: Any, t: int, s: int, alpha_bar: Any, z: Any) -> Any:
        return self._ddpm(self.on(alpha_bar), self.output(x_t, eps, alpha_bar[t]), x_t, t, s, z)

    def ddpm_learned(self, x_t: Any, out: Any, t: int, s: int, alpha_bar: Any, z: Any, objective: str) -> Any:
        made = self.on(alpha_bar)
        made.register_to_config(prediction_type=OBJECTIVE[objective])
        return self._ddpm(made, torch().tensor(out), x_t, t, s, z)

    # ------------------------------------------------------------------------------------------------ DDIM

    def ddim(self) -> Answers:
        out = self.ladder() | {"step_pairs": self.ddim_pairs}
        if self.variant is not None:
            out[f"ddim_step{self.variant}"] = self.ddim_step
            if not self.variant:
                out["ddim_scheduler"] = lambda alpha_bar: _Whole(self, alpha_bar)
            if self.config["prediction_type"] == "v_prediction" and not self.variant:
                out["ddim_step_v"] = self.ddim_step_v
        if not self.variant:
            out["posterior_variance"] = self.ddim_variances
        return out

    def ddim_variances(self, alpha_bar: Any) -> Any:
        made = self.on(alpha_bar)
        return np.array([float(made._get_variance(t, t - 1)) for t in range(len(alpha_bar))])

    def ddim_pairs(self, timesteps: Any, T: int) -> Any:
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

    def ddim_step(self, x_t: Any, eps: Any, t: int, s: int, alpha_bar: Any, eta: float, z: Any) -> Any:
        made, t_ = self._stride(self.on(alpha_bar), t, s), torch()
        out = self.output(x_t, eps, alpha_bar[t])
        more = {"eta": eta, "variance_noise": t_.tensor(z), "use_clipped_model_output": self.rederive}
        return to_numpy(made.step(out, t, t_.tensor(x_t), **more).prev_sample)

    def ddim_step_v(self, x_t: Any, v: Any, t: int, s: int, alpha_bar: Any) -> Any:
        made, t_ = self._stride(self.on(alpha_bar), t, s), torch()
        return to_numpy(made.step(t_.tensor(v), t, t_.tensor(x_t), eta=0.0).prev_sample)

    def inverse(self) -> Answers:
        """Up the ladder. The scheduler is told the rung that it climbs to and the output of the network."""
        return {"ddim_invert_step": self.ddim_invert_step} if not self.config["clip_sample"] else {}

    def ddim_invert_step(self, x_s: Any, eps: Any, s: int, t: int, alpha_bar: Any) -> Any:
        made = self._stride(self.on(alpha_bar), t, s)
        made.register_to_config(num_train_timesteps=max(t - s, len(alpha_bar)))
        made.num_inference_steps = max(t - s, len(alpha_bar)) // (t - s)
        if made.config.num_train_timesteps // made.num_inference_steps != t - s:
            made.register_to_config(num_train_timesteps=t - s)
            made.num_inference_steps = 1
        return to_numpy(made.step(self.output(x_s, eps, alpha_bar[s] if s >= 0 else 1.0), t, torch().tensor(x_s)).prev_sample)


class _Whole:
    """A scheduler object as the kit drives one: its own timesteps, and a step from each of them."""

    def __init__(self, made: _Made, alpha_bar: Any) -> None:
        self.made, self.alpha_bar, self.scheduler = made, alpha_bar, made.on(alpha_bar)

    def timesteps(self, N: int) -> Any:
        self.scheduler.set_timesteps(N)
        return to_numpy(self.scheduler.timesteps)

    def step(self, x_t: Any, eps: Any, t: int, z: Any) -> Any:
        with _noise(self.made.kind, z):
            out = self.made.output(x_t, eps, self.alpha_bar[t])
            return to_numpy(self.scheduler.step(out, t, torch().tensor(x_t)).prev_sample)


@contextlib.contextmanager
def _noise(kind: Any, z: Any) -> Iterator[None]:
    """The scheduler draws z: its module's randn_tensor hands it out."""
    module: Any = importlib.import_module(kind.__module__)
    drawn = module.randn_tensor
    module.randn_tensor = lambda *args, **options: torch().tensor(z)
    try:
        yield
    finally:
        module.randn_tensor = drawn
