"""A whole DiT in NumPy and SciPy, layer by layer, with the gradients of every weight: no autograd, no layer of the package.

    python examples/verify/scipy_network.py

Backwards, products are products again, and whatever is not linear gets its slopes by the complex step, Im f(x + ih)/h with
h = 1e-20: exact to rounding, because nothing is subtracted, and there is no derivative by hand that could be wrong.
"""

import math

import numpy as np
from scipy import signal, special

import minidit as md

# ------------------------------------------------------------------------------------------------ layers


def linear(x, weight, bias):
    return np.einsum("...n,mn->...m", x, weight) + bias


def gelu(x):
    """x σ(2u), because 1 + tanh u = 2 σ(2u)."""
    return x * special.expit(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def silu(x):
    return x * special.expit(x)


def softmax(x):
    return special.softmax(x, axis=-1)


def layer_norm(x):
    d = x - x.mean(-1, keepdims=True)
    return d / np.sqrt(np.einsum("...n,...n->...", d, d)[..., None] / x.shape[-1] + 1e-6)


def modulate(x, shift, scale):
    return x + np.einsum("bnd,bd->bnd", x, scale) + shift[:, None]


def gated_residual(x, gate, h):
    return x + np.einsum("bd,bnd->bnd", gate, h)


def attention(q, k, v):
    logits = np.einsum("...nk,...mk->...nm", q, k) / math.sqrt(q.shape[-1])
    return np.einsum("...nm,...mk->...nk", np.exp(logits - special.logsumexp(logits, axis=-1, keepdims=True)), v)


def heads_of(qkv, heads):
    """q, k and v, each (B, heads, N, K)."""
    return np.moveaxis(qkv.reshape(*qkv.shape[:2], 3, heads, -1), (2, 3), (0, 2))


def self_attention(weights, x, heads):
    y = attention(*heads_of(linear(x, weights["qkv.weight"], weights["qkv.bias"]), heads))
    return linear(np.moveaxis(y, 1, 2).reshape(x.shape), weights["proj.weight"], weights["proj.bias"])


def mlp(weights, x):
    return linear(gelu(linear(x, weights["fc1.weight"], weights["fc1.bias"])), weights["fc2.weight"], weights["fc2.bias"])


# ------------------------------------------------------------------------------------------------ time, class, place, patches


def waves(x, n):
    """e^(i x ω) with n frequencies ω from 1 down towards 1/10000: (..., n)."""
    return np.exp(1j * np.multiply.outer(x, np.logspace(0, -4, n, endpoint=False)))


def timestep_embedding(t, width):
    e = waves(t, width // 2)
    return np.hstack([e.real, e.imag])


def timestep_embedder(weights, t):
    h = linear(timestep_embedding(t, 256), weights["mlp.0.weight"], weights["mlp.0.bias"])
    return linear(silu(h), weights["mlp.2.weight"], weights["mlp.2.bias"])


def null_label(num_classes):
    return len(range(num_classes))


def label_embedding(table, y, drop):
    K = len(table) - 1
    return np.eye(K + 1, dtype=table.dtype)[np.where(drop, K, y)] @ table


def position_embedding(D, h, w):
    row, column = np.divmod(np.arange(h * w), w)
    return np.hstack([part for e in (waves(column, D // 4), waves(row, D // 4)) for part in (e.imag, e.real)])


def patch_embed(x, weight, bias):
    """Every patch is where a correlation of the picture with a filter is read, p by p."""
    p = weight.shape[-1]
    if any(n % p for n in x.shape[2:]):
        raise ValueError(f"patches of {p} do not fill {x.shape[2:]}")
    maps = [[signal.correlate(picture, w, "valid", "direct")[0, ::p, ::p] for w in weight] for picture in x]
    return np.reshape(maps, (len(x), len(weight), -1)).swapaxes(1, 2) + bias


def unpatchify(tokens, p, size):
    h, w = size[0] // p, size[1] // p
    return np.einsum("bhwijc->bchiwj", tokens.reshape(len(tokens), h, w, p, p, -1)).reshape(len(tokens), -1, h * p, w * p)


# ------------------------------------------------------------------------------------------------ blocks


def below(weights, prefix):
    return {name[len(prefix) :]: w for name, w in weights.items() if name.startswith(prefix)}


def controls(weights, c, n):
    return np.split(linear(silu(c), weights["adaLN_modulation.1.weight"], weights["adaLN_modulation.1.bias"]), n, axis=1)


def block(weights, x, c, heads):
    a, b, gate, d, e, gate_2 = controls(weights, c, 6)
    x = gated_residual(x, gate, self_attention(below(weights, "attn."), modulate(layer_norm(x), a, b), heads))
    return gated_residual(x, gate_2, mlp(below(weights, "mlp."), modulate(layer_norm(x), d, e)))


def final_layer(weights, x, c):
    return linear(modulate(layer_norm(x), *controls(weights, c, 2)), weights["linear.weight"], weights["linear.bias"])


# ------------------------------------------------------------------------------------------------ there and back


def slopes(f, x, y_bar):
    """ȳ ∂f/∂x of a function that mixes the entries of a row: one complex step for every column."""
    out = np.empty_like(x)
    for k in range(x.shape[-1]):
        step = x.astype(complex)
        step[..., k] += 1e-20j
        out[..., k] = (y_bar * f(step).imag).sum(-1) * 1e20
    return out


class Pass:
    """The network once forwards; what each line makes stays, so that `back` can walk the lines in the other order."""

    def __init__(self, weights, x, t, y, heads, p):
        self.w, self.bars, self.x, self.y, self.heads, self.p = weights, {}, x, y, heads, p
        self.depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
        B, _, H, W = x.shape
        self.cuts = x.reshape(B, -1, H // p, p, W // p, p).transpose(0, 2, 4, 1, 3, 5).reshape(B, -1, x.shape[1] * p * p)
        self.taps = {"x_embedder": patch_embed(x, weights["x_embedder.proj.weight"], weights["x_embedder.proj.bias"])}
        self.wave = timestep_embedding(t, 256)
        self.hidden = self.dense("t_embedder.mlp.0", self.wave)
        self.taps["t_embedder"] = self.dense("t_embedder.mlp.2", silu(self.hidden))
        self.taps["y_embedder"] = weights["y_embedder.embedding_table.weight"][y]
        self.c = self.taps["c"] = self.taps["t_embedder"] + self.taps["y_embedder"]
        h, self.kept = self.taps["x_embedder"] + position_embedding(len(self.c[0]), H // p, W // p), []
        for i in range(self.depth):
            h = self.block(f"blocks.{i}.", h)
        self.last, self.two = h, np.split(self.dense("final_layer.adaLN_modulation.1", silu(self.c)), 2, axis=1)
        self.tokens = self.taps["final_layer"] = self.dense("final_layer.linear", modulate(layer_norm(h), *self.two))
        self.out = unpatchify(self.tokens, p, (H, W))

    def dense(self, name, x):
        return linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def block(self, at, x):
        six = np.split(self.dense(f"{at}adaLN_modulation.1", silu(self.c)), 6, axis=1)
        qkv = self.taps[f"{at}attn.qkv"] = self.dense(f"{at}attn.qkv", modulate(layer_norm(x), *six[:2]))
        seen = np.moveaxis(attention(*heads_of(qkv, self.heads)), 1, 2).reshape(x.shape)
        attn = self.taps[f"{at}attn"] = self.dense(f"{at}attn.proj", seen)
        middle = gated_residual(x, six[2], attn)
        inner = self.taps[f"{at}mlp.fc1"] = self.dense(f"{at}mlp.fc1", modulate(layer_norm(middle), *six[3:5]))
        mlp = self.taps[f"{at}mlp"] = self.dense(f"{at}mlp.fc2", gelu(inner))
        self.kept.append((at, x, six, qkv, seen, attn, middle, inner, mlp))
        out = self.taps[at[:-1]] = gated_residual(middle, six[5], mlp)
        return out

    def dense_back(self, name, x, y_bar):
        self.bars[f"{name}.weight"] = np.tensordot(y_bar, x, (range(x.ndim - 1), range(x.ndim - 1)))
        self.bars[f"{name}.bias"] = y_bar.reshape(-1, y_bar.shape[-1]).sum(0)
        return y_bar @ self.w[f"{name}.weight"]

    def modulated_back(self, x, scale, bar):
        """Through x̂ (1 + scale) + shift with x̂ the norm of x: what reaches x, shift and scale."""
        return slopes(layer_norm, x, bar * (1 + scale[:, None])), bar.sum(1), (bar * layer_norm(x)).sum(1)

    def attention_back(self, qkv, bar):
        q, k, v = heads_of(qkv, self.heads)
        bar = np.moveaxis(bar.reshape(*bar.shape[:2], self.heads, -1), 2, 1)
        logits = np.einsum("bhnk,bhmk->bhnm", q, k) / math.sqrt(q.shape[-1])
        rows = slopes(lambda s: np.exp(s) / np.exp(s).sum(-1, keepdims=True), logits - logits.max(-1, keepdims=True),
                      np.einsum("bhnk,bhmk->bhnm", bar, v)) / math.sqrt(q.shape[-1])  # fmt: skip
        three = [rows @ k, np.einsum("bhnm,bhnk->bhmk", rows, q), np.einsum("bhnm,bhnk->bhmk", softmax(logits), bar)]
        return np.moveaxis(three, (0, 2), (2, 3)).reshape(qkv.shape)

    def each(self, f, x, bar):
        """An activation: every entry by itself."""
        return bar * f(x + 1e-20j).imag * 1e20

    def back(self, out_bar):
        """{official name: gradient of Σ out_bar ⊙ out}."""
        B, C, H, W = out_bar.shape
        p, smooth, bend = self.p, lambda z: z / (1 + np.exp(-z)), math.sqrt(8 / math.pi)
        bar = out_bar.reshape(B, C, H // p, p, W // p, p).transpose(0, 2, 4, 3, 5, 1).reshape(self.tokens.shape)
        bar = self.dense_back("final_layer.linear", modulate(layer_norm(self.last), *self.two), bar)
        bar, *two = self.modulated_back(self.last, self.two[1], bar)
        of_c = self.dense_back("final_layer.adaLN_modulation.1", silu(self.c), np.hstack(two))  # all that reaches silu(c)
        for at, x, six, qkv, seen, attn, middle, inner, mlp in reversed(self.kept):
            h = self.dense_back(f"{at}mlp.fc2", gelu(inner), bar * six[5][:, None])
            h = self.each(lambda z: z / (1 + np.exp(-bend * (z + 0.044715 * z**3))), inner, h)
            h = self.dense_back(f"{at}mlp.fc1", modulate(layer_norm(middle), *six[3:5]), h)
            h, shift_2, scale_2 = self.modulated_back(middle, six[4], h)
            gate_2, bar = (bar * mlp).sum(1), bar + h
            h = self.attention_back(qkv, self.dense_back(f"{at}attn.proj", seen, bar * six[2][:, None]))
            h = self.dense_back(f"{at}attn.qkv", modulate(layer_norm(x), *six[:2]), h)
            h, shift, scale = self.modulated_back(x, six[1], h)
            six_bars = np.hstack([shift, scale, (bar * attn).sum(1), shift_2, scale_2, gate_2])
            of_c, bar = of_c + self.dense_back(f"{at}adaLN_modulation.1", silu(self.c), six_bars), bar + h
        pixels = self.dense_cuts_back(bar)
        c_bar = self.each(smooth, self.c, of_c)
        table = np.zeros_like(self.w["y_embedder.embedding_table.weight"])
        np.add.at(table, self.y, c_bar)
        h = self.each(smooth, self.hidden, self.dense_back("t_embedder.mlp.2", silu(self.hidden), c_bar))
        self.dense_back("t_embedder.mlp.0", self.wave, h)
        return self.bars | {"y_embedder.embedding_table.weight": table, "x": pixels}

    def dense_cuts_back(self, bar):
        kernel = self.w["x_embedder.proj.weight"]
        self.bars["x_embedder.proj.weight"] = np.einsum("bnd,bnk->dk", bar, self.cuts).reshape(kernel.shape)
        self.bars["x_embedder.proj.bias"] = bar.sum((0, 1))
        (B, C, H, W), p = self.x.shape, self.p
        cuts = (bar @ kernel.reshape(len(kernel), -1)).reshape(B, H // p, W // p, C, p, p)
        return cuts.transpose(0, 3, 1, 4, 2, 5).reshape(self.x.shape)


def dit(weights, x, t, y, heads, patch_size):
    once = Pass(weights, x, t, y, heads, patch_size)
    return once.out, once.taps


dit_square = dit


def dit_gradients(weights, x, t, y, heads, patch_size, out_bar):
    return Pass(weights, x, t, y, heads, patch_size).back(out_bar)


def mine():
    """topic -> function, from the names above."""
    return {name: f for name, f in globals().items() if name in md.verify.TOPICS}


def main(topics=None):
    report = md.verify.check(mine(), topics=topics)
    print(report)
    return report


if __name__ == "__main__":
    main()
