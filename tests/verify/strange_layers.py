"""Mistakes as users write them, in layers, embeddings, blocks, training and latents (as in strange_laws)."""

import functools
import math

import numpy as np
from verify import fresh_layers as fresh
from verify.strange_laws import brain, half

part = functools.partial
by_width = lambda q, k, v: fresh.softmax(q @ k.swapaxes(2, 3) / (q.shape[1] * q.shape[3]) ** 0.5) @ v
total = lambda g: sum((a * a).sum() for a in g.values()) ** 0.5
LAYERS = [
    ("the bias twice", "linear", lambda x, w, b: x @ w.T + 2 * b),
    ("no bias", "linear", lambda x, w, b: x @ w.T),
    ("scaled by the width", "linear", lambda x, w, b: x @ w.T / w.shape[1] ** 0.5 + b),
    ("the bias minus", "linear", lambda x, w, b: x @ w.T - b),
    ("weights in float16", "linear", lambda x, w, b: x @ half(w).T + b),
    ("weights in bfloat16", "linear", lambda x, w, b: x @ brain(w).T + b),
    ("rows of the batch exchanged", "linear", lambda x, w, b: (x @ w.T + b)[::-1]),
    ("twice", "gelu", lambda x: 2 * fresh.gelu(x)),
    ("of -x", "gelu", lambda x: fresh.gelu(-x)),
    ("relu", "gelu", lambda x: np.maximum(x, 0)),
    ("the sigmoid alone", "silu", lambda x: 1 / (1 + np.exp(-x))),
    ("half", "silu", lambda x: 0.5 * fresh.silu(x)),
    ("the sign", "silu", lambda x: -fresh.silu(x)),
    ("over the wrong axis", "softmax", lambda x: fresh.softmax(x, axis=0)),
    ("to 100", "softmax", lambda x: 100 * fresh.softmax(x)),
    ("mean not sum", "softmax", lambda x: (e := np.exp(x - x.max(-1, keepdims=True))) / e.mean(-1, keepdims=True)),
    ("in float16", "softmax", lambda x: half(fresh.softmax(x))),
    ("unbiased", "layer_norm", lambda x: (x - x.mean(-1, keepdims=True)) / (x.var(-1, keepdims=True, ddof=1) + 1e-6) ** 0.5),
    ("no mean", "layer_norm", lambda x: x / (x.var(-1, keepdims=True) + 1e-6) ** 0.5),
    ("divided by the variance", "layer_norm", lambda x: (x - x.mean(-1, keepdims=True)) / (x.var(-1, keepdims=True) + 1e-6)),
    ("over the tokens", "layer_norm", part(fresh.norm, axis=0)),
    ("scale without 1", "modulate", part(fresh.modulate, gain=lambda s: s)),
    ("shift and scale exchanged", "modulate", lambda x, b, s: fresh.modulate(x, s, b)),
    ("1 - scale", "modulate", part(fresh.modulate, gain=lambda s: 1 - s)),
    ("one sample's shift for all", "modulate", lambda x, b, s: fresh.modulate(x, np.broadcast_to(b[:1], b.shape), s)),
    ("twice the shift", "modulate", lambda x, b, s: fresh.modulate(x, 2 * b, s)),
    ("1 + gate", "gated_residual", lambda x, g, h: x + (1 + g)[:, None] * h),
    ("no gate", "gated_residual", lambda x, g, h: x + h),
    ("no stream", "gated_residual", lambda x, g, h: g[:, None] * h),
    ("minus", "gated_residual", lambda x, g, h: x - g[:, None] * h),
    ("gate along the tokens", "gated_residual", lambda x, g, h: x + g.mean(axis=1)[:, None, None] * h),
    ("by K, not √K", "attention", lambda q, k, v: fresh.softmax(q @ k.swapaxes(2, 3) / q.shape[-1]) @ v),
    ("unscaled", "attention", lambda q, k, v: fresh.softmax(q @ k.swapaxes(2, 3)) @ v),
    ("over the queries", "attention", lambda q, k, v: fresh.softmax(q @ k.swapaxes(2, 3) / q.shape[-1] ** 0.5, axis=2) @ v),
    ("heads exchanged", "attention", lambda q, k, v: fresh.attend(q, k, v)[:, ::-1]),
    ("by √D", "self_attention", part(fresh.self_attend, how=by_width)),
    ("no bias", "self_attention", part(fresh.self_attend, bias=0.0)),
    ("relu", "mlp", part(fresh.mlp, act=lambda x: np.maximum(x, 0))),
    ("silu", "mlp", part(fresh.mlp, act=fresh.silu)),
    ("the last bias twice", "mlp", lambda w, x: fresh.mlp(w, x) + w["fc2.bias"]),
]  # fmt: skip

EMBEDDINGS = [
    ("base 1000", "timestep_embedding", part(fresh.waves, base=1000.0)),
    ("minus the sines", "timestep_embedding", part(fresh.waves, sin=-1.0)),
    ("times √2", "timestep_embedding", lambda t, n: 2**0.5 * fresh.waves(t, n)),
    ("in float16", "timestep_embedding", lambda t, n: half(fresh.waves(t, n))),
    ("t + 1", "timestep_embedding", lambda t, n: fresh.waves(np.asarray(t) + 1, n)),
    ("2π", "timestep_embedding", part(fresh.waves, unit=2 * math.pi)),
    ("the first for all", "timestep_embedding", lambda t, n: fresh.waves(np.full_like(t, t[0]), n)),
    ("relu", "timestep_embedder", part(fresh.told, act=lambda x: np.maximum(x, 0))),
    ("base 1000", "timestep_embedder", part(fresh.told, base=1000.0)),
    ("K + 1", "null_label", lambda K: K + 1),
    ("the next row", "label_embedding", lambda table, y, drop: fresh.classes(np.roll(table, -1, axis=0), y, drop)),
    ("halved", "label_embedding", lambda table, y, drop: fresh.classes(table, y, drop) / 2),
    ("never dropped", "label_embedding", lambda table, y, drop: table[y]),
    ("zero where dropped", "label_embedding", lambda table, y, drop: table[y] * ~drop[:, None]),
    ("columns for rows", "position_embedding", lambda D, h, w: np.roll(fresh.places(D, h, w), D // 2, axis=1)),
    ("from 1", "position_embedding",
     lambda D, h, w: fresh.places(D, h + 1, w + 1).reshape(h + 1, w + 1, D)[1:, 1:].reshape(-1, D)),
    ("base 100", "position_embedding", part(fresh.places, base=100.0)),
    ("the cosines first", "position_embedding",
     lambda D, h, w: np.hstack([np.roll(p, D // 4, axis=1) for p in np.split(fresh.places(D, h, w), 2, axis=1)])),
    ("no bias", "patch_embed", lambda x, w, b: fresh.embed(x, w, 0 * b)),
    ("column by column", "patch_embed", lambda x, w, b: np.reshape(
        fresh.embed(x, w, b).reshape(len(x), x.shape[2] // w.shape[2], -1, len(w)).swapaxes(1, 2), (len(x), -1, len(w)))),
    ("rows and columns of a patch", "patch_embed", lambda x, w, b: fresh.embed(x, w.swapaxes(2, 3), b)),
    ("mirrored", "unpatchify", lambda tok, p, size: fresh.sew(tok, p, size)[..., ::-1]),
    ("upside down", "unpatchify", lambda tok, p, size: fresh.sew(tok, p, size)[:, :, ::-1]),
    ("channels backwards", "unpatchify", lambda tok, p, size: fresh.sew(tok, p, size)[:, ::-1]),
]  # fmt: skip


def second_mlp(w, x, c, heads):
    """The MLP branch reads the stream from before the attention."""
    inside = lambda p: {n[len(p) :]: a for n, a in w.items() if n.startswith(p)}
    six = np.split(fresh.linear(fresh.silu(c), w["adaLN_modulation.1.weight"], w["adaLN_modulation.1.bias"]), 6, axis=1)
    a = fresh.self_attend(inside("attn."), fresh.modulate(fresh.norm(x), six[0], six[1]), heads)
    return x + six[2][:, None] * a + six[5][:, None] * fresh.mlp(inside("mlp."), fresh.modulate(fresh.norm(x), six[3], six[4]))


NETWORK = [
    ("the branches side by side", "block", second_mlp),
    ("post-norm", "block", part(fresh.block, last=fresh.norm)),
    ("norm without ε", "block", part(fresh.block, normed=part(fresh.norm, eps=1e-3))),
    ("gates exchanged", "block", part(fresh.block, rows=lambda six: [six[k] for k in (0, 1, 5, 3, 4, 2)])),
    ("relu before the modulation", "final_layer", part(fresh.final, act=lambda x: np.maximum(x, 0))),
    ("no activation", "final_layer", part(fresh.final, act=lambda x: x)),
    ("no norm", "final_layer", part(fresh.final, normed=lambda x: x)),
    ("output doubled", "final_layer", lambda w, x, c: 2 * fresh.final(w, x, c)),
]  # fmt: skip


def adam(th, m, v, g, n, lr, b1, b2, eps, wd, corrected=(True, True), decay=None, root=0.5, inside=False, sign=1):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    mh = m / (1 - b1**n) if corrected[0] else m
    vh = v / (1 - b2**n) if corrected[1] else v
    step = mh / ((vh + eps) ** root if inside else vh**root + eps)
    return th - lr * (step + (wd if decay is None else decay) * th), m, v


TRAINING = [
    ("1 - decay", "ema_update", lambda a, th, d: (1 - d) * a + d * th),
    ("the decay squared", "ema_update", lambda a, th, d: d * d * a + (1 - d * d) * th),
    ("added up", "ema_update", lambda a, th, d: d * a + th),
    ("the decay's complement forgotten", "ema_update", lambda a, th, d: a + (1 - d) * th),
    ("the decay at once", "ema_decay", lambda d, n: d),
    ("n / (10 + n)", "ema_decay", lambda d, n: min(d, n / (10 + n))),
    ("m not corrected", "adamw_update", part(adam, corrected=(False, True))),
    ("twice the rate", "adamw_update", lambda th, m, v, g, n, lr, *a: adam(th, m, v, g, n, 2 * lr, *a)),
    ("squares of nothing", "adamw_update", part(adam, root=1.0)),
    ("decay halved", "adamw_update", lambda th, m, v, g, n, lr, b1, b2, e, wd: adam(th, m, v, g, n, lr, b1, b2, e, wd / 2)),
    ("not limited", "clip_gradients", lambda g, limit: g),
    ("twice the limit", "clip_gradients", lambda g, limit: {k: v * min(1, 2 * limit / total(g)) for k, v in g.items()}),
    ("the largest entry", "clip_gradients",
     lambda g, limit: {k: v * min(1, limit / max(abs(a).max() for a in g.values())) for k, v in g.items()}),
    ("quadratic", "warmup_rate", lambda n, lr, w: lr * min(1, n / w) ** 2),
    ("no warm-up", "warmup_rate", lambda n, lr, w: lr),
    ("one step late", "warmup_rate", lambda n, lr, w: lr * min(1, (n + 1) / w)),
]  # fmt: skip

LATENTS = [
    ("the variance for the deviation", "latent_sample", lambda m, lv, e, s: s * (m + np.exp(lv) * e)),
    ("the mean alone", "latent_sample", lambda m, lv, e, s: s * m),
    ("minus the noise", "latent_sample", lambda m, lv, e, s: s * (m - np.exp(lv / 2) * e)),
    ("noise not scaled", "latent_sample", lambda m, lv, e, s: s * m + np.exp(lv / 2) * e),
    ("the square of the scale", "latent_to_decoder", lambda z, s: z / s**2),
    ("its root", "latent_to_decoder", lambda z, s: z / s**0.5),
    ("the deviation", "measured_scale", lambda z: z.std()),
    ("the variance's reciprocal", "measured_scale", lambda z: 1 / z.var()),
    ("no bias", "halve", lambda x, w, b: fresh.conv(x, w, 0 * b)),
    ("padded in front", "halve", part(fresh.conv, pads=((1, 0), (1, 0)))),
    ("to [0, 1]", "pixels_in", lambda u: u / 255),
    ("by 128", "pixels_in", lambda u: u / 128 - 1),
    ("from [0, 1]", "pixels_out", lambda x: np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)),
    ("the red channel last", "pixels_out", lambda x: fresh.bytes_of(x)[..., ::-1]),
]  # fmt: skip
