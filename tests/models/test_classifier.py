"""The classifier: sizes, and the whole network in SciPy."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from models.autoencoder_loops import classified
from nn import plain
from support import agree, spec

from minidit.models.classifier import Classifier, ClassifierConfig


@spec("E.9")
@settings(max_examples=8)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(5, 12), st.integers(5, 12), st.integers(2, 5), st.integers(1, 6))
def test_logits_and_features_of_a_picture_of_any_size(xp, device, B, C, H, W, classes, features):
    config = ClassifierConfig(channels=C, size=(H, W), num_classes=classes, widths=(3, 8, 16), features=features)
    model, state = plain.grown(Classifier(config, None, device=device, dtype=np.float64), device, size=0.3)
    x = np.random.default_rng(0).uniform(-1, 1, (B, C, H, W))
    logits, eyes = model(xp.asarray(x))
    assert tuple(logits.shape) == (B, classes) and tuple(eyes.shape) == (B, features)
    for ours, theirs in zip((logits, eyes), classified(state, x), strict=True):
        agree(ours, theirs, bound=1e-10, of="E.9")


def test_the_defaults_are_ten_classes_of_grey_pictures():
    c = ClassifierConfig()
    assert (c.channels, c.size, c.num_classes, c.widths, c.features) == (1, 32, 10, (16, 32, 64), 64)
