"""Sampling: walk down a list of rungs, ask the network at each, take one step.

    x_T ~ N(0, 1);   for (t, s) in pairs:   (x̂_0, ε̂) from the network's output at (x_t, time[t], y),   x_s = step(…)   (D.7)
    with guidance w ≠ 1 the network sees [x_t; x_t] with labels [y; null] in one batch                                 (G.1)

A sample's noise depends on its own index only: the same picture comes out, up to rounding, whatever batch it is drawn in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minidit.autograd import no_grad, value
from minidit.backend import Arena, Array, flat_buffer, module_of, to_device, to_host, xp_of
from minidit.diffusion import rungs as spacing
from minidit.diffusion import threshold, variance
from minidit.diffusion.ddim import ddim_from_pair, ddim_std
from minidit.diffusion.ddpm import ddpm_from_pair
from minidit.diffusion.guidance import guide
from minidit.diffusion.guidance import interval as interval_law
from minidit.diffusion.prediction import EPS, PREDICTIONS, Prediction
from minidit.diffusion.schedule import Schedule, at
from minidit.kernels.cuda_graph import explain, obstacle
from minidit.kernels.cuda_laws import Philox
from minidit.models.dit import DiT
from minidit.nn.precision import computing_in
from minidit.processes.train import at_time
from minidit.processes.walk import DeviceWalk, Moment, walks_on_the_device
from minidit.training.workers import cores, over_shards

SAMPLE_STREAM = 0x736D70
Step = Callable[..., Array]  # (x_0_hat, eps_hat, t, s, sch, z=, v=) -> x_s
# step.noisy: whether it wants z;  step.stds, where they are numbers: (t, s, sch) -> (c, std of z), all that a kernel needs


def ddim(eta: float = 0.0) -> Step:
    """The DDIM step with this η."""

    def step(x_0_hat: Array, eps_hat: Array, t: int, s: int, sch: Schedule, *, z: Array, v: Array) -> Array:
        return ddim_from_pair(x_0_hat, eps_hat, t, s, sch, eta=eta, z=z)

    step.noisy = eta > 0  # type: ignore[attr-defined]
    if 0 <= eta <= 1:
        step.stds = lambda t, s, sch: 2 * (ddim_std(t, s, sch, eta),)  # type: ignore[attr-defined]
    return step


def ddpm(law: Callable[..., Array] = variance.small) -> Step:
    """The DDPM step with a variance law (t, s, sch) -> variance; `learned_range` uses the network's second half."""

    def step(x_0_hat: Array, eps_hat: Array, t: int, s: int, sch: Schedule, *, z: Array, v: Array) -> Array:
        if s == 0:
            return ddpm_from_pair(x_0_hat, eps_hat, t, s, sch, z=None)
        sigma2 = law(v, t, s, sch) if law is variance.learned_range else law(t, s, sch)
        return ddpm_from_pair(x_0_hat, eps_hat, t, s, sch, z=z, variance=sigma2)

    step.noisy = True  # type: ignore[attr-defined]
    if law in (variance.small, variance.large):
        step.stds = lambda t, s, sch: (variance.small(t, s, sch) ** 0.5, law(t, s, sch) ** 0.5 * (s > 0))  # type: ignore[attr-defined]
    return step


class Sampler:
    """Everything that a walk needs, held together. `walk` yields a Moment a step; the last one's step leads to x_0."""

    def __init__(
        self,
        model: DiT,
        sch: Schedule,
        *,
        pairs: Sequence[tuple[int, int]],
        step: Step,
        prediction: Prediction = EPS,
        guidance: float = 1.0,
        interval: tuple[float, float] = (0.0, 1.0),
        clip: bool = False,
        seed: int = 0,
    ) -> None:
        self.model, self.sch, self.pairs, self.step = model, sch, list(pairs), step
        self.prediction, self.guidance, self.clip, self.seed = prediction, guidance, clip, seed
        self.low, self.high = (round(part * sch.T) for part in interval)  # the rungs that are guided
        if not 0 <= self.low < self.high <= sch.T:
            raise ValueError(f"a guidance interval is two parts of the ladder, 0 ≤ low < high ≤ 1; got {interval}")
        if guidance != 1 and (not model.config.num_classes or not model.config.class_dropout_prob):
            raise ValueError("guidance needs a model that was trained with classes and label dropout")
        if not self.pairs:
            raise ValueError("a walk needs at least one step")

    def start(self, samples: Array, rng: Philox) -> Array:
        """Pure noise for these sample indices."""
        config = self.model.config
        return rng.normal((len(samples), config.in_channels, *config.size), samples, self.model.device, self.model.dtype)

    def predict(self, x_t: Array, t: int, y: Array | None) -> tuple[Array, Array, Array]:
        """The guided pair (x̂_0, ε̂) and the raw second half of the channels (or None)."""
        model, xp, n = self.model, xp_of(x_t), len(x_t)
        w = interval_law(self.guidance, t, self.low, self.high)  # outside the interval half the work is saved
        guided = y is not None and w != 1
        both = xp.concatenate((x_t, x_t)) if guided else x_t
        labels = xp.concatenate((y, xp.full_like(y, model.null_label))) if guided else y
        time = at_time(self.sch, xp.full(len(both), t, dtype=xp.int64))
        out = model(both, time, labels)
        out = value(out)
        channels = model.config.in_channels
        v = out[:n, channels:] if model.config.learn_sigma else None  # of the conditional half
        out = out[:, :channels]
        if guided:
            out = guide(out[n:], out[:n], w)
        a_t = at(self.sch.alpha_bar, t)
        x_0_hat, eps_hat = self.prediction.pair(out, x_t, a_t)
        if self.clip:
            x_0_hat, eps_hat = threshold.rederived(x_0_hat, x_t, a_t)
        return x_0_hat, eps_hat, v

    def walk(self, samples: Array, y: Array | None, x_T: Array = None) -> Iterator[Moment | Array]:
        """samples : (B,) global indices, y : (B,) labels or None. Yields a Moment a step and x_0 at the end."""
        rng = Philox(self.seed, SAMPLE_STREAM)
        x = self.start(samples, rng) if x_T is None else x_T
        if walks_on_the_device(self):
            yield from DeviceWalk(self, samples, y, x, SAMPLE_STREAM).moments()
            return
        noisy = getattr(self.step, "noisy", True)
        for t, s in self.pairs:
            x_0_hat, eps_hat, v = self.predict(x, t, y)
            yield Moment(t, s, x, x_0_hat)
            rng.state = t  # the noise of a rung is its own: a different number of rungs meets the same noise at the same place
            z = rng.normal(x.shape, samples, self.model.device, self.model.dtype) if noisy and s > 0 else None
            x = self.step(x_0_hat, eps_hat, t, s, self.sch, z=z, v=v)
        yield x


def sample(
    model: DiT,
    sch: Schedule,
    labels: Array | None = None,
    *,
    n: int | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
    steps: int = 50,
    step: Step | None = None,
    prediction: Prediction | str = EPS,
    guidance: float = 1.0,
    interval: tuple[float, float] = (0.0, 1.0),
    clip: bool = False,
    seed: int = 0,
    x_T: Array = None,
    trace: bool = False,
    shards: int = 0,
    precision: str = "float32",
    graph: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """x_0 : (B, C, H, W) where the model lives; with trace=True an iterator over Moments that ends with x_0.

    labels : (B,) ints, or n for an unconditional model.  pairs : [(t, s), …], else `steps` rungs evenly spaced with both ends.
    guidance : the scale w in the part (low, high] of the ladder that `interval` names, 1 outside.
    prediction : what the network says: md.EPS, md.X_0, md.V, or its name as in TrainConfig.
    step : ddim(η) or ddpm(variance law); ddim() if None.  x_T : the noise to start from, else drawn from the seed.
    shards : pieces of the batch that run side by side (0: one a core).  precision : a policy of nn/precision.py.
    graph : on a GPU, record a step as a CUDA graph and replay it.
    progress(done, total) is called after every step.
    Raises ValueError for labels that the model does not know, and for an unknown name.
    """
    if isinstance(prediction, str):
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction {prediction!r} is not one of {', '.join(PREDICTIONS)}")
        prediction = PREDICTIONS[prediction]
    pairs = spacing.pairs(spacing.linspace(sch.T, min(steps, sch.T))) if pairs is None else pairs
    step = ddim() if step is None else step
    y = None
    if model.config.num_classes:
        if labels is None:
            raise ValueError(f"the model has {model.config.num_classes} classes: say which labels to sample")
        host = np.asarray(to_host(labels), np.int64)
        rows = model.config.num_classes + (model.config.class_dropout_prob > 0)  # the null label is one of them
        if host.ndim != 1 or (host.size and not 0 <= host.min() <= host.max() < rows):
            raise ValueError(f"labels must be (B,) in 0..{model.config.num_classes - 1}, got {host.tolist()}")
        n, y = len(host), to_device(host, model.device)
    elif labels is not None:
        raise ValueError("the model is unconditional: give n instead of labels")
    n = (len(x_T) if x_T is not None else 1) if n is None else n
    shape = (n, model.config.in_channels, *model.config.size)
    if n < 1 or (x_T is not None and tuple(x_T.shape) != shape):
        raise ValueError(f"{n} samples" + ("" if x_T is None else f" need x_T of shape {shape}, got {tuple(x_T.shape)}"))
    sampler = Sampler(
        model, sch, pairs=pairs, step=step, prediction=prediction, guidance=guidance, interval=interval, clip=clip, seed=seed
    )
    if trace:
        return _traced(sampler, np.arange(n), y, x_T, precision)
    with _computing(model, precision):
        if model.device != "cpu":
            return _on_the_device(sampler, module_of(model.device).arange(n), y, x_T, graph, progress)
        return _in_shards(sampler, n, y, x_T, min(shards or cores(), max(1, n)), progress)


def _computing(model: Any, precision: str) -> Any:
    """The policy around a network, which may be anything that answers: only ours have all weights in one buffer."""
    return computing_in(precision, model.device, getattr(model, "flat", None))


def _traced(sampler: Sampler, samples: Array, y: Array | None, x_T: Array, precision: str) -> Iterator[Moment | Array]:
    with no_grad(), _computing(sampler.model, precision):
        yield from sampler.walk(samples, y, x_T)


def _on_the_device(sampler: Sampler, samples: Array, y: Array | None, x_T: Array, graph: bool, progress: Any) -> Array:
    why_not = obstacle(sampler.model.dtype) or ("" if hasattr(sampler.step, "stds") else "its variance comes from the network")
    if graph and why_not:
        explain("the sampling step", why_not)
    if why_not or not walks_on_the_device(sampler):
        return _whole(sampler, samples, y, x_T, progress)
    with no_grad():
        x = sampler.start(samples, Philox(sampler.seed, SAMPLE_STREAM)) if x_T is None else x_T
        return DeviceWalk(sampler, samples, y, x, SAMPLE_STREAM).run(graph, progress)


def _whole(sampler: Sampler, samples: Array, y: Array | None, x_T: Array, progress: Any) -> Array:
    x: Any = None
    with no_grad(), Arena():
        for k, moment in enumerate(sampler.walk(samples, y, x_T)):
            if progress is not None and k:
                progress(k, len(sampler.pairs))
            x = moment
    return x + 0.0  # a copy: what the arena lent goes back


def _in_shards(sampler: Sampler, n: int, y: Array | None, x_T: Array, shards: int, progress: Any) -> Array:
    """Every shard walks alone; samples do not know each other."""
    config = sampler.model.config
    shape = (n, config.in_channels, *config.size)
    result = flat_buffer(int(np.prod(shape)), sampler.model.dtype).reshape(shape)

    def body(part: slice, i: int) -> None:
        labels, start = (None if a is None else a[part] for a in (y, x_T))
        result[part] = _whole(sampler, np.arange(n)[part], labels, start, progress if i == 0 else None)

    over_shards(n, body, "cpu", shards)
    return result
