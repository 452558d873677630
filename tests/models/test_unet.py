"""The U-Net: the whole network in SciPy, its start, its sizes, its gradients, its memory of the way down, its refusals."""

from dataclasses import replace

import numpy as np
import pytest
from finite import check_slope
from hypothesis import given, settings
from hypothesis import strategies as st
from models import unet_loops as loops
from nn import plain
from support import agree, host, spec

from minidit.autograd import Tensor, no_grad
from minidit.autograd.primitives import Primitive
from minidit.models.backbone import Backbone, BackboneConfig
from minidit.models.condition import Classes, Nothing
from minidit.models.unet import ResBlock, UNet
from minidit.models.unet_config import Place, UNetConfig
from minidit.nn.recompute import recomputing
from minidit.random import Philox

SMALL = UNetConfig(input_size=(4, 6), in_channels=2, widths=(4, 8), blocks=1, groups=2, num_classes=3)
CIFAR = UNetConfig(input_size=32, in_channels=3, widths=(128, 256, 256, 256), blocks=2, groups=32, num_classes=0)


@st.composite
def configs(draw):
    """One to three sizes, attention anywhere, both ways to halve and to bring in the condition."""
    widths = tuple(draw(st.lists(st.sampled_from([4, 8, 12]), min_size=1, max_size=3)))
    multiple, resample = 2 ** (len(widths) - 1), draw(st.sampled_from(["conv", "resnet"]))
    return UNetConfig(
        input_size=(multiple * draw(st.integers(1, 2)), multiple * draw(st.integers(1, 3))),
        in_channels=draw(st.integers(1, 3)), widths=widths, blocks=draw(st.integers(1, 2)),
        attention=tuple(draw(st.sets(st.integers(0, len(widths) - 1)))), middle_attention=draw(st.booleans()),
        head_width=draw(st.sampled_from([0, 2, 4])), groups=draw(st.sampled_from([1, 2, 4])), scale_shift=draw(st.booleans()),
        resample=resample, num_classes=draw(st.sampled_from([0, 3])), class_dropout_prob=draw(st.sampled_from([0.0, 0.1])),
        learn_sigma=draw(st.booleans()), freq_shift=draw(st.sampled_from([0, 1])), cosine_first=draw(st.booleans()),
        even_padding=draw(st.booleans()), norm_eps=draw(st.sampled_from([1e-6, 1e-2])),
    )  # fmt: skip


def grown(config=SMALL, device="cpu", size=0.3):
    return plain.grown(UNet(config, None, device=device, dtype=np.float64), device, size=size)


def inputs_of(config, B, xp=np, seed=0):
    r = np.random.default_rng(seed)
    y = xp.asarray(r.integers(0, config.condition.rows, B)) if config.num_classes else None
    return xp.asarray(r.standard_normal((B, *config.shape))), xp.asarray(r.permutation(1000)[:B]), y


# ------------------------------------------------------------------------------------------------ the whole


@spec("N.11", "T.15", "T.16", "T.17", "L.7", "L.8")
@settings(max_examples=15)
@given(configs(), st.integers(1, 2))
def test_the_network_is_its_equations(xp, device, config, B):
    model, state = grown(config, device)
    x, t, y = inputs_of(config, B, xp)
    expected = loops.forward(state, config, host(x), host(t), None if y is None else host(y))
    agree(model(x, t, y), expected, bound=1e-9, of=("N.11", "T.15", "T.16", "T.17"))


@settings(max_examples=4)
@given(st.integers(0, 99), st.sampled_from([{}, {"resample": "resnet", "scale_shift": True, "head_width": 4}]))
def test_the_gradient_is_the_derivative_in_any_direction(seed, more):
    config = replace(SMALL, **more)
    model, _ = grown(config, size=0.4)
    r, (x, t, y) = np.random.default_rng(seed), inputs_of(config, 2, seed=seed)
    weights, leaf = r.standard_normal((2, *config.shape)), Tensor(x)
    (model(leaf, t, y) * weights).mean().backward()
    us, u_x = [r.standard_normal(p.shape) for p in model.parameters()], r.standard_normal(x.shape)
    back = sum(float((p.grad * u).sum()) for p, u in zip(model.parameters(), us, strict=True)) + float((leaf.grad * u_x).sum())
    thetas = [p.data.copy() for p in model.parameters()]

    def along(s):
        for p, theta, u in zip(model.parameters(), thetas, us, strict=True):
            p.data[...] = theta + s * u
        return host((model(x + s * u_x, t, y) * weights).mean())

    check_slope(back, along, bound=1e-6)
    assert all(p.grad.any() for name, p in model.named_parameters() if not name.endswith("to_k.bias"))


@spec("T.18")
@given(configs())
def test_a_fresh_network_answers_zero_and_its_blocks_are_identities(config):
    model = UNet(config, Philox(1), dtype=np.float64)
    agree(model(*inputs_of(config, 2)), np.zeros((2, config.out_channels, *config.size)), bound=0, of="T.18")
    w = config.widths[0]
    block = ResBlock(Place(0, w, w, False), config).build(Philox(2), dtype=np.float64)
    x, m = np.ones((2, w, 2, 2)), np.ones((2, w * (2 if config.scale_shift else 1)))
    agree(block(x, m), x, bound=0, of="T.18")
    for level in (*model.down_blocks, model.mid_block, *model.up_blocks):
        for attention in level.attentions:
            shape = (2, attention.group_norm.weight.shape[0], 2, 2)
            agree(attention(np.ones(shape)), np.ones(shape), bound=0, of="T.18")


@spec("T.17")
@given(configs())
def test_the_way_up_takes_all_that_the_way_down_remembers(config):
    """One per block and per halving, and the first; every block of the way up takes one, last in, first out."""
    sizes, per_size = len(config.widths), config.blocks + 1
    assert len(config.remembered()) == sizes * per_size == sum(map(len, config.up()))
    x, skips = config.widths[-1], list(config.remembered())
    for places in config.up():
        for place in places:
            assert place.channels == x + skips.pop()
            x = place.out


# ------------------------------------------------------------------------------------------------ sizes


@spec("T.20")
@given(configs())
def test_the_numbers_of_a_checkpoint_are_counted(config):
    assert config.parameters() == UNet(config, None).count_parameters()


def test_the_paper_s_network_for_cifar_has_its_35_7_million_parameters():
    """Ho, Jain, Abbeel 2020, appendix B."""
    assert config_in_millions(CIFAR) == 35.7


def config_in_millions(config):
    return round(config.parameters() / 1e6, 1)


@spec("T.19")
@settings(max_examples=10)
@given(config=configs())
def test_the_multiply_accumulates_are_those_of_its_products(config):
    spent = []
    pair = Primitive.pair

    def counting(self, *arrays, **static):
        if self.__name__ in ("conv2d", "linear"):
            out = pair(self, *arrays, **static)
            spent.append(out[0].size * np.prod(arrays[1].shape[1:]))
            return out
        if self.__name__ == "self_attention":
            B, N, D3 = arrays[0].shape
            spent.append(2 * B * N * N * D3 // 3)
        return pair(self, *arrays, **static)

    with pytest.MonkeyPatch.context() as patch, no_grad():
        patch.setattr(Primitive, "pair", counting)
        grown(config)[0](*inputs_of(config, 1))
    assert sum(spent) == config.macs()


# ------------------------------------------------------------------------------------------------ as a backbone


@pytest.mark.parametrize(
    ("more", "condition"),
    [
        ({"num_classes": 0}, Nothing()),
        ({"num_classes": 5, "class_dropout_prob": 0.0}, Classes(5, None)),
        ({"num_classes": 5}, Classes(5, 5, 0.1)),
    ],
)
def test_a_u_net_is_a_backbone(more, condition):
    config: BackboneConfig = replace(SMALL, **more)
    model: Backbone = UNet(config, None)
    assert model.shape == config.shape == (2, 4, 6) and model.condition == config.condition == condition
    assert (model.second_half, model.device, config.multiple) == (False, "cpu", 2)
    fitted = config.fitted((3, 8, 8), 7)
    assert (fitted.shape, fitted.condition.count, fitted.input_size, fitted.widths) == ((3, 8, 8), 7, 8, (4, 8))
    if condition.count and condition.null:
        assert model.null(np.array([1, 2])).tolist() == [5, 5]
    else:
        with pytest.raises(ValueError, match="no null label"):
            model.null(np.array([1, 2]))


def test_blocks_that_run_again_give_the_same_gradients():
    grads = []
    for again in (False, True):
        model, _ = grown()
        x, t, y = inputs_of(SMALL, 2)
        with recomputing(again):
            loss = (model(x, t, y) * x).sum()
        loss.backward()
        grads.append([p.grad for p in model.parameters()])
    for a, b in zip(*grads, strict=True):
        agree(a, b, bound=1e-12)


@pytest.mark.parametrize("args, message", [
    ((np.zeros((2, 3, 4, 6)), np.zeros(2), np.zeros(2, int)), r"x has shape \(2, 3, 4, 6\), expected \(B, 2, 4, 6\)"),
    ((np.zeros((2, 2, 4, 6)), np.zeros(3), np.zeros(2, int)), r"t has shape \(3,\), expected \(2,\)"),
    ((np.zeros((2, 2, 4, 6)), np.zeros(2), None), "a model of 3 classes needs a label y"),
    ((np.zeros((2, 2, 4, 6)), np.zeros(2), np.array([0, 4])), r"labels go from 0 to 4, the model knows 0\.\.3"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(args, message):
    with pytest.raises(ValueError, match=message):
        UNet(SMALL, None)(*args)


@pytest.mark.parametrize("bad, message", [
    ({"input_size": 5}, "input_size 5 x 5 is not divisible by 2"),
    ({"widths": ()}, "every size must be positive"),
    ({"widths": (4, 9)}, "9 channels cannot be cut into 2 equal groups"),
    ({"attention": (2,)}, r"attention \(2,\): the sizes are 0 to 1"),
    ({"head_width": 3}, r"widths \[8, 8\] of attention are not divisible by head_width 3"),
    ({"resample": "pool"}, "resample 'pool' is not one of conv, resnet"),
    ({"freq_shift": 2}, "freq_shift 2"),
    ({"class_dropout_prob": 1.0}, "class_dropout_prob 1.0 is out of range"),
])  # fmt: skip
def test_sizes_that_conflict_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **bad)
