"""Chapter Q: a map as a pyramid of codes, the matrices between sizes, and the shares of φ."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import agree, host, spec

from minidit.autograd import Tensor
from minidit.autoregressive import scales as s
from minidit.autoregressive.quantize import nearest

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.sampled_from([(1, 2, 4), (1, 2, 3, 4), (4,), (1, 1, 4), (2, 4)])


def pyramid(seed, K=5, d=3):
    """(map, codes, φ): a different linear φ at every scale."""
    r = np.random.default_rng(seed)
    M = r.normal(size=(4, d, d)) / d
    return r.normal(size=(2, 4, 4, d)), r.normal(size=(K, d)), lambda k, h: 0.5 * h + 0.5 * (h @ M[k % 4])


@spec("Q.9")
@given(SEEDS, SIZES)
def test_what_the_scales_say_and_what_is_left_is_the_map(seed, sizes):
    f, codes, phi = pyramid(seed)
    index, maps = s.into_codes(f, codes, sizes, phi)
    assert index.shape == (2, s.starts(sizes)[-1]) and len(maps) == len(sizes)
    rest = f
    for k, f_hat in enumerate(maps):
        rest = rest - (f_hat - (maps[k - 1] if k else 0))
        agree(f_hat + rest, f, bound=1e-13, of="Q.9")
        i = index[:, s.starts(sizes)[k] : s.starts(sizes)[k + 1]]
        left = s.smaller(f - maps[k - 1] if k else f, sizes[k])
        assert np.array_equal(i, nearest(left, codes).reshape(i.shape))


@spec("Q.9", "Q.10")
@given(SEEDS, SIZES, st.data())
def test_maps_from_numbers_are_those_of_the_encoder_to_the_bit(seed, sizes, data):
    f, codes, phi = pyramid(seed)
    index, maps = s.into_codes(f, codes, sizes, phi)
    assert all(np.array_equal(a, b) for a, b in zip(s.maps_of(index, codes, sizes, phi), maps, strict=True))
    k = data.draw(st.integers(1, len(sizes)))
    first = s.maps_of(index[:, : s.starts(sizes)[k]], codes, sizes, phi)  # while sampling only these are known
    assert all(np.array_equal(a, b) for a, b in zip(first, maps[:k], strict=True))
    if len(sizes) > 1:
        seen, n = s.inputs_of(maps, sizes), s.starts(sizes)[-1] - sizes[0] ** 2
        assert seen.shape == (2, n, 3)
        if k > 1:
            m = s.starts(sizes)[k] - sizes[0] ** 2
            assert np.array_equal(s.inputs_of(first, sizes[:k]), seen[:, :m])


@spec("Q.9")
@given(SEEDS)
def test_one_scale_of_full_size_is_plain_quantisation(seed):
    f, codes, _ = pyramid(seed)
    index, (f_hat,) = s.into_codes(f, codes, (4,), lambda k, h: h)
    distance = ((f[..., None, :] - codes) ** 2).sum(-1)
    assert np.array_equal(index, distance.argmin(-1).reshape(2, 16))
    assert np.array_equal(f_hat, codes[index.reshape(2, 4, 4)])


@spec("Q.9")
@given(SEEDS, SIZES)
def test_a_zero_among_the_codes_keeps_the_last_scale_from_making_things_worse(seed, sizes):
    f, codes, _ = pyramid(seed)
    _, maps = s.into_codes(f, np.concatenate([codes, np.zeros((1, 3))]), sizes, lambda k, h: h)
    before = f - maps[-2] if len(sizes) > 1 else f
    assert ((f - maps[-1]) ** 2).sum() <= (before**2).sum() * (1 + 1e-12)


@spec("Q.9")
@given(SEEDS)
def test_gradients_reach_codes_of_every_scale_and_not_the_map(seed):
    f, codes, _ = pyramid(seed)
    e = Tensor(codes)
    index, maps = s.into_codes(f, e, (1, 2, 4), lambda k, h: h)
    maps[-1].sum().backward()
    share = np.zeros(len(codes))
    for k, p in enumerate((1, 2, 4)):
        weight = np.ones(4) @ s.bicubic(4, p) if p < 4 else np.ones(4)
        i = index[:, s.starts((1, 2, 4))[k] : s.starts((1, 2, 4))[k + 1]].reshape(2, p, p)
        np.add.at(share, i, np.broadcast_to(np.outer(weight, weight), (2, p, p)))
    agree(e.grad, np.broadcast_to(share[:, None], (len(codes), 3)), bound=1e-12, of="Q.9")


# ------------------------------------------------------------------------------------------------ matrices


@spec("Q.11", "Q.12")
@given(st.integers(1, 16), st.integers(1, 16))
def test_rows_sum_to_one_and_the_same_size_is_the_identity(p, H):
    for m in (s.area(min(p, H), max(p, H)), s.bicubic(H, p)):
        agree(m.sum(axis=1), np.ones(len(m)), bound=1e-14, of=("Q.11", "Q.12"))
        assert not m.flags.writeable
    assert np.array_equal(s.area(H, H), np.eye(H))
    agree(s.bicubic(H, H), np.eye(H), bound=1e-14, of="Q.12")


@spec("Q.11")
@given(st.integers(1, 8), st.integers(1, 4))
def test_where_parts_are_whole_the_mean_is_over_each_and_else_neighbours_overlap(p, n):
    agree(s.area(p, p * n), np.repeat(np.eye(p), n, axis=1) / n, bound=1e-15, of="Q.11")
    assert (s.area(2, 3) == [[0.5, 0.5, 0], [0, 0.5, 0.5]]).all()


@spec("Q.12")
def test_bicubic_by_hand():
    """Places 0, 1 stretched to 4: the third lies at .75 of the way; at distances .75, .25, 1.25, 1.75 with edges repeated."""
    a, w = -0.75, {x: s.cubic(x) for x in (0.25, 0.75, 1.25, 1.75)}
    assert w[0.25] == (a + 2) / 64 - (a + 3) / 16 + 1 and sum(w.values()) == pytest.approx(1, abs=1e-15)
    agree(s.bicubic(4, 2)[2], [w[0.75] + w[1.75], w[0.25] + w[1.25]], bound=1e-15, of="Q.12")


@spec("Q.11", "Q.12")
@given(SEEDS)
def test_both_axes_are_treated_alike_in_any_home(xp, seed):
    f = np.random.default_rng(seed).normal(size=(1, 4, 4, 2))
    turned = np.ascontiguousarray(f.swapaxes(1, 2))
    for change in (lambda a: s.smaller(a, 3), lambda a: s.larger(a, 7)):
        y, z = host(change(xp.asarray(f))), host(change(xp.asarray(turned)))
        agree(z.swapaxes(1, 2), y, bound=1e-14, of=("Q.11", "Q.12"))


@spec("Q.13")
def test_ten_scales_share_four_phis_in_rising_order():
    """Scales 2 and 7 of ten lie halfway between two ticks: there rounding decides."""
    assert [s.phi_of(k, 10, 4) for k in range(10) if k not in (2, 7)] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [s.phi_of(k, 4, 4) for k in range(4)] == [0, 1, 2, 3]
    assert s.phi_of(0, 1, 4) == 2 and {s.phi_of(k, 9, 1) for k in range(9)} == {0}
