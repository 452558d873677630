"""The kit inside your own test suite: one case per topic, which fails with the name of the mistake.

    pytest examples/verify/test_mine.py
"""

import numpy as np
import pytest

import minidit as md


def layer_norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


MINE = {"layer_norm": layer_norm, "softmax": softmax}


@pytest.mark.parametrize("case", md.verify.cases(MINE), ids=str)
def test_mine(case):
    case.check(MINE[str(case)])
