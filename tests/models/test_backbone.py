"""What training and sampling ask of a network: its shape, its condition, and the same batch with the condition left out."""

import numpy as np
import pytest
from models import draws
from support import agree, host, spec

from minidit.backend import device_of
from minidit.models.backbone import Backbone, BackboneConfig
from minidit.models.condition import Classes, Nothing, Tokens
from minidit.models.dit import DiT, DiTConfig
from minidit.training.draws import Draws
from minidit.training.source import LabelDropout, Pictures, drop_labels

SMALL = {"input_size": (4, 6), "in_channels": 3, "hidden_size": 16, "depth": 1, "num_heads": 2}


@pytest.mark.parametrize(
    ("more", "condition"),
    [
        ({"num_classes": 0}, Nothing()),
        ({"num_classes": 5, "class_dropout_prob": 0.0}, Classes(5, None)),
        ({"num_classes": 5, "class_dropout_prob": 0.1}, Classes(5, 5, 0.1)),
    ],
)
@pytest.mark.parametrize("learn_sigma", [False, True])
def test_a_network_says_what_it_takes_and_what_it_answers(more, condition, learn_sigma):
    config: BackboneConfig = DiTConfig(**SMALL, **more, learn_sigma=learn_sigma)
    model: Backbone = DiT(config, None, dtype=np.float64)
    assert model.shape == config.shape == (3, 4, 6) and model.condition == config.condition == condition
    assert (model.second_half, model.device, model.dtype) == (learn_sigma, "cpu", np.float64)
    x, t, y = draws.inputs_of(config, 2)
    assert model(x, t, y).shape == (2, 6 if learn_sigma else 3, 4, 6)
    assert condition.rows == (model.y_embedder.embedding_table.weight.shape[0] if condition.count else 0)


@spec("G.7")
def test_left_out_labels_are_the_null_label_in_the_home_and_type_of_the_labels(xp, device):
    config = DiTConfig(**SMALL, num_classes=5)
    model, _ = draws.model_of(config, device)
    x, t, y = draws.inputs_of(config, 3, xp)
    null = model.null(y)
    assert type(null) is type(y) and null.dtype == y.dtype and host(null).tolist() == [5, 5, 5]
    agree(model(x, t, model.null(y)), host(model(x, t, xp.full(3, 5))), bound=0, of="G.7")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"num_classes": 0}, "a model without classes has no null label"),
        ({"num_classes": 5, "class_dropout_prob": 0.0}, "a model of 5 classes, trained without label dropout, has no null label"),
    ],
)
def test_a_network_without_a_null_label_says_so(more, words):
    config = DiTConfig(**SMALL, **more)
    with pytest.raises(ValueError, match=words):
        DiT(config, None).null(draws.inputs_of(config, 2)[2])


@spec("G.7")
def test_a_caption_that_is_left_out_is_the_null_word_alone(xp):
    captions = Tokens(count=9, length=3, null=9, dropout=0.1)
    y = xp.asarray([[4, 2, 0], [8, 8, 1], [1, 0, 0]])
    null = captions.left_out(y)
    assert type(null) is type(y) and null.dtype == y.dtype and host(null).tolist() == [[9, 0, 0]] * 3
    u = xp.asarray([0.05, 0.5, 0.0])
    assert host(drop_labels(y, u, captions.dropout, xp.asarray(captions.without))).tolist() == [[9, 0, 0], [8, 8, 1], [9, 0, 0]]
    source = LabelDropout(Pictures(xp.zeros((3, 1, 2, 2)), y), 0.5, captions.without)
    drawn = host(source.draw(xp.arange(3), Draws(7, 1, xp.arange(3), device_of(y), per=2))[1])
    assert all(row in ([9, 0, 0], host(y)[i].tolist()) for i, row in enumerate(drawn.tolist()))


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (None, "captions of 3 words needs y of shape \\(2, 3\\), got None"),
        (np.zeros(2, int), "needs y of shape \\(2, 3\\), got \\(2,\\)"),
        (np.full((2, 3), 10), "words go from 10 to 10, the model knows 0..9"),
    ],
)
def test_captions_of_another_shape_or_with_unknown_words_are_refused(y, words):
    with pytest.raises(ValueError, match=words):
        Tokens(count=9, length=3, null=9).check(y, 2)
    with pytest.raises(ValueError, match="trained without leaving them out, has no null caption"):
        Tokens(count=9, length=3).left_out(y)
