"""More mistakes in layers, embeddings, U-Nets, training and latents, as NumPy users write them: (what, topic, function)."""

import math

import numpy as np
from verify import fresh_layers as fresh


def erf_gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


LAYERS = [
    ("weight used untransposed where it is square", "linear",
     lambda x, w, b: (x @ w if w.shape[0] == w.shape[1] else x @ w.T) + b),
    ("bias scaled by the root of the width", "linear", lambda x, w, b: x @ w.T + b * math.sqrt(len(b))),
    ("quick gelu", "gelu", lambda x: x / (1 + np.exp(-1.702 * x))),
    ("leaky relu", "gelu", lambda x: np.where(x > 0, x, 0.01 * x)),
    ("softplus", "silu", lambda x: np.logaddexp(0, x)),
    ("hard swish", "silu", lambda x: x * np.clip(x + 3, 0, 6) / 6),
    ("elu", "silu", lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))),
    ("a temperature of 2", "softmax", lambda x: fresh.softmax(x / 2)),
    ("squares instead of exponentials", "softmax", lambda x: x**2 / (x**2).sum(-1, keepdims=True)),
    ("an RMS norm", "layer_norm", lambda x: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)),
    ("eps outside the root", "layer_norm", lambda x: (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + 1e-6)),
    ("over the last two axes", "layer_norm", lambda x: (x - x.mean((-1, -2), keepdims=True)) / np.sqrt(
        x.var((-1, -2), keepdims=True) + 1e-6)),
    ("median for mean", "layer_norm", lambda x: (x - np.median(x, -1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)),
    ("shift inside the bracket", "modulate", lambda x, b, s: (x + b[:, None]) * (1 + s[:, None])),
    ("tanh of the scale", "modulate", lambda x, b, s: x * (1 + np.tanh(s)[:, None]) + b[:, None]),
    ("exp of the scale", "modulate", lambda x, b, s: x * np.exp(s)[:, None] + b[:, None]),
    ("the first sample's scale", "modulate", lambda x, b, s: x * (1 + s[:1, None]) + b[:, None]),
    ("a sigmoid gate", "gated_residual", lambda x, g, h: x + h / (1 + np.exp(-g))[:, None]),
    ("gates the stream, too", "gated_residual", lambda x, g, h: g[:, None] * (x + h)),
    ("tanh of the gate", "gated_residual", lambda x, g, h: x + np.tanh(g)[:, None] * h),
    ("a causal mask", "attention", lambda q, k, v: fresh.softmax(np.where(
        np.tril(np.ones((q.shape[2],) * 2, bool)), q @ k.swapaxes(2, 3) / math.sqrt(q.shape[-1]), -np.inf)) @ v),
    ("the scale on top", "attention", lambda q, k, v: fresh.softmax(q @ k.swapaxes(2, 3) * math.sqrt(q.shape[-1])) @ v),
    ("by the number of tokens", "attention", lambda q, k, v: fresh.softmax(q @ k.swapaxes(2, 3) / math.sqrt(q.shape[2])) @ v),
    ("keys for values", "attention", lambda q, k, v: fresh.softmax(q @ k.swapaxes(2, 3) / math.sqrt(q.shape[-1])) @ k),
    ("scaled after the softmax", "attention", lambda q, k, v: fresh.softmax(q @ k.swapaxes(2, 3)) @ v / math.sqrt(q.shape[-1])),
    ("cosine attention", "attention", lambda q, k, v: fresh.softmax(
        q / np.linalg.norm(q, axis=-1, keepdims=True) @ (k / np.linalg.norm(k, axis=-1, keepdims=True)).swapaxes(2, 3)
        / math.sqrt(q.shape[-1])) @ v),
    ("reshaped without the transpose", "self_attention", lambda w, x, heads: fresh.linear(
        fresh.attend(*(a.reshape(len(x), heads, x.shape[1], -1) for a in np.split(fresh.linear(
            x, w["qkv.weight"], w["qkv.bias"]), 3, axis=-1))).transpose(0, 2, 1, 3).reshape(x.shape),
        w["proj.weight"], w["proj.bias"])),
    ("order k, q, v", "self_attention", lambda w, x, h: fresh.self_attend(w, x, h, lambda q, k, v: fresh.attend(k, q, v))),
    ("order v, k, q", "self_attention", lambda w, x, h: fresh.self_attend(w, x, h, lambda q, k, v: fresh.attend(v, k, q))),
    ("a residual inside", "self_attention", lambda w, x, heads: x + fresh.self_attend(w, x, heads)),
    ("exact gelu", "mlp", lambda w, x: fresh.mlp(w, x, act=erf_gelu)),
    ("no activation", "mlp", lambda w, x: fresh.mlp(w, x, act=lambda h: h)),
    ("activation after the second linear, too", "mlp", lambda w, x: fresh.gelu(fresh.mlp(w, x))),
]  # fmt: skip

EMBEDDINGS = [
    ("sine first", "timestep_embedding", lambda t, n: np.roll(fresh.waves(t, n), n // 2, axis=1)),
    ("scaled by 1000", "timestep_embedding", lambda t, n: fresh.waves(1000 * np.asarray(t), n)),
    ("frequencies by linspace", "timestep_embedding", lambda t, n: (
        a := np.outer(t, 10000.0 ** -np.linspace(0, 1, n // 2)), np.hstack([np.cos(a), np.sin(a)]))[-1]),
    ("interleaved", "timestep_embedding",
     lambda t, n: fresh.waves(t, n).reshape(len(t), 2, -1).swapaxes(1, 2).reshape(len(t), n)),
    ("base e", "timestep_embedding", lambda t, n: fresh.waves(t, n, base=math.e)),
    ("base 2", "timestep_embedding", lambda t, n: fresh.waves(t, n, base=2.0)),
    ("gelu in the time MLP", "timestep_embedder", lambda w, t: fresh.told(w, t, act=fresh.gelu)),
    ("another silu at the end", "timestep_embedder", lambda w, t: fresh.silu(fresh.told(w, t))),
    ("the second bias left out", "timestep_embedder", lambda w, t: fresh.told(w | {"mlp.2.bias": 0 * w["mlp.2.bias"]}, t)),
    ("the first row is the null row", "label_embedding", lambda table, y, drop: np.where(drop[:, None], table[0], table[y + 1])),
    ("the mean of all rows where dropped", "label_embedding",
     lambda table, y, drop: np.where(drop[:, None], table.mean(axis=0), table[y])),
    ("normalised rows", "label_embedding", lambda table, y, drop: (
        r := fresh.classes(table, y, drop), r / np.linalg.norm(r, axis=1, keepdims=True))[-1]),
    ("rows scaled by the root of the width", "label_embedding",
     lambda table, y, drop: fresh.classes(table, y, drop) * math.sqrt(table.shape[1])),
    ("positions from the middle", "position_embedding", lambda D, h, w: fresh.places(D, h, w, centre=1.0)),
    ("places from 0 to 1", "position_embedding", lambda D, h, w: fresh.places(D, h, w, unit=lambda n: 1 / n)),
    ("the flattened index in one dimension", "position_embedding", lambda D, h, w: fresh.waves(np.arange(h * w), D)),
    ("patches from the right", "patch_embed", lambda x, w, b: fresh.embed(x[..., ::-1], w, b)),
    ("the last channel first", "patch_embed", lambda x, w, b: fresh.embed(x[:, ::-1], w, b)),
    ("averages the bias in", "patch_embed", lambda x, w, b: fresh.embed(x, w, b + 1)),
    ("each patch turned by 180 degrees", "unpatchify", lambda tok, p, size: fresh.sew(tok[
        ..., np.arange(tok.shape[-1]).reshape(p, p, -1)[::-1, ::-1].ravel()], p, size)),
    ("tokens from the end", "unpatchify", lambda tok, p, size: fresh.sew(tok, p, size, back=True)),
]  # fmt: skip

# ------------------------------------------------------------------------------------------------ U-Nets


def group_norm(x, weight, bias, groups, eps, axes=(2, 3, 4), ddof=0, root=True):
    B, C, H, W = x.shape
    if C % groups:
        raise ValueError("groups")
    g = x.reshape(B, groups, C // groups, H, W)
    spread = g.var(axis=axes, keepdims=True, ddof=ddof) + eps
    n = ((g - g.mean(axis=axes, keepdims=True)) / (np.sqrt(spread) if root else spread)).reshape(x.shape)
    return n * weight[:, None, None] + bias[:, None, None]


def conv(x, w, b, pad=1):
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
    return np.einsum("bchwij,ocij->bohw", windows, w) + b[:, None, None]


def unet_block(w, x, c, groups, eps=1e-6, act=fresh.silu, tell=lambda m: m, scale=1.0, first=True, norm=group_norm):
    n1, n2 = (lambda h, k=k: norm(h, w[f"norm{k}.weight"], w[f"norm{k}.bias"], groups, eps) for k in (1, 2))
    h = conv(act(n1(x)), w["conv1.weight"], w["conv1.bias"])
    m = fresh.linear(fresh.silu(c), w["time_emb_proj.weight"], w["time_emb_proj.bias"])[:, :, None, None]
    h = n2(h + tell(m)) if first else n2(h) + m
    h = conv(act(h), w["conv2.weight"], w["conv2.bias"])
    return (conv(x, w["conv_shortcut.weight"], w["conv_shortcut.bias"], 0) if "conv_shortcut.weight" in w else x) + scale * h


def unet_attention(w, x, groups, scale=lambda C: C**-0.5, residual=True):
    B, C = x.shape[:2]
    n = group_norm(x, w["group_norm.weight"], w["group_norm.bias"], groups, 1e-6).reshape(B, C, -1).swapaxes(1, 2)
    q, k, v = (fresh.linear(n, w[f"{p}.weight"], w[f"{p}.bias"]) for p in ("to_q", "to_k", "to_v"))
    y = fresh.linear(fresh.softmax(q @ k.swapaxes(1, 2) * scale(C)) @ v, w["to_out.0.weight"], w["to_out.0.bias"])
    return y.swapaxes(1, 2).reshape(x.shape) + (x if residual else 0)


UNET = [
    ("over each channel", "group_norm", lambda *a: group_norm(*a, axes=(3, 4))),
    ("variance unbiased", "group_norm", lambda *a: group_norm(*a, ddof=1)),
    ("divided by the variance", "group_norm", lambda *a: group_norm(*a, root=False)),
    ("interleaved groups", "group_norm", lambda x, w, b, g, eps: (
        p := np.arange(x.shape[1]).reshape(-1, g).T.ravel() if x.shape[1] % g == 0 else 1 / 0,
        group_norm(x[:, p], w[p], b[p], g, eps)[:, np.argsort(p)])[-1]),
    ("weight plus one", "group_norm", lambda x, w, b, g, eps: group_norm(x, 1 + w, b, g, eps)),
    ("the condition is not told", "unet_block", lambda w, x, c, g: unet_block(w, x, c, g, tell=lambda m: 0 * m)),
    ("the condition multiplies", "unet_block",
     lambda w, x, c, g: unet_block(w, x, c, g, norm=lambda h, *a: group_norm(h, *a), tell=lambda m: m * 2)),
    ("relu", "unet_block", lambda w, x, c, g: unet_block(w, x, c, g, act=lambda h: np.maximum(h, 0))),
    ("divided by the root of two", "unet_block", lambda w, x, c, g: unet_block(w, x, c, g) / math.sqrt(2)),
    ("the branch of a tenth", "unet_block", lambda w, x, c, g: unet_block(w, x, c, g, scale=0.1)),
    ("the scale of eight heads", "unet_attention", lambda w, x, g: unet_attention(w, x, g, scale=lambda C: (C / 2) ** -0.5)),
    ("no residual", "unet_attention", lambda w, x, g: unet_attention(w, x, g, residual=False)),
    ("sine and cosine exchanged in halves", "unet_time_embedding", lambda t, n: (
        a := np.outer(t, 10000.0 ** (-np.arange(n // 2) / (n // 2 - 1))), np.hstack([np.cos(a), np.sin(a)]))[-1]),
    ("pixels side by side, not in squares", "unet_double", lambda x, w, b: conv(np.tile(x, (1, 1, 2, 2)), w, b)),
    ("added, not joined", "unet_join", lambda x, h: np.concatenate([x, h * 0.5], axis=1)),
]  # fmt: skip

# ------------------------------------------------------------------------------------------------ training, latents


def adam(th, m, v, g, n, lr, b1, b2, eps, wd, decay_first=False, g2=lambda g, m: g * g, step=lambda m, v, e: m / (v**0.5 + e)):
    if decay_first:
        g = g + wd * th
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g2(g, m)
    move = step(m / (1 - b1**n), v / (1 - b2**n), eps)
    return th - lr * move - (0 if decay_first else lr * wd * th), m, v


TRAINING = [
    ("decay warmed up linearly", "ema_decay", lambda d, n: d * min(1, n / 1000)),
    ("0 at the first step", "ema_decay", lambda d, n: min(d, (n - 1) / (n + 9))),
    ("averages the wrong way round", "ema_update", lambda a, th, d: (1 - d) * a + d * th),
    ("forgets to multiply", "ema_update", lambda a, th, d: a + (1 - d) * (a - th)),
    ("starts from zeros", "ema_run", lambda th, u, d: (lambda s: s)([
        (p := th, q := 0 * th), *[(p := p + x, q := d * q + (1 - d) * p) for x in u]][-1])),
    ("L2 in the gradient", "adamw_update", lambda *a: adam(*a, decay_first=True)),
    ("sign of the momentum", "adamw_update", lambda *a: adam(*a, step=lambda m, v, eps: np.sign(m))),
    ("AdaBelief", "adamw_update", lambda *a: adam(*a, g2=lambda g, m: (g - m) ** 2)),
    ("eps in the root", "adamw_update", lambda *a: adam(*a, step=lambda m, v, eps: m / np.sqrt(v + eps))),
    ("each array by itself", "clip_gradients", lambda g, limit: {
        k: v * min(1, limit / np.sqrt((v**2).sum())) for k, v in g.items()}),
    ("by value", "clip_gradients", lambda g, limit: {k: np.clip(v, -limit, limit) for k, v in g.items()}),
    ("a cosine warm-up", "warmup_rate", lambda n, lr, w: lr * (1 - math.cos(math.pi * min(1, n / w))) / 2 if n < w else lr),
    ("inverse root after it", "warmup_rate", lambda n, lr, w: lr * min(n / w, (w / n) ** 0.5)),
    ("the log-variance not halved, clipped", "latent_sample",
     lambda m, lv, e, s: s * (m + np.exp(0.5 * np.clip(lv, -0.5, 0.5)) * e)),
    ("shift as in newer models", "latent_to_decoder", lambda z, s: z / s + 0.1159),
    ("per channel", "measured_scale", lambda z: float(np.mean(1 / z.std(axis=(0, 2, 3))))),
    ("symmetric padding", "halve", lambda x, w, b: conv(x, w, b)[:, :, ::2, ::2]),
    ("normalised by mean and deviation of ImageNet", "pixels_in", lambda u: (u / 255 - 0.485) / 0.229),
    ("truncated", "pixels_out", lambda x: (np.clip((x + 1) / 2, 0, 1) * 255).astype(np.uint8)),
    ("not clipped", "pixels_out", lambda x: np.rint((x + 1) * 127.5).astype(int).astype(np.uint8)),
]  # fmt: skip
