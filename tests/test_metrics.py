"""Measures of samples: closed forms, cases worked by hand, and invariances."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from support import agree, spec

from minidit import metrics

SEEDS = st.integers(0, 2**32 - 1)


def covariance(r, d, rank):
    f = r.normal(size=(d, rank))
    return f @ f.T / rank


def rotation(r, d):
    return np.linalg.qr(r.normal(size=(d, d)))[0]


# ------------------------------------------------------------------------------------------------ PSNR, accuracy


@spec("E.1")
def test_psnr_by_hand():
    x = np.zeros((2, 1, 4, 4))
    y = np.stack([np.full((1, 4, 4), 0.2), np.full((1, 4, 4), 0.02)])  # in [0, 1]: off by 0.1 and by 0.01, so 20 and 40 dB
    agree(metrics.psnr(x, y), 30.0, bound=1e-12, of="E.1")


@spec("E.1")
def test_psnr_is_the_mean_of_decibels_and_not_the_decibels_of_the_mean():
    x = np.zeros((2, 3, 2, 2))
    y = x + np.array([2.0, 0.002]).reshape(2, 1, 1, 1)
    agree(metrics.psnr(x, y), (0 + 60) / 2, bound=1e-12, of="E.1")


@spec("E.1")
def test_a_crop_leaves_the_border_out_of_psnr():
    x = np.zeros((1, 1, 6, 8))
    y = np.full((1, 1, 6, 8), 2.0)
    y[:, :, 2:-2, 2:-2] = 0.2
    agree(metrics.psnr(x, y, crop=2), 20.0, bound=1e-12, of="E.1")
    assert metrics.psnr(x, y, crop=1) < 20


@spec("E.1")
def test_equal_images_have_infinite_psnr():
    x = np.ones((2, 1, 3, 3))
    assert metrics.psnr(x, x) == np.inf


@pytest.mark.parametrize("crop", [-1, 2, 3])
def test_psnr_refuses_a_crop_that_leaves_nothing(crop):
    with pytest.raises(ValueError, match="leaves nothing of 4x5"):
        metrics.psnr(np.zeros((1, 1, 4, 5)), np.zeros((1, 1, 4, 5)), crop=crop)


def test_psnr_refuses_unequal_shapes():
    with pytest.raises(ValueError, match="one shape"):
        metrics.psnr(np.zeros((1, 1, 4, 4)), np.zeros((2, 1, 4, 4)))


@spec("E.2")
def test_accuracy_counts_the_rows_where_the_label_wins():
    logits = np.array([[3.0, 1, 2], [0, 5, 1], [1, 2, 9], [4, 5, 0]])
    agree(metrics.accuracy(logits, np.array([0, 1, 2, 0])), 0.75, bound=0, of="E.2")


def test_accuracy_refuses_shapes_that_do_not_match():
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(3,\)"):
        metrics.accuracy(np.zeros((4, 3)), np.zeros(3, int))


# ------------------------------------------------------------------------------------------------ Fréchet distance


@spec("E.3")
@given(SEEDS, st.integers(1, 6))
def test_frechet_of_commuting_gaussians_is_the_distance_of_their_axes(seed, d):
    """In common axes d² = |μ_a - μ_b|² + Σ (√λ_a - √λ_b)²."""
    r = np.random.default_rng(seed)
    u, la, lb = rotation(r, d), r.uniform(0, 4, d), r.uniform(0, 4, d)
    ma, mb = r.normal(size=(2, d))
    got = metrics.frechet_of_moments(ma, u @ np.diag(la) @ u.T, mb, u @ np.diag(lb) @ u.T)
    agree(got, ((ma - mb) ** 2).sum() + ((la**0.5 - lb**0.5) ** 2).sum(), bound=1e-10, of=("E.3", "E.4"))


@spec("E.3", "E.4")
@given(SEEDS, st.integers(1, 8))
def test_frechet_of_any_gaussians_is_the_matrix_square_root_formula(seed, d):
    r = np.random.default_rng(seed)
    a, b = (covariance(r, d, d + 3) + 0.01 * np.eye(d) for _ in "ab")
    ma, mb = r.normal(size=(2, d))
    root = scipy.linalg.sqrtm(a @ b).real
    expected = ((ma - mb) ** 2).sum() + np.trace(a + b - 2 * root)
    agree(metrics.frechet_of_moments(ma, a, mb, b), expected, bound=1e-9, of=("E.3", "E.4"))


@spec("E.3")
@given(SEEDS, st.integers(1, 8), st.floats(1e-3, 1e3))
def test_frechet_is_symmetric_does_not_see_rotations_and_scales_like_a_square(seed, d, scale):
    r = np.random.default_rng(seed)
    a, b = r.normal(size=(d + 4, d)), r.normal(size=(2 * d + 5, d)) * 2 + 1
    here = metrics.frechet(a, b)
    u = rotation(r, d)
    agree(metrics.frechet(b, a), here, bound=1e-11, of="E.3")
    agree(metrics.frechet(a @ u + 3, b @ u + 3), here, bound=1e-10, of="E.3")
    agree(metrics.frechet(a * scale, b * scale) / scale**2, here, bound=1e-10, of="E.3")


@spec("E.3", "E.4")
@given(SEEDS, st.integers(2, 40), st.integers(1, 24))
def test_frechet_of_equal_features_is_zero_also_when_covariances_are_singular(seed, n, d):
    f = np.random.default_rng(seed).normal(size=(n, d))
    agree(metrics.frechet(f, f), 0.0, bound=1e-11, of=("E.3", "E.4"))


@spec("E.3", "E.4")
@given(SEEDS, st.integers(1, 5), st.integers(1, 5))
def test_gaussians_on_orthogonal_subspaces_keep_their_whole_traces(seed, p, q):
    r = np.random.default_rng(seed)
    u = rotation(r, p + q)
    a, b = u[:, :p] @ covariance(r, p, p) @ u[:, :p].T, u[:, p:] @ covariance(r, q, q) @ u[:, p:].T
    zero = np.zeros(p + q)
    agree(metrics.frechet_of_moments(zero, a, zero, b), np.trace(a) + np.trace(b), bound=1e-9, of="E.4")


@spec("E.3")
def test_points_without_spread_are_apart_by_their_squared_distance():
    a, b = np.zeros((3, 2)), np.tile([3.0, 4.0], (2, 1))
    agree(metrics.frechet(a, b), 25.0, bound=1e-12, of="E.3")


@pytest.mark.parametrize("bad, message", [
    (np.zeros((1, 3)), "N ≥ 2"), (np.zeros(3), "N ≥ 2"),
    (np.array([[1.0], [np.nan]]), "not finite"), (np.array([[1.0], [np.inf]]), "not finite")
])
def test_frechet_refuses_features_that_have_no_covariance(bad, message):
    with pytest.raises(ValueError, match=message):
        metrics.frechet(bad, np.zeros((4, 3)))


def test_frechet_refuses_features_of_two_widths():
    with pytest.raises(ValueError, match="widths differ"):
        metrics.frechet(np.zeros((4, 3)), np.zeros((4, 2)))


# ------------------------------------------------------------------------------------------------ precision and recall


@spec("E.5", "E.6")
@given(SEEDS, st.integers(1, 3), st.integers(4, 30))
def test_a_set_covers_itself_also_when_points_repeat(seed, d, n):
    f = np.random.default_rng(seed).integers(-2, 3, (n, d)) / 7
    assert metrics.precision_recall(f, f) == (1.0, 1.0)


@spec("E.6")
def test_sets_far_apart_cover_nothing_of_each_other():
    f = np.arange(10.0).reshape(-1, 1)
    assert metrics.precision_recall(f, f + 1000) == (0.0, 0.0)


@spec("E.5", "E.6")
def test_a_generator_that_drops_a_mode_is_precise_and_recalls_half():
    mode = np.arange(6.0).reshape(-1, 1)
    assert metrics.precision_recall(np.concatenate([mode, mode + 100]), mode) == (1.0, 0.5)


@spec("E.5", "E.6")
def test_a_generator_that_invents_a_mode_recalls_all_and_is_half_precise():
    mode = np.arange(6.0).reshape(-1, 1)
    assert metrics.precision_recall(mode, np.concatenate([mode, mode + 100])) == (0.5, 1.0)


@spec("E.5")
def test_the_balls_reach_the_kth_neighbour_and_no_further():
    """Real 0, 1, 3 with k = 1 have radii 1, 1, 2: they cover [-1, 5]. With k = 2 the radii are 3, 2, 3: [-3, 6]."""
    real = np.array([[0.0], [1], [3]])
    generated = np.array([[-1.0], [-1.01], [5], [5.01]])
    assert metrics.precision_recall(real, generated, k=1)[0] == 0.5
    assert metrics.precision_recall(real, np.array([[-3.0], [-3.01], [6], [6.01]]), k=2)[0] == 0.5


@spec("E.5", "E.6")
@settings(max_examples=10)
@given(SEEDS, st.integers(1, 4))
def test_precision_and_recall_are_the_definition_in_any_block_size(seed, k):
    r = np.random.default_rng(seed)
    real, generated = r.normal(size=(23, 2)), r.normal(size=(17, 2)) + 0.5

    def inside(phi, points):
        distances = [sorted(np.linalg.norm(points - p, axis=1))[k] for p in points]
        return any(np.linalg.norm(phi - p) <= d for p, d in zip(points, distances, strict=True))

    expected = (np.mean([inside(g, real) for g in generated]), np.mean([inside(x, generated) for x in real]))
    with pytest.MonkeyPatch.context() as patch:
        for block in (1, 50, 1 << 22):
            patch.setattr(metrics, "BLOCK", block)
            agree(metrics.precision_recall(real, generated, k), expected, bound=1e-12, of=("E.5", "E.6"))


@pytest.mark.parametrize("k", [0, 4, 9])
def test_precision_needs_more_samples_than_neighbours(k):
    with pytest.raises(ValueError, match=f"k = {k}"):
        metrics.precision_recall(np.zeros((4, 1)), np.zeros((9, 1)), k)


# ------------------------------------------------------------------------------------------------ nearest neighbours


@spec("E.7")
@settings(max_examples=15)
@given(SEEDS, st.integers(1, 9), st.integers(1, 30))
def test_the_nearest_neighbour_is_the_one_found_by_looking_at_all_of_them(seed, n, m):
    r = np.random.default_rng(seed)
    query, bank = r.uniform(-1, 1, (n, 2, 3, 4)), r.uniform(-1, 1, (m, 2, 3, 4)).astype(np.float32)
    table = np.sqrt((((query[:, None] - bank[None]) / 2) ** 2).mean((2, 3, 4)))
    with pytest.MonkeyPatch.context() as patch:
        for block in (1, 60, 1 << 22):
            patch.setattr(metrics, "BLOCK", block)
            distance, index = metrics.nearest(query, bank)
            agree(distance, table.min(1), bound=1e-12, of="E.7")
            assert (index == table.argmin(1)).all()


@spec("E.7")
def test_a_copy_is_found_at_distance_exactly_zero_and_black_is_one_away_from_white():
    bank = np.random.default_rng(0).uniform(-1, 1, (50, 1, 8, 8)).astype(np.float32)
    distance, index = metrics.nearest(bank[[7, 31]], bank)
    assert (distance == 0).all()
    assert index.tolist() == [7, 31]
    agree(metrics.nearest(np.ones((1, 1, 4, 4)), -np.ones((1, 1, 4, 4)))[0], [1.0], bound=1e-12, of="E.7")


@spec("E.7")
def test_the_first_of_equally_near_images_is_named(monkeypatch):
    monkeypatch.setattr(metrics, "BLOCK", 1)
    assert metrics.nearest(np.ones((1, 1, 2, 2)), np.zeros((3, 1, 2, 2)))[1].tolist() == [0]


def test_nearest_refuses_an_empty_bank_and_images_of_another_shape():
    for bank in (np.zeros((0, 1, 4, 4)), np.zeros((3, 1, 4, 5))):
        with pytest.raises(ValueError, match="not empty"):
            metrics.nearest(np.zeros((1, 1, 4, 4)), bank)


# ------------------------------------------------------------------------------------------------ retrieval


@spec("E.11")
@given(SEEDS, st.integers(2, 12))
def test_the_right_picture_itself_has_rank_zero_and_a_copy_of_another_counts_what_is_nearer(seed, n):
    bank = np.random.default_rng(seed).normal(size=(n, 2, 8, 8))
    assert (metrics.ranks(bank, np.arange(n), bank) == 0).all()
    means = bank.reshape(n, 2, 2, 4, 2, 4).mean((3, 5)).reshape(n, -1)
    order = np.argsort(((means - means[0]) ** 2).sum(1))
    agree(metrics.ranks(np.repeat(bank[:1], n, 0), order, bank), np.arange(n), bound=0, of="E.11")


@spec("E.11")
def test_what_has_the_same_means_of_squares_is_the_same_picture():
    bank = np.zeros((2, 1, 8, 8))
    bank[1] = 1
    checks = np.indices((8, 8)).sum(0) % 2 * 2.0 - 1
    assert metrics.ranks(bank + checks, np.array([0, 1]), bank).tolist() == [0, 0]
    with pytest.raises(ValueError, match="squares of 4"):
        metrics.ranks(bank[..., :6], np.array([0, 1]), bank[..., :6])
    with pytest.raises(ValueError, match="one place each"):
        metrics.ranks(bank, np.array([0]), bank)


# ------------------------------------------------------------------------------------------------ clouds in the plane


@spec("E.30")
@given(SEEDS, st.integers(1, 20), st.integers(1, 9))
def test_two_clouds_that_differ_by_a_shift_are_half_of_its_square_apart(seed, n, lines):
    """Along θ they differ by |d| cos(θ - φ), whose mean square over two or more directions is |d|²/2."""
    r = np.random.default_rng(seed)
    x, d = r.normal(size=(n, 2)), r.normal(size=2)
    distance = metrics.sliced_wasserstein(x, r.permutation(x) + d, lines + 1)
    agree(distance, (d @ d / 2) ** 0.5, bound=1e-12, of="E.30")
    assert metrics.sliced_wasserstein(x, r.permutation(x), lines) == 0


@spec("E.30")
def test_sliced_distances_by_hand():
    """Along the first axis 0, 0 against 1, 3; along the second nothing: (1 + 9)/4."""
    x, y = np.zeros((2, 2)), np.array([[3.0, 0.0], [1.0, 0.0]])
    agree(metrics.sliced_wasserstein(x, y, 2), 2.5**0.5, bound=1e-15, of="E.30")
    for bad in (y[:1], np.zeros((2, 3))):
        with pytest.raises(ValueError, match="as many points of two numbers"):
            metrics.sliced_wasserstein(x, bad)
