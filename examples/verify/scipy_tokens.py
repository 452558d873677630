"""Codes, and the writing of tokens, in NumPy and SciPy alone, against the equations.

python examples/verify/scipy_tokens.py
"""

import itertools

import numpy as np
from scipy import special
from scipy.spatial import distance

import minidit as md

# ------------------------------------------------------------------------------------------------ codes


def nearest_code(z, codes):
    return distance.cdist(z, codes).argmin(axis=1)


def codebook_loss(z, codes, beta):
    rows = z.reshape(-1, z.shape[-1])
    chosen = nearest_code(rows, codes)
    error = rows - codes[chosen]
    slope = 2 * error / error.size
    to_codes = np.array([-slope[chosen == k].sum(axis=0) for k in range(len(codes))])
    return (1 + beta) * np.mean(error**2), (beta * slope).reshape(z.shape), to_codes


def straight_through(z, codes, y_bar):
    return codes[nearest_code(z, codes)], y_bar.copy(), np.zeros_like(codes)


def sphere_code(z, codes):
    z, codes = (a / np.sqrt(np.sum(a * a, axis=1))[:, None] for a in (z, codes))
    chosen = (z @ codes.T).argmax(axis=1)
    return chosen, codes[chosen]


def code_perplexity(counts):
    return np.exp(special.entr(counts / counts.sum()).sum())


def running_codes(n, s, z, index, decay):
    member = index == np.arange(len(n))[:, None]
    n, s = n + (1 - decay) * (member.sum(axis=1) - n), s + (1 - decay) * (member @ z - s)
    return n, s, s / n[:, None]


def fsq_code(z, levels):
    L = np.array(levels)
    half, shift = (L - 1) * 1.001 / 2, np.where(L % 2, 0.0, 0.5)
    whole = np.round(half * np.tanh(z + np.arctanh(shift / half)) - shift)
    number = np.ravel_multi_index(tuple((whole + L // 2).astype(int).T[::-1]), tuple(levels[::-1]))
    return whole / (L // 2), number


def area_rows(p, H):
    rows = np.zeros((p, H))
    for i, row in enumerate(rows):
        low, high = int(np.floor(i * H / p)), int(np.ceil((i + 1) * H / p))
        row[low:high] = 1.0 / (high - low)
    return rows


def keys(x, a=-0.75):
    """The kernel of Keys (1981)."""
    x = abs(x)
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, a * (((x - 5) * x + 8) * x - 4)
    return near if x <= 1 else far if x < 2 else 0.0


def bicubic_rows(H, p):
    rows = np.zeros((H, p))
    for i in range(H):
        at = (i + 0.5) / H * p - 0.5
        for j in range(-3, p + 3):
            rows[i, np.clip(j, 0, p - 1)] += keys(at - j)
    return rows


def shared_phi(scales, shared):
    edge = 1 / (3 if shared == 4 else 2) / shared
    ticks = np.linspace(edge, 1 - edge, shared)
    return [shared // 2 if scales == 1 else int(np.argmin(abs(k / (scales - 1) - ticks))) for k in range(scales)]


def resized(f, rows):
    return np.tensordot(rows, np.tensordot(rows, f, (1, 1)), (1, 1)).astype(f.dtype)


def convolved(h, kernel):
    """3 × 3, zeros outside."""
    padded, (H, W, _) = np.pad(h, ((1, 1), (1, 1), (0, 0))), h.shape
    return sum(padded[i : i + H, j : j + W] @ kernel[:, :, i, j].T for i in range(3) for j in range(3))


def residual_codes(f, codes, blends, sizes):
    numbers, maps, rest = [], [], f.copy()
    for p, which in zip(sizes, shared_phi(len(sizes), len(blends)), strict=True):
        small = rest if p == len(f) else resized(rest, area_rows(p, len(f)))
        number = nearest_code(small.reshape(p * p, -1), codes)
        h = codes[number].reshape(p, p, -1)
        h = h if p == len(f) else resized(h, bicubic_rows(len(f), p))
        h = (h + convolved(h, blends[which])) / 2
        rest = rest - h
        numbers.append(number)
        maps.append(f - rest)
    return np.concatenate(numbers), np.array(maps)


def scale_inputs(index, codes, sizes):
    H, at, picture, inputs = sizes[-1], 0, 0.0, []
    for p, after in itertools.pairwise(sizes):
        picture = picture + resized(codes[index[at : at + p * p]].reshape(p, p, -1), bicubic_rows(H, p))
        at += p * p
        inputs.append(resized(picture, area_rows(after, H)).reshape(after * after, -1))
    return np.concatenate(inputs)


# ------------------------------------------------------------------------------------------------ tokens


def token_mask(groups):
    return [[int(sum(groups[:b]) <= sum(groups[: a + 1]) - 1) for b, n in enumerate(groups) for _ in range(n)]
            for a, m in enumerate(groups) for _ in range(m)]  # fmt: skip


def token_nll(logits, x):
    each = special.logsumexp(logits, axis=2) - np.array(
        [[row[i] for row, i in zip(*s, strict=True)] for s in zip(logits, x, strict=True)]
    )
    return each.mean(axis=1)


def guided_logits(l, l_u, w):
    return w * l + (1 - w) * l_u


def rising_scale(w, g, G):
    return w if G == 1 else np.interp(g, [0, G - 1], [1, w])


def kept_probabilities(logits, temperature, top_k, top_p):
    out = np.zeros_like(logits)
    for row, to in zip(logits / temperature, out, strict=True):
        order = np.argsort(-row)[: top_k or None]
        p = special.softmax(row[order])
        order = order[: np.searchsorted(np.cumsum(p), top_p * (1 - 1e-12)) + 1]
        to[order] = special.softmax(row[order])
    return out


def chosen_token(p, u):
    return [int(np.searchsorted(np.cumsum(row), number, side="right")) for row, number in zip(p, u, strict=True)]


def turned(x, cos, sin):
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    z = (pairs[..., 0] + 1j * pairs[..., 1]) * (cos + 1j * sin)[:, None]
    return np.stack((z.real, z.imag), axis=-1).reshape(x.shape)


def cached_attention(q, k, v, cos, sin, calls):
    """Token by token: what is cached must not matter."""
    q, k = turned(q, cos, sin), turned(k, cos, sin)
    out = np.empty_like(v)
    for i, h in np.ndindex(len(q), q.shape[1]):
        out[i, h] = special.softmax(k[: i + 1, h] @ q[i, h] / np.sqrt(q.shape[2])) @ v[: i + 1, h]
    return out


def prefix_turns(h, w, width, theta):
    omega = 1 / theta ** (np.arange(width // 4) / (width // 4))
    places = [(0, 0), *[(r, c) for r in range(h) for c in range(w)][:-1]]
    angles = np.array([np.concatenate((r * omega, c * omega)) for r, c in places])
    return np.cos(angles), np.sin(angles)


def rms_norm(x, weight, eps):
    return weight * x / np.sqrt(np.mean(np.square(x), axis=1) + eps)[:, None]


def swiglu(x, w1, w3, w2):
    a = x @ w1.T
    return (a * special.expit(a) * (x @ w3.T)) @ w2.T


def normed(x):
    return (x - x.mean(axis=2, keepdims=True)) / np.sqrt(x.var(axis=2, keepdims=True) + 1e-6)


def parts_of(c, weight, bias, n):
    return ((c * special.expit(c)) @ weight.T + bias).reshape(len(c), n, 1, -1).transpose(1, 0, 2, 3)


def var_modulation(x, c, weight, bias, a):
    a1, a2, g1, g2, b1, b2 = parts_of(c, weight, bias, 6)
    return normed(x) * (1 + g1) + b1, x + a1 * a, normed(x) * (1 + g2) + b2, x + a2 * a


def var_head(x, c, weight, bias):
    g, b = parts_of(c, weight, bias, 2)
    return normed(x) * (1 + g) + b


def cosine_logits(q, k, s):
    return np.array([np.minimum(np.exp(e), 100) * (1 - distance.cdist(a, b, "cosine")) for a, b, e in zip(q, k, s, strict=True)])


def mine():
    """topic -> function, from the names above."""
    return {name: f for name, f in globals().items() if name in md.verify.TOPICS}


def main():
    report = md.verify.check(mine())
    print(report)
    return report


if __name__ == "__main__":
    main()
