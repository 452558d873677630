"""LlamaGen's transformer and VAR: places, norms, counts, and what a fresh network says."""

import math
from dataclasses import replace

import numpy as np
import pytest
from support import agree, host, spec

from minidit import ops
from minidit.autograd import no_grad
from minidit.autoregressive.order import by_scale, raster
from minidit.models.gpt import GPT, GPTConfig, turns
from minidit.models.var import VAR, VARConfig, unit
from minidit.nn.masks import by_level, causal
from minidit.random import Philox

F64 = np.float64
SMALL = GPTConfig(grid=(3, 4), vocabulary=7, hidden_size=16, depth=2, num_heads=2, inner=12, num_classes=3)
SCALES = VARConfig(sizes=(1, 2, 3), vocabulary=7, channels=3, hidden_size=16, depth=2, num_heads=2, num_classes=3)


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, num_classes=0), replace(SMALL, class_dropout_prob=0.0)])
@spec("T.44")
def test_a_gpt_has_as_many_numbers_as_it_says(config):
    assert GPT(config).count_parameters() == config.parameters()


@pytest.mark.parametrize("config", [SCALES, replace(SCALES, num_classes=0), replace(SCALES, sizes=(2, 3))])
@spec("T.49")
def test_a_var_has_as_many_numbers_as_it_says(config):
    assert VAR(config).count_parameters() == config.parameters()


def test_the_published_sizes_are_those_of_the_papers():
    """GPT-B of LlamaGen has 111 M parameters; VAR-d16 has 310 M."""
    b = GPTConfig(grid=(16, 16), vocabulary=16384, hidden_size=768, depth=12, num_heads=12, inner=2048, num_classes=1000)
    d16 = VARConfig(sizes=(1, 2, 3, 4, 5, 6, 8, 10, 13, 16), vocabulary=4096, channels=32, hidden_size=1024, depth=16,
                    num_heads=16, num_classes=1000)  # fmt: skip
    assert round(b.parameters() / 1e6) == 111 and round(d16.parameters() / 1e6) == 310


@spec("Q.15")
def test_the_masks_of_the_networks_are_those_of_the_orders():
    assert np.array_equal(causal(12) == 0, raster(12).visible)
    level = np.repeat([0, 1, 2], [1, 4, 9])
    assert np.array_equal(by_level(level.tolist()) == 0, by_scale((1, 2, 3)).visible)


@spec("T.43")
def test_the_class_token_is_not_turned_and_every_code_by_its_own_row_and_column():
    cos, sin = turns(SMALL)
    assert cos.shape == sin.shape == (12, 4) and (cos[0] == 1).all() and (sin[0] == 0).all()
    omega = 10000.0 ** (-np.arange(2) / 2)
    for i in range(11):
        r, c = divmod(i, 4)
        agree(cos[i + 1], np.cos(np.concatenate([r * omega, c * omega])), bound=1e-14, of="T.43")
    zero, _ = turns(replace(SMALL, zero_prefix=True))
    assert (zero[0] == 0).all() and np.array_equal(zero[1:], cos[1:])


@spec("T.43")
def test_a_zero_prefix_is_seen_with_logit_zero_by_every_token():
    """Turned by zeros, the class's key is 0: scores do not depend on it, and only its value goes on."""
    x = Philox(1).normal((2, 12, 48), dtype=F64)
    turn = turns(replace(SMALL, zero_prefix=True))
    q, k, _ = ops.unpacked(ops.qk_rope(x, *turn, heads=2), heads=2)
    assert not np.any(q[:, :, 0]) and not np.any(k[:, :, 0])


@spec("T.42")
def test_a_block_written_out():
    """One head, no places: the equation in NumPy, with the mask as a table of ones and zeros."""
    block = GPT(replace(SMALL, num_heads=1, depth=1), Philox(0), dtype=F64).layers[0]
    x = Philox(4).normal((1, 3, 16), dtype=F64)
    w = {name: host(p) for name, p in block.named_parameters()}
    w["attention_norm.weight"][:], w["ffn_norm.weight"][:] = np.linspace(0.5, 2, 16), np.linspace(2, 0.5, 16)
    norm = lambda a, g: a / np.sqrt((a * a).mean(-1, keepdims=True) + 1e-5) * g
    q, k, v = np.split(norm(x[0], w["attention_norm.weight"]) @ w["attention.wqkv.weight"].T, 3, axis=1)
    e = np.exp(q @ k.T / 4) * np.tril(np.ones((3, 3)))
    h = x[0] + (e / e.sum(1, keepdims=True)) @ v @ w["attention.wo.weight"].T
    n = norm(h, w["ffn_norm.weight"])
    a = n @ w["feed_forward.w1.weight"].T
    h = h + (a / (1 + np.exp(-a)) * (n @ w["feed_forward.w3.weight"].T)) @ w["feed_forward.w2.weight"].T
    turn = np.ones((3, 8)), np.zeros((3, 8))
    agree(host(block(x, turn, causal(3), None, 0))[0], h, bound=1e-12, of="T.42")


@spec("T.44")
def test_a_fresh_gpt_knows_nothing():
    network = GPT(SMALL, Philox(0), dtype=F64)
    logits = network(np.zeros((2, 11), int), np.array([0, 1]))
    assert logits.shape == (2, 12, 7) and not np.any(host(logits))


@spec("T.46")
def test_a_fresh_var_has_its_gates_open_by_a_tenth():
    network = VAR(SCALES, Philox(0), dtype=F64)
    for block in network.blocks:
        bias = host(block.ada_lin[1].bias)
        assert (bias[:32] == 0.1).all() and not bias[32:].any()


@spec("T.46", "T.47", "T.48", "T.49")
def test_a_block_on_scales_and_the_head_written_out():
    """One head, all weights awake: gates, then scales, then shifts; keys without a bias; in the head the scale comes first."""
    network = VAR(replace(SCALES, num_heads=1, depth=1), Philox(0), dtype=F64)
    network.flat[...] += 0.3 * Philox(5).normal(network.flat.shape, dtype=F64)
    block, head = network.blocks[0], network.head_nm
    x, c = Philox(4).normal((1, 5, 16), dtype=F64), Philox(6).normal((1, 16), dtype=F64)
    w = {name: host(p) for name, p in block.named_parameters()}
    silu = lambda a: a / (1 + np.exp(-a))
    norm = lambda a: (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-6)
    gate1, gate2, scale1, scale2, shift1, shift2 = np.split(silu(c[0]) @ w["ada_lin.1.weight"].T + w["ada_lin.1.bias"], 6)
    q, k, v = np.split((norm(x[0]) * (1 + scale1) + shift1) @ w["attn.mat_qkv.weight"].T, 3, axis=1)
    q, v = q + w["attn.q_bias"], v + w["attn.v_bias"]
    length = lambda a: np.sqrt((a * a).sum(1, keepdims=True))
    e = np.exp(q / length(q) @ (k / length(k)).T * np.exp(min(w["attn.scale_mul_1H11"].item(), math.log(100))))
    h = x[0] + gate1 * (e / e.sum(1, keepdims=True) @ v @ w["attn.proj.weight"].T + w["attn.proj.bias"])
    inner = host(ops.gelu((norm(h) * (1 + scale2) + shift2) @ w["ffn.fc1.weight"].T + w["ffn.fc1.bias"]))
    h = h + gate2 * (inner @ w["ffn.fc2.weight"].T + w["ffn.fc2.bias"])
    agree(host(block(x, c, None, None, 0))[0], h, bound=1e-11, of=("T.46", "T.47", "T.48"))
    scale, shift = np.split(silu(c[0]) @ host(head.ada_lin[1].weight).T + host(head.ada_lin[1].bias), 2)
    agree(host(head(x, c))[0], norm(x[0]) * (1 + scale) + shift, bound=1e-12, of="T.49")


@spec("T.48")
def test_logits_of_var_are_cosines_times_a_bounded_scale():
    network = VAR(SCALES, Philox(0), dtype=F64)
    attn, x = network.blocks[0].attn, Philox(2).normal((1, 5, 16), dtype=F64)
    attn.scale_mul_1H11.data[:] = np.array([math.log(4), 1e3]).reshape(1, 2, 1, 1)
    seen = {}
    original = ops.attention

    def watched(q, k, v, *mask):
        seen["logits"] = host(q) @ host(k).swapaxes(-1, -2) / 8**0.5
        return original(q, k, v, *mask)

    ops.attention = watched
    try:
        with no_grad():
            attn(x, None, None, 0)
    finally:
        ops.attention = original
    q, k, _ = ops.unpacked(host(attn.mat_qkv(x)), heads=2)  # fresh biases are zero
    cosines = host(unit(q)) @ host(unit(k)).swapaxes(-1, -2)
    agree(seen["logits"][:, 0], 4 * cosines[:, 0], bound=1e-12, of="T.48")
    agree(seen["logits"][:, 1], 100 * cosines[:, 1], bound=1e-12, of="T.48")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GPTConfig(vocabulary=0), "every size must be positive"),
        (lambda: GPTConfig(hidden_size=20, num_heads=2), "divisible by 4 · num_heads = 8"),
        (lambda: VARConfig(sizes=()), "every size must be positive"),
        (lambda: VARConfig(hidden_size=15, num_heads=2), "divisible by num_heads 2"),
        (lambda: GPT(SMALL, Philox(0))(np.zeros((1, 12), int), np.array([0])), "12 codes are before the next one"),
        (lambda: VAR(SCALES, Philox(0))(np.zeros((1, 3, 3), np.float32), np.array([0])), "whole scales"),
    ],
)
def test_sizes_that_conflict_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
