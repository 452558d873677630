"""MM-DiT: what it becomes in its limits, what permuted words do, its start, its sizes, its gradients, its refusals."""

from dataclasses import replace

import numpy as np
import pytest
from finite import check_slope
from hypothesis import given, settings
from hypothesis import strategies as st
from nn import plain
from support import agree, host, spec

from minidit.autograd import Tensor, no_grad
from minidit.autograd.primitives import Primitive
from minidit.models.backbone import Backbone, BackboneConfig
from minidit.models.condition import Classes, Encoded, Nothing, Tokens
from minidit.models.dit import DiT, DiTBlock, DiTConfig
from minidit.models.mmdit import JointBlock, MMDiT, Stream
from minidit.models.mmdit_config import MMDIT, MMDiTConfig
from minidit.nn.recompute import recomputing
from minidit.random import Philox

SEEDS = st.integers(0, 2**32 - 1)
SMALL = MMDiTConfig((4, 6), 2, 2, 16, 2, 2, vocabulary=9, caption_length=3)


@st.composite
def configs(draw, **fixed):
    """Captions, encoded texts, classes or nothing; with and without QK-norm, dual attention, a larger position table."""
    p, heads, depth = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    text = draw(st.sampled_from(["words", "encoded", "classes", "nothing"]))
    drawn = {
        "input_size": (p * draw(st.integers(1, 3)), p * draw(st.integers(1, 3))),
        "patch_size": p, "in_channels": draw(st.integers(1, 3)), "hidden_size": 4 * heads * draw(st.integers(1, 2)),
        "depth": depth, "num_heads": heads, "mlp_ratio": draw(st.sampled_from([1.0, 4.0])),
        "context_ratio": draw(st.sampled_from([0.5, 2.0])), "qk_norm": draw(st.booleans()),
        "dual_attention": tuple(sorted(draw(st.sets(st.integers(0, depth - 1))))),
        "position_side": draw(st.sampled_from([0, 5])),
        "class_dropout_prob": draw(st.sampled_from([0.0, 0.1])), "learn_sigma": draw(st.booleans()),
        **({"vocabulary": 6, "caption_length": draw(st.integers(1, 3))} if text == "words" else {}),
        **({"text_width": 5, "text_pooled": 3, "text_length": draw(st.integers(1, 3))} if text == "encoded" else {}),
        **({"num_classes": 3} if text == "classes" else {}),
    }  # fmt: skip
    return MMDiTConfig(**{**drawn, **fixed})


def grown(config=SMALL, device="cpu", size=0.3):
    return plain.grown(MMDiT(config, None, device=device, dtype=np.float64), device, size=size)


def inputs_of(config, B, xp=np, seed=0):
    r, condition = np.random.default_rng(seed), config.condition
    if isinstance(condition, Tokens):
        y = r.integers(1, condition.rows, (B, condition.length)) * (np.arange(condition.length) <= r.integers(0, 3, (B, 1)))
    elif isinstance(condition, Encoded):
        y = r.standard_normal((B, condition.length, condition.width)), r.standard_normal((B, condition.pooled))
    else:
        y = r.integers(0, condition.rows, B) if condition.rows else None
    y = tuple(map(xp.asarray, y)) if isinstance(y, tuple) else None if y is None else xp.asarray(y)
    return xp.asarray(r.standard_normal((B, *config.shape))), xp.asarray(r.permutation(1000)[:B]), y


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def streams(seed, width=8, inner=16, **more):
    """Two streams of random weights."""
    made = [Stream(width, 2, inner, **{"qk_norm": False, **more}).build(dtype=np.float64) for _ in range(2)]
    return tuple(plain.grown(stream, seed=seed + k)[0] for k, stream in enumerate(made))


# ------------------------------------------------------------------------------------------------ limits


def dit_block(stream, width=8, inner=16):
    block = DiTBlock(width, 2, inner).build(dtype=np.float64)
    block.load_state_dict(stream.state_dict())
    return block


@spec("N.14", "T.22", "T.23")
@given(SEEDS, st.integers(1, 4), st.integers(1, 4))
def test_with_equal_weights_in_both_streams_a_joint_block_is_a_dit_block_on_both(seed, M, N):
    stream, _ = streams(seed)
    h, c = normal(seed, 2, M + N, 8), normal(seed + 1, 2, 8)
    agree(JointBlock(stream, stream, N)(h, c), dit_block(stream)(h, c).data, bound=1e-12, of=("T.22", "T.23"))


@spec("N.14", "T.22", "T.23")
@given(SEEDS, st.integers(1, 4), st.booleans())
def test_without_words_a_joint_block_is_a_dit_block(seed, N, has_stream):
    """Whether the block has no stream for words, or has one and there are none."""
    x, context = streams(seed)
    h, c = normal(seed, 2, N, 8), normal(seed + 1, 2, 8)
    agree(JointBlock(x, context if has_stream else None, N)(h, c), dit_block(x)(h, c).data, bound=1e-12, of=("T.22", "T.23"))


@spec("T.3", "T.6", "T.23")
@pytest.mark.parametrize("num_classes", [0, 3])
def test_without_words_the_network_is_a_dit(num_classes):
    shared = {"input_size": (4, 6), "patch_size": 2, "in_channels": 2, "hidden_size": 16, "depth": 2, "num_heads": 2,
              "num_classes": num_classes}  # fmt: skip
    config = MMDiTConfig(**shared, qk_norm=False)
    model, state = grown(config)
    dit = DiT(DiTConfig(**shared, learn_sigma=False), None, dtype=np.float64)
    dit.load_state_dict({name.replace("joint_blocks", "blocks").replace(".x_block", ""): a for name, a in state.items()})
    x, t, y = inputs_of(config, 3)
    agree(model(x, t, y), dit(x, t, y).data, bound=1e-13, of=("T.3", "T.23"))


@spec("T.22", "T.23", "T.24")
@given(SEEDS, st.permutations(range(4)), st.booleans(), st.booleans())
def test_permuted_words_give_permuted_words_and_the_same_picture(seed, order, qk_norm, dual):
    """Places are added to words before the blocks; these treat words as a set."""
    context, _ = streams(seed, qk_norm=qk_norm)
    _, x = streams(seed + 7, qk_norm=qk_norm, dual=dual)
    h, c, order = normal(seed, 2, 4 + 3, 8), normal(seed + 1, 2, 8), np.array([*order, 4, 5, 6])
    block = JointBlock(x, context, 3)
    agree(block(h[:, order], c), host(block(h, c))[:, order], bound=1e-12, of=("T.22", "T.23"))


@spec("T.21")
@given(SEEDS)
def test_the_order_of_words_and_the_number_of_a_word_reach_the_picture_and_padding_not_the_vector(seed):
    model, _ = grown()
    x, t, _ = inputs_of(SMALL, 3, seed=seed)
    y = np.array([[1, 2, 3], [2, 1, 3], [1, 2, 4]])
    out = host(model(x[:1].repeat(3, 0), t[:1].repeat(3), y))
    assert min(np.abs(out[0] - out[1]).max(), np.abs(out[0] - out[2]).max()) > 1e-6
    embed = model.context_embedder
    _, two = embed(np.array([[5, 6, 0]]))
    e = host(embed.words)[[5, 6]] + host(embed.places)[:2]
    agree(two, e.sum(0, keepdims=True) / np.sqrt(2), bound=1e-14, of="T.21")
    assert (host(embed(np.zeros((1, 3), int))[1]) == 0).all()


@spec("T.7", "T.22", "T.23")
@given(SEEDS, st.booleans())
def test_a_fresh_block_is_the_identity_on_both_streams_and_a_fresh_network_answers_zero(seed, dual):
    streams = [Stream(8, 2, 16, qk_norm=True, dual=d) for d in (dual, False)]
    block = JointBlock(*streams, 3).build(Philox(seed), dtype=np.float64)
    h = normal(seed, 2, 5, 8)
    agree(block(h, normal(seed + 1, 2, 8)), h, bound=0, of=("T.7", "T.23"))
    model = MMDiT(SMALL, Philox(seed), dtype=np.float64)
    assert not host(model(*inputs_of(SMALL, 2))).any()


@spec("T.24")
@given(SEEDS)
def test_a_dual_attention_with_a_closed_gate_is_not_there(seed):
    context, x = streams(seed, dual=False)[0], streams(seed + 1, dual=True)[0]
    x.adaLN_modulation[1].weight.data[64:], x.adaLN_modulation[1].bias.data[64:] = 0, 0  # the third gate
    single = Stream(8, 2, 16, qk_norm=False).build(dtype=np.float64)
    state = {n: a[:48] if "adaLN" in n else a for n, a in x.state_dict().items() if "attn2" not in n}
    single.load_state_dict(state)
    h, c = normal(seed, 2, 5, 8), normal(seed + 1, 2, 8)
    agree(JointBlock(x, context, 3)(h, c), JointBlock(single, context, 3)(h, c).data, bound=1e-13, of="T.24")
    x.adaLN_modulation[1].bias.data[64:] = 1
    assert np.abs(host(JointBlock(x, context, 3)(h, c)) - host(JointBlock(single, context, 3)(h, c))).max() > 1e-3


@spec("T.25")
def test_the_last_context_is_only_looked_at():
    D, inner = SMALL.hidden_size, int(SMALL.hidden_size * SMALL.context_ratio)
    blocks = MMDiT(SMALL, Philox(0)).joint_blocks
    count = [sum(p.data.size for p in b.context_block.parameters()) for b in blocks]
    missing = D * D + D + 2 * D * inner + inner + D + 4 * (D * D + D)  # W_h, the MLP, four modulations
    assert count[0] - count[-1] == missing and blocks[-1].context_block.mlp is blocks[-1].context_block.attn.proj is None
    assert blocks[-1](np.zeros((2, 3 + 6, D), np.float32), np.zeros((2, D), np.float32)).shape == (2, 6, D)


# ------------------------------------------------------------------------------------------------ gradients, sizes, memory


@settings(max_examples=6)
@given(SEEDS, configs(input_size=4, patch_size=2))
def test_the_gradient_is_the_derivative_in_any_direction(seed, config):
    model, _ = grown(config, size=0.4)
    r, (x, t, y) = np.random.default_rng(seed), inputs_of(config, 2, seed=seed)
    weights, leaf = r.standard_normal((2, config.out_channels, *config.size)), Tensor(x)
    (model(leaf, t, y) * weights).mean().backward()
    us, u_x = [r.standard_normal(p.shape) for p in model.parameters()], r.standard_normal(x.shape)
    back = sum(float((p.grad * u).sum()) for p, u in zip(model.parameters(), us, strict=True)) + float((leaf.grad * u_x).sum())
    thetas = [p.data.copy() for p in model.parameters()]

    def along(s):
        for p, theta, u in zip(model.parameters(), thetas, us, strict=True):
            p.data[...] = theta + s * u
        return host((model(x + s * u_x, t, y) * weights).mean())

    check_slope(back, along, bound=1e-6)


@spec("T.26")
@given(configs())
def test_the_numbers_of_a_checkpoint_are_counted(config):
    assert config.parameters() == sum(a.size for a in MMDiT(config, None).state_dict().values())


@spec("T.26")
@settings(max_examples=20)
@given(config=configs())
def test_the_multiply_accumulates_are_those_of_its_products(config):
    spent, pair = [], Primitive.pair

    def counting(self, *arrays, **static):
        if self.__name__ == "linear":
            spent.append(arrays[0].size * len(arrays[1]))
        if self.__name__ == "self_attention":
            B, N, D3 = arrays[0].shape
            spent.append(2 * B * N * N * D3 // 3)
        return pair(self, *arrays, **static)

    with pytest.MonkeyPatch.context() as patch, no_grad():
        patch.setattr(Primitive, "pair", counting)
        grown(config)[0](*inputs_of(config, 1))
    firsts = sum(s.tokens * config.hidden_size * s.inner for s in config.streams() if not s.last)  # of the MLPs: linear_gelu
    assert sum(spent) + firsts == config.macs()


def test_the_networks_of_stable_diffusion_3_have_their_numbers():
    """Without the position table: 2,028,328,000 are the 2B of the paper; 2.2B and 8.1B are stated for 3.5."""
    trained = {name: c.parameters() - c.side[0] * c.side[1] * c.hidden_size for name, c in MMDIT.items() if c.text_width}
    assert trained == {"SD3-M": 2_028_328_000, "SD3.5-M": 2_243_171_520, "SD3.5-L": 8_056_627_520}


def test_recomputing_the_blocks_changes_no_bit():
    model, _ = grown()
    x, t, y = inputs_of(SMALL, 2)
    grads = []
    for on in (False, True):
        with recomputing(on):
            model(x, t, y).sum().backward()
        grads.append([p.grad for p in model.parameters()])
        for p in model.parameters():
            p.grad = None
    assert all((a == b).all() for a, b in zip(*grads, strict=True))


# ------------------------------------------------------------------------------------------------ as a backbone


@pytest.mark.parametrize(("more", "condition"), [
    ({"vocabulary": 0, "caption_length": 0}, Nothing()),
    ({"vocabulary": 0, "caption_length": 0, "num_classes": 5}, Classes(5, 5, 0.1)),
    ({}, Tokens(9, 3, 9, 0.1)),
    ({"class_dropout_prob": 0.0}, Tokens(9, 3)),
    ({"vocabulary": 0, "caption_length": 0, "text_width": 5, "text_pooled": 4}, Encoded(5, 4, 154)),
])  # fmt: skip
def test_an_mm_dit_is_a_backbone(more, condition):
    config: BackboneConfig = replace(SMALL, **more)
    model: Backbone = MMDiT(config, None)
    assert model.shape == config.shape == (2, 4, 6) and model.condition == config.condition == condition
    assert not model.second_half and config.fitted((3, 8, 8), 0).shape == (3, 8, 8)


def test_left_out_captions_are_the_null_word_alone(xp, device):
    model, _ = grown(device=device)
    x, t, y = inputs_of(SMALL, 2, xp)
    null = model.null(y)
    assert host(null).tolist() == [[9, 0, 0]] * 2
    assert model(x, t, null).shape == (2, 2, 4, 6)
    assert SMALL.captioned(20, 5).condition == Tokens(20, 5, 20, 0.1)


@pytest.mark.parametrize(("more", "message"), [
    ({"input_size": 5}, "not divisible by patch_size"),
    ({"num_heads": 3}, "divisible by num_heads"),
    ({"position_side": 2}, "at least 3"),
    ({"dual_attention": (2,)}, "the blocks are 0 to 1"),
    ({"caption_length": 0}, "vocabulary and caption_length go together"),
    ({"num_classes": 3}, "one of them"),
    ({"class_dropout_prob": 1.0}, "out of range"),
    ({"depth": 0}, "every size must be positive"),
])  # fmt: skip
def test_sizes_that_conflict_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **more)


def test_wrong_inputs_are_refused_by_name():
    model, _ = grown()
    x, t, y = inputs_of(SMALL, 2)
    for args, message in [((x[:, :1], t, y), r"x has shape \(2, 1, 4, 6\)"), ((x, t[:1], y), "t has shape"),
                          ((x, t, y[:, :2]), "captions of 3 words needs y of shape")]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            model(*args)
    config = replace(SMALL, vocabulary=0, caption_length=0, text_width=5, text_pooled=4)
    model, (x, t, (tokens, vector)) = MMDiT(config, None, dtype=np.float64), inputs_of(config, 2)
    assert model(x, t, (tokens[:, :7], vector)).shape == (2, 2, 4, 6)  # any number of tokens
    for y in (None, tokens, (tokens[..., :4], vector), (tokens, vector[:1]), (tokens[0], vector)):
        with pytest.raises(ValueError, match=r"a pair y of shapes \(\(2, M, 5\), \(2, 4\)\)"):
            model(x, t, y)
    with pytest.raises(ValueError, match="the encoders' output for the empty text"):
        model.null((tokens, vector))
