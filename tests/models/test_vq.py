"""Tokenizers of whole numbers: shapes, sizes, and what their training does to the codes."""

import numpy as np
import pytest
from support import agree, host, spec

from minidit.autograd import no_grad
from minidit.models.vq import FSQ, VQ, FSQConfig, MultiScaleVQ, MultiScaleVQConfig, VQConfig
from minidit.processes import codes as c
from minidit.processes.autoencode import AutoencodeConfig
from minidit.processes.codes import codes_laid, lay_codes, quantiser_of
from minidit.random import Philox

SMALL = {"channels": 1, "widths": (4, 8, 8), "groups": 4}
NETWORKS = [
    lambda: VQ(VQConfig(**SMALL, latent_channels=3, codes=12), Philox(0)),
    lambda: FSQ(FSQConfig(**SMALL, levels=(3, 2, 2)), Philox(0)),
    lambda: MultiScaleVQ(MultiScaleVQConfig(**SMALL, latent_channels=3, codes=12, sizes=(1, 2), phis=2), Philox(0)),
]
N = [4, 4, 5]


def pictures(n=40, seed=0):
    return Philox(seed).uniform((n, 1, 8, 8)) * 2 - 1


@pytest.mark.parametrize(("make", "tokens"), list(zip(NETWORKS, N, strict=True)))
def test_a_picture_becomes_numbers_of_the_vocabulary_and_numbers_a_picture(make, tokens):
    network, x = make(), pictures()
    lay_codes(network, x)
    index = c.numbers_of(network, x)
    assert index.shape == (40, tokens) and index.dtype == np.int64
    assert index.min() >= 0 and index.max() < network.config.vocabulary == 12
    again = c.pictures_of(network, index, 2, 2)
    assert again.shape == x.shape and again.dtype == np.float32
    with no_grad():
        z = host(network.encode(x))
        vectors = quantiser_of(network).training(z)[0]
        agree(again, network.decode(vectors), bound=1e-6)
    used, perplexity = c.codes_in_use(index, 12)
    assert used == len(np.unique(index)) and 1 <= perplexity <= used


@spec("Q.13")
def test_a_fresh_pyramid_blends_nothing():
    network = NETWORKS[2]()
    h = Philox(1).normal((2, 2, 2, 3))
    for j in range(2):
        agree(network.phi(j, h), h, bound=1e-6, of="Q.13")
    network.blends[1].bias.data[...] = 2.0
    agree(network.phi(1, h), h + 1.0, bound=1e-6, of="Q.13")  # half of the convolution


@pytest.mark.parametrize("make", NETWORKS)
def test_pictures_of_other_sizes_are_refused(make):
    with pytest.raises(ValueError, match=r"expected \(B, 1, H, W\), H and W divisible by 4"):
        make().encode(np.zeros((2, 1, 6, 8), np.float32))


@pytest.mark.parametrize(
    ("cls", "bad", "words"),
    [
        (VQConfig, {"codes": 0}, "every size must be positive"),
        (FSQConfig, {"levels": (3, 1)}, "at least two levels"),
        (MultiScaleVQConfig, {"sizes": (4, 2)}, "must rise"),
    ],
)
def test_sizes_that_conflict_are_refused(cls, bad, words):
    with pytest.raises(ValueError, match=words):
        cls(**bad)


# ------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize("make", NETWORKS)
def test_codes_are_laid_after_the_warm_updates_in_weights_and_average_and_then_quantised(make):
    network = make()
    loop = c.tokenize(network, pictures(64), AutoencodeConfig(lr=4e-3, steps=6, warm=3, batch_size=8, shards=1))
    codes = getattr(network, "codebook", None)
    before, records = None if codes is None else codes.weight.data.copy(), []
    for record in loop.run():
        codes_laid(loop)
        records.append(record["codes"])
        if codes is not None and loop.done < 3:
            assert np.array_equal(codes.weight.data, before)
        if codes is not None and loop.done == 3:
            laid = codes.weight.data.copy()
            assert not np.array_equal(laid, before)
            views = dict(zip((n for n, _ in network.named_parameters()), network.views(loop.optimiser.average), strict=True))
            assert np.array_equal(views["codebook.weight"], laid)
    if codes is not None:
        assert records[:3] == [0, 0, 0] and all(records[3:]) and not np.array_equal(codes.weight.data, laid)
    else:
        assert not any(records)


def test_unused_codes_are_revived_now_and_then_in_the_first_half_and_left_alone_in_the_second(monkeypatch):
    when = []
    monkeypatch.setattr("minidit.processes.codes.revive_codes", lambda network, x, seed: when.append(loop.done) or slice(0))
    loop = c.tokenize(NETWORKS[0](), pictures(64), AutoencodeConfig(steps=12, warm=2, revive=2, batch_size=8, shards=1))
    for _ in loop.run():
        codes_laid(loop)
    assert when == [4, 6]


def test_the_same_training_on_two_shards_gives_the_same_codes():
    """The codes are laid from pictures that the seed alone chooses, whatever the number of workers."""
    ends = []
    for shards in (1, 2):
        network = NETWORKS[0]()
        loop = c.tokenize(network, pictures(64), AutoencodeConfig(steps=5, warm=2, batch_size=8, shards=shards), kind="thread")
        for _ in loop.run():
            codes_laid(loop)
        ends.append(network.flat.copy())
    agree(*ends, bound=1e-5)


def test_too_few_vectors_for_the_codes_are_refused():
    with pytest.raises(ValueError, match="8 vectors are too few for 12 codes"):
        lay_codes(NETWORKS[0](), pictures(2))
