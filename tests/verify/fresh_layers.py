"""Layers, optimisers, averages, label dropout and latents written by somebody else, with mistakes that are in no catalogue."""

import functools
import math

import numpy as np

part = functools.partial

# ------------------------------------------------------------------------------------------------ layers


def linear(x, w, b):
    return np.einsum("...n,mn->...m", x, w) + b


def gelu(x, c=0.044715, k=(2 / math.pi) ** 0.5):
    return x / (1 + np.exp(-2 * k * (x + c * x**3)))


def silu(x, beta=1.0):
    return x * np.where(x > 0, 1 / (1 + np.exp(-beta * abs(x))), np.exp(-beta * abs(x)) / (1 + np.exp(-beta * abs(x))))


def softmax(x, base=math.e, axis=-1, shift=np.max, more=0.0):
    e = base ** (x - shift(x, axis=axis, keepdims=True))
    return e / (e.sum(axis=axis, keepdims=True) + more)


def norm(x, eps=1e-6, axis=-1, spread=lambda d, axis: (d * d).mean(axis=axis, keepdims=True)):
    d = x - x.mean(axis=axis, keepdims=True)
    return d * (spread(d, axis) + eps) ** -0.5


def modulate(x, shift, scale, gain=lambda s: 1 + s, inner=0.0):
    return (x + inner * shift[:, None]) * gain(scale)[:, None] + (1 - inner) * shift[:, None]


def attend(q, k, v, weights=softmax, swap=False):
    logits = np.einsum("bhnd,bhmd->bhnm", q, k) / math.sqrt(q.shape[-1])
    return weights(logits.swapaxes(2, 3) if swap else logits) @ v


def self_attend(w, x, heads, how=attend, bias=1.0, out=1.0):
    B, N, D = x.shape
    qkv = linear(x, w["qkv.weight"], bias * w["qkv.bias"]).reshape(B, N, 3, heads, D // heads)
    y = how(*qkv.transpose(2, 0, 3, 1, 4)).transpose(0, 2, 1, 3).reshape(B, N, D)
    return linear(y, w["proj.weight"], w["proj.bias"]) if out else y


def mlp(w, x, act=gelu, order=("fc1", "fc2")):
    a, b = order
    return linear(act(linear(x, w[f"{a}.weight"], w[f"{a}.bias"])), w[f"{b}.weight"], w[f"{b}.bias"])


def block(w, x, c, heads, *, rows=lambda six: six, normed=norm, last=lambda x: x, attn=self_attend):
    six = rows(np.split(linear(silu(c), w["adaLN_modulation.1.weight"], w["adaLN_modulation.1.bias"]), 6, axis=1))
    inside = lambda p: {n[len(p) :]: a for n, a in w.items() if n.startswith(p)}
    x = x + six[2][:, None] * attn(inside("attn."), modulate(normed(x), six[0], six[1]), heads)
    return last(x + six[5][:, None] * mlp(inside("mlp."), modulate(normed(x), six[3], six[4])))


def final(w, x, c, act=silu, normed=norm):
    shift, scale = np.split(linear(act(c), w["adaLN_modulation.1.weight"], w["adaLN_modulation.1.bias"]), 2, axis=1)
    return linear(modulate(normed(x), shift, scale), w["linear.weight"], w["linear.bias"])


def waves(t, width, base=10000.0, unit=1.0, sin=1.0, last=lambda e: e):
    angle = np.outer(t, unit * base ** (-2 * np.arange(width // 2) / width))
    return last(np.hstack([np.cos(angle), sin * np.sin(angle)]))


def told(w, t, act=silu, after=lambda x: x, **more):
    h = linear(waves(t, w["mlp.0.weight"].shape[1], **more), w["mlp.0.weight"], w["mlp.0.bias"])
    return after(linear(act(h), w["mlp.2.weight"], w["mlp.2.bias"]))


def classes(table, y, drop, form=lambda rows: rows):
    return form(np.stack([table[-1] if d else table[k] for k, d in zip(y, drop, strict=True)]))


def places(D, h, w, base=10000.0, unit=lambda n: 1.0, centre=0.0):
    omega = base ** (-4 * np.arange(D // 4) / D)
    wave = lambda s: [f(s * o) for f in (math.sin, math.cos) for o in omega]
    at = lambda k, n: (k - centre * (n - 1) / 2) * unit(n)
    return np.array([[*wave(at(c, w)), *wave(at(r, h))] for r in range(h) for c in range(w)])


def embed(x, w, b, flip=False, form=lambda cut: cut):
    D, _, p, _ = w.shape
    w = w[:, :, ::-1, ::-1] if flip else w
    rows = [(w * form(x[n, :, i : i + p, j : j + p])).sum(axis=(1, 2, 3)) + b
            for n in range(len(x)) for i in range(0, x.shape[2], p) for j in range(0, x.shape[3], p)]  # fmt: skip
    return np.array(rows).reshape(len(x), -1, D)


def sew(tokens, p, size, turn=False, back=False):
    B, N, n = tokens.shape
    H, W = size
    out = np.empty((B, n // p**2, H, W))
    for k in range(N):
        r, c = divmod(N - 1 - k if back else k, W // p)
        cut = tokens[:, k].reshape(B, p, p, -1).transpose(0, 3, 1, 2)
        out[:, :, r * p : r * p + p, c * p : c * p + p] = cut[..., ::-1] if turn else cut
    return out


LAYERS = {
    "linear": linear, "gelu": gelu, "silu": silu, "softmax": softmax, "layer_norm": norm, "modulate": modulate,
    "gated_residual": lambda x, g, h: h * g[:, None] + x, "attention": attend, "self_attention": self_attend, "mlp": mlp,
    "block": block, "final_layer": final, "timestep_embedding": waves, "timestep_embedder": told, "null_label": lambda K: K,
    "label_embedding": classes, "position_embedding": places, "patch_embed": embed, "unpatchify": sew,
}  # fmt: skip
flat = lambda cut: np.broadcast_to(cut.mean(axis=(1, 2), keepdims=True), cut.shape)
one_head = lambda q, k, v: 0 * q + attend(q, k, v).mean(axis=1, keepdims=True)
mean = lambda q, k, v: np.broadcast_to(v.mean(axis=2, keepdims=True), v.shape)
WRONG_LAYERS = [
    ("half the bias", "linear", lambda x, w, b: linear(x, w, b / 2)),
    ("rounded to bfloat16", "linear", lambda x, w, b: linear(np.float32(np.float16(x)), w, b).astype(float)),
    ("another root", "gelu", part(gelu, k=0.8)),
    ("0.0447", "gelu", part(gelu, c=0.0447)),
    ("beta 1.702", "silu", part(silu, beta=1.702)),
    ("clamped at 6", "silu", lambda x: np.minimum(silu(x), 5.9)),
    ("to base 2", "softmax", part(softmax, base=2.0)),
    ("one more in the denominator", "softmax", part(softmax, more=1.0)),
    ("over everything", "softmax", lambda x: softmax(x.reshape(-1)).reshape(x.shape)),
    ("its logarithm", "softmax", lambda x: np.log(softmax(x) + 1e-300)),
    ("no ε", "layer_norm", part(norm, eps=0.0)),
    ("ε = 2e-6", "layer_norm", part(norm, eps=2e-6)),
    ("mean deviation", "layer_norm", part(norm, spread=lambda d, axis: abs(d).mean(axis=axis, keepdims=True) ** 2)),
    ("over samples", "layer_norm", part(norm, axis=0)),
    ("the L2 norm of the row", "layer_norm", part(norm, spread=lambda d, axis: (d * d).sum(axis=axis, keepdims=True))),
    ("shift inside", "modulate", part(modulate, inner=1.0)),
    ("e^scale", "modulate", part(modulate, gain=np.exp)),
    ("the first sample's scale for all", "modulate", lambda x, b, s: modulate(x, b, s[:1])),
    ("the gate's absolute value", "gated_residual", lambda x, g, h: x + abs(g)[:, None] * h),
    ("gate on the stream", "gated_residual", lambda x, g, h: g[:, None] * x + h),
    ("keys ask", "attention", part(attend, swap=True)),
    ("all keys alike", "attention", mean),
    ("never itself", "attention", part(attend, weights=lambda s: softmax(s - 1e9 * np.eye(s.shape[-1])))),
    ("no head sees the last token", "attention", lambda q, k, v: attend(q, k[:, :, :-1], v[:, :, :-1])),
    ("logits capped at 50", "attention", part(attend, weights=lambda s: softmax(50 * np.tanh(s / 50)))),
    ("qkv without bias", "self_attention", part(self_attend, bias=0.0)),
    ("not projected", "self_attention", part(self_attend, out=0.0)),
    ("the mean of heads", "self_attention", part(self_attend, how=one_head)),
    ("activation behind both", "mlp", lambda w, x: gelu(mlp(w, x))),
    ("leaky", "mlp", part(mlp, act=lambda x: np.where(x > 0, x, 0.01 * x))),
    ("signs of both gates", "block", part(block, rows=lambda s: [s[0], s[1], -s[2], s[3], s[4], -s[5]])),
    ("one shift for both", "block", part(block, rows=lambda s: [s[0], s[1], s[2], s[0], s[4], s[5]])),
    ("a norm behind", "block", part(block, last=norm)),
    ("halved at the end", "block", part(block, last=lambda x: x / 2**0.5)),
    ("ReLU on c", "final_layer", part(final, act=lambda c: np.maximum(c, 0))),
    ("normed twice with a gain", "final_layer", part(final, normed=lambda x: 1.02 * norm(x))),
    ("base 1000", "timestep_embedding", part(waves, base=1000.0)),
    ("in turns", "timestep_embedding", part(waves, unit=2 * math.pi)),
    ("minus sine", "timestep_embedding", part(waves, sin=-1.0)),
    ("of unit length", "timestep_embedding", part(waves, last=lambda e: e / np.linalg.norm(e, axis=1, keepdims=True))),
    ("activation behind", "timestep_embedder", part(told, after=silu)),
    ("tanh", "timestep_embedder", part(told, act=np.tanh)),
    ("normalised rows", "label_embedding", part(classes, form=lambda r: r / np.linalg.norm(r, axis=1, keepdims=True))),
    ("times √D", "label_embedding", part(classes, form=lambda r: r * r.shape[1] ** 0.5)),
    ("zeros where dropped", "label_embedding", lambda table, y, drop: np.where(drop[:, None], 0, table[y])),
    ("the null row one further", "null_label", lambda K: K + 1),
    ("in units of the grid", "position_embedding", part(places, unit=lambda n: 1 / n)),
    ("from the middle", "position_embedding", part(places, centre=1.0)),
    ("base 5000", "position_embedding", part(places, base=5000.0)),
    ("kernel turned round", "patch_embed", part(embed, flip=True)),
    ("the mean of a patch", "patch_embed", part(embed, form=flat)),
    ("each patch mirrored", "unpatchify", part(sew, turn=True)),
    ("from the last token", "unpatchify", part(sew, back=True)),
]  # fmt: skip

# ------------------------------------------------------------------------------------------------ averages, optimisers


def adamw(
    th, m, v, g, n, lr, b1, b2, eps, wd, *, fix=lambda m, v, b1, b2, n: (m / (1 - b1**n), v / (1 - b2**n)),
    square=lambda g: g * g, move=lambda th, r, lr, wd: th * (1 - lr * wd) - lr * r, below=lambda v, eps: np.sqrt(v) + eps,
):  # fmt: skip
    m, v = m + (1 - b1) * (g - m), v + (1 - b2) * (square(g) - v)
    mh, vh = fix(m, v, b1, b2, n)
    return move(th, mh / below(vh, eps), lr, wd), m, v


def averaged(th, updates, d, start=lambda th: th, every=1, read=lambda th, step: th):
    avg = start(np.array(th))
    for k, step in enumerate(updates):
        th = th + step
        avg = avg + (1 - d) * (read(th, step) - avg) if k % every == 0 else avg
    return [th, avg]


def clipped(g, c, norm=lambda g: math.sqrt(sum(float((a**2).sum()) for a in g.values())), form=lambda n, c: min(1.0, c / n)):
    return {k: a * form(norm(g), c) for k, a in g.items()}


largest = lambda g: max(float(abs(a).max()) for a in g.values())
TRAINING = {
    "ema_decay": lambda d, n: min(d, (1 + n) / (10 + n)), "ema_update": lambda a, th, d: th + d * (a - th), "ema_run": averaged,
    "adamw_update": adamw, "clip_gradients": clipped, "warmup_rate": lambda n, lr, k: lr * min(1.0, n / k),
    "weight_decays": lambda shapes, wd: {n: wd * (len(s) > 1) for n, s in shapes.items()},
}  # fmt: skip
WRONG_TRAINING = [
    ("(1+n)/(100+n)", "ema_decay", lambda d, n: min(d, (1 + n) / (100 + n))),
    ("1 - 1/n", "ema_decay", lambda d, n: min(d, 1 - 1 / n)),
    ("counted from 0", "ema_decay", lambda d, n: min(d, n / (9 + n))),
    ("adds without forgetting", "ema_update", lambda a, th, d: a + (1 - d) * th),
    ("decay squared", "ema_update", lambda a, th, d: d * d * a + (1 - d * d) * th),
    ("in float16", "ema_update", lambda a, th, d: (d * a + (1 - d) * th).astype(np.float16).astype(float)),
    ("geometric", "ema_update", lambda a, th, d: np.sign(a) * abs(a) ** d * abs(th) ** (1 - d)),
    ("every other step", "ema_run", part(averaged, every=2)),
    ("averages the updates", "ema_run", part(averaged, read=lambda th, step: step)),
    ("a running mean", "ema_run", lambda th, u, d: [th + u.sum(0), (th + np.cumsum(u, 0)).mean(0)]),
    ("ε squared", "adamw_update", part(adamw, below=lambda v, e: np.sqrt(v) + e * e)),
    ("no root", "adamw_update", part(adamw, below=lambda v, e: v + e)),
    ("Adamax", "adamw_update", part(adamw, below=lambda v, e: np.sqrt(v).max() + e)),
    ("|g| for g²", "adamw_update", part(adamw, square=abs)),
    ("decay of the new weights", "adamw_update", part(adamw, move=lambda th, r, lr, wd: (th - lr * r) * (1 - lr * wd))),
    ("half the decay", "adamw_update", part(adamw, move=lambda th, r, lr, wd: th * (1 - lr * wd / 2) - lr * r)),
    ("decays in the sign of θ", "adamw_update", part(adamw, move=lambda th, r, lr, wd: th - lr * (r + wd * np.sign(th)))),
    ("corrections exchanged", "adamw_update", part(adamw, fix=lambda m, v, b1, b2, n: (m / (1 - b2**n), v / (1 - b1**n)))),
    ("AMSGrad of everything", "adamw_update", lambda th, m, v, *a: adamw(th, m, np.maximum(v, 1e-3), *a)),
    ("the largest entry for the norm", "clip_gradients", part(clipped, norm=largest)),
    ("the mean square", "clip_gradients", part(clipped, norm=lambda g: (sum((a**2).mean() for a in g.values()) / len(g)) ** 0.5)),
    ("c/(1+n)", "clip_gradients", part(clipped, form=lambda n, c: min(1.0, c / (1 + n)))),
    ("warmup along a cosine", "warmup_rate", lambda n, lr, k: lr * (1 - math.cos(math.pi * min(1, n / k))) / 2),
    ("decays behind the warmup", "warmup_rate", lambda n, lr, k: lr * min(n / k, (k / n) ** 0.5)),
    ("biases only", "weight_decays", lambda shapes, wd: {n: wd * (len(s) < 2) for n, s in shapes.items()}),
    ("by the name", "weight_decays", lambda shapes, wd: {n: wd * n.endswith("weight") for n, s in shapes.items()}),
]  # fmt: skip

# ------------------------------------------------------------------------------------------------ label dropout


def drop(y, p, K, depth, train, seed, mask=lambda r, n, p: r.random(n) < p, null=lambda K, y: K, others=lambda y: y):
    m = mask(np.random.default_rng(seed), len(y), p) if train else np.zeros(len(y), bool)
    return np.where(m, null(K, y), others(y) if train else y)


def slow(r, n, p):
    """In runs: each sample does as the one before it, nine times in ten."""
    m = r.random(n) < p
    keep = r.random(n) < 0.9
    for k in range(1, n):
        m[k] = m[k - 1] if keep[k] else m[k]
    return m


DROPOUT = {"label_dropout": drop}
WRONG_DROPOUT = [
    ("√p", "label_dropout", part(drop, mask=lambda r, n, p: r.random(n) < p**0.5)),
    ("p squared", "label_dropout", part(drop, mask=lambda r, n, p: r.random(n) < p * p)),
    ("a tenth whatever p", "label_dropout", part(drop, mask=lambda r, n, p: r.random(n) < 0.1)),
    ("a tenth more than p", "label_dropout", part(drop, mask=lambda r, n, p: r.random(n) < 1.1 * p)),
    ("normal for uniform", "label_dropout", part(drop, mask=lambda r, n, p: r.standard_normal(n) < p)),
    ("the first of the batch", "label_dropout", part(drop, mask=lambda r, n, p: np.arange(n) < p * n)),
    ("each second one", "label_dropout", part(drop, mask=lambda r, n, p: np.arange(n) % round(1 / p) == 0)),
    ("in runs", "label_dropout", part(drop, mask=slow)),
    ("the null label is -1", "label_dropout", part(drop, null=lambda K, y: -1)),
    ("K + 1", "label_dropout", part(drop, null=lambda K, y: K + 1)),
    ("another class for the null label", "label_dropout", part(drop, null=lambda K, y: (y + 1) % 7)),
    ("no number", "label_dropout", part(drop, null=lambda K, y: np.nan)),
    ("the others shuffled", "label_dropout", part(drop, others=lambda y: np.random.default_rng(3).permutation(y))),
    ("float labels half way", "label_dropout", part(drop, null=lambda K, y: K - 0.5)),
]  # fmt: skip

# ------------------------------------------------------------------------------------------------ latents


def conv(x, w, b, pads=((0, 1), (0, 1)), value=None, flip=False):
    x = np.pad(x, ((0, 0), (0, 0), *pads), **({"mode": value} if value else {}))
    w = w[:, :, ::-1, ::-1] if flip else w
    H, W = (x.shape[2] - 1) // 2, (x.shape[3] - 1) // 2
    window = lambda n, i, j: (w * x[n, None, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]).sum(axis=(1, 2, 3)) + b
    rows = [window(n, i, j) for n in range(len(x)) for i in range(H) for j in range(W)]
    return np.array(rows).reshape(len(x), H, W, -1).transpose(0, 3, 1, 2)


bytes_of = lambda x: np.rint(np.clip((x + 1) * 127.5, 0, 255)).astype(np.uint8)
LATENTS = {
    "latent_sample": lambda m, lv, e, s: s * m + s * np.sqrt(np.exp(lv)) * e, "latent_to_decoder": lambda z, s: (1 / s) * z,
    "measured_scale": lambda z: 1 / np.sqrt(np.mean((z - z.mean()) ** 2)), "halve": conv, "pixels_out": bytes_of,
    "pixels_in": lambda u: (u.astype(float) - 127.5) / 127.5,
}  # fmt: skip
WRONG_LATENTS = [
    ("the mean left unscaled", "latent_sample", lambda m, lv, e, s: m + s * np.exp(lv / 2) * e),
    ("e^(2λ)", "latent_sample", lambda m, lv, e, s: s * (m + np.exp(2 * lv) * e)),
    ("log-variance clamped to ±1", "latent_sample", lambda m, lv, e, s: s * (m + np.exp(np.clip(lv, -1, 1) / 2) * e)),
    ("√ of the scale", "latent_sample", lambda m, lv, e, s: s**0.5 * (m + np.exp(lv / 2) * e)),
    ("noise in the last channel left out", "latent_sample",
     lambda m, lv, e, s: s * (m + np.exp(lv / 2) * e * (np.arange(4) < 3).reshape(-1, 1, 1))),
    ("0.18215 whatever the scale", "latent_sample", lambda m, lv, e, s: 0.18215 * (m + np.exp(lv / 2) * e)),
    ("shifted by a half", "latent_to_decoder", lambda z, s: z / s + 0.5),
    ("clipped", "latent_to_decoder", lambda z, s: np.clip(z / s, -4, 4)),
    ("a scale for each channel", "measured_scale", lambda z: 1 / z.std(axis=(0, 2, 3))),
    ("the mean of the channels' scales", "measured_scale", lambda z: (1 / z.std(axis=(0, 2, 3))).mean()),
    ("root mean square", "measured_scale", lambda z: 1 / np.sqrt((z * z).mean())),
    ("of the first sample", "measured_scale", lambda z: 1 / z[0].std()),
    ("the border repeated", "halve", part(conv, value="edge")),
    ("zeros below, nothing to the right", "halve", lambda x, w, b: conv(x, w, b, pads=((0, 1), (0, 0)))),
    ("kernel turned round", "halve", part(conv, flip=True)),
    ("255 for 256", "pixels_in", lambda u: u / 128 - 1 + 1 / 256),
    ("the sign", "pixels_in", lambda u: 1 - u / 127.5),
    ("standardised", "pixels_in", lambda u: (u - u.mean()) / u.std()),
    ("256 levels", "pixels_out", lambda x: np.clip(128 * (x + 1), 0, 255).astype(np.uint8)),
    ("rounded up", "pixels_out", lambda x: np.ceil(np.clip((x + 1) * 127.5, 0, 255)).astype(np.uint8)),
    ("without its sign", "pixels_out", lambda x: bytes_of(2 * abs(x) - 1)),
]  # fmt: skip
