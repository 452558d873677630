"""A DiT written by somebody else: loops over samples and heads, no layer of the package; and mistakes that nobody has named.

`dit(wrong)` is the function that the topic asks for; it hands out what its layers gave. WRONG: mistake -> the layer that it
spoils first.
"""

import math

import numpy as np

WRONG = {
    "no bias in proj": "blocks.0.attn",
    "no bias in fc2": "blocks.0.mlp",
    "no bias in x_embedder": "x_embedder",
    "mean absolute deviation in the norm": "blocks.0.attn.qkv",
    "the norm over the batch": "blocks.0.attn.qkv",
    "time base 1000": "t_embedder",
    "time of the first sample for all": "t_embedder",
    "time frequencies half + 1": "t_embedder",
    "place base 1000": "blocks.0.attn.qkv",
    "gelu constant 0.44715": "blocks.0.mlp",
    "no shift in the final layer": "final_layer",
    "half the condition": "c",
    "the last block left out": "blocks.1",
    "the blocks backwards": "blocks.0.attn.qkv",
    "the first block's modulation for all": "blocks.1.attn.qkv",
    "queries and keys normalised": "blocks.0.attn",
    "causal": "blocks.0.attn",
    "a residual from the norm": "blocks.0",
    "silu twice": "blocks.0.attn.qkv",
    "the next label": "y_embedder",
    "float16 in the MLP": "blocks.0.mlp",
    "scale 1/8 whatever the head": "blocks.0.attn",
    "places added again behind the blocks": "final_layer",
    "the channels' halves swapped": "what follows final_layer",
    "mirrored": "what follows final_layer",
}


def dit(wrong=""):
    def run(weights, x, t, y, heads, patch_size):
        assert wrong in ("", *WRONG)
        outs, taps = [], {}
        for b in range(len(x)):
            one = {}
            when = t[0] if wrong == "time of the first sample for all" else t[b]
            outs.append(_sample(weights, x[b], float(when), int(y[b]), heads, patch_size, wrong, one, x))
            for name, a in one.items():
                taps.setdefault(name, []).append(a)
        return np.array(outs), {name: np.array(a) for name, a in taps.items()}

    return run


def _silu(a):
    return a / (1 + np.exp(-a))


def _norm(a, wrong):
    out = np.empty_like(a)
    for n, row in enumerate(a):
        d = row - row.mean()
        out[n] = d / (np.abs(d).mean() if wrong == "mean absolute deviation in the norm" else math.sqrt((d * d).mean() + 1e-6))
    if wrong == "the norm over the batch":
        out = (a - a.mean(axis=0)) / np.sqrt(a.var(axis=0) + 1e-6)
    return out


def _attention(w, a, heads, wrong, taps, place):
    qkv = a @ w["attn.qkv.weight"].T + w["attn.qkv.bias"]
    taps[f"{place}attn.qkv"] = qkv
    N, D = a.shape
    K = D // heads
    together = []
    for h in range(heads):
        q, k, v = (qkv[:, i * D + h * K : i * D + (h + 1) * K] for i in range(3))
        if wrong == "queries and keys normalised":
            q, k = q / np.linalg.norm(q, axis=1, keepdims=True), k / np.linalg.norm(k, axis=1, keepdims=True)
        s = q @ k.T * (1 / 8 if wrong == "scale 1/8 whatever the head" else 1 / math.sqrt(K))
        if wrong == "causal":
            s = np.where(np.tri(N, dtype=bool), s, -1e30)
        e = np.exp(s - s.max(axis=1, keepdims=True))
        together.append(e / e.sum(axis=1, keepdims=True) @ v)
    return np.hstack(together) @ w["attn.proj.weight"].T + (0 if wrong == "no bias in proj" else w["attn.proj.bias"])


def _mlp(w, a, wrong):
    if wrong == "float16 in the MLP":
        a = a.astype(np.float16).astype(float)
    h = a @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"]
    h = h / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + (0.44715 if wrong.startswith("gelu") else 0.044715) * h**3)))
    return h @ w["mlp.fc2.weight"].T + (0 if wrong == "no bias in fc2" else w["mlp.fc2.bias"])


def _sample(weights, x, t, y, heads, p, wrong, taps, batch):
    _, H, W = x.shape
    D = len(weights["x_embedder.proj.bias"])
    kernel = weights["x_embedder.proj.weight"].reshape(D, -1)
    places = [(r, c) for r in range(H // p) for c in range(W // p)]
    tokens = np.array([kernel @ x[:, r * p : r * p + p, c * p : c * p + p].ravel() for r, c in places])
    tokens += 0 if wrong == "no bias in x_embedder" else weights["x_embedder.proj.bias"]
    taps["x_embedder"] = tokens
    omega = (1000.0 if wrong == "place base 1000" else 10000.0) ** (-4 * np.arange(D // 4) / D)
    table = np.array([np.hstack([np.sin(c * omega), np.cos(c * omega), np.sin(r * omega), np.cos(r * omega)]) for r, c in places])
    h = tokens + table

    base, count = (
        (1000.0 if wrong == "time base 1000" else 10000.0),
        129 if wrong == "time frequencies half + 1" else 128,
    )
    angle = t * base ** (-np.arange(128) / count)
    e = np.hstack([np.cos(angle), np.sin(angle)])
    e = _silu(weights["t_embedder.mlp.0.weight"] @ e + weights["t_embedder.mlp.0.bias"])
    taps["t_embedder"] = weights["t_embedder.mlp.2.weight"] @ e + weights["t_embedder.mlp.2.bias"]
    labels = weights["y_embedder.embedding_table.weight"]
    taps["y_embedder"] = labels[(y + 1) % len(labels) if wrong == "the next label" else y]
    c = (taps["t_embedder"] + taps["y_embedder"]) * (0.5 if wrong == "half the condition" else 1)
    taps["c"] = c
    s = _silu(_silu(c)) if wrong == "silu twice" else _silu(c)

    depth = sum(name.endswith("attn.qkv.bias") for name in weights)
    order = range(depth)[::-1] if wrong == "the blocks backwards" and depth > 1 else range(depth)
    for k, i in enumerate(order):
        w = {name.split(".", 2)[2]: a for name, a in weights.items() if name.startswith(f"blocks.{i}.")}
        if wrong == "the last block left out" and i == depth - 1 and depth > 1:
            taps[f"blocks.{i}"] = h
            continue
        m = weights if wrong == "the first block's modulation for all" else None
        source = {n: (m[f"blocks.0.{n}"] if m else w[n]) for n in ("adaLN_modulation.1.weight", "adaLN_modulation.1.bias")}
        b1, s1, g1, b2, s2, g2 = np.split(source["adaLN_modulation.1.weight"] @ s + source["adaLN_modulation.1.bias"], 6)
        place = f"blocks.{k}."
        normed = _norm(h, wrong)
        a = _attention(w, normed * (1 + s1) + b1, heads, wrong, taps, place)
        taps[f"{place}attn"] = a
        h = (normed if wrong == "a residual from the norm" else h) + g1 * a
        a = _mlp(w, _norm(h, wrong) * (1 + s2) + b2, wrong)
        taps[f"{place}mlp"] = a
        h = h + g2 * a
        taps[f"blocks.{k}"] = h

    if wrong == "places added again behind the blocks":
        h = h + table
    b, g = np.split(weights["final_layer.adaLN_modulation.1.weight"] @ s + weights["final_layer.adaLN_modulation.1.bias"], 2)
    if wrong == "no shift in the final layer":
        b = 0
    out = (_norm(h, wrong) * (1 + g) + b) @ weights["final_layer.linear.weight"].T + weights["final_layer.linear.bias"]
    taps["final_layer"] = out
    picture = np.empty((out.shape[1] // p**2, H, W))
    for token, (r, c) in zip(out, places, strict=True):
        for i in range(p):
            for j in range(p):
                picture[:, r * p + i, c * p + j] = token[(i * p + j) * len(picture) : (i * p + j + 1) * len(picture)]
    if wrong == "mirrored":
        picture = picture[:, :, ::-1]
    if wrong == "the channels' halves swapped":
        picture = np.roll(picture, len(picture) // 2, axis=0)
    return picture
