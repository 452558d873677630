"""DiT with random weights: the whole forward pass against loops, what each input does, the gradient of everything."""

import dataclasses

import numpy as np
import pytest
from finite import check_adjoint
from hypothesis import example, given, settings
from hypothesis import strategies as st
from models import draws
from support import agree, host, spec

from minidit import ops
from minidit.autograd import Tensor, no_grad, plain_text, value
from minidit.backend import side_by_side
from minidit.models.autoencoder import AutoencoderConfig
from minidit.models.autoencoder_kl import AutoencoderKLConfig
from minidit.models.classifier import ClassifierConfig
from minidit.models.dit import VARIANTS, DiT, DiTConfig
from minidit.models.embedders import CaptionEmbedder, WordEmbedder
from minidit.nn import stack, timestep_embedding
from minidit.nn.block import launches_matter
from minidit.nn.recompute import recomputing
from minidit.nn.stack import modulations
from minidit.random import Philox

LABELLED = DiTConfig(input_size=(4, 6), in_channels=2, hidden_size=24, depth=2, num_heads=3, num_classes=10)
STEEP = DiTConfig((4, 6), 2, 3, 24, 2, 3, class_dropout_prob=0.0, num_classes=3, learn_sigma=False)


@spec("T.3", "T.4", "T.5", "T.6", "N.3", "N.5", "N.7", "N.8", "N.9")
@settings(max_examples=25)
@given(draws.configs(), st.integers(1, 3), st.integers(0, 99))
def test_a_dit_is_the_loops_of_the_paper(xp, device, config, B, seed):
    model, state = draws.model_of(config, device, seed)
    x, t, y = draws.inputs_of(config, B, xp, seed)
    out = model(x, t, y)
    assert isinstance(out.data, xp.ndarray) and out.data.dtype == np.float64
    expected = draws.forward(state, config, host(x), host(t), None if y is None else host(y))
    assert expected.shape == (B, config.out_channels, *config.size) and expected.any()
    agree(out, expected, bound=1e-10, of=("T.3", "T.4", "T.5", "T.6"))
    with no_grad():  # where no gradient is wanted, the modulations of all blocks may be one product
        agree(model(x, t, y), expected, bound=1e-10, of=("T.4", "T.5", "T.6"))


@spec("T.5", "T.6")
def test_float32_is_float64_to_seven_digits(device, xp):
    model, _ = draws.model_of(LABELLED, device)
    single = DiT(LABELLED, None, device=device)
    single.load_state_dict(model.state_dict())
    x, t, y = draws.inputs_of(LABELLED, 3, xp)
    out = host(single(x.astype(np.float32), t, y))
    assert out.dtype == np.float32
    assert np.abs(out - host(model(x, t, y))).max() <= 5e-6 * np.abs(out).max()


# ------------------------------------------------------------------------------------------------ conditioning


@spec("T.3", "T.4")
@settings(max_examples=10)
@given(draws.configs(), st.permutations(range(4)))
def test_each_sample_goes_its_own_way(xp, device, config, order):
    model, _ = draws.model_of(config, device)
    x, t, y = draws.inputs_of(config, 4, xp)
    order = xp.asarray(order)
    permuted = model(x[order], t[order], None if y is None else y[order])
    agree(permuted, host(model(x, t, y))[host(order)], bound=1e-12, of="T.4")
    alone = [host(model(x[b : b + 1], t[b : b + 1], None if y is None else y[b : b + 1]))[0] for b in range(4)]
    agree(permuted, np.stack(alone)[host(order)], bound=1e-12, of="T.4")


@spec("T.3")
@pytest.mark.parametrize("what", ["x", "t", "y"])
def test_an_input_of_one_sample_changes_that_sample_only(xp, device, what):
    model, _ = draws.model_of(LABELLED, device)
    before = dict(zip("xty", (host(a) for a in draws.inputs_of(LABELLED, 3)), strict=True))
    after = {n: a.copy() for n, a in before.items()}
    after[what][1] = {"x": before["x"][1] + 0.1, "t": before["t"][1] + 1, "y": (before["y"][1] + 1) % 10}[what]
    a, b = (host(model(*(xp.asarray(v) for v in d.values()))) for d in (before, after))
    changed = np.abs(a - b).max(axis=(1, 2, 3))
    assert changed[1] > 1e-4 and changed[0] == changed[2] == 0


@spec("T.3", "G.7")
@pytest.mark.parametrize("classes", [1, 7, 10])
def test_the_null_label_is_one_above_the_last_class_whatever_their_number(xp, device, classes):
    config = dataclasses.replace(LABELLED, num_classes=classes)
    model, state = draws.model_of(config, device)
    table = state["y_embedder.embedding_table.weight"]
    assert (model.condition.null, table.shape) == (classes, (classes + 1, 24))
    x, t, _ = draws.inputs_of(config, 2, xp)
    without_class = model(x, t, xp.full(2, model.condition.null))
    model.y_embedder.embedding_table.weight.data[0] = xp.asarray(table[-1])
    agree(model(x, t, xp.zeros(2, dtype=xp.int64)), without_class, bound=0, of="T.3")
    if classes > 1:
        assert np.abs(host(model(x, t, xp.ones(2, dtype=xp.int64))) - host(without_class)).max() > 1e-4


@spec("T.3")
def test_two_passes_are_one_and_nothing_is_drawn(xp, device):
    model, _ = draws.model_of(LABELLED, device)
    x, t, y = draws.inputs_of(LABELLED, 3, xp)
    np.testing.assert_array_equal(host(model(x, t, y)), host(model(x, t, y)))


@spec("N.7")
def test_a_picture_that_is_moved_is_another_picture(xp, device):
    model, _ = draws.model_of(LABELLED, device)
    x, t, y = draws.inputs_of(LABELLED, 1, xp)
    p = LABELLED.patch_size
    for axis in (2, 3):
        moved = np.roll(host(x), p, axis)
        back = np.roll(host(model(xp.asarray(moved), t, y)), -p, axis)
        assert np.abs(back - host(model(x, t, y))).max() > 1e-4
    model.pos_embed[...] = 0  # without places a transformer does not see where its tokens are
    moved = xp.asarray(np.roll(host(x), p, 3))
    agree(np.roll(host(model(moved, t, y)), -p, 3), model(x, t, y), bound=1e-12, of="N.7")


@spec("T.4")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("D, heads", [(4, 1), (8, 2), (12, 3), (16, 4), (20, 5), (24, 3)])
def test_all_modulations_are_one_product_whether_the_weights_stand_side_by_side_or_not(D, heads, dtype):
    """Sixteen numbers are a line: where 6 D are whole lines, the blocks' vectors follow one another in the flat buffer."""
    model = DiT(dataclasses.replace(LABELLED, hidden_size=D, num_heads=heads), Philox(1), dtype=dtype)
    model.flat[...] = np.random.default_rng(1).standard_normal(model.layout.size)
    c = np.random.default_rng(0).standard_normal((2, D)).astype(dtype)
    weights = [b.adaLN_modulation[1].weight.data for b in model.blocks]
    assert (side_by_side([b.adaLN_modulation[1].bias.data for b in model.blocks]) is None) == bool(6 * D % 16)
    assert (side_by_side(weights) is None) == bool(6 * D * D % 16)
    for block, modulation in zip(model.blocks, modulations(model.blocks, c), strict=True):
        agree(value(modulation), value(block.adaLN_modulation(c)), bound=1e-5 if dtype == np.float32 else 1e-12, of="T.4")


@spec("T.5")
def test_a_block_in_large_steps_is_its_sentence_and_only_a_gpu_takes_them(xp, device, monkeypatch):
    config = DiTConfig(4, 2, 3, 16, 1, 2, num_classes=2)
    block = draws.model_of(config, device)[0].blocks[0]
    r = np.random.default_rng(0)
    x, c, bar = (xp.asarray(r.standard_normal(s)) for s in ((3, 4, 16), (3, 16), (3, 4, 16)))
    answers, fused, plain = [], [], ops.mlp_residual
    monkeypatch.setattr(ops, "mlp_residual", lambda *args: (fused.append(1), plain(*args))[1])
    for forced in (False, True):
        with plain_text():
            if forced:
                monkeypatch.setattr("minidit.nn.block.launches_matter", lambda x: True)
            leaf = Tensor(x)
            y = block(leaf, c)
            y.backward(bar)
        answers.append([host(y), host(leaf.grad), *(host(p.grad) for p in block.parameters())])
        assert len(fused) == forced  # as it reads where kernels are off
        for p in block.parameters():
            p.grad = None
    for a, e in zip(*answers, strict=True):
        agree(a, e, bound=1e-12, of="T.5")
    monkeypatch.undo()
    assert launches_matter(x) == launches_matter(Tensor(x)) == (xp is not np)


@spec("T.5")
def test_a_stack_in_large_steps_is_its_blocks_one_after_another(monkeypatch):
    """Joined: the end of a block and the norm of the next. Where blocks are recomputed they stay apart."""
    model, r = draws.model_of(DiTConfig(4, 2, 3, 16, 3, 2, num_classes=2), "cpu")[0], np.random.default_rng(0)
    x, c, bar = (r.standard_normal(s) for s in ((3, 4, 16), (3, 16), (3, 4, 16)))
    answers, joined, plain = [], [], ops.mlp_residual_modulate
    monkeypatch.setattr(ops, "mlp_residual_modulate", lambda *args: (joined.append(1), plain(*args))[1])
    for large, again in ((False, False), (True, False), (True, True)):
        monkeypatch.setattr("minidit.nn.stack.launches_matter", lambda x, large=large: large)
        joined.clear()
        leaves = Tensor(x), Tensor(c)
        with recomputing(again):
            stack.all_of(model.blocks, *leaves).backward(bar)
        assert len(joined) == (2 if large and not again else 0)
        answers.append([*(host(leaf.grad) for leaf in leaves), *(host(p.grad) for b in model.blocks for p in b.parameters())])
        for p in model.parameters():
            p.grad = None
    for other in answers[1:]:
        for a, e in zip(other, answers[0], strict=True):
            agree(a, e, bound=1e-11, of="T.5")


def test_the_defaults_are_those_of_the_smallest_published_model():
    c = DiTConfig()
    assert (c.input_size, c.patch_size, c.in_channels, c.hidden_size, c.depth, c.num_heads) == (32, 2, 4, 384, 12, 6)
    assert (c.mlp_ratio, c.class_dropout_prob, c.num_classes, c.learn_sigma) == (4.0, 0.1, 1000, True)
    assert (c.conditioning, c.freq_shift, c.mlp_norm_eps) == ("adaln_zero", 0, 1e-6)


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": (2, 2, 6, 4)}, r"x has shape \(2, 2, 6, 4\), expected \(B, 2, 4, 6\)"),
        ({"x": (2, 3, 4, 6)}, r"x has shape \(2, 3, 4, 6\), expected \(B, 2, 4, 6\)"),
        ({"x": (2, 4, 6)}, r"x has shape \(2, 4, 6\), expected \(B, 2, 4, 6\)"),
        ({"t": (1,)}, r"t has shape \(1,\), expected \(2,\), one number per sample"),
        ({"t": (2, 1)}, r"t has shape \(2, 1\), expected \(2,\)"),
        ({"t": ()}, r"t has shape \(\), expected \(2,\)"),
        ({"y": (1,)}, r"y has shape \(1,\), expected \(2,\)"),
        ({"y": (2, 10)}, r"y has shape \(2, 10\), expected \(2,\)"),
        ({"y": None}, "a model of 10 classes needs a label y"),
    ],
)
def test_a_wrong_shape_is_one_clear_error(xp, device, change, words):
    shapes = {"x": (2, 2, 4, 6), "t": (2,), "y": (2,), **change}
    x, t, y = (None if s is None else xp.zeros(s, dtype=d) for s, d in zip(shapes.values(), ("f4", "i8", "i8"), strict=True))
    with pytest.raises(ValueError, match=words) as caught:
        DiT(LABELLED, None, device=device)(x, t, y)
    assert "\n" not in str(caught.value)


def test_a_label_for_a_model_without_classes_is_refused(xp, device):
    model = DiT(dataclasses.replace(LABELLED, num_classes=0), None, device=device)
    with pytest.raises(ValueError, match="a model of 0 classes takes no label y"):
        model(xp.zeros((2, 2, 4, 6), dtype=xp.float32), xp.zeros(2), xp.zeros(2, dtype=xp.int64))


@pytest.mark.parametrize(("dropout", "labels", "top"), [(0.1, [0, 11], 10), (0.1, [-1, 3], 10), (0.0, [0, 10], 9)])
def test_a_label_that_is_no_class_is_refused_and_does_not_count_from_the_end(dropout, labels, top):
    model = DiT(dataclasses.replace(LABELLED, class_dropout_prob=dropout), None)
    with pytest.raises(ValueError, match=f"labels go from {min(labels)} to {max(labels)}, the model knows 0..{top}$"):
        model(np.zeros((2, 2, 4, 6), np.float32), np.zeros(2), np.array(labels))


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"input_size": (4, 5)}, "input_size 4 x 5 is not divisible by patch_size 2"),
        ({"input_size": 7}, "input_size 7 x 7 is not divisible"),
        ({"hidden_size": 20, "num_heads": 3}, "hidden_size 20 must be divisible by num_heads 3"),
        ({"hidden_size": 6, "num_heads": 1}, "and by 4"),
        ({"patch_size": 0}, "every size must be positive"),
        ({"num_heads": 0}, "every size must be positive"),
        ({"depth": 0}, "every size must be positive"),
        ({"num_classes": -1}, "num_classes -1"),
        ({"class_dropout_prob": 1.0}, "class_dropout_prob 1.0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, words):
    with pytest.raises(ValueError, match=words):
        DiTConfig(**sizes)


# ------------------------------------------------------------------------------------------------ gradients


@spec("A.1", "A.2", "T.5", "T.6")
@settings(max_examples=12)
@given(draws.configs(), st.integers(0, 99))
@example(STEEP, 48)  # third derivatives so large that only steps below 1e-5 see the first
def test_the_gradient_of_the_whole_model_is_its_derivative_in_any_direction(xp, device, config, seed):
    model, _ = draws.model_of(config, device, seed)
    x, t, y = draws.inputs_of(config, 2, xp, seed)
    r = np.random.default_rng(seed)
    draw = lambda shape: xp.asarray(r.standard_normal(shape))
    bar, u_x = draw((2, config.out_channels, *config.size)), draw(x.shape)
    leaf, parameters = Tensor(x), model.parameters()
    us = [draw(p.data.shape) for p in parameters]
    model(leaf, t, y).backward(bar)
    back = sum(float((p.grad * u).sum()) for p, u in zip(parameters, us, strict=True)) + float((leaf.grad * u_x).sum())
    thetas = [p.data.copy() for p in parameters]

    def along(s):
        for p, theta, u in zip(parameters, thetas, us, strict=True):
            p.data[...] = theta + s * u
        return host(model(x + s * u_x, t, y))

    check_adjoint(back, along, bar, bound=1e-6, of=("A.1", "A.2"))


def test_a_configuration_cannot_be_changed_under_a_model():
    for config in (DiTConfig(), AutoencoderConfig(), AutoencoderKLConfig(), ClassifierConfig(), VARIANTS["adaln_zero"]):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, dataclasses.fields(config)[0].name, None)
        assert dataclasses.replace(config) == config and len({config, dataclasses.replace(config)}) == 1


@spec("N.10", "T.3")
def test_the_other_frequencies_and_the_other_epsilon_reach_their_layers(xp, device):
    """Each setting changes what the model says: one the embedding of time, the other the norm before the MLP."""
    x, t, y = draws.inputs_of(LABELLED, 2, xp)
    state = draws.model_of(LABELLED, device)[0].state_dict()

    def said(**more):
        model = DiT(dataclasses.replace(LABELLED, **more), None, device=device, dtype=np.float64)
        model.load_state_dict(state)
        return model, host(model(x, t, y))

    plain, shifted, wide = said(), said(freq_shift=1), said(mlp_norm_eps=0.5)
    assert np.abs(plain[1] - shifted[1]).max() > 1e-4 and np.abs(plain[1] - wide[1]).max() > 1e-4
    emb = timestep_embedding(t, 256, np.float64, shift=1)
    agree(shifted[0].t_embedder(t), shifted[0].t_embedder.mlp(emb), bound=0, of="N.10")
    assert [b.eps for b in wide[0].blocks] == [0.5] * 2 and [b.eps for b in plain[0].blocks] == [1e-6] * 2


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"freq_shift": 2}, "freq_shift 2 must be 0 or 1, mlp_norm_eps 1e-06 above 0"),
        ({"freq_shift": -1}, "freq_shift -1 must be 0 or 1"),
        ({"mlp_norm_eps": 0.0}, "mlp_norm_eps 0.0 above 0"),
        ({"mlp_norm_eps": -1e-6}, "mlp_norm_eps -1e-06 above 0"),
        ({"mlp_norm_eps": 1e-5, "conditioning": "adaln"}, "mlp_norm_eps is a setting of adaln_zero blocks only"),
    ],
)
def test_settings_of_other_weights_have_a_range(wrong, words):
    with pytest.raises(ValueError, match=words):
        DiTConfig(**wrong)
    assert DiTConfig(freq_shift=1, mlp_norm_eps=1e-5).freq_shift == 1


CAPTIONED = dataclasses.replace(LABELLED, num_classes=0, vocabulary=12, caption_length=5)


@spec("T.21")
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_a_dit_reads_a_caption_as_a_bag_of_words(words, random):
    """The order of its words and padding behind them do not matter, and a word more or another one does."""
    model = DiT(CAPTIONED, Philox(3), dtype=np.float64)
    mixed = random.sample(words, len(words))
    rows = np.zeros((2, 5), np.int64)
    rows[0, : len(words)], rows[1, : len(words)] = words, mixed
    c = value(model.y_embedder(rows))
    agree(c[1], c[0], bound=1e-12, of="T.21")
    table, mlp = value(model.y_embedder.words.weight), model.y_embedder.mlp
    agree(c[:1], value(mlp((table[words].sum(0) / len(words) ** 0.5)[None])), bound=1e-12, of="T.21")


@spec("T.21")
def test_the_bag_of_words_is_the_pooled_caption_of_mm_dit_without_places():
    y = np.array([[3, 4, 0], [5, 0, 0]])
    words, bag = WordEmbedder(9, 3, 8), CaptionEmbedder(9, 8)
    words.build(Philox(0), dtype=np.float64)
    bag.build(Philox(1), dtype=np.float64)
    bag.words.weight.data[...] = words.words.data
    words.places.data[...] = 0
    agree(bag(y), value(bag.mlp(words(y)[1])), bound=1e-12, of="T.21")


def test_a_dit_of_captions_has_the_sizes_that_it_states():
    model = DiT(CAPTIONED, Philox(3), dtype=np.float64)
    assert CAPTIONED.parameters() == sum(a.size for a in model.state_dict().values())
    x, t = np.zeros((2, 2, 4, 6)), np.ones(2)
    assert model(x, t, np.ones((2, 5), np.int64)).shape == (2, 4, 4, 6)
    assert (model.null(np.ones((2, 5), np.int64))[:, 0] == 12).all()
    for y in (np.ones(2, np.int64), np.full((2, 5), 13), None):
        with pytest.raises(ValueError):
            model(x, t, y)
    with pytest.raises(ValueError, match="go together"):
        dataclasses.replace(CAPTIONED, num_classes=3)
    with pytest.raises(ValueError, match="word_dropout_prob"):
        dataclasses.replace(CAPTIONED, word_dropout_prob=1.0)
