"""Right code that is written in unusual ways is never called wrong; what cannot be asked says so in one sentence."""

import dataclasses
import functools
import inspect
import types

import numpy as np
import pytest
from verify import fresh_laws, fresh_layers, fresh_losses
from verify.fresh_laws import below

import minidit as md


def q(x_0, eps, t, alpha_bar):
    a = np.take(alpha_bar, t)[:, None, None, None]
    return np.sqrt(a) * x_0 + np.sqrt(1 - a) * eps


class Ladder:
    """Tables in an object, made once and kept."""

    def __init__(self):
        self.kept = {}

    def q_sample(self, x_0, eps, t, alpha_bar):
        signal, noise = self.kept.setdefault(alpha_bar.tobytes(), (alpha_bar**0.5, (1 - alpha_bar) ** 0.5))
        return signal[t][:, None, None, None] * x_0 + noise[t][:, None, None, None] * eps


class Slots:
    __slots__ = ("scale",)

    def __init__(self):
        self.scale = 1.0

    def __call__(self, x):
        return self.scale * x / (1 + np.exp(-x))


@dataclasses.dataclass
class Average:
    """An average that is updated in place, and returned."""

    decay: float = 0.0

    def update(self, average, theta, decay):
        average *= decay
        average += (1 - decay) * theta
        return average


def channels_last(x_0, eps, t, alpha_bar):
    last = lambda a: np.moveaxis(a, 1, -1)
    a = alpha_bar[t].reshape(-1, 1, 1, 1)
    return np.moveaxis(np.sqrt(a) * last(x_0) + np.sqrt(1 - a) * last(eps), -1, 1)


def by_samples(x_0, eps, t, alpha_bar):
    return [q(x_0[b : b + 1], eps[b : b + 1], t[b : b + 1], alpha_bar)[0] for b in range(len(t))]


def pure(state, x):  # as JAX's functions are: the state comes and goes
    return state, x / (1 + np.exp(-x))


def fused(x, *, axis=-1, eps=1e-6, where=None, keepdims=True):
    m = np.mean(x, axis, keepdims=keepdims)
    return (x - m) / np.sqrt(np.mean((x - m) ** 2, axis, keepdims=keepdims) + eps)


def overwritten(x, weight, bias, out=None):
    return np.add(np.matmul(x, weight.T, out=out), bias)


def in_the_question(x):
    """The answer is written into the question's own array."""
    x /= 1 + np.exp(-x)
    return x


def shared(buffer=None):
    buffer = {} if buffer is None else buffer

    def gelu(x):
        y = buffer.setdefault(x.shape, np.zeros(x.shape))
        np.multiply(x, 0.5 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))), out=y)
        return y

    return gelu


def guided(*, eps_u, eps_c, w):
    return eps_u + w * (eps_c - eps_u)


def generated(betas):
    product = 1.0
    for b in betas:
        product *= 1 - b
        yield product


def logged(f):
    calls = []

    @functools.wraps(f)
    def run(*args, **names):
        calls.append((args, names))
        return f(*args, **names)

    return run


class Walker:
    """A scheduler that keeps its place and forgets it when it is asked for timesteps."""

    def __init__(self, a):
        self.a, self.below = np.array(a), {}

    def timesteps(self, N):
        steps = np.round(np.linspace(len(self.a) - 1, 0, N)).astype(np.int32)
        self.below = dict(zip(steps.tolist(), [*steps[1:].tolist(), -1], strict=True))
        return steps

    def step(self, x_t, eps, t, z):
        return fresh_laws.ddim(x_t, eps, t, self.below[t], self.a, 0.0, z)


def ddim_of_keywords(x_t, t, s, eps, z, alpha_bar, eta, **more):
    a_t, a_s = alpha_bar[t], below(alpha_bar, s)
    sigma = eta * ((1 - a_s) / (1 - a_t) * (1 - a_t / a_s)) ** 0.5
    return (a_s / a_t) ** 0.5 * (x_t - (1 - a_t) ** 0.5 * eps) + (1 - a_s - sigma**2) ** 0.5 * eps + sigma * z


STREAM = np.random.default_rng(5)
WEIGHTS = types.MappingProxyType
UNUSUAL = {
    "a table kept in an object": ("q_sample", Ladder().q_sample), "channels last inside": ("q_sample", channels_last),
    "a list of samples": ("q_sample", by_samples), "by keyword only": ("guide", guided),
    "keywords in another order": ("ddim_step", ddim_of_keywords), "slots": ("silu", Slots()),
    "in the question's own array": ("silu", in_the_question), "one buffer for all": ("gelu", shared()),
    "a partial": ("silu", functools.partial(lambda k, x: pure(k, x)[1], 0)), "options behind": ("layer_norm", fused),
    "an out argument": ("linear", overwritten), "updated in place": ("ema_update", Average().update),
    "object arrays": ("alpha_bar", lambda betas: np.array(list(generated(betas)), dtype=object)),
    "longdouble": ("alpha_bar", lambda betas: np.cumprod(1 - betas.astype(np.longdouble))),
    "Fortran order": ("q_sample", lambda *a: np.asfortranarray(q(*a))),
    "a view that goes backwards": ("q_sample", lambda *a: q(*a)[::-1].copy()[::-1]),
    "a masked array": ("softmax", lambda x: np.ma.masked_array(fresh_layers.softmax(x))),
    "a wrapped function": ("q_sample", logged(q)), "a bound method of a class": ("mlp", types.MethodType(
        lambda self, weights, x: fresh_layers.mlp(weights, x), object())),
    "tensors of its own": ("silu", lambda x: md.ops.silu(md.Tensor(x))),
    "a list for a pair": ("ema_run", lambda *a: list(fresh_layers.TRAINING["ema_run"](*a))),
    "a list for a tuple": ("adamw_update", lambda *a: list(fresh_layers.TRAINING["adamw_update"](*a))),
    "a mapping that is no dictionary": ("clip_gradients", lambda g, limit: WEIGHTS(
        {k: v * min(1.0, limit / sum((a * a).sum() for a in g.values()) ** 0.5) for k, v in g.items()})),
    "int32 timesteps": ("linspace_timesteps", lambda T, N: np.round(np.linspace(T - 1, 0, N)).astype(np.int32)),
    "floats for timesteps": ("linspace_timesteps", lambda T, N: np.round(np.linspace(T - 1, 0, N))),
    "a range": ("leading_timesteps", lambda T, N, offset: _leading(T, N, offset)),
    "a scheduler that keeps its place": ("ddim_scheduler", Walker), "the scheduler's class method": (
        "ddim_scheduler", lambda alpha_bar: Walker(alpha_bar.copy())),
    "one generator for all noise": ("noise", lambda shape: STREAM.standard_normal(tuple(shape)).copy()),
    "the legacy generator": ("draw_timesteps", lambda B, T: np.random.randint(0, T, size=(B,))),
    "a Python float": ("ema_decay", lambda decay, n: float(min(decay, (1 + n) / (10 + n)))),
    "NumPy's scalar": ("bound_weight", lambda *a: np.float64(fresh_losses.weight(*a))),
    "an array of one number": ("warmup_rate", lambda n, lr, warmup: np.array(lr * min(1, n / warmup))),
}  # fmt: skip


def _leading(T, N, offset):
    steps = range((N - 1) * (T // N) + offset, offset - 1, -(T // N))
    if steps[0] >= T:
        raise ValueError(steps[0])
    return steps


@pytest.mark.parametrize("name", UNUSUAL)
def test_right_code_written_in_an_unusual_way_is_not_called_wrong(name):
    topic, function = UNUSUAL[name]
    (finding,) = md.verify.check({topic: function}).findings
    assert finding.verdict == "equal", md.verify.report.line(finding)


def test_there_are_more_than_twenty_five():
    assert len(UNUSUAL) > 25 and len(inspect.getsource(q)) > 0


def _nothing(x):
    in_the_question(x)


CANNOT = {
    "a generator": ("alpha_bar", generated, "list(…) of it would be right"),
    "state and answer": ("silu", lambda x: pure(None, x), "its second entry would be right"),
    "an answer in an object": ("silu", lambda x: types.SimpleNamespace(out=pure(0, x)[1]), "its attribute out would be right"),
    "written into the question, nothing returned": (
        "silu", _nothing, "its argument x, changed in place, would be right"),
}  # fmt: skip


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_be_asked_says_so_in_one_sentence(name):
    topic, function, words = CANNOT[name]
    (finding,) = md.verify.check({topic: function}).findings
    assert not finding.candidates and words in f"{finding.worst.what} {finding.note} {' '.join(finding.sentences)}"
