"""SiT from a checkout of its repository: the linear plan, with data at t = 1, the times of its ODE sampler and of its network."""

from minidit.verify.borders.torch import functions

from . import stranger

plan = stranger("transport.path").ICPlan()


def straight_sample(x_0, eps, t):
    return plan.compute_xt(t, eps, x_0)


def straight_velocity(x_0, eps):
    return plan.compute_ut(x_0.new_full((len(x_0),), 0.5), eps, x_0, None)


def score_from_velocity(x_t, u, t):
    return plan.get_score_from_velocity(u, x_t, t)


def linear_grid(n):
    if n < 1:
        raise ValueError("it makes an empty list of no steps")
    return stranger("transport.integrators").ode(None, t0=0, t1=1, sampler_type="euler", num_steps=n, atol=0, rtol=0).t


def timestep_embedding(t, width):
    return stranger("models").TimestepEmbedder.timestep_embedding(t, width)


def straight_embedding(t, width):
    """What its network makes of the time that its transport hands to it, which is t itself."""
    return timestep_embedding(t, width)


def target():
    """topic -> answer."""
    from minidit.verify import TOPICS

    return functions({name: f for name, f in globals().items() if name in TOPICS})
