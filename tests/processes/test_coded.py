"""The numbers of a data set, and pictures of numbers: whole ones, and of the first ones only."""

from dataclasses import replace

import numpy as np
import pytest
from support import agree

from minidit.autograd import no_grad, value
from minidit.data import digits
from minidit.data.cache import Cache
from minidit.models.vq import FSQ, VQ, FSQConfig, MultiScaleVQ, MultiScaleVQConfig, VQConfig
from minidit.processes.coded import Codes, numbers_of_set
from minidit.processes.codes import numbers_of, pictures_of, quantiser_of, revive_codes
from minidit.random import Philox
from minidit.training.augment import Augment
from minidit.training.draws import Draws

SMALL = {"widths": (8, 8, 8), "size": 8}
NETWORKS = {
    "vq": lambda: VQ(VQConfig(codes=12, latent_channels=3, **SMALL), Philox(1)),
    "fsq": lambda: FSQ(FSQConfig(levels=(3, 4), **SMALL), Philox(1)),
    "scales": lambda: MultiScaleVQ(MultiScaleVQConfig(codes=12, latent_channels=3, sizes=(1, 2), **SMALL), Philox(1)),
}
EVERY = pytest.mark.parametrize("kind", NETWORKS)


def some(n=20):
    return digits("train").take(slice(n))


@EVERY
def test_a_set_has_the_numbers_of_its_pictures_and_a_mirrored_one_those_of_its_mirror_images(kind):
    network, data = NETWORKS[kind](), some()
    source = Codes(network).source(data, Augment(True, 0))
    assert np.array_equal(source.index, numbers_of(network, data.x_0()))
    assert np.array_equal(source.mirrored, numbers_of(network, np.ascontiguousarray(data.x_0()[..., ::-1])))
    draws = Draws(0, 1, np.arange(20))
    x, y = source.draw(np.arange(20), draws)
    assert x.dtype == np.int64 and np.array_equal(y, data.labels)
    either = [np.array_equal(a, b) or np.array_equal(a, c) for a, b, c in zip(x, source.index, source.mirrored, strict=True)]
    assert all(either) and not np.array_equal(x, source.index)


@EVERY
def test_numbers_from_the_cache_are_those_from_memory_and_are_not_computed_twice(kind, tmp_path, monkeypatch):
    network, data = NETWORKS[kind](), some()
    keyed = replace(data, key="some pictures") if "key" in data.__dataclass_fields__ else data
    if keyed is data:
        monkeypatch.setattr(type(data), "key", "some pictures", raising=False)
    cache = Cache(tmp_path, least=1)
    first = numbers_of_set(network, keyed, flip=True, cache=cache)
    assert isinstance(first.index, np.memmap) and first.index.dtype == np.uint16
    monkeypatch.setattr("minidit.processes.coded.numbers_of", None)
    again = numbers_of_set(network, keyed, flip=True, cache=cache)
    for one in (first, again):
        assert np.array_equal(one.index, numbers_of(network, data.x_0()))
        assert len(one) == 20 and one.mirrored is not None


def test_another_tokenizer_has_numbers_of_its_own_in_the_cache(tmp_path, monkeypatch):
    data, cache = some(), Cache(tmp_path, least=1)
    monkeypatch.setattr(type(data), "key", "some pictures", raising=False)
    for seed in (1, 2):
        network = VQ(VQConfig(codes=12, latent_channels=3, **SMALL), Philox(seed))
        assert np.array_equal(numbers_of_set(network, data, cache=cache).index, numbers_of(network, data.x_0()))


@EVERY
def test_the_first_numbers_draw_what_they_say_so_far(kind):
    """Of scales the map f̂_k; in raster order the vectors of these codes, and zeros where no code is yet."""
    network, x = NETWORKS[kind](), some(3).x_0()
    index, h = numbers_of(network, x), 2
    assert np.array_equal(pictures_of(network, index, h, h), Codes(network).decode(index))
    law = quantiser_of(network)
    if kind == "scales":
        vectors = law.vectors(index[:, :1], h, h)
    else:
        vectors = law.vectors(index, h, h).copy()
        vectors[:, 0, 1:], vectors[:, 1] = 0, 0
    with no_grad():
        agree(pictures_of(network, index[:, :1], h, h), value(network.decode(vectors.astype(np.float32))), bound=1e-6)


def test_pictures_that_do_not_fit_a_tokenizer_are_refused():
    for size in ((1, 8, 10), (3, 8, 8), (1, 4, 8, 8)):
        with pytest.raises(ValueError, match="do not fit a tokenizer of 1 channels and factor 4"):
            Codes(NETWORKS["vq"]()).shape(*size)
    assert Codes(NETWORKS["vq"]()).shape(1, 8, 8) == (4,) and Codes(NETWORKS["scales"]()).shape(1, 8, 8) == (5,)


@pytest.mark.parametrize("kind", ["vq", "scales"])
def test_a_code_that_no_vector_is_nearest_to_becomes_one_of_the_vectors_and_the_others_stay(kind):
    network, x = NETWORKS[kind](), some(8).x_0()
    codes = network.codebook.weight.data
    codes[:] = Philox(3).normal(codes.shape, dtype=np.float32)
    codes[5:] = codes[4] if kind == "vq" else 100.0  # a copy that never wins, or far from all vectors
    before, law = codes.copy(), quantiser_of(network)
    with no_grad():
        vectors = law.population(value(network.encode(x)), law.free(codes.copy()))
    used = np.bincount(numbers_of(network, x).ravel(), minlength=12) > 0
    moved = revive_codes(network, x)
    assert np.array_equal(moved, ~used) and moved[5:].all() and np.array_equal(codes[used], before[used])
    for code in codes[moved]:
        assert np.abs(vectors - code).sum(axis=1).min() < 1e-5
    assert len({tuple(c) for c in codes[moved].tolist()}) == moved.sum()
