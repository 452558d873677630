"""The spacetime DiT: a picture is a clip of one frame, grouped attention is masked attention, and time is seen only by choice."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import draws
from nn import plain
from support import agree, host, spec

from minidit import ops
from minidit.autograd import value
from minidit.models.dit import DiTBlock
from minidit.models.spacetime import (
    ClipAttention,
    InFrames,
    OverTime,
    SpacetimeDiT,
    clip_of,
    patches,
    places_of_time,
    turns,
)
from minidit.models.spacetime_config import SPACETIME, SpacetimeConfig
from minidit.nn.attention import attended
from minidit.random import Philox

SMALL = SpacetimeConfig((4, 6), 3, 1, 2, 2, 16, 2, 2, num_classes=3)
KINDS = ("full", "factorised", "none")


@st.composite
def configs(draw, **fixed):
    """Blocks of any kind on grids of patches in time and space, none of them cubes."""
    p, t, heads = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    drawn = {
        "input_size": (p * draw(st.integers(1, 3)), p * draw(st.integers(1, 4))),
        "frames": t * draw(st.integers(1, 4)),
        "frame_patch": t,
        "patch_size": p,
        "in_channels": draw(st.integers(1, 3)),
        "hidden_size": 8 * heads,
        "depth": draw(st.integers(1, 3)),
        "num_heads": heads,
        "mlp_ratio": draw(st.sampled_from([1.0, 1.5, 4.0])),
        "class_dropout_prob": draw(st.sampled_from([0.0, 0.1])),
        "num_classes": draw(st.sampled_from([0, 1, 10])),
        "time_attention": draw(st.sampled_from(KINDS)),
        "positions": draw(st.sampled_from(["sincos", "space", "rope"])),
        "learn_sigma": draw(st.booleans()),
    }
    return SpacetimeConfig(**{**drawn, **fixed})


def model_of(config, device="cpu", seed=0):
    """A float64 network with every weight random, and its state on the host."""
    return plain.grown(SpacetimeDiT(config, None, device=device, dtype=np.float64), device, seed, size=0.3)


def inputs_of(config, B, xp=np, seed=0):
    """(x, t, y): the times all different, the labels from all that the model knows."""
    r = np.random.default_rng(seed)
    y = xp.asarray(r.permutation(np.arange(B) % config.condition.rows)) if config.num_classes else None
    return xp.asarray(r.standard_normal((B, *config.shape))), xp.asarray(r.permutation(1000)[:B]), y


# ------------------------------------------------------------------------------------------------ patches


@spec("T.31")
@given(configs(), st.integers(1, 3))
def test_patches_move_every_number_to_one_place_and_back(config, B):
    c, (_, *shape) = config, (B, *config.shape)
    x = np.arange(B * np.prod(shape), dtype=np.float64).reshape(B, *shape)
    tokens = patches(x, c.frame_patch, c.patch_size)
    assert tokens.shape == (B, c.tokens, c.in_channels * c.numbers)
    assert sorted(tokens.reshape(-1)) == sorted(x.reshape(-1))  # a permutation: its matrix is orthogonal
    channels_last = tokens.reshape(B, c.tokens, c.in_channels, c.numbers).swapaxes(2, 3).reshape(tokens.shape)
    assert np.array_equal(clip_of(channels_last, c.frame_patch, c.patch_size, c.size), x)


@spec("T.31", "T.1", "T.2")
@given(configs(frames=1, frame_patch=1), st.integers(1, 3))
def test_patches_of_one_frame_are_those_of_a_picture(config, B):
    p, picture = config.patch_size, np.random.default_rng(0).standard_normal((B, config.in_channels, *config.size))
    assert np.array_equal(patches(picture[:, :, None], 1, p), value(ops.patchify(picture, patch_size=p)))
    tokens = np.random.default_rng(1).standard_normal((B, config.tokens, p * p * config.out_channels))
    back = value(ops.unpatchify(tokens, patch_size=p, size=config.size))
    assert np.array_equal(clip_of(tokens, 1, p, config.size)[:, :, 0], back)


@spec("T.31")
@given(configs())
def test_the_embedding_of_patches_is_a_convolution_with_their_size_as_stride(config):
    model, state = model_of(config)
    x, *_ = inputs_of(config, 2)
    t, p, D = config.frame_patch, config.patch_size, config.hidden_size
    kernel = state["x_embedder.proj.weight"].reshape(D, config.in_channels, t, p, p)
    out, expected = host(model.x_embedder(x)), []
    for f in range(0, config.frames, t):
        for r in range(0, config.size[0], p):
            for s in range(0, config.size[1], p):
                window = x[:, :, f : f + t, r : r + p, s : s + p]
                expected.append(np.tensordot(window, kernel, ((1, 2, 3, 4), (1, 2, 3, 4))) + state["x_embedder.proj.bias"])
    agree(out, np.stack(expected, axis=1), bound=1e-12, of="T.31")


# ------------------------------------------------------------------------------------------------ pictures


@spec("T.32", "T.33")
@settings(max_examples=25)
@given(draws.configs(), st.integers(1, 3))
def test_a_clip_of_one_frame_is_a_picture_of_the_dit_to_the_bit(xp, device, config, B):
    picture, _ = draws.model_of(config, device)
    x, t, y = draws.inputs_of(config, B, xp)
    model, want = SpacetimeDiT.like(picture, Philox(1), frames=4), host(picture(x, t, y))
    assert np.array_equal(host(model(x, t, y)), want)
    assert np.array_equal(host(model(x[:, :, None], t, y))[:, :, 0], want)


@spec("T.34", "T.7")
@settings(max_examples=25)
@given(draws.configs(), st.integers(1, 4))
def test_with_closed_gates_over_time_every_frame_is_the_picture_of_the_dit(xp, device, config, T):
    picture, _ = draws.model_of(config, device)
    model = SpacetimeDiT.like(picture, Philox(1), frames=T, time_attention="factorised")
    assert model.config.depth == 2 * config.depth
    _, t, y = draws.inputs_of(config, 2, xp)
    x = xp.asarray(np.random.default_rng(2).standard_normal((2, *model.config.shape)))
    out = host(model(x, t, y))
    for k in range(T):
        agree(out[:, :, k], host(picture(x[:, :, k], t, y)), bound=1e-12, of=("T.34", "T.7"))


def test_only_the_paper_s_conditioning_becomes_a_network_for_clips():
    picture, _ = draws.model_of(draws.DiTConfig(4, 2, 1, 8, 1, 2, num_classes=0, conditioning="adaln"))
    with pytest.raises(ValueError, match="must have conditioning adaln_zero"):
        SpacetimeDiT.like(picture, Philox(1))


@pytest.mark.parametrize("kind", KINDS)
def test_one_network_takes_pictures_and_clips_of_any_length(xp, device, kind):
    """The frames of a configuration name the shape of a sample, and nothing in the weights."""
    model, state = model_of(replace(SMALL, time_attention=kind), device)
    x, t, y = inputs_of(SMALL, 2, xp)
    long = xp.concatenate((x, x), axis=2)
    other = SpacetimeDiT(replace(model.config, frames=6), None, device=device, dtype=np.float64)
    other.load_state_dict({name: xp.asarray(a) for name, a in state.items()})
    assert np.array_equal(host(other(long, t, y)), host(model(long, t, y)))
    assert np.array_equal(host(other(x, t, y)), host(model(x, t, y)))
    assert np.array_equal(host(model(x[:, :, 0], t, y)), host(model(x[:, :, :1], t, y))[:, :, 0])
    assert model(x[:, :, 0], t, y).shape == (2, 2, 4, 6) and replace(SMALL, frames=0).shape == (2, 4, 6)


@spec("T.31")
@given(configs(frames=4, frame_patch=2), st.integers(1, 3))
def test_a_picture_is_the_first_frame_of_a_patch_whose_others_are_empty(config, B):
    model, _ = model_of(config)
    x, t, y = inputs_of(config, B)
    patch = np.concatenate((x[:, :, :1], np.zeros_like(x[:, :, :1])), axis=2)
    picture, whole = host(model(x[:, :, 0], t, y)), host(model(patch, t, y))
    assert np.array_equal(picture, whole[:, :, 0]) and picture.shape == (B, config.out_channels, *config.size)
    assert replace(config, frames=0).tokens == config.sites == replace(config, frames=1).tokens


def test_the_weights_of_a_network_draw_clips_of_any_length_and_pictures(device):
    model, _ = model_of(replace(SMALL, frames=4, frame_patch=2), device)
    for frames, shape in ((1, (2, 4, 6)), (2, (2, 2, 4, 6)), (8, (2, 8, 4, 6))):
        other = model.of_frames(frames)
        assert other.shape == shape and other.dtype == model.dtype and other.device == model.device
        assert all(np.array_equal(host(a), host(b)) for a, b in zip(other.parameters(), model.parameters(), strict=True))
    with pytest.raises(ValueError, match="3 frames are not divisible by frame_patch 2"):
        model.of_frames(3)
    with pytest.raises(ValueError, match="must have at least one"):
        model.of_frames(0)


# ------------------------------------------------------------------------------------------------ attention


def masked(attention, x, together):
    """The same attention as full attention of all tokens, with a mask.   together : (N, N) bools"""
    B, N, D = x.shape
    heads = attention.heads
    qkv = host(attention.qkv(x)).reshape(B, N, 3, heads, D // heads).transpose(2, 0, 3, 1, 4)
    y = host(ops.attention(*qkv, np.where(together, 0.0, -np.inf)))
    return host(attention.proj(y.transpose(0, 2, 1, 3).reshape(B, N, D)))


@spec("T.34")
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3))
def test_attention_in_frames_and_over_time_is_full_attention_with_a_mask(F, n, B):
    frame, site = np.divmod(np.arange(F * n), n)
    x = np.random.default_rng(0).standard_normal((B, F * n, 8))
    for attention, group in ((InFrames(8, 2, (1, n)), frame), (OverTime(8, 2, (n, 1)), site)):
        plain.grown(attention.build(None, dtype=np.float64))
        agree(host(attention(x)), masked(attention, x, group[:, None] == group), bound=1e-12, of="T.34")
    placed = x + np.repeat(places_of_time(F, 8, np.float64)[:, 0], n, axis=0)
    seen = OverTime(8, 2, (1, n))
    seen.places = True
    plain.grown(seen.build(None, dtype=np.float64))
    agree(host(seen(x)), masked(seen, placed, site[:, None] == site), bound=1e-12, of=("T.32", "T.34"))


@spec("T.37", "T.34")
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 9))
def test_turned_attention_sees_differences_of_times_and_sites_only(F, h, w, later):
    qkv, axes = np.random.default_rng(0).standard_normal((2, F * h * w, 3 * 16)), (4, 2, 2)
    here = host(attended(qkv, 2, turns(F, h, w, axes, np.float64)))
    long = [t[later * h * w :] for t in turns(F + later, h, w, axes, np.float64)]
    agree(here, host(attended(qkv, 2, tuple(long))), bound=1e-11, of="T.37")
    large = [
        t.reshape(F, h + later, w + 1, 4)[:, later:, 1:].reshape(-1, 4) for t in turns(F, h + later, w + 1, axes, np.float64)
    ]
    agree(here, host(attended(qkv, 2, tuple(large))), bound=1e-11, of="T.37")
    if F > 1:
        assert np.abs(here - host(attended(qkv, 2, turns(1, F * h, w, axes, np.float64)))).max() > 1e-6


@spec("T.37", "T.34")
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2))
def test_turned_attention_in_groups_is_turned_full_attention_with_a_mask(F, h, w):
    """In a frame the angle of its time falls out of all differences, and at a site those of its row and column."""
    frame, site = np.divmod(np.arange(F * h * w), h * w)
    x, axes = np.random.default_rng(0).standard_normal((2, F * h * w, 16)), (4, 2, 2)
    whole = ClipAttention(16, 2, (h, w), axes)
    plain.grown(whole.build(None, dtype=np.float64))
    for kind, group in ((InFrames, frame), (OverTime, site), (ClipAttention, 0 * frame)):
        attention = kind(16, 2, (h, w), axes).build(None, dtype=np.float64)
        attention.load_state_dict(whole.state_dict())
        mask = np.where(group[:, None] == group, 0.0, -np.inf)
        expected = whole.proj(attended(whole.qkv(x), 2, turns(F, h, w, axes, np.float64), mask))
        agree(host(attention(x)), host(expected), bound=1e-11, of=("T.34", "T.37"))


@spec("T.34", "T.4")
@settings(max_examples=20)
@given(configs(time_attention="factorised"), st.integers(1, 3))
def test_blocks_on_groups_are_whole_blocks_on_reshaped_tokens_with_the_condition_repeated(config, B):
    """Latte's form: (B F, n, D) and (B n, F, D), c repeated so that every group has the c of its own sample."""
    model, _ = model_of(replace(config, positions="space"))
    F, n, D = config.times, config.sites, config.hidden_size
    r = np.random.default_rng(3)
    h, c = r.standard_normal((B, F * n, D)), r.standard_normal((B, D))
    for k, block in enumerate(model.blocks):
        grid = h.reshape(B, F, n, D).transpose(0, 2, 1, 3) if k % 2 else h.reshape(B, F, n, D)
        groups, each = grid.shape[1:3]
        whole = plain_block(block, grid.reshape(B * groups, each, D), np.repeat(c, groups, axis=0))
        expected = whole.reshape(B, groups, each, D)
        expected = (expected.transpose(0, 2, 1, 3) if k % 2 else expected).reshape(B, F * n, D)
        h = host(block(h, c))
        agree(h, expected, bound=1e-11, of=("T.34", "T.4"))


def plain_block(block, x, c):
    """A block of a DiT with the same weights."""
    whole = DiTBlock(x.shape[2], block.attn.heads, len(block.mlp.fc1.bias.data)).build(None, dtype=np.float64)
    whole.load_state_dict(block.state_dict())
    return host(whole(x, c))


@spec("T.32", "T.33", "T.34")
@settings(max_examples=25)
@given(configs(frames=4, frame_patch=1, depth=2, positions="space"), st.permutations(range(4)))
def test_without_places_of_time_permuted_frames_are_permuted_answers(config, order):
    model, _ = model_of(config)
    x, t, y = inputs_of(config, 2)
    agree(host(model(x[:, :, order], t, y)), host(model(x, t, y))[:, :, order], bound=1e-11, of=("T.33", "T.34"))


@spec("T.32", "T.33", "T.34")
@pytest.mark.parametrize("kind", ["full", "factorised"])
def test_with_places_of_time_the_order_of_frames_matters(xp, device, kind):
    model, _ = model_of(replace(SMALL, time_attention=kind), device)
    x, t, y = inputs_of(SMALL, 2, xp)
    assert np.abs(host(model(x[:, :, ::-1], t, y))[:, :, ::-1] - host(model(x, t, y))).max() > 1e-3


@pytest.mark.parametrize(("kind", "seen"), [("full", True), ("factorised", True), ("none", False)])
def test_a_frame_sees_the_others_unless_every_frame_is_drawn_by_itself(xp, device, kind, seen):
    model, _ = model_of(replace(SMALL, time_attention=kind), device)
    x, t, y = inputs_of(SMALL, 2, xp)
    other = x.copy()
    other[:, :, 2] += 1
    change = np.abs(host(model(other, t, y)) - host(model(x, t, y))).max(axis=(0, 1, 3, 4))
    assert change[2] > 1e-3 and (change[:2].min() > 1e-4 if seen else change[:2].max() == 0)


@spec("T.3", "T.4")
@settings(max_examples=25)
@given(configs(), st.permutations(range(4)))
def test_each_sample_goes_its_own_way(xp, device, config, order):
    """The times and labels of the samples differ, so that a condition repeated in the wrong order would be seen."""
    model, _ = model_of(config, device)
    x, t, y = inputs_of(config, 4, xp)
    order = xp.asarray(order)
    out = host(model(x, t, y))
    agree(model(x[order], t[order], None if y is None else y[order]), out[host(order)], bound=1e-12, of="T.4")
    later = t.copy()
    later[1] += 50
    change = np.abs(host(model(x, later, y)) - out).reshape(4, -1).max(axis=1)
    assert change[1] > 0 and change[[0, 2, 3]].max() == 0


# ------------------------------------------------------------------------------------------------ sizes and errors


@spec("T.35")
@given(configs())
def test_multiply_accumulates_are_those_of_every_product(config):
    """Counted product by product, with the weights' shapes taken from a model that was built."""
    state, total = SpacetimeDiT(config, None).state_dict(), 0
    for name, w in state.items():
        if name.endswith("weight") and "embedding_table" not in name:
            once = "adaLN" in name or name.startswith("t_embedder")  # for each sample; all others for each token
            total += int(np.prod(w.shape)) * (1 if once else config.tokens)
    for k in range(config.depth):
        frame, site = np.divmod(np.arange(config.tokens), config.sites)
        over = {"full": 0 * frame, "factorised": site if k % 2 else frame, "none": frame}[config.time_attention]
        total += 2 * config.hidden_size * int((over[:, None] == over).sum())  # scores, and values weighted by them
    assert config.macs() == total


@spec("T.36")
@given(configs())
def test_the_numbers_of_a_checkpoint_are_counted(config):
    assert config.parameters() == sum(a.size for a in SpacetimeDiT(config, None).state_dict().values())


@pytest.mark.parametrize(("home", "precision"), [("cpu", "float32"), ("cuda", "float32"), ("cuda", "bf16")])
@given(configs(time_attention="full", frame_patch=1, positions="sincos"))
def test_an_update_on_clips_takes_the_memory_of_one_on_a_tall_picture_with_as_many_tokens(home, precision, config):
    (H, W), names = config.size, draws.DiTConfig.__dataclass_fields__
    sizes = {name: getattr(config, name) for name in SpacetimeConfig.__dataclass_fields__ if name in names}
    tall = draws.DiTConfig(**sizes | {"input_size": (config.frames * H, W)})
    assert config.step_memory(home, precision) == tall.step_memory(home, precision)


def test_groups_keep_less_than_full_attention_and_moving_tokens_keeps_some():
    """Scores of F frames of n tokens are F n², not (F n)²; tokens are copied into groups of sites and back."""
    full = replace(SPACETIME["clips-full"], hidden_size=32, depth=2)
    F, n, h, moved = full.times, full.sites, full.num_heads, 2 * 4 * full.tokens * 32
    parts = replace(full, time_attention="factorised").step_memory("cpu", "float32")
    scores = 4 * h * (F * n * n + n * F * F)
    assert full.step_memory("cpu", "float32").kept - parts.kept == 2 * 4 * h * (F * n) ** 2 - scores - moved


@spec("T.35")
def test_factorised_attention_costs_less_than_full_attention():
    full, parts = SPACETIME["clips-full"], SPACETIME["clips-factor"]
    N, D, n, F = full.tokens, full.hidden_size, full.sites, full.times
    assert full.macs() - parts.macs() == full.depth * 2 * N * N * D - full.depth * N * (n + F) * D


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frames": 4, "frame_patch": 3}, "4 frames are not divisible by frame_patch 3"),
        ({"patch_size": 4}, "input_size 4 x 6 is not divisible by patch_size 4"),
        ({"time_attention": "some"}, "time_attention 'some' is not one of full, factorised, none"),
        ({"positions": "some"}, "positions 'some' is not one of"),
        ({"depth": 0}, "every size must be positive"),
        ({"num_heads": 3}, "must be divisible by num_heads"),
        ({"num_heads": 4, "positions": "rope"}, "heads of 4 numbers are not turned"),
        ({"num_classes": -1}, "out of range"),
    ],
)
def test_sizes_that_conflict_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        replace(SMALL, **change)


@pytest.mark.parametrize("shape", [(2, 2, 3, 4, 4), (2, 1, 3, 4, 6), (2, 4, 6), (2, 2, 0, 4, 6)])
def test_clips_of_other_shapes_are_refused(shape):
    model, _ = model_of(SMALL)
    with pytest.raises(ValueError, match=r"expected \(B, 2, T, 4, 6\), or pictures \(B, 2, 4, 6\)"):
        model(np.zeros(shape), np.arange(2), np.zeros(2, int))
    model, _ = model_of(replace(SMALL, frames=4, frame_patch=2))
    with pytest.raises(ValueError, match="with T divisible by 2"):
        model(np.zeros((2, 2, 3, 4, 6)), np.arange(2), np.zeros(2, int))
