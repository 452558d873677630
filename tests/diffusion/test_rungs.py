"""Chapter D, spacing: the tables that other projects use, counted from 1."""

from itertools import pairwise

import numpy as np
import pytest
from diffusion.draws import subsets
from hypothesis import given
from hypothesis import strategies as st
from support import spec

from minidit.diffusion import times
from minidit.diffusion.rungs import from_text, karras, leading, linspace, pairs, quadratic, sections, stride, trailing
from minidit.diffusion.schedule import Schedule


@st.composite
def lengths(draw):
    T = draw(st.integers(1, 1500))
    return T, draw(st.integers(1, T))


@spec("D.24", "D.25", "D.26", "D.29")
def test_ten_rungs_by_hand():
    assert leading(10, 3) == [1, 4, 7] and leading(10, 3, offset=1) == [2, 5, 8]
    assert linspace(10, 4) == [1, 4, 7, 10]
    assert trailing(10, 3) == [3, 7, 10]
    assert stride(10, 4) == [1, 4, 7, 10]
    assert quadratic(10, 3) == [1, 3, 9]


@spec("D.24", "D.25", "D.26")
def test_two_hundred_and_fifty_of_a_thousand_end_where_the_others_say():
    for rungs, bottom, top in ((leading(1000, 250), 0, 996), (trailing(1000, 250), 3, 999), (linspace(1000, 250), 0, 999)):
        assert (rungs[0] - 1, rungs[-1] - 1, len(rungs)) == (bottom, top, 250)


@spec("D.28", "D.25")
def test_sections_have_their_published_entries():
    full = from_text("250", 1000)
    assert [r - 1 for r in full[:6]] == [0, 4, 8, 12, 16, 20] and [r - 1 for r in full[-3:]] == [991, 995, 999]
    for n in (10, 25, 50, 100, 250, 500):
        assert sections(1000, [n]) == linspace(1000, n)
    three = [r - 1 for r in from_text("10,15,20", 300)]
    assert three[:3] == [0, 11, 22] and three[9:12] == [99, 100, 107] and len(three) == 45 and three[-1] == 299
    assert sections(1000, [1]) == [1]


@spec("D.29")
def test_ddim50_never_reaches_the_top():
    assert [r - 1 for r in from_text("ddim50", 1000)] == list(range(0, 1000, 20))
    with pytest.raises(ValueError, match="exactly 60 of 1000"):
        from_text("ddim60", 1000)


@spec("D.24", "D.25", "D.26", "D.27", "D.28")
@given(lengths())
def test_every_spacing_climbs_without_repeats_and_stays_on_the_ladder(TN):
    T, N = TN
    for law in (leading, linspace, trailing, quadratic, lambda T, N: sections(T, [N])):
        rungs = law(T, N)
        assert rungs == sorted(set(rungs)) and rungs[0] >= 1 and rungs[-1] <= T
        assert len(rungs) == N or (law is quadratic and len(rungs) <= N)
    assert trailing(T, N)[-1] == T and linspace(T, max(N, min(2, T)))[-1] == T and leading(T, N)[0] == 1
    assert leading(T, T) == linspace(T, T) == trailing(T, T) == list(range(1, T + 1))


@spec("D.28")
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_each_section_gives_as_many_rungs_as_asked(counts):
    T = 10 * len(counts) + 3
    rungs = sections(T, counts)
    assert len(set(rungs)) == sum(counts)
    edges = np.cumsum([0] + [T // len(counts) + (i < T % len(counts)) for i in range(len(counts))])
    inside, _ = np.histogram(np.array(rungs) - 1, bins=edges - 0.5)
    assert inside.tolist() == counts


@spec("D.29")
@given(st.integers(1, 1000), st.integers(1, 40))
def test_the_stride_is_the_least_that_fits(T, i):
    N = len(range(0, T, i))
    rungs = stride(T, N)
    assert len(rungs) == N and len(set(np.diff(rungs))) <= 1
    step = rungs[1] - rungs[0] if N > 1 else T
    assert step <= i or N == 1


@spec("D.24")
@pytest.mark.parametrize("N", [3, 9, 27, 1000])
def test_leading_with_an_offset_of_one_overflows_or_is_fine_but_never_leaves_silently(N):
    try:
        assert leading(1000, N, offset=1)[-1] <= 1000
    except ValueError as error:
        assert "leaves the ladder" in str(error) and (N - 1) * (1000 // N) + 2 > 1000


@pytest.mark.parametrize("N", [0, 11, -1])
def test_more_steps_than_rungs_are_refused(N):
    for law in (leading, linspace, trailing, quadratic):
        with pytest.raises(ValueError, match=f"T = 10; got {N}"):
            law(10, N)
    with pytest.raises(ValueError, match="section of"):
        sections(10, [N])


@spec("D.30")
@given(subsets(200, max_size=20))
def test_pairs_look_up_the_next_kept_rung_and_end_at_the_data(rungs):
    walk = pairs(rungs)
    assert [t for t, _ in walk] == rungs[::-1] and walk[-1][1] == 0
    assert all(s == t for (_, s), (t, _) in pairwise(walk))


@pytest.mark.parametrize("bad", [[], [0, 1], [3, 3]])
def test_repeated_or_missing_rungs_are_refused(bad):
    with pytest.raises(ValueError, match="distinct"):
        pairs(bad)


@spec("D.28")
def test_two_rungs_of_a_section_are_its_ends():
    assert sections(10, [2]) == [1, 10] and sections(11, [2, 2]) == [1, 6, 7, 11]
    assert from_text("1,2,3", 9) == [1, 4, 6, 7, 8, 9]
    assert sections(3, [3]) == [1, 2, 3] == sections(3, [1, 1, 1])


@spec("D.28")
def test_the_multiples_of_the_stride_are_summed_and_not_multiplied():
    """Half way between two rungs the last digit of the sum decides; k · stride would give another rung."""
    differs = [(T, n) for T in range(4, 80) for n in range(3, T) if sections(T, [n]) != linspace(T, n)]
    assert differs  # there the floating-point sum shows
    for T, n in differs[:20]:
        place, expected = 0.0, []
        for _ in range(n):
            expected.append(round(place) + 1)
            place += (T - 1) / (n - 1)
        assert sections(T, [n]) == expected


@spec("D.27")
def test_a_quadratic_walk_reaches_as_far_as_it_is_told():
    assert quadratic(100, 5, reach=0.64) == [1, 5, 17, 37, 65]
    assert quadratic(100, 2) == [1, 81] and quadratic(1000, 1) == [1]
    assert quadratic(100, 3, reach=0.25) == [1, 7, 26]


@spec("P.28")
@given(st.integers(1, 40))
def test_a_ladder_whose_levels_are_edms_is_kept_whole_by_the_grid_of_karras(n):
    levels = np.array(times.karras(n, 0.1, 80.0))[::-1]
    assert karras(Schedule.from_alpha_bar(np.append(1.0, 1 / (1 + levels**2))), n) == list(range(1, n + 1))


@spec("P.28")
@given(st.sampled_from((Schedule.cosine, Schedule.linear, Schedule.scaled_linear)), st.integers(25, 1500), st.integers(1, 25))
def test_the_grid_of_karras_takes_the_rung_nearest_to_each_of_its_levels(law, T, n):
    sch = law(T)
    level = np.sqrt(1 - sch.alpha_bar[1:]) / np.sqrt(sch.alpha_bar[1:])
    kept = karras(sch, n)
    for t in times.karras(n, 0.1, 80.0):
        apart = np.maximum(level / t, t / level)  # as a ratio, above 1
        assert min(apart[r - 1] for r in kept) <= apart.min() * (1 + 1e-9)
    assert len(kept) <= n and kept == sorted(set(kept))


def test_eight_rungs_of_karras_on_a_cosine_ladder():
    assert karras(Schedule.cosine(1000), 8) == [56, 248, 600, 837, 932, 969, 985, 992]


def test_a_law_of_a_length_is_not_one_of_a_ladder():
    with pytest.raises(TypeError, match=r"rungs\.by_length"):
        trailing(Schedule.cosine(10), 5)
