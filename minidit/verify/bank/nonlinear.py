"""Laws in the place of others, tried where no mistake of the bank explains an answer: activations, norms, losses, warm-ups.

Like fits.py these are no rows of the bank. Each is said as what it is: "equals D.34 with the absolute difference for its square".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from minidit import ops
from minidit.autograd import value
from minidit.backend import Array
from minidit.verify.bank.network import stream_of
from minidit.verify.bank.wrap import instead, then
from minidit.verify.core.reference import AnyPart, Change, Deviation, Form, Kind, Patches, Reference
from minidit.verify.topics import block, embeddings, layers, losses, training, unet
from minidit.verify.topics.layers import Numbers


def fit(words: str, part: AnyPart, change: Change, kind: Kind = Kind.CHANGE) -> Deviation:
    """A change of one part, told in words; it has no id."""
    return fits(words, {part: change}, kind)


def fits(words: str, patches: Patches, kind: Kind = Kind.CHANGE) -> Deviation:
    """The same of several parts."""
    return Deviation(words, words, "", "", "", patches, kind=kind)


# ------------------------------------------------------------------------------------------------ activations, norms


def _relu(x: Numbers) -> Numbers:
    return ops.clip(x, low=0.0, high=math.inf)


def _leaky(x: Numbers, slope: float) -> Numbers:
    return _relu(x) - slope * _relu(-x)


def _softplus(x: Numbers) -> Numbers:
    return _relu(x) + ops.log(1 + ops.exp(-(_relu(x) + _relu(-x))))


ACTIVATIONS: dict[str, Callable[[Numbers], Numbers]] = {
    "ReLU": _relu, "tanh": ops.tanh, "no activation": lambda x: x, "the sigmoid": ops.sigmoid, "the exact GELU": ops.gelu_erf,
    "the tanh GELU": ops.gelu, "SiLU": ops.silu, "SiLU twice": lambda x: ops.silu(ops.silu(x)),
    "the quick GELU": lambda x: x * ops.sigmoid(1.702 * x), "softplus": _softplus,
    "ELU": lambda x: _relu(x) + ops.exp(-_relu(-x)) - 1, "Mish": lambda x: x * ops.tanh(_softplus(x)),
    "hard swish": lambda x: x * ops.clip(x + 3.0, low=0.0, high=6.0) / 6, "the squared ReLU": lambda x: _relu(x) * _relu(x),
    "the leaky ReLU of slope 0.01": partial(_leaky, slope=0.01), "the leaky ReLU of slope 0.1": partial(_leaky, slope=0.1),
    "the leaky ReLU of slope 0.2": partial(_leaky, slope=0.2),
}  # fmt: skip
ACTIVE: tuple[tuple[AnyPart, str], ...] = (
    (embeddings.time_activation, "in the time MLP"), (block.silu_of_c, "before the modulation"), (layers.gelu, "for GELU"),
    (layers.silu, "for every SiLU"), (unet.condition, "before the condition's linear"), (unet.silu, "for the SiLU behind norms"),
)  # fmt: skip


def _only(f: Callable[[Numbers], Numbers]) -> Change:
    return instead(lambda R, x: f(x))


def _norms() -> Iterator[tuple[str, Form]]:
    """Other norms."""

    def centred(x: Numbers) -> Numbers:
        return x - x.mean(axis=-1, keepdims=True)

    def variance(x: Numbers) -> Numbers:
        return (centred(x) * centred(x)).mean(axis=-1, keepdims=True)

    yield "a norm that leaves the mean", lambda R, x, place="": x / ops.sqrt(variance(x) + layers.norm_eps(R, place))
    yield "a norm that takes the mean away only", lambda R, x, place="": centred(x)
    yield "the variance for its root in the norm", lambda R, x, place="": centred(x) / (variance(x) + layers.norm_eps(R, place))
    yield "no norm", lambda R, x, place="": x
    yield "rows of length 1 for the norm", lambda R, x, place="": x / ops.sqrt((x * x).sum(axis=-1, keepdims=True))


# ------------------------------------------------------------------------------------------------ attention, blocks


def _causal(R: Reference, logits: Numbers) -> Numbers:
    n, m = logits.shape[-2:]
    return ops.softmax(logits + np.where(np.tril(np.ones((n, m), bool)), 0.0, -1e300)) if n == m else ops.softmax(logits)


def _softmax_of_one_more(x: Numbers) -> Numbers:
    top = np.maximum(np.asarray(value(x)).max(axis=-1, keepdims=True), 0.0)
    e = ops.exp(x - top)
    return e / (np.exp(-top) + e.sum(axis=-1, keepdims=True))


WEIGHTS: dict[str, Form] = {  # of the values, from the logits
    "a causal mask": _causal,
    "the logits themselves for their softmax": lambda R, x: x,
    "the sigmoid for the softmax": lambda R, x: ops.sigmoid(x),
    "the logarithm of the softmax": lambda R, x: ops.log(ops.softmax(x)),
    "ReLU, divided by its sum, for the softmax": lambda R, x: _relu(x) / _relu(x).sum(axis=-1, keepdims=True),
    "squares, divided by their sum, for the softmax": lambda R, x: x * x / (x * x).sum(axis=-1, keepdims=True),
    "one more in the denominator of the softmax": lambda R, x: _softmax_of_one_more(x),
}  # fmt: skip


def _scaled_afterwards(R: Reference, q: Numbers, k: Numbers, v: Numbers) -> Numbers:
    logits = ops.matmul(q, ops.transpose(k, axes=(0, 1, 3, 2)))
    return ops.matmul(layers.softmax(R, logits), v) * layers.logit_scale(R, q.shape[1], q.shape[3])


Branch = Callable[[Numbers], Numbers]


def _stream(f: Callable[[Numbers, Numbers, Branch, Branch], Numbers], *, norms: bool = False) -> Patches:
    """f(x, gate, branch, norm) for each line of a block. norms: whether the branches keep theirs."""

    def both(R: Reference, x: Numbers, attn: Branch, mlp: Branch, gate1: Numbers, gate2: Numbers) -> Numbers:
        norm = lambda h: layers.layer_norm(R, h, "behind")
        return f(f(x, gate1[:, None], attn, norm), gate2[:, None], mlp, norm)

    patches = stream_of(both)
    return patches if norms else patches | {layers.layer_norm: _only_behind}


def _only_behind(original: Form) -> Form:
    return lambda R, x, place="": x if place in ("attn", "mlp") else original(R, x, place)


BLOCKS: dict[str, Patches] = {
    "post-norm: LN(x + gate branch(x))": _stream(lambda x, gate, branch, norm: norm(x + gate * branch(x))),
    "norms behind the branches: x + gate LN(branch(x))": _stream(lambda x, gate, branch, norm: x + gate * norm(branch(x))),
    "norms before and behind the branches": _stream(lambda x, gate, branch, norm: x + gate * norm(branch(x)), norms=True),
    "norms on the stream: LN(x) + gate branch(x)": _stream(lambda x, gate, branch, norm: norm(x) + gate * branch(x), norms=True),
    "no gates": _stream(lambda x, gate, branch, norm: x + branch(x), norms=True),
    "one more norm at the end of the block": {block.block_stream: then(ops.standardise)},
}  # fmt: skip

# ------------------------------------------------------------------------------------------------ losses, warm-ups


def _huber(d: Array, delta: float) -> Array:
    return np.asarray(np.where(abs(d) <= delta, 0.5 * d * d, delta * (abs(d) - 0.5 * delta)))


PENALTIES: Mapping[str, Callable[[Array], Array]] = {
    "the absolute difference for its square (L1)": abs,
    "the logarithm of cosh for the square": lambda d: np.asarray(np.logaddexp(d, -d) - math.log(2)),
    "the fourth power for the square": lambda d: d**4,
} | {f"the Huber loss of δ = {delta:g}": partial(_huber, delta=delta) for delta in (1.0, 0.5, 0.1, 2.0)} | {
    f"the smooth L1 loss of β = {beta:g}": partial(lambda d, beta: _huber(d, beta) / beta, beta=beta) for beta in (0.5, 0.1, 2.0)
} | {f"√(d² + {c:g}²) - {c:g} for d²": partial(lambda d, c: np.hypot(d, c) - c, c=c) for c in (1.0, 0.1, 1e-3, 0.03)}  # fmt: skip
MEANS: Mapping[str, Callable[[Array], Any]] = {
    "the mean of each sample's norm": lambda p: np.mean(p.reshape(len(p), -1).sum(axis=1) ** 0.5),
    "the mean of each sample's root mean square": lambda p: np.mean(p.reshape(len(p), -1).mean(axis=1) ** 0.5),
    "the median for the mean": np.median, "the largest for the mean": np.max, "the first sample's alone": lambda p: p[0].mean(),
}  # fmt: skip
WARMUPS: Mapping[str, Callable[[float], float]] = {  # of n over the warm-up's steps
    "a quadratic warm-up": lambda u: min(u, 1.0) ** 2, "a cubic warm-up": lambda u: min(u, 1.0) ** 3,
    "the root of the warm-up": lambda u: min(u, 1.0) ** 0.5, "no warm-up": lambda u: 1.0,
    "an exponential warm-up, 1 - e^-u": lambda u: 1 - math.exp(-u),
    "a cosine warm-up": lambda u: (1 - math.cos(math.pi * min(u, 1.0))) / 2,
    "a sine warm-up": lambda u: math.sin(math.pi * min(u, 1.0) / 2),
    "the inverse root after the warm-up": lambda u: min(u, u**-0.5),
}  # fmt: skip


def _made() -> Iterator[Deviation]:
    for part, where in ACTIVE:
        for words, f in ACTIVATIONS.items():
            yield fit(f"{words} {where}", part, _only(f))
    for words, form in _norms():
        yield fit(words, layers.layer_norm, instead(form))
    for words, form in WEIGHTS.items():
        yield fit(words, layers.softmax, instead(form))
    yield fit("the scale after the softmax", layers.attention, instead(_scaled_afterwards))
    for words, patches in BLOCKS.items():
        yield fits(words, patches)
    for words, g in PENALTIES.items():
        yield fit(words, losses.penalty, instead(lambda R, d, g=g: g(d)))
    for words, mean in MEANS.items():
        yield fit(words, losses.averaged, instead(lambda R, penalties, mean=mean: mean(penalties)))
    for words, share in WARMUPS.items():
        yield fit(words, training.warm_share, instead(lambda R, n, warmup, share=share: share(n / warmup)))


NONLINEAR: tuple[Deviation, ...] = tuple(_made())
