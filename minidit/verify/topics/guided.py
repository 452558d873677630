"""Topics: guidance in its place, around a network that hears labels: the doubled batch, and the guided loop.

One x and one noise serve both branches. The second branch is a state of its own here, because mistakes let it go its own way.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidit.backend import Array
from minidit.diffusion.schedule import Schedule
from minidit.random import Philox
from minidit.verify.core.denoiser import Linear
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics.chains import step_time
from minidit.verify.topics.ddim import ddim_step
from minidit.verify.topics.guidance import combined
from minidit.verify.topics.timesteps import sampling_timesteps, step_pairs

topic = Group("guidance")
Net = Callable[[Array, Array | int, Array], Array]  # (x, t, y) -> ε̂
NET = "net(x, t, y) -> eps, for a batch of any size; t int or one number per sample"


def _net(rng: Philox, T: int) -> Linear:
    """A network whose answer depends on the label, its last one the null label."""
    labels, pattern = rng.normal((5,), dtype=np.float64), rng.normal((2, 2, 3), dtype=np.float64)
    return Linear(0.4 + 0.3 * np.sin(np.arange(T) / 150), 0.5 * np.cos(np.arange(T) / 40), pattern, labels)


def _outputs() -> list[Probe]:
    rng, y = Philox(44), np.array([2, 0, 3, 1])
    net = _net(rng, 1000)
    return [Probe(f"w{w}", (net, rng.normal((4, 2, 2, 3), dtype=np.float64), 37, y, 4, w), "four labels, the fifth is null")
            for w in (0.0, 1.0, 3.5)]  # fmt: skip


@topic("G.1", f"{NET}; x (B,C,H,W), t int, y (B,) labels, null: the label of 'any class', w", "eps (B,C,H,W)", _outputs)
def guided_output(R: Reference, net: Net, x: Array, t: int, y: Array, null: int, w: float) -> Array:
    """ε_∅ + w (ε_c - ε_∅), both of the same x and t."""
    return combined(R, *branches(R, net, x, x, t, y, null), w)


@part
def branches(R: Reference, net: Net, x: Array, x_second: Array, t: int | Array, y: Array, null: int) -> tuple[Array, Array]:
    """(ε_∅, ε_c), in one call of a doubled batch: [cond; uncond]."""
    both, labels = doubled(R, x, x_second), labels_of_both(R, y, np.full_like(y, null))
    eps_c, eps_u = np.split(net(both, np.full(len(both), t), labels), 2)
    return eps_u, eps_c


doubled = part(lambda R, x, x_second: np.concatenate((x, x_second)))  # (2B,C,H,W)
labels_of_both = part(lambda R, y, null: np.concatenate((y, null)))  # (2B,)


def _runs() -> list[Probe]:
    out = []
    for N, eta, w in ((3, 0.0, 2.0), (5, 1.0, 1.5)):
        rng = Philox(45)
        x, z = rng.normal((3, 2, 2, 3), dtype=np.float64), rng.normal((N, 6, 2, 2, 3), dtype=np.float64)
        alpha_bar = Schedule.linear(1000).alpha_bar[1:]
        args = (_net(rng, 1000), x, np.array([1, 3, 0]), 4, w, N, alpha_bar, eta, z)
        out.append(Probe(f"N{N}-eta{eta}", args, "one x and one noise for both branches"))
    return out


@topic("G.1", f"{NET}; x_T (B,C,H,W), y (B,), null, w, N steps, alpha_bar (T,), eta, z (N,2B,C,H,W): drawn for a doubled batch, "
       "the first B are the noise, of both branches", "x_0 (B,C,H,W)", _runs, tol=20.0, because="N steps")  # fmt: skip
def guided_sample(
    R: Reference, net: Net, x: Array, y: Array, null: int, w: float, N: int, alpha_bar: Array, eta: float, z: Array
) -> Array:
    """DDIM steps of ε_∅ + w (ε_c - ε_∅) along round(k (T-1)/(N-1)) down to the data; both branches see the same x."""
    T, B = len(alpha_bar), len(x)
    timesteps, second = sampling_timesteps(R, T, N), x
    for k, (t, s) in enumerate(step_pairs(R, timesteps, T)):
        eps_u, eps_c = branches(R, net, x, second, step_time(R, timesteps, k, T), y, null)
        eps = combined(R, eps_u, eps_c, w)

        def step(x: Array, eps: Array, z: Array, t: int = int(t), s: int = int(s)) -> Array:
            return ddim_step(R, x, eps, t, s, alpha_bar, eta, z)

        x, before = step(x, eps, z[k, :B]), second
        second = second_branch(R, x, before, eps, eps_u, step, z[k, B:])
    return x


# where the unconditional branch goes on from: where the other one does
second_branch = part(lambda R, x, before, eps, eps_u, step, z: x)
