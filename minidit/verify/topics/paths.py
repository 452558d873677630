"""Topics: paths of continuous time, what a network answers on them, and one sample in the coordinates of another path.

Here t = 0 is the data and t = 1 the noise. A project that counts the other way reverses `clock` and `sense` together (C10); one
of them alone is a mistake. The four numbers of EDM are parts of their own, because mistakes change each of them apart.
"""

from __future__ import annotations

import numpy as np

from minidit.backend import Array
from minidit.diffusion import flow, loss
from minidit.diffusion import level as levels
from minidit.diffusion.level import Level
from minidit.diffusion.path import Exploding, Straight, changed
from minidit.diffusion.prediction import X_0, U, edm
from minidit.random import Philox
from minidit.verify.core.reference import Group, Probe, Reference, part
from minidit.verify.topics.embeddings import as_number

topic = Group("paths")
Pair = tuple[Array, Array]  # (x̂_0, ε̂)

clock = part(lambda R, t: t)  # a time of the straight path, as the project counts it, and back
sense = part(lambda R: 1.0)  # the sign of the project's velocity, where u = ε - x_0
straight = part(lambda R, t: Straight().level(clock(R, np.asarray(t, np.float64))))  # the level (α, σ) at t, float or (B,)

# ------------------------------------------------------------------------------------------------ the straight path

TIMES = np.array([0.05, 0.4, 0.9])


def pictures(seed: int, number: int, *shape: int) -> list[Array]:
    """Drawn arrays of one shape, (3, 2, 2) unless another is asked for."""
    rng = Philox(seed)
    return [rng.normal(shape or (3, 2, 2), dtype=np.float64) for _ in range(number)]


def _two(seed: int, reveals: str) -> list[Probe]:
    a, b = pictures(seed, 2)
    hand = np.array([[[2.0]]]), np.array([[[-1.0]]]), np.array([0.25])
    return [Probe("hand", hand, "one number, by hand"), Probe("three-times", (a, b, TIMES), reveals)]


@topic("P.9", "x_0 data, eps noise (B,C,N), t (B,) in [0, 1], 0 at the data", "x_t (B,C,N)",
       lambda: _two(111, "which end is the data; one time per sample"))  # fmt: skip
def straight_sample(R: Reference, x_0: Array, eps: Array, t: Array) -> Array:
    """(1-t) x_0 + t ε."""
    return levels.mix(x_0, eps, straight(R, t))


@topic("P.2", "x_0 data, eps noise (B,C,N)", "u (B,C,N)",
       lambda: [Probe(p.name, p.args[:2], "the sign") for p in _two(112, "")])  # fmt: skip
def straight_velocity(R: Reference, x_0: Array, eps: Array) -> Array:
    """u = ε - x_0."""
    return sense(R) * U.target(x_0, eps, Level(0.5, 0.5))


@topic("P.3", "x_t, u (B,C,N), t (B,)", "(x_0, eps), each (B,C,N)", lambda: _two(113, "both ends of the line through x_t"))
def pair_from_velocity(R: Reference, x_t: Array, u: Array, t: Array) -> Pair:
    """x̂_0 = x_t - t u, ε̂ = x_t + (1-t) u."""
    return U.pair(sense(R) * u, x_t, straight(R, t))


@topic("F.1", "x_t, x_0_hat = E[x_0 | x_t] (B,C,N), t (B,) > 0", "v (B,C,N), the marginal velocity",
       lambda: _two(114, "the distance to the guess over the time that is left"))  # fmt: skip
def velocity_from_x_0(R: Reference, x_t: Array, x_0_hat: Array, t: Array) -> Array:
    """v = (x_t - x̂_0)/t."""
    return sense(R) * flow.marginal_velocity(x_0_hat, x_t, straight(R, t))


@topic("D.11", "x_t, u (B,C,N), t (B,) > 0", "score (B,C,N)", lambda: _two(115, "the sign, and σ = t"))
def score_from_velocity(R: Reference, x_t: Array, u: Array, t: Array) -> Array:
    """∇ log q(x_t) = -ε̂/t, ε̂ = x_t + (1-t) u."""
    at = straight(R, t)
    return -U.pair(sense(R) * u, x_t, at)[1] / levels.enter(at.sigma, like=x_t)


@topic("P.3", "x_t, u = ε - x_0 (B,C,N), alpha, sigma (B,), the levels of any path", "(x_0, eps), each (B,C,N)",
       lambda: [Probe("two-levels", (*pictures(116, 2, 2, 1, 3), np.array([0.8, 1.0]), np.array([0.6, 3.0])),
                      "α + σ is not 1 here")])  # fmt: skip
def pair_from_u(R: Reference, x_t: Array, u: Array, alpha: Array, sigma: Array) -> Pair:
    """x̂_0 = (x_t - σ u)/(α+σ), ε̂ = (x_t + α u)/(α+σ)."""
    return u_pair(R, x_t, u, Level(alpha, sigma))


u_pair = part(lambda R, x_t, u, at: U.pair(u, x_t, at))  # (x̂_0, ε̂) of ε - x_0 at any level

# ------------------------------------------------------------------------------------------------ what the network hears

unit = part(lambda R: Straight().unit)  # the network's time per t


@topic("P.9", "t (B,) in [0, 1]", "(B,): the time as it is handed to the network", lambda: [Probe("three", (TIMES,), "the unit")])
def straight_time(R: Reference, t: Array) -> Array:
    """1000 t."""
    return unit(R) * as_number(R, t)


# ------------------------------------------------------------------------------------------------ EDM

c_skip = part(lambda R, sigma, sigma_data: edm(sigma_data).reading(Level(np.ones_like(sigma), sigma)).x_of_x)
c_out = part(lambda R, sigma, sigma_data: edm(sigma_data).reading(Level(np.ones_like(sigma), sigma)).x_of_F)
c_in = part(lambda R, sigma, sigma_data: Exploding(sigma_data).inputs(np.ones_like(sigma), sigma)[0])
log_unit = part(lambda R: 0.25)  # EDM's network time per ln σ
SIGMAS = np.array([0.002, 0.3, 2.0, 80.0])
LEVELS = "sigma (B,), sigma_data"
NEAR_1 = "a float32 loses digits where σ is far from σ_data"


@topic("P.23", LEVELS, "(c_skip, c_out, c_in, c_noise), each (B,)",
       lambda: [Probe("unlike", (SIGMAS, 0.5), "σ below, near and above σ_data; σ_data is not 1"),
                Probe("another", (np.array([0.7, 1.4]), 1.25), "another σ_data")])  # fmt: skip
def edm_scalings(R: Reference, sigma: Array, sigma_data: float) -> tuple[Array, Array, Array, Array]:
    """σ_d²/(σ²+σ_d²), σσ_d/√(σ²+σ_d²), 1/√(σ²+σ_d²), ¼ ln σ."""
    return (
        c_skip(R, sigma, sigma_data), c_out(R, sigma, sigma_data), c_in(R, sigma, sigma_data), noise_number(R, sigma),
    )  # fmt: skip


noise_number = part(lambda R, sigma: log_unit(R) * np.log(sigma))  # c_noise


def _edm(seed: int) -> list[Probe]:
    a, b = pictures(seed, 2, 4, 1, 3)
    return [Probe("four-levels", (a, b, SIGMAS, 0.5), "σ below, near and above σ_data")]


@topic("P.3", f"F, x (B,C,N), {LEVELS}", "D (B,C,N), the denoised guess", lambda: _edm(117))
def edm_denoised(R: Reference, F: Array, x: Array, sigma: Array, sigma_data: float) -> Array:
    """D = c_skip x + c_out F."""
    skip, out = levels.enter(c_skip(R, sigma, sigma_data), c_out(R, sigma, sigma_data), like=x)
    return skip * x + out * F


@topic("P.2", f"x_0, eps (B,C,N), {LEVELS}", "F (B,C,N): what the raw network is compared with", lambda: _edm(118), tol=10.0,
       because="x_0 - c_skip x cancels where σ is small")  # fmt: skip
def edm_target(R: Reference, x_0: Array, eps: Array, sigma: Array, sigma_data: float) -> Array:
    """F = (x_0 - c_skip (x_0 + σ ε))/c_out."""
    x = levels.mix(x_0, eps, Level(np.ones_like(sigma), sigma))
    skip, out = levels.enter(c_skip(R, sigma, sigma_data), c_out(R, sigma, sigma_data), like=x)
    return (x_0 - skip * x) / out


@topic("P.23", LEVELS, "(B,): the weight of ‖D - x_0‖²", lambda: [Probe("unlike", (SIGMAS, 0.5), "it is 1/c_out²")])
def edm_weight(R: Reference, sigma: Array, sigma_data: float) -> Array:
    """λ = (σ²+σ_d²)/(σσ_d)²."""
    return loss.edm_weight(sigma_data)(X_0, Level(np.ones_like(sigma), sigma))


# ------------------------------------------------------------------------------------------------ other coordinates

MIXED = np.array([0.8, 1.0, 0.3]), np.array([0.6, 3.0, 0.7])


def _levels(seed: int) -> list[Probe]:
    (x,) = pictures(seed, 1, 3, 1, 3)
    return [Probe("three-paths", (x, *MIXED), "a level of the ladder, of the exploding and of the straight path")]


@topic("P.11", "x (B,C,N) at levels alpha, sigma (B,) of any path", "(x, t): the same sample on the straight path, t (B,)",
       lambda: _levels(121))  # fmt: skip
def to_straight(R: Reference, x: Array, alpha: Array, sigma: Array) -> tuple[Array, Array]:
    """x/(α+σ), t = σ/(α+σ)."""
    t = Straight().time(Level(alpha, sigma))
    return changed(x, Level(alpha, sigma), Straight().level(t)), clock(R, t)


@topic("P.11", "x (B,C,N) at levels alpha, sigma (B,) of any path", "(x, σ): the same sample on the exploding path, σ (B,)",
       lambda: _levels(122))  # fmt: skip
def to_exploding(R: Reference, x: Array, alpha: Array, sigma: Array) -> tuple[Array, Array]:
    """x/α, σ/α."""
    noise = Exploding().time(Level(alpha, sigma))
    return changed(x, Level(alpha, sigma), Exploding().level(noise)), noise
