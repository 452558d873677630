"""A DiT with two times: it begins as its teacher, and the span is one more embedding of its condition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import draws
from nn import plain
from support import agree, host, spec

from minidit.checkpoint import load_model, save_model
from minidit.models.dit import DiT, DiTConfig
from minidit.models.flow_map import FlowMapConfig, FlowMapDiT, OfSpan
from minidit.random import Philox

SMALL = {"input_size": (4, 6), "in_channels": 3, "hidden_size": 16, "depth": 1, "num_heads": 2, "num_classes": 5}


def grown(device="cpu", **more):
    return plain.grown(FlowMapDiT(FlowMapConfig(**SMALL | more), None, device=device, dtype=np.float64), device, size=0.3)


@spec("S.8")
@given(draws.configs(learn_sigma=False), st.floats(0, 1000))
def test_a_copy_of_a_dit_gives_its_answers_for_every_span_to_the_bit(config, span):
    teacher, _ = draws.model_of(config)
    student = FlowMapDiT.like(teacher, Philox(1))
    x, t, y = draws.inputs_of(config, 2)
    want = host(teacher(x, t, y))
    assert np.array_equal(host(student(x, t, y, np.full(2, span))), want) and np.array_equal(host(student(x, t, y)), want)


@spec("S.8", "T.3", "N.8")
@given(st.lists(st.floats(0, 1000), min_size=3, max_size=3))
def test_the_span_is_added_to_the_condition(spans):
    """One sample at a time, the same number comes from a DiT whose label table holds MLP'(emb(h)) as well."""
    model, state = grown()
    x, t, y = draws.inputs_of(model.config, 3)
    out = host(model(x, t, y, np.array(spans)))
    other = {"t_embedder" + name.removeprefix("h_embedder"): a for name, a in state.items() if name.startswith("h_embedder")}
    own = {name: a for name, a in state.items() if not name.startswith("h_embedder")}
    for b, h in enumerate(spans):
        dit = DiT(DiTConfig(**SMALL, learn_sigma=False), None, dtype=np.float64)
        row = own["y_embedder.embedding_table.weight"].copy()
        row[y[b]] += draws.condition(other, h, None)
        dit.load_state_dict(own | {"y_embedder.embedding_table.weight": row})
        agree(out[b : b + 1], host(dit(x[b : b + 1], t[b : b + 1], y[b : b + 1])), bound=1e-12, of="S.8")


@pytest.mark.parametrize("conditioning", ["adaln_zero", "adaln", "cross_attention", "in_context"])
def test_every_conditioning_takes_a_span_and_counts_its_numbers(conditioning):
    model, state = grown(conditioning=conditioning)
    x, t, y = draws.inputs_of(model.config, 2)
    near, far = (host(model(x, t, y, np.full(2, h))) for h in (0.0, 500.0))
    assert np.abs(near - far).max() > 1e-6 and np.array_equal(near, host(model(x, t, y)))
    assert model.config.parameters() == sum(a.size for a in state.values())


def test_a_walk_of_one_span_sees_a_backbone_of_that_span(device, xp):
    model, _ = grown(device)
    x, t, y = draws.inputs_of(model.config, 3, xp)
    one = OfSpan(model, 250.0)
    assert (one.shape, one.condition, one.second_half, one.device, one.dtype) == (
        model.shape, model.condition, False, model.device, model.dtype,
    )  # fmt: skip
    assert np.array_equal(host(one(x, t, y)), host(model(x, t, y, xp.full(3, 250.0))))
    assert host(one.null(y)).tolist() == [5, 5, 5] and one.flat is model.flat


def test_a_flow_map_is_saved_and_read_as_one(tmp_path):
    model, state = grown()
    save_model(tmp_path / "m.safetensors", model)
    again, meta = load_model(tmp_path / "m.safetensors", dtype=np.float64)
    assert type(again) is FlowMapDiT and meta["kind"] == "flow_map" and again.config == model.config
    assert all(np.array_equal(a, state[name]) for name, a in again.state_dict().items())


def test_fresh_noise_and_spans_of_another_number_are_refused():
    with pytest.raises(ValueError, match="learn_sigma must be False"):
        FlowMapConfig(**SMALL, learn_sigma=True)
    model, _ = grown()
    x, t, y = draws.inputs_of(model.config, 3)
    with pytest.raises(ValueError, match=r"h has shape \(2,\), expected \(3,\)"):
        model(x, t, y, np.zeros(2))
