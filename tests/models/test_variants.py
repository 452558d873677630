"""The paper's four ways to condition a transformer: sizes, costs, and what each block computes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import draws
from support import agree, host, spec

from minidit import ops
from minidit.autograd import no_grad
from minidit.models.dit import DIT, VARIANTS, DiT, DiTConfig
from minidit.models.variants import AdaLNBlock, CrossAttentionBlock, PlainBlock
from minidit.nn import stack
from minidit.random import Philox

XL = DIT["DiT-XL/2"]


def random_weights(model, seed=0, scale=0.1):
    for p in model.parameters():
        seed += 1
        p.data[...] = (scale * np.random.default_rng(seed).standard_normal(p.data.shape)).astype(p.data.dtype)
    return model


def small(conditioning, **more):
    sizes = {"input_size": (4, 6), "hidden_size": 16, "depth": 2, "num_heads": 2, "num_classes": 3, "learn_sigma": False}
    return random_weights(DiT(DiTConfig(**sizes, **more, conditioning=conditioning), Philox(0), dtype=np.float64))


@spec("T.14", "T.9")
@pytest.mark.parametrize(
    ("conditioning", "exactly", "millions"),
    [
        ("in_context", 449_457_440, 449),
        ("cross_attention", 598_286_624, 598),
        ("adaln", 600_747_296, 600),
        ("adaln_zero", 675_129_632, 675),
    ],
)
def test_parameters_of_xl_2_are_the_papers(conditioning, exactly, millions):
    n = replace(XL, conditioning=conditioning).parameters()
    assert n == exactly and abs(n / 1e6 - millions) < 1


@spec("T.13", "T.8")
@pytest.mark.parametrize(
    ("conditioning", "paper"), [("in_context", 119.37), ("cross_attention", 137.62), ("adaln", 118.56), ("adaln_zero", 118.64)]
)
def test_multiply_accumulates_of_xl_2_are_the_papers(conditioning, paper):
    agree(replace(XL, conditioning=conditioning).macs() / 1e9 / paper, np.float64(1), bound=2e-4, of="T.13")


@spec("T.13")
@given(draws.configs(), st.sampled_from(sorted(VARIANTS)))
def test_multiply_accumulates_of_every_conditioning_are_those_of_every_product(config, conditioning):
    config = replace(config, conditioning=conditioning)
    assert config.macs() == macs_of(config)


def macs_of(config):
    """Counted product by product, with the weights' shapes taken from a model that was built."""
    conditioning = config.conditioning
    N, D, M = config.tokens, config.hidden_size, 2 if config.num_classes else 1
    n, total = N + M * (conditioning == "in_context"), 0
    for name, w in DiT(config, None).state_dict().items():
        if w.ndim > 1 and name.endswith("weight") and "embedding_table" not in name:
            once = "adaLN" in name or name.startswith("t_embedder")  # for each sample; others for each token, if they are in a
            of = M if ".cross.kv" in name else n if name.startswith("blocks") else N  # block for the condition's tokens too
            total += int(np.prod(w.shape)) * (1 if once else of)
    scores = n * n + (N * M if conditioning == "cross_attention" else 0)
    return total + config.depth * 2 * scores * D  # scores, and values weighted by them


@spec("T.14", "T.13")
@pytest.mark.parametrize("conditioning", sorted(VARIANTS))
@pytest.mark.parametrize("D, heads", [(20, 5), (28, 7), (36, 3), (12, 1)])
def test_odd_widths_are_counted_like_round_ones(conditioning, D, heads):
    config = DiTConfig(input_size=6, patch_size=3, in_channels=3, hidden_size=D, depth=3, num_heads=heads, mlp_ratio=1.75,
                       num_classes=7, conditioning=conditioning)  # fmt: skip
    assert config.parameters() == sum(a.size for a in DiT(config, None).state_dict().values())
    assert config.macs() == macs_of(config)


@spec("T.14", "T.9")
@given(draws.configs(), st.sampled_from(sorted(VARIANTS)))
def test_the_formula_counts_what_a_model_holds(config, conditioning):
    config = replace(config, conditioning=conditioning)
    model = DiT(config, None)
    assert config.parameters() == sum(a.size for a in model.state_dict().values())


def test_an_unknown_conditioning_is_refused_by_name():
    with pytest.raises(ValueError, match="'adaln-zero' is not one of adaln_zero, adaln, cross_attention, in_context"):
        DiTConfig(conditioning="adaln-zero")


@spec("T.5", "T.10", "T.11", "T.12")
@pytest.mark.parametrize("conditioning", sorted(VARIANTS))
def test_a_stack_is_its_blocks_one_after_another_and_the_last_layer(conditioning):
    model, r = small(conditioning, class_dropout_prob=0.0), np.random.default_rng(5)
    tokens, embeddings = r.standard_normal((3, 6, 16)), [r.standard_normal((3, 16)) for _ in range(2)]
    with no_grad():
        h, c = model.enter(tokens, embeddings)
        out = stack.through(model.blocks, model.final_layer, h, c)
        for block in model.blocks:
            h = block(h, c)
        agree(out, model.final_layer(h, c), bound=1e-12)


def norm(x, eps=1e-6):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)


def affine(layer, x):
    return norm(x) * host(layer.weight) + host(layer.bias)


@spec("T.10")
def test_adaln_shifts_and_scales_and_has_no_gate():
    block = random_weights(AdaLNBlock(8, 2, 32).build(dtype=np.float64))
    rng = np.random.default_rng(0)
    x, c = rng.standard_normal((2, 5, 8)), rng.standard_normal((2, 8))
    with no_grad():
        shift1, scale1, shift2, scale2 = np.split(host(block.adaLN_modulation(c)), 4, axis=1)
        y = x + host(block.attn(norm(x) * (1 + scale1[:, None]) + shift1[:, None]))
        y = y + host(block.mlp(norm(y) * (1 + scale2[:, None]) + shift2[:, None]))
        agree(block(x, c), y, bound=1e-10, of="T.10")


@spec("T.11")
def test_cross_attention_reads_the_condition_between_attention_and_mlp():
    block = random_weights(CrossAttentionBlock(8, 2, 32).build(dtype=np.float64))
    rng = np.random.default_rng(1)
    x, context = rng.standard_normal((2, 5, 8)), rng.standard_normal((2, 2, 8))
    with no_grad():
        y = x + host(block.attn(affine(block.norm1, x)))
        q = affine(block.norm2, y) @ host(block.cross.q.weight).T + host(block.cross.q.bias)
        k, v = np.split(context @ host(block.cross.kv.weight).T + host(block.cross.kv.bias), 2, axis=-1)
        heads = []
        for h in (slice(0, 4), slice(4, 8)):
            p = np.exp(q[..., h] @ k[..., h].swapaxes(1, 2) / 2)
            heads.append(p / p.sum(-1, keepdims=True) @ v[..., h])
        y = y + np.concatenate(heads, -1) @ host(block.cross.proj.weight).T + host(block.cross.proj.bias)
        y = y + host(block.mlp(affine(block.norm3, y)))
        agree(block(x, context), y, bound=1e-10, of="T.11")


@spec("T.12")
def test_in_context_puts_two_tokens_behind_the_picture_and_takes_them_off_again():
    model = small("in_context")
    rng = np.random.default_rng(2)
    x, t, y = rng.standard_normal((3, 4, 4, 6)), np.array([0, 7, 500]), np.array([0, 1, 3])
    with no_grad():
        tokens = host(model.x_embedder(x)) + model.pos_embed
        extra = np.stack([host(model.t_embedder(t)), host(model.y_embedder(y))], axis=1)
        h = np.concatenate([tokens, extra], axis=1)
        for block in model.blocks:
            assert isinstance(block, PlainBlock)
            h = h + host(block.attn(affine(block.norm1, h)))
            h = h + host(block.mlp(affine(block.norm2, h)))
        h = affine(model.final_layer.norm, h[:, : tokens.shape[1]]) @ host(model.final_layer.linear.weight).T
        h = h + host(model.final_layer.linear.bias)
        agree(model(x, t, y), ops.unpatchify(h, patch_size=2, size=(4, 6)), bound=1e-10, of="T.12")


@spec("T.3", "T.10", "T.11", "T.12")
@pytest.mark.parametrize("conditioning", sorted(VARIANTS))
def test_time_and_class_change_the_output_of_every_variant_and_all_weights_get_a_gradient(conditioning):
    model = small(conditioning)
    x, t, y = np.random.default_rng(3).standard_normal((2, 4, 4, 6)), np.array([10, 900]), np.array([0, 2])
    out = model(x, t, y)
    (out * out).sum().backward()
    assert all(p.grad is not None and np.abs(p.grad).max() > 0 for n, p in model.named_parameters() if "k.bias" not in n)
    for changed in (model(x, t[::-1].copy(), y), model(x, t, y[::-1].copy())):
        assert np.abs(host(changed) - host(out)).max() > 1e-6


@spec("T.7")
@pytest.mark.parametrize("conditioning", sorted(VARIANTS))
def test_every_fresh_variant_outputs_exactly_zero(conditioning):
    config = replace(DIT["demo"], depth=1, conditioning=conditioning)
    x = np.ones((2, 4, 8, 8), np.float32)
    assert not host(DiT(config, Philox(0))(x, np.array([1, 2]), np.array([0, 10]))).any()


@pytest.mark.parametrize("conditioning", sorted(VARIANTS))
def test_without_a_tape_every_variant_gives_the_same_numbers(conditioning):
    model = small(conditioning)
    x, t, y = np.random.default_rng(4).standard_normal((2, 4, 4, 6)), np.array([10, 900]), np.array([0, 2])
    with no_grad():
        agree(model(x, t, y), host(small(conditioning)(x, t, y)), bound=1e-12)


@pytest.mark.parametrize("conditioning", sorted(VARIANTS))
def test_tokens_are_stored_in_the_policys_type_only_where_layer_norms_have_no_weights(conditioning, monkeypatch):
    """Trained gains and biases are float32, so those variants keep float32 tokens."""
    asked, model = [], small(conditioning)
    monkeypatch.setattr(stack, "stored", lambda x: (asked.append(x.shape), x)[1])
    model(np.zeros((2, 4, 4, 6)), np.array([1, 2]), np.array([0, 1]))
    assert asked == ([(2, 6, 16), (2, 16)] if conditioning.startswith("adaln") else [])
