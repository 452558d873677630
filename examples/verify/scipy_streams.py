"""Streams, rotary places and the groups of clips in NumPy and SciPy alone, against the equations.

python examples/verify/scipy_streams.py
"""

import numpy as np
from scipy import special

import minidit as md


def rope(x, cos, sin):
    out = np.empty_like(x)
    for n, j in np.ndindex(cos.shape):
        R = np.array([[cos[n, j], -sin[n, j]], [sin[n, j], cos[n, j]]])
        out[n, :, 2 * j : 2 * j + 2] = x[n, :, 2 * j : 2 * j + 2] @ R.T
    return out


def rope_angles(ids, widths, theta):
    angles = np.array(
        [[i * theta ** (-2 * j / d) for i, d in zip(row, widths, strict=True) for j in range(d // 2)] for row in ids]
    )
    return np.cos(angles), np.sin(angles)


def stream_places(words, h, w):
    return [(0, 0, 0)] * words + [(0, r, c) for r in range(h) for c in range(w)]


def queries_and_keys(q, k, w_q, w_k, cos, sin):
    unit = lambda x: x / np.sqrt(np.mean(x * x, axis=2, keepdims=True) + 1e-6)
    return rope(unit(q) * w_q, cos, sin), rope(unit(k) * w_k, cos, sin)


def joint_attention(q_c, k_c, v_c, q, k, v, cos, sin):
    q, k, v = rope(np.vstack((q_c, q)), cos, sin), rope(np.vstack((k_c, k)), cos, sin), np.vstack((v_c, v))
    heads = [special.softmax(q[:, h] @ k[:, h].T / np.sqrt(q.shape[2]), axis=1) @ v[:, h] for h in range(q.shape[1])]
    y = np.stack(heads, axis=1)
    return y[: len(q_c)], y[len(q_c) :]


def silu(x):
    return x * special.expit(x)


def gelu(x):
    return x * special.expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))


def normed(x):
    return (x - x.mean(axis=2, keepdims=True)) / np.sqrt(x.var(axis=2, keepdims=True) + 1e-6)


def applied(weights, name, x):
    return np.einsum("oi,...i->...o", weights[f"{name}.weight"], x) + weights[f"{name}.bias"]


def parts_of(weights, name, c, n):
    return applied(weights, name, silu(c)).reshape(len(c), n, 1, -1).swapaxes(0, 1)


def stream_block(weights, h, y, c):
    b1, g1, a1, b2, g2, a2 = parts_of(weights, "adaLN_modulation.1", c, 6)
    first = normed(h) * (1 + g1) + b1
    h = h + a1 * applied(weights, "attn.proj", y)
    return first, h + a2 * applied(weights, "mlp.fc2", gelu(applied(weights, "mlp.fc1", normed(h) * (1 + g2) + b2)))


def single_block(weights, h, y, c):
    b, g, a = parts_of(weights, "modulation", c, 3)
    first = normed(h) * (1 + g) + b
    both = np.dstack((y, gelu(applied(weights, "linear1", first))))
    return first, h + a * applied(weights, "linear2", both)


def stream_final(weights, x, c):
    b, g = parts_of(weights, "adaLN_modulation.1", c, 2)
    return applied(weights, "linear", normed(x) * (1 + g) + b)


def stream_condition(weights, t, pooled, w):
    width = weights["t_embedder.mlp.0.weight"].shape[1]

    def wave(t):
        angle = np.outer(t.astype(np.float64), 10000.0 ** (-2 * np.arange(width // 2) / width))
        return np.hstack((np.cos(angle), np.sin(angle)))

    def two_layers(name, x):
        return applied(weights, f"{name}.mlp.2", silu(applied(weights, f"{name}.mlp.0", x)))

    c = two_layers("t_embedder", wave(t)) + two_layers("y_embedder", pooled)
    return c + two_layers("guidance_embedder", wave(1000 * w.astype(np.float64)))


def dual_block(weights, h, y, y2, c):
    b1, g1, a1, b2, g2, a2, b3, g3, a3 = parts_of(weights, "adaLN_modulation.1", c, 9)
    first, second = normed(h) * (1 + g1) + b1, normed(h) * (1 + g3) + b3
    h = h + a1 * applied(weights, "attn.proj", y) + a3 * applied(weights, "attn2.proj", y2)
    return first, second, h + a2 * applied(weights, "mlp.fc2", gelu(applied(weights, "mlp.fc1", normed(h) * (1 + g2) + b2)))


def last_context(weights, h, c):
    b, g = parts_of(weights, "adaLN_modulation.1", c, 2)
    return normed(h) * (1 + g) + b


def patches_alone(h, words):
    return np.delete(h, range(words), axis=1)


def conditions_with_text(time, text):
    return [np.add(time, text)] * 2


def factorised_blocks(x, T, depth):
    """Attention among all tokens, and minus infinity between those that are of unlike frames or sites."""
    n = np.arange(x.shape[1])
    frame, site = np.divmod(n, len(n) // T)
    for k in range(depth):
        group = site if k % 2 else frame
        a = x + frame_places(T, x.shape[2])[frame] if k % 2 else x
        logits = np.where(group[:, None] == group, a @ a.transpose(0, 2, 1) / np.sqrt(x.shape[2]), -np.inf)
        x = x + special.softmax(logits, axis=2) @ a
    return x


def cropped_places(D, side, h, w):
    omega, top, left = 10000.0 ** (-np.arange(D // 4) / (D // 4)), (side - h) // 2, (side - w) // 2
    rows = []
    for r in range(top, top + h):
        for c in range(left, left + w):
            rows.append(np.concatenate([wave(s * omega) for s in (c, r) for wave in (np.sin, np.cos)]))
    return np.array(rows)


def packed_patches(x, p):
    H, W = x.shape[2:]
    return np.array([[a[:, r : r + p, c : c + p].ravel() for r in range(0, H, p) for c in range(0, W, p)] for a in x])


def factorised_groups(x, T):
    B, N, D = x.shape
    clip = x.reshape(B, T, N // T, D)
    frames = np.array([clip[b, f] for b in range(B) for f in range(T)])
    return frames, np.array([clip[b, :, s] for b in range(B) for s in range(N // T)])


def group_conditions(c, n):
    return [row for row in c for _ in range(n)]


def frame_places(F, D):
    omega = 10000.0 ** (-2 * np.arange(D // 2) / D)
    return np.array([[*np.sin(f * omega), *(np.cos(f * omega) - 1)] for f in range(F)])


def clip_patches(x, t, p):
    T, H, W = x.shape[2:]
    places = [(f, r, c) for f in range(0, T, t) for r in range(0, H, p) for c in range(0, W, p)]
    return np.array([[a[:, f : f + t, r : r + p, c : c + p].ravel() for f, r, c in places] for a in x])


def mine():
    """topic -> function, from the names above."""
    return {name: f for name, f in globals().items() if name in md.verify.TOPICS}


def main():
    report = md.verify.check(mine())
    print(report)
    return report


if __name__ == "__main__":
    main()
