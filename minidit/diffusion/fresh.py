"""The fresh noise of a step: how much of σ_s it replaces, and its standard deviation.

    c²  = η² σ_s² (1 - SNR_t/SNR_s)            η = 0 DDIM, η = 1 the posterior's: DDPM                        (P.5, D.6)
    std = √(σ_t² - (α_t/α_s)² σ_s²)            DDPM's large variance, of the climb from s to t               (D.19)
    std = e^(½ (f ln β + (1-f) ln β̃))          learned between the two, f = (v+1)/2 from the network         (D.22)
    c   = σ_s                                  ε̂ drops out: consistency models

No law adds noise in the final step, to clean data (σ_s = 0): row.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from minidit.backend import Array
from minidit.diffusion.level import Level, climb_coefficients, posterior_variance

Std = Callable[[Level, Level], Array]  # (t, s) -> float or (B,)


@dataclass(frozen=True)
class Fresh:
    """c is the part of σ_s that a step from level t to s replaces by noise; std, if set, is the noise's standard deviation."""

    c: Std
    std: Std | None = None
    noisy: bool = True  # whether noise is drawn at all
    learned: bool = False  # the network chooses the std between the posterior's and the large one
    name: str = field(default="", compare=False)

    def __repr__(self) -> str:
        return self.name or "Fresh(…)"


def posterior_std(t: Level, s: Level) -> Array:
    """√β̃."""
    return posterior_variance(t, s) ** 0.5  # (P.5)


def large_std(t: Level, s: Level) -> Array:
    """√β."""
    return climb_coefficients(s, t)[1] ** 0.5  # (D.19)


def ddim(eta: float = 0.0) -> Fresh:
    """η times the posterior's std. Raises ValueError for a negative η."""
    if eta < 0:
        raise ValueError(f"η = {eta} must not be negative")
    return Fresh(lambda t, s: eta * posterior_std(t, s), noisy=eta > 0, name=f"ddim({eta:g})")  # (D.6)


DDIM = ddim()
DDPM = Fresh(posterior_std, name="DDPM")
DDPM_LARGE = Fresh(posterior_std, large_std, name="DDPM_LARGE")
DDPM_LEARNED = Fresh(posterior_std, large_std, learned=True, name="DDPM_LEARNED")
EVERYTHING = Fresh(lambda t, s: s.sigma, name="EVERYTHING")
