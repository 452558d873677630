"""Around the network in NumPy and SciPy: guidance, latents, losses, the bound, optimisers, averages, parameters and their names.

    python examples/verify/scipy_training.py

The bound in SciPy's own distributions (cross-entropy less entropy; differences of log-probabilities), the running average as the
recursive filter it is, the gradient of the hybrid loss by the complex step.
"""

import math
import re

import numpy as np
from scipy import linalg, signal, special, stats

import minidit as md

# ------------------------------------------------------------------------------------------------ guidance


def guide(eps_u, eps_c, w):
    if eps_u.shape != eps_c.shape:
        raise ValueError("two guesses of one shape")
    return np.tensordot([1 - w, w], np.stack([eps_u, eps_c]), 1).astype(eps_u.dtype)


def guide_omega(eps_u, eps_c, omega):
    return eps_c + omega * (eps_c - eps_u)


def guide_uncond_first(out, w):
    u, c = out.reshape(2, -1, *out.shape[1:])
    return guide(u, c, w)


def guide_cond_first(out, w):
    c, u = out.reshape(2, -1, *out.shape[1:])
    return guide(u, c, w)


def rescale_guided(eps, eps_c, phi):
    wide, narrow = (np.array([linalg.norm(e - e.mean()) for e in each]) for each in (eps_c, eps))
    return eps * (phi * wide / narrow + (1 - phi)).reshape(-1, 1, 1, 1)


def guidance_interval(w, t, low, high):
    return np.piecewise(t.astype(float), [(t >= low) & (t < high)], [w, 1.0])


def clip_static(x_0):
    return np.sign(x_0) * np.fmin(abs(x_0), 1)


def clip_dynamic(x_0, p, most):
    s = [min(max(stats.scoreatpercentile(abs(sample), 100 * p), 1.0), most) for sample in x_0]
    return np.stack([np.clip(sample / q, -1, 1) for sample, q in zip(x_0, s, strict=True)])


# ------------------------------------------------------------------------------------------------ latents and pixels


def latent_sample(mean, logvar, eps, scale):
    return scale * mean + np.exp(math.log(scale) + logvar / 2) * eps


def latent_to_decoder(z_0, scale):
    return np.divide(z_0, scale)


def measured_scale(latents):
    return math.sqrt(latents.size) / linalg.norm(latents - latents.mean())


def halve(x, weight, bias):
    """A correlation of full stride, read at every other place; one row and column of zeros behind."""
    x = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)))
    maps = [[signal.correlate(picture, w, "valid", "direct")[0, ::2, ::2] for w in weight] for picture in x]
    return np.array(maps) + bias.reshape(-1, 1, 1)


def pixels_in(pixels):
    return (2 * pixels.astype(float) - 255) / 255


def pixels_out(x):
    return np.round(127.5 * (np.clip(x, -1, 1) + 1)).astype(np.uint8)


# ------------------------------------------------------------------------------------------------ likelihood


def normal_kl(mean_1, logvar_1, mean_2, logvar_2):
    """Cross-entropy less entropy."""
    std_1, std_2 = np.exp(np.multiply(0.5, logvar_1)), np.exp(np.multiply(0.5, logvar_2))
    cross = -stats.norm.logpdf(mean_1, mean_2, std_2) + (std_1 / std_2) ** 2 / 2
    return cross - stats.norm.entropy(mean_1, std_1)


def discretised_nll(x, mean, log_variance):
    """-ln (Φ(b) - Φ(a)) of the interval (a, b) of a grey level, in the tail where the difference does not cancel."""
    std = np.exp(log_variance / 2)
    low = np.where(x < -0.999, -np.inf, (x - mean - 1 / 255) / std)
    high = np.where(x > 0.999, np.inf, (x - mean + 1 / 255) / std)
    low, high = np.where(low + high > 0, (-high, -low), (low, high))
    below, above = special.log_ndtr(low), special.log_ndtr(high)
    return -np.maximum(above + special.log1p(-np.exp(below - above)), math.log(1e-12))


def continuous_nll(x, mean, log_variance):
    return -stats.norm.logpdf(x, mean, np.exp(log_variance / 2))


def bits_per_dim(nats):
    return np.array([np.mean(sample) for sample in nats]) / math.log(2)


def prior_bits(x_0, alpha_bar):
    """½ (ᾱ (x_0² - 1) - ln(1-ᾱ))."""
    a = alpha_bar[-1]
    return bits_per_dim(0.5 * (a * (x_0**2 - 1) - special.log1p(-a)))


def posterior(t, alpha_bar):
    """Weights of x_0 and x_t in the mean of q(x_{t-1} | x_t, x_0), its log-variance (at t = 0 the next one's) and ln β."""
    a, p = alpha_bar[t], alpha_bar[t - 1] if t else 1.0
    of_x_0, of_x_t = np.sqrt(p) * (1 - a / p) / (1 - a), np.sqrt(a / p) * (1 - p) / (1 - a)
    k = max(t, 1)
    small = (1 - alpha_bar[k] / alpha_bar[k - 1]) * (1 - alpha_bar[k - 1]) / (1 - alpha_bar[k])
    return of_x_0, of_x_t, np.log(small), np.log(1 - a / p)


def vb_term(x_0, x_t, x_0_hat, log_variance, t, alpha_bar, decoder=discretised_nll):
    of_x_0, of_x_t, log_small, _ = posterior(t, alpha_bar)
    mean = of_x_0 * x_0_hat + of_x_t * x_t
    if t == 0:
        return bits_per_dim(decoder(x_0, mean, log_variance))
    return bits_per_dim(normal_kl(of_x_0 * x_0 + of_x_t * x_t, log_small, mean, log_variance))


def vb_term_latents(x_0, x_t, x_0_hat, log_variance, t, alpha_bar):
    return vb_term(x_0, x_t, x_0_hat, log_variance, t, alpha_bar, continuous_nll)


def bound_total(x_0, x_t, x_0_hat, log_variance, alpha_bar):
    return prior_bits(x_0, alpha_bar) + sum(
        vb_term(x_0, *each, t, alpha_bar) for t, each in enumerate(zip(x_t, x_0_hat, log_variance, strict=True))
    )


# ------------------------------------------------------------------------------------------------ losses


def simple_loss(out, x_0, eps, t, alpha_bar, objective):
    a = alpha_bar[t].reshape(-1, 1, 1, 1)
    target = {"eps": eps, "x_0": x_0, "v": np.sqrt(a) * eps - np.sqrt(1 - a) * x_0}[objective]
    return linalg.norm(out - target) ** 2 / out.size


def hybrid(out, x_0, eps, t, alpha_bar):
    """(the simple loss, the bound's share) of every sample, entry by entry; complex numbers pass through."""
    eps_hat, v = out[:, : x_0.shape[1]], out[:, x_0.shape[1] :]
    of_x_0, _, log_small, log_large = posterior(t, alpha_bar)
    off = of_x_0 * np.sqrt(1 / alpha_bar[t] - 1) * (eps - eps_hat.real)  # of the means: both guesses have the same x_t
    log_variance = log_small + (v + 1) / 2 * (log_large - log_small)
    kl = (log_variance - log_small - 1 + (np.exp(log_small) + off**2) * np.exp(-log_variance)) / 2
    return (eps - eps_hat) ** 2, 1e-3 * len(alpha_bar) * kl / math.log(2)


def hybrid_loss(out, x_0, eps, t, alpha_bar):
    return sum(np.array([part.mean() for part in share]) for share in hybrid(out, x_0, eps, t, alpha_bar))


def hybrid_gradient(out, x_0, eps, t, alpha_bar):
    """Every entry of the output reaches one entry of each share: one complex step takes all slopes at once."""
    simple, bound = hybrid(out + 1e-20j, x_0, eps, t, alpha_bar)
    return np.concatenate([simple.imag, bound.imag], axis=1) * 1e20 / x_0[0].size


def bound_weight(t, s, alpha_bar, variance):
    a, p = alpha_bar[t], alpha_bar[s]
    of_x_0 = np.sqrt(p) * (1 - a / p) / (1 - a)
    return (of_x_0**2 * (1 - a) / a) / (2 * variance)  # how far x̂_0 moves the mean, and ε̂ moves x̂_0


def min_snr_x_0(alpha_bar, gamma):
    return np.fmin(np.exp(special.logit(alpha_bar)), gamma)


def min_snr_eps(alpha_bar, gamma):
    with np.errstate(divide="ignore"):
        return np.fmin(1, gamma * np.exp(-special.logit(alpha_bar)))


def min_snr_v(alpha_bar, gamma):
    return np.where(alpha_bar < gamma * (1 - alpha_bar), alpha_bar, gamma * (1 - alpha_bar))


def importance_probabilities(history):
    size = linalg.norm(np.nan_to_num(history), axis=1)
    sure = not np.isnan(history).any()
    return 0.999 * size / size.sum() + 0.001 / len(size) if sure else np.ones(len(size)) / len(size)


def importance_weights(p, t):
    return np.reciprocal(p * len(p))[t]


# ------------------------------------------------------------------------------------------------ optimisers and averages


def ema_decay(decay, n):
    return min(decay, 1 - 9 / (10 + n))


def ema_update(average, theta, decay):
    return theta + decay * (average - theta)


def ema_run(theta_0, updates, decay):
    """θ̃_n = d θ̃_{n-1} + (1-d) θ_n is a recursive filter that starts in rest at θ_0."""
    theta = theta_0 + np.cumsum(updates, axis=0)
    average, _ = signal.lfilter([1 - decay], [1, -decay], theta, axis=0, zi=decay * theta_0[None])
    return theta[-1], average[-1]


def adamw_update(theta, m, v, g, n, lr, beta1, beta2, eps, weight_decay):
    m, v = m + (1 - beta1) * (g - m), v + (1 - beta2) * (np.square(g) - v)
    rate = lr * math.sqrt(1 - beta2**n) / (1 - beta1**n)  # Kingma and Ba, below algorithm 1: both corrections in the rate
    return theta * (1 - lr * weight_decay) - rate * m / (np.sqrt(v) + eps * math.sqrt(1 - beta2**n)), m, v


def weight_decays(shapes, weight_decay):
    return {name: weight_decay if shape[1:] else 0.0 for name, shape in shapes.items()}


def clip_gradients(gradients, limit):
    norm = linalg.norm([linalg.norm(g) for g in gradients.values()])
    return {name: g * limit / max(norm, limit) for name, g in gradients.items()}


def warmup_rate(n, lr, warmup):
    return float(np.interp(n, [0, warmup], [0, lr]))


# ------------------------------------------------------------------------------------------------ parameters and their names


def parameter_shapes(D, L, heads, patch_size, C, K, learn_sigma):
    out = patch_size**2 * C * (1 + learn_sigma)
    block = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4), "adaLN_modulation.1": (6, 1)}
    lines = [("t_embedder.mlp.0", D, 256), ("t_embedder.mlp.2", D, D), ("final_layer.linear", out, D)]
    lines += [("final_layer.adaLN_modulation.1", 2 * D, D)]
    lines += [(f"blocks.{i}.{name}", m * D, n * D) for i in range(L) for name, (m, n) in block.items()]
    shapes = {f"{name}.weight": (m, n) for name, m, n in lines} | {f"{name}.bias": (m,) for name, m, _ in lines}
    patches = {"x_embedder.proj.weight": (D, C, patch_size, patch_size), "x_embedder.proj.bias": (D,)}
    return shapes | patches | {"y_embedder.embedding_table.weight": (K + 1, D)}


def initial_weights(D, L, heads, patch_size, C, K, learn_sigma, seed):
    rng, out = np.random.default_rng(seed), {}
    for name, shape in parameter_shapes(D, L, heads, patch_size, C, K, learn_sigma).items():
        if "adaLN" in name or name.startswith("final_layer") or name.endswith("bias"):
            out[name] = np.zeros(shape)
        elif "_embedder.mlp" in name or "table" in name:
            out[name] = stats.norm(0, 0.02).rvs(shape, random_state=rng)
        else:
            reach = math.sqrt(6 / (shape[0] + math.prod(shape[1:])))
            out[name] = stats.uniform(-reach, 2 * reach).rvs(shape, random_state=rng)
    return out


COUSINS = (  # official, with the numbers of blocks as #  ->  diffusers; * stands for every block
    ("x_embedder.proj", "pos_embed.proj"), ("final_layer.adaLN_modulation.1", "proj_out_1"), ("final_layer.linear", "proj_out_2"),
    ("t_embedder.mlp.0", "transformer_blocks.*.norm1.emb.timestep_embedder.linear_1"),
    ("t_embedder.mlp.2", "transformer_blocks.*.norm1.emb.timestep_embedder.linear_2"),
    ("y_embedder.embedding_table", "transformer_blocks.*.norm1.emb.class_embedder.embedding_table"),
    ("blocks.#.adaLN_modulation.1", "transformer_blocks.#.norm1.linear"),
    ("blocks.#.attn.proj", "transformer_blocks.#.attn1.to_out.0"),
    ("blocks.#.attn.qkv", "transformer_blocks.#.attn1.to_q transformer_blocks.#.attn1.to_k transformer_blocks.#.attn1.to_v"),
    ("blocks.#.mlp.fc1", "transformer_blocks.#.ff.net.0.proj"), ("blocks.#.mlp.fc2", "transformer_blocks.#.ff.net.2"),
)  # fmt: skip


def dit_to_diffusers(weights):
    depth, out = 1 + max(int(n) for name in weights for n in re.findall(r"^blocks\.(\d+)", name)), {}
    for name, w in weights.items():
        stem, end = name.rsplit(".", 1)
        number = (re.findall(r"^blocks\.(\d+)", name) or [""])[0]
        theirs = dict(COUSINS)[re.sub(r"^blocks\.\d+", "blocks.#", stem)].replace("#", number).split()
        for their, piece in zip(theirs, np.split(w, len(theirs)), strict=True):
            out |= {f"{their.replace('*', str(i))}.{end}": piece for i in (range(depth) if "*" in their else [0])}
    return out


def dit_from_diffusers(state):
    depth, out = 1 + max(int(n) for name in state for n in re.findall(r"^transformer_blocks\.(\d+)", name)), {}
    for name in (f"{ours} {theirs}" for ours, theirs in COUSINS):
        for i in range(depth if "#" in name else 1):
            ours, *theirs = name.replace("#", str(i)).split()
            for end in ("weight", "bias"):
                copies = [[state.get(f"{t.replace('*', str(k))}.{end}") for t in theirs] for k in range(depth)]
                if copies[0][0] is None:
                    continue  # the label table has no bias
                whole = [np.concatenate(parts) for parts in copies]
                if any((other != whole[0]).any() for other in whole):
                    raise ValueError(f"the blocks' copies of {ours} have parted")
                out[f"{ours}.{end}"] = whole[0]
    return out


def mine():
    """topic -> function, from the names above."""
    return {name: f for name, f in globals().items() if name in md.verify.TOPICS}


def main():
    report = md.verify.check(mine())
    print(report)
    return report


if __name__ == "__main__":
    main()
