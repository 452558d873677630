"""Verify your own function: five lines, and the mistake in it has a name.

    python examples/verify/numpy_step.py

This DDIM step takes ᾱ of t - 1 in the full ladder, not of the next timestep that is visited. With every timestep visited the two
are the same, so no picture shows it until somebody asks for fewer steps.
"""

import minidit as md


def ddim_step(x_t, eps, t, s, alpha_bar, eta, z):
    a_t, a_s = alpha_bar[t], alpha_bar[t - 1] if t > 0 else 1.0  # should be: alpha_bar[s] if s >= 0 else 1.0
    sigma = eta * ((1 - a_s) / (1 - a_t) * (1 - a_t / a_s)) ** 0.5
    x_0 = (x_t - (1 - a_t) ** 0.5 * eps) / a_t**0.5
    return a_s**0.5 * x_0 + (1 - a_s - sigma**2) ** 0.5 * eps + (sigma * z if s >= 0 else 0)


def main():
    report = md.verify.check({"ddim_step": ddim_step})
    print(report)
    return report


if __name__ == "__main__":
    main()
