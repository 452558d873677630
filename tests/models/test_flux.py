"""FLUX: its single block, rotary places, guidance, packing, start, sizes, gradients, refusals."""

from dataclasses import replace

import numpy as np
import pytest
from finite import check_slope
from hypothesis import given, settings
from hypothesis import strategies as st
from models.test_mmdit import inputs_of, normal
from nn import plain
from support import agree, host, spec

from minidit import ops
from minidit.autograd import Tensor, no_grad
from minidit.autograd.primitives import Primitive
from minidit.diffusion.times import shift
from minidit.models.backbone import Backbone, BackboneConfig
from minidit.models.condition import Classes, Encoded, Nothing, Tokens
from minidit.models.flux import Flux, SingleBlock
from minidit.models.flux_config import FLUX, FluxConfig, turn_of
from minidit.models.mmdit import JointBlock, Stream
from minidit.nn import rotary
from minidit.nn.position import grid_ids
from minidit.random import Philox

SEEDS = st.integers(0, 2**32 - 1)
SMALL = FluxConfig((4, 6), 2, 2, 16, 1, 2, 2, vocabulary=9, caption_length=3)
NO_WORDS = replace(SMALL, vocabulary=0, caption_length=0)
GRID, AXES = (2, 3), (4, 2, 2)


@st.composite
def configs(draw, **fixed):
    """Rectangles of patches, captions, encoded texts, classes or nothing, any number of blocks of both kinds, every guidance."""
    p, heads, depth = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(0, 2))
    text = draw(st.sampled_from(["words", "encoded", "classes", "nothing"]))
    drawn = {
        "input_size": (p * draw(st.integers(1, 3)), p * draw(st.integers(1, 3))),
        "patch_size": p, "in_channels": draw(st.integers(1, 3)), "hidden_size": heads * draw(st.sampled_from([8, 12, 16])),
        "depth": depth, "single_depth": draw(st.integers(0 if depth else 1, 2)), "num_heads": heads,
        "mlp_ratio": draw(st.sampled_from([1.0, 4.0])), "guidance": draw(st.sampled_from(["none", "flux", "from_one"])),
        "class_dropout_prob": draw(st.sampled_from([0.0, 0.1])), "learn_sigma": draw(st.booleans()),
        **({"vocabulary": 6, "caption_length": draw(st.integers(1, 3))} if text == "words" else {}),
        **({"text_width": 5, "text_pooled": 3, "text_length": draw(st.integers(1, 3))} if text == "encoded" else {}),
        **({"num_classes": 3} if text == "classes" else {}),
    }  # fmt: skip
    return FluxConfig(**{**drawn, **fixed})


def grown(config=SMALL, device="cpu", size=0.3):
    return plain.grown(Flux(config, None, device=device, dtype=np.float64), device, size=size)


def moved(by):
    """Tables of places in which the patches, and only they, are moved."""

    def turn(words):
        places = np.pad(grid_ids(*GRID), ((0, 0), (1, 0))) + np.array(by)
        return rotary(np.concatenate([np.zeros((words, 3), int), places]), AXES)

    return turn


# ------------------------------------------------------------------------------------------------ blocks


@spec("T.27")
@given(SEEDS, st.integers(0, 2))
def test_a_single_block_is_two_matrices_around_attention_and_gelu(seed, M):
    """FLUX stores W₁ = (W_qkv; W₁) and W₂ = (W_a | W_m): h + α W₂ (attn ⊕ gelu(mlp))."""
    block = plain.grown(SingleBlock(16, 2, 24, 6, moved(0)).build(dtype=np.float64), seed=seed)[0]
    h, c, s = normal(seed, 2, M + 6, 16), normal(seed + 1, 2, 16), block.state_dict()
    shift_, scale, gate = np.split(plain.linear(s, "adaLN_modulation.1", plain.silu(c)), 3, axis=1)
    a = ops.layer_norm_modulate(h, shift_, scale)
    W1, b1 = (np.concatenate([s[f"attn.qkv.{n}"], s[f"mlp.fc1.{n}"]]) for n in ("weight", "bias"))
    W2 = np.concatenate([s["proj.weight"], s["mlp.fc2.weight"]], axis=1)
    qkv, mlp = np.split(a @ W1.T + b1, [48], axis=2)
    q, k, v = (x.reshape(2, M + 6, 2, 8) for x in np.split(qkv, 3, axis=2))
    q, k = (ops.rope(ops.rms_norm(x, s[f"attn.ln_{n}.weight"]), *moved(0)(M)) for x, n in ((q, "q"), (k, "k")))
    y = ops.attention(*(x.transpose(0, 2, 1, 3) for x in (q, k, v))).transpose(0, 2, 1, 3).reshape(2, M + 6, 16)
    expected = h + gate[:, None] * (np.concatenate([y, plain.gelu(mlp)], axis=2) @ W2.T + s["mlp.fc2.bias"])
    agree(block(h, c), expected, bound=1e-12, of=("T.27", "A.29", "A.30"))


@spec("N.14", "T.22", "T.23")
@given(SEEDS, st.integers(1, 3))
def test_with_equal_weights_a_double_block_is_one_stream(seed, M):
    stream = plain.grown(Stream(16, 2, 16, qk_norm=True).build(dtype=np.float64), seed=seed)[0]
    h, c = normal(seed, 2, M + 6, 16), normal(seed + 1, 2, 16)
    one = JointBlock(stream, None, M + 6, lambda _: moved(0)(M))
    agree(JointBlock(stream, stream, 6, moved(0))(h, c), one(h, c).data, bound=1e-12, of=("T.22", "T.23"))


@spec("A.30", "N.12")
@settings(max_examples=12)
@given(SEEDS, st.tuples(*[st.integers(-9, 9)] * 3).filter(any))
def test_a_shift_of_all_patches_changes_nothing_exactly_where_there_are_no_words(seed, by):
    """Words stand at (0, 0, 0), where the first patch stands too."""
    for config, free in ((NO_WORDS, True), (SMALL, False)):
        model, _ = grown(config)
        x, t, y = inputs_of(config, 2, seed=seed)
        here = host(model(x, t, y))
        for block in (*model.double_blocks, *model.single_blocks):
            block.turn = moved(by)
        there = host(model(x, t, y))
        if free:
            agree(there, here, bound=1e-12, of=("A.30", "N.12"))
        else:
            assert np.abs(there - here).max() > 1e-9


@spec("N.12")
def test_words_stand_at_the_origin_and_patches_at_row_and_column():
    cos, sin = turn_of(2, GRID, AXES)
    assert (cos[:3] == 1).all() and (sin[:3] == 0).all()  # two words, and the first patch
    expected = rotary(np.array([[0, 1, 2]]), AXES)
    agree(cos[7], expected[0][0], bound=0, of="N.12")
    agree(sin[7], expected[1][0], bound=0, of="N.12")
    assert FLUX["FLUX.1-dev"].axes == (16, 56, 56) and replace(SMALL, hidden_size=48).axes == (4, 10, 10)


# ------------------------------------------------------------------------------------------------ guidance


@spec("T.28")
@settings(max_examples=8)
@given(SEEDS, st.floats(1.0, 8.0))
def test_a_fresh_network_does_not_notice_its_guidance_and_w_1_stays_the_plain_network(seed, w):
    x, t, y = inputs_of(SMALL, 3, seed=seed)
    for guidance in ("flux", "from_one"):
        config = replace(SMALL, guidance=guidance)
        fresh, _ = grown(config)
        fresh.guidance_embedder.mlp[2].weight.data[...] = fresh.guidance_embedder.mlp[2].bias.data[...] = 0
        agree(fresh(x, t, y, w=w), fresh(x, t, y).data, bound=0, of="T.28")
    model, state = grown(config)  # from_one, every weight random
    without = Flux(SMALL, None, dtype=np.float64)
    without.load_state_dict({n: a for n, a in state.items() if "guidance" not in n})
    agree(model(x, t, y, w=1.0), without(x, t, y).data, bound=1e-14, of="T.28")
    agree(model(x, t, y), without(x, t, y).data, bound=1e-14, of="T.28")
    if w > 1.1:
        assert np.abs(host(model(x, t, y, w=w)) - host(model(x, t, y))).max() > 1e-9


@spec("T.28")
def test_every_sample_has_its_own_guidance_and_a_network_without_it_says_so():
    model, _ = grown(replace(SMALL, guidance="flux"))
    x, t, y = inputs_of(SMALL, 3)
    w = np.array([1.0, 2.5, 4.0])
    each = np.concatenate([host(model(x[i : i + 1], t[i : i + 1], y[i : i + 1], w=w[i])) for i in range(3)])
    agree(model(x, t, y, w=w), each, bound=1e-12, of="T.28")
    with pytest.raises(ValueError, match=r"w = 2\.0: this network was built without guidance"):
        grown()[0](x, t, y, w=2.0)


# ------------------------------------------------------------------------------------------------ packing, shift, start


@spec("T.1")
@given(SEEDS)
def test_tokens_out_are_packed_as_tokens_in(seed):
    """(C, p, p) on both sides, unlike a DiT: what goes in comes out again."""
    x = normal(seed, 2, 2, 4, 6)
    agree(Flux(SMALL, None)._picture(ops.patchify(x, patch_size=2)), x, bound=0, of="T.1")


@spec("P.17")
@given(st.floats(0.01, 0.99), st.floats(-2.0, 3.0))
def test_the_shift_of_flux_is_that_of_stable_diffusion_3(t, mu):
    """e^μ / (e^μ + 1/t - 1), with e^μ in the place of α."""
    agree(np.float64(shift(t, np.exp(mu))), np.float64(np.exp(mu) / (np.exp(mu) + 1 / t - 1)), bound=1e-14, of="P.17")


@spec("T.7", "T.27")
@settings(max_examples=8)
@given(SEEDS)
def test_fresh_blocks_are_identities_and_a_fresh_network_answers_zero(seed):
    model = Flux(replace(SMALL, guidance="flux"), Philox(seed), dtype=np.float64)
    assert not host(model(*inputs_of(SMALL, 2), w=3.0)).any()
    h, c = normal(seed, 2, 3 + 6, 16), normal(seed + 1, 2, 16)
    for block in (*model.double_blocks, *model.single_blocks):
        agree(block(h, c), h, bound=0, of=("T.7", "T.27"))


# ------------------------------------------------------------------------------------------------ gradients and sizes


@settings(max_examples=6)
@given(SEEDS, configs(input_size=4, patch_size=2))
def test_the_gradient_is_the_derivative_in_any_direction(seed, config):
    model, _ = grown(config, size=0.3)
    r, (x, t, y) = np.random.default_rng(seed), inputs_of(config, 2, seed=seed)
    w = None if config.guidance == "none" else r.uniform(1, 6, 2)
    weights, leaf = r.standard_normal((2, config.out_channels, *config.size)), Tensor(x)
    (model(leaf, t, y, w=w) * weights).mean().backward()
    us, u_x = [r.standard_normal(p.shape) for p in model.parameters()], r.standard_normal(x.shape)
    back = sum(float((p.grad * u).sum()) for p, u in zip(model.parameters(), us, strict=True)) + float((leaf.grad * u_x).sum())
    thetas = [p.data.copy() for p in model.parameters()]

    def along(s):
        for p, theta, u in zip(model.parameters(), thetas, us, strict=True):
            p.data[...] = theta + s * u
        return host((model(x + s * u_x, t, y, w=w) * weights).mean())

    check_slope(back, along, bound=1e-6)


@spec("T.29")
@given(configs())
def test_the_numbers_of_a_checkpoint_are_counted(config):
    assert config.parameters() == sum(a.size for a in Flux(config, None).state_dict().values())


@spec("T.29")
@settings(max_examples=20)
@given(config=configs())
def test_the_multiply_accumulates_are_those_of_its_products(config):
    spent, pair = [], Primitive.pair

    def counting(self, *arrays, **static):
        if self.__name__ in ("linear", "linear_gelu"):
            spent.append(arrays[0].size * len(arrays[1]))
        if self.__name__ == "self_attention":
            B, N, D3 = arrays[0].shape
            spent.append(2 * B * N * N * D3 // 3)
        return pair(self, *arrays, **static)

    with pytest.MonkeyPatch.context() as patch, no_grad():
        patch.setattr(Primitive, "pair", counting)
        grown(config)[0](*inputs_of(config, 1))
    assert sum(spent) == config.macs()


def test_flux_1_has_its_numbers():
    assert FLUX["FLUX.1-dev"].parameters() == 11_901_408_320


# ------------------------------------------------------------------------------------------------ as a backbone


@pytest.mark.parametrize(("more", "condition"), [
    ({}, Tokens(9, 3, 9, 0.1)),
    ({"vocabulary": 0, "caption_length": 0}, Nothing()),
    ({"vocabulary": 0, "caption_length": 0, "num_classes": 5}, Classes(5, 5, 0.1)),
    ({"vocabulary": 0, "caption_length": 0, "text_width": 5, "text_pooled": 4}, Encoded(5, 4, 512)),
])  # fmt: skip
def test_a_flux_is_a_backbone(more, condition, device, xp):
    config: BackboneConfig = replace(SMALL, **more)
    model: Backbone = grown(config, device)[0]
    assert model.shape == config.shape == (2, 4, 6) and model.condition == config.condition == condition
    assert model(*inputs_of(config, 2, xp)).shape == (2, 2, 4, 6)


@pytest.mark.parametrize(("more", "message"), [
    ({"input_size": 5}, "not divisible by patch_size"),
    ({"hidden_size": 12}, "heads of 6 numbers"),
    ({"rope_widths": (2, 2)}, "three even numbers that sum up to 8"),
    ({"rope_widths": (2, 3, 3)}, "three even numbers"),
    ({"guidance": "much"}, "guidance 'much' is not one of none, flux, from_one"),
    ({"depth": 0, "single_depth": 0}, "every size must be positive"),
    ({"num_classes": 3}, "one of them"),
])  # fmt: skip
def test_sizes_that_conflict_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **more)
