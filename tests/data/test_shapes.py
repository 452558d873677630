"""Scenes of two things: what is drawn can be read, what is new is new, and the score sees every fault."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidit import data
from minidit.data import shapes
from minidit.data.dataset import from_uint8

EMPTY = len(shapes.THINGS)
QUARTERS = st.lists(st.integers(0, EMPTY), min_size=4, max_size=4)


@given(st.lists(QUARTERS, min_size=1, max_size=5), st.floats(0, 0.2))
def test_what_is_drawn_is_read_also_under_some_noise(quarters, noise):
    quarters = np.array(quarters)
    x = from_uint8(shapes.drawn(quarters))
    assert (shapes.read(x + noise * np.random.default_rng(0).normal(size=x.shape)) == quarters).all()


def test_every_thing_looks_unlike_every_other():
    known = from_uint8(shapes.drawings()).reshape(EMPTY + 1, -1)
    gaps = ((known[:, None] - known[None]) ** 2).sum(-1) + 1e9 * np.eye(EMPTY + 1)
    assert gaps.min() > 5


def test_no_new_pair_is_trained_on_and_every_test_scene_has_one():
    for part, least, most in (("train", 0, 0), ("test", 1, 2)):
        scenes = shapes.scenes(part)
        new = [sum((t.colour, t.shape) in shapes.NEW_PAIRS for t in shapes.things(q)) for q in scenes.quarters]
        assert min(new) == least and max(new) == most
        assert all(len(shapes.things(q)) == 2 for q in scenes.quarters)
    for pair in shapes.NEW_PAIRS:  # colour and shape of each were seen, apart
        trained = [t for q in shapes.scenes("train").quarters for t in shapes.things(q)]
        assert {t.shape for t in trained if t.colour == pair[0]} == set(shapes.SHAPES) - {pair[1]}


def test_a_caption_names_each_thing_with_its_place_in_either_order():
    red, blue = (shapes.THINGS.index(t) for t in (("small", "red", "circle"), ("large", "blue", "cross")))
    quarters = np.array([red, EMPTY, EMPTY, blue])
    assert shapes.caption(quarters, False) == "small red circle top left, large blue cross bottom right"
    assert shapes.caption(quarters, True) == "large blue cross bottom right, small red circle top left"
    train = data.load("shapes")
    assert train.vocabulary.text(train.captions[0]) == shapes.scenes("train").captions[0].replace(",", "")
    assert (shapes.read(train.x_0()) == shapes.scenes("train").quarters).all()


@pytest.mark.parametrize("fault, rows", [
    ({"size": "large"}, {"size": 0.5}), ({"colour": "green"}, {"colour": 0.5}), ({"shape": "cross"}, {"shape": 0.5}), ({}, {}),
])  # fmt: skip
def test_one_fault_costs_its_own_property_and_no_other(fault, rows):
    thing = shapes.Thing("small", "red", "square")
    right = np.array([[shapes.THINGS.index(thing), EMPTY, shapes.THINGS.index(thing), EMPTY]])
    wrong = right.copy()
    wrong[0, 0] = shapes.THINGS.index(thing._replace(**fault))
    score = shapes.score(from_uint8(shapes.drawn(wrong)), right)
    perfect = dict.fromkeys(score, 1.0)
    assert score == perfect | rows | ({"all_right": 0.0} if fault else {})


def test_a_thing_in_the_wrong_quarter_is_out_of_place():
    thing = shapes.THINGS.index(("small", "red", "square"))
    asked, drawn = np.array([[thing, EMPTY, thing, EMPTY]]), np.array([[EMPTY, thing, thing, EMPTY]])
    score = shapes.score(from_uint8(shapes.drawn(drawn)), asked)
    assert score["place"] == 0.5 and score["others_empty"] == 0 and score["all_right"] == 0
