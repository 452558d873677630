"""A tree of Modules is one flat vector with names: order, views, states, homes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import host

from minidit.autograd import Tensor
from minidit.nn import Flat, Linear, Module, Parameter, Sequential, SiLU
from minidit.nn.initial import normal
from minidit.random import Philox

SHAPES = st.lists(st.lists(st.integers(0, 5), max_size=3).map(tuple), max_size=6)


class Table(Module):
    """Parameters of the given shapes, and a buffer."""

    def __init__(self, shapes):
        self.children = [self.one(s) for s in shapes]
        self.register_buffer("grid", np.arange(3.0) / 3)

    @staticmethod
    def one(shape):
        child = Module()
        child.w = Parameter(shape, normal(1.0))
        return child


class Net(Module):
    """Names of every kind: an own parameter, a child, a list of children, a child of a child."""

    def __init__(self):
        self.first = Linear(3, 5)
        self.gain = Parameter((5,), normal(1.0))
        self.blocks = [Linear(5, 5), Sequential(Linear(5, 2, bias=False), SiLU())]
        self.register_buffer("places", np.arange(4.0).reshape(2, 2))


NAMES = ["gain", "first.weight", "first.bias", "blocks.0.weight", "blocks.0.bias", "blocks.1.0.weight"]


@given(SHAPES)
def test_every_array_of_a_layout_starts_on_a_cache_line_and_none_overlaps(shapes):
    flat = Flat(shapes)
    assert flat.size % 16 == 0 and all(s % 16 == 0 for s in flat.starts)
    buffer = np.zeros(flat.size)
    views = flat.views(buffer)
    assert [v.shape for v in views] == shapes
    for k, view in enumerate(views):
        view += k + 1
    assert buffer.sum() == sum((k + 1) * int(np.prod(s)) for k, s in enumerate(shapes))  # nothing was written twice
    assert flat.size == sum(16 * math.ceil(int(np.prod(s)) / 16) for s in shapes)
    big = Flat([(1000, 3), (17,), (16,), ()])
    assert (big.starts, big.size) == ([0, 3008, 3040, 3056], 3072)


def test_names_come_in_the_order_of_declaration_parents_first():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == NAMES
    assert [n for n, _ in net.named_modules()] == ["", "first", "blocks.0", "blocks.1", "blocks.1.0", "blocks.1.1"]
    assert [n for n, _ in net.named_buffers()] == ["places"]
    assert net.count_parameters() == 5 + 15 + 5 + 25 + 5 + 10
    assert len(net.parameters()) == len(NAMES)


@given(shapes=SHAPES)
def test_parameters_are_views_of_one_flat_vector(xp, device, shapes):
    model = Table(shapes).build(Philox(0), device=device, dtype=np.float64)
    assert (model.device, model.dtype, len(model.flat)) == (device, np.float64, model.layout.size)
    before = [host(p.data).copy() for p in model.parameters()]
    model.flat *= 2
    model.flat += 1
    for p, old in zip(model.parameters(), before, strict=True):
        assert isinstance(p.data, xp.ndarray) and isinstance(p, Tensor)
        np.testing.assert_array_equal(host(p.data), 2 * old + 1)
    for p in model.parameters():
        p.data[...] = 7
    inside = sum(int(np.prod(s)) for s in shapes)
    assert int((model.flat == 7).sum()) == inside


def test_the_numbers_of_a_model_depend_on_the_seed_and_not_on_where_it_lives(device):
    there, here = Net().build(Philox(3), device=device), Net().build(Philox(3))
    np.testing.assert_array_equal(host(there.flat), here.flat)
    assert there.flat.dtype == np.float32
    double = Net().build(Philox(3), device=device, dtype=np.float64)
    np.testing.assert_array_equal(host(double.flat).astype(np.float32), here.flat)
    assert not np.array_equal(Net().build(Philox(4)).flat, here.flat)
    weights = [host(p.data).ravel()[:5] for p in here.parameters() if p.data.ndim == 2]
    assert len({w.tobytes() for w in weights}) == len(weights)  # no two layers begin alike


def test_without_a_stream_a_model_is_allocated_and_not_drawn(device):
    assert not host(Net().build(None, device=device).flat).any()


def test_a_buffer_is_saved_and_loaded_and_moved_but_not_trained(xp, device):
    net = Net().build(Philox(0), device=device, dtype=np.float64)
    assert isinstance(net.places, xp.ndarray) and net.places.dtype == np.float64
    assert list(net.state_dict()) == [*NAMES, "places"]
    assert "places" not in [n for n, _ in net.named_parameters()]
    state = {n: host(a).copy() for n, a in net.state_dict().items()}
    state["places"] = state["places"] + 1
    net.load_state_dict(state)
    np.testing.assert_array_equal(host(net.places), [[1, 2], [3, 4]])


@given(kind=st.sampled_from([np.float16, np.float32, np.float64]), dtype=st.sampled_from([np.float32, np.float64]))
def test_a_state_goes_from_model_to_model_and_takes_the_precision_of_the_receiver(device, kind, dtype):
    giver, taker = Net().build(Philox(0)), Net().build(Philox(1), device=device, dtype=dtype)
    state = {n: a.astype(kind) for n, a in giver.state_dict().items()}
    where = taker.flat
    taker.load_state_dict(state)
    assert taker.flat is where and taker.dtype == dtype
    for name, array in taker.state_dict().items():
        np.testing.assert_array_equal(host(array), state[name].astype(dtype))


def test_a_state_dict_is_no_copy():
    net = Net().build(Philox(0))
    net.state_dict()["gain"][...] = 5
    assert (net.gain.data == 5).all()


def test_a_state_that_does_not_fit_is_refused_with_every_name_and_changes_nothing(device):
    net = Net().build(Philox(0), device=device)
    before = host(net.flat).copy()
    state = {n: host(a) * 0 for n, a in net.state_dict().items()}
    del state["gain"], state["places"]
    state["blocks.1.0.weight"] = np.zeros((5, 2), np.float32)
    state["first.weight"] = np.zeros(15, np.float32)
    state["stray"], state["module.gain"] = np.zeros(1), np.zeros(5)
    with pytest.raises(ValueError, match="does not fit the model") as caught:
        net.load_state_dict(state)
    message = str(caught.value)
    for part in (
        "missing: gain, places",
        "unexpected: stray, module.gain",
        "blocks.1.0.weight is (5, 2), expected (2, 5)",
        "first.weight is (15,), expected (5, 3)",
    ):
        assert part in message
    np.testing.assert_array_equal(host(net.flat), before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("gain"), "missing: gain$"),
        (lambda s: s.update(stray=s["gain"]), "unexpected: stray$"),
        (lambda s: s.update(gain=s["gain"][:4]), r"mis-shaped: gain is \(4,\), expected \(5,\)$"),
        (lambda s: s.update(gain=s["gain"][None]), r"mis-shaped: gain is \(1, 5\), expected \(5,\)$"),
    ],
)
def test_one_wrong_name_is_enough(change, words):
    net = Net().build(Philox(0))
    state = {n: a.copy() for n, a in net.state_dict().items()}
    change(state)
    with pytest.raises(ValueError, match=words):
        net.load_state_dict(state)


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError):
        Module()(1)


def test_layers_of_a_sequence_run_one_after_the_other():
    model = Module()
    model.s = Sequential(Linear(3, 4), SiLU(), Linear(4, 2))
    model.build(Philox(0), dtype=np.float64)
    x = np.linspace(-1, 1, 6).reshape(2, 3)
    h = x @ model.s[0].weight.data.T
    h = h / (1 + np.exp(-h))
    np.testing.assert_allclose(host(model.s(x)), h @ model.s[2].weight.data.T, atol=1e-12)
    assert [n for n, _ in model.named_parameters()] == ["s.0.weight", "s.0.bias", "s.2.weight", "s.2.bias"]


class Holding(Module):
    """Layers in a holder of any kind."""

    def __init__(self, holder):
        self.inner = Module()
        self.inner.held = holder


def test_layers_in_a_tuple_are_children_as_those_in_a_list_are():
    names = [[n for n, _ in Holding(kind([Linear(2, 3), Linear(3, 2)])).named_parameters()] for kind in (tuple, list)]
    assert names[0] == names[1] == [f"inner.held.{i}.{name}" for i in (0, 1) for name in ("weight", "bias")]


@pytest.mark.parametrize("holder", [
    lambda layer: {"a": layer}, lambda layer: [[layer]], lambda layer: (0, [(layer,)]), lambda layer: {layer},
    lambda layer: [layer.weight], lambda layer: {"a": [layer.weight]},
])  # fmt: skip
def test_layers_where_nobody_would_find_them_are_refused(holder):
    with pytest.raises(TypeError, match=r"the layers in inner\.held would not be trained"):
        Holding(holder(Linear(2, 2))).build(Philox(0))


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_what_holds_no_layers_is_nobodys_business(holder):
    assert Holding(holder).build(Philox(0)).parameters() == []


def test_a_layer_that_was_declared_after_build_is_named():
    net = Net().build(Philox(0))
    net.late = Linear(2, 2)
    with pytest.raises(ValueError, match=r"the weights late\.weight, late\.bias of Net were declared after build"):
        net.views(net.flat)


@pytest.mark.parametrize("rng", [0, np.random.default_rng(0), "0"])
def test_weights_are_drawn_by_a_philox_only(rng):
    with pytest.raises(TypeError, match=r"weights are drawn by a Philox, such as md\.Philox\(0\), not by"):
        Net().build(rng)
