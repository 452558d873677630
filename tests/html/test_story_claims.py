"""What the story says of its pictures, proved: by the shipped weights, and by the exact denoiser of its points."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
pytestmark = pytest.mark.skipif(not (TOOLS / "make_story.py").exists(), reason="no tools beside the tests")
KINDS = [5, 8]  # sandal and bag


@pytest.fixture(scope="module")
def tools():
    """The modules that draw the story's pictures."""
    sys.path.insert(0, str(TOOLS))
    try:
        import make_story
        import story_points

        yield make_story, story_points
    finally:
        sys.path.remove(str(TOOLS))


@pytest.fixture(scope="module")
def studio(tools):
    return tools[0].Studio.opened()


def alike(a, b):
    """The cosine of the angle between two pictures, each without its mean."""
    a, b = (np.ravel(x) - np.mean(x) for x in (a, b))
    return a @ b / (a @ a * (b @ b)) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_the_guess_from_pure_noise_is_the_average_of_the_class(studio, kind):
    guess, _ = studio.guess(studio.noise(1), 1000, studio.labels[[kind]])
    average, real = studio.average(kind), studio.real(kind)
    assert alike(studio.decoded(guess), average) > 0.97 > 0.8 > alike(real, average)


def test_a_walk_begins_with_the_average_of_the_class_and_guidance_leads_away_from_it(studio):
    def first(kind, w):
        walk = studio.pipeline.latents([kind], steps=50, seed=0, trace=True, guidance=w, solver="euler")
        return alike(studio.decoded(next(iter(walk)).x_0_hat), studio.average(kind))

    for kind in KINDS:
        assert first(kind, 1.0) > 0.97 > 0.94 > first(kind, 2.0)


def test_one_big_step_ends_at_the_first_guess_and_small_steps_at_another(studio, tools):
    x_t = x = studio.noise(1)
    y, level = studio.labels[[5]], studio.level
    first, eps_hat = studio.guess(x_t, 1000, y)
    at_once, _ = studio.guess(tools[0].mix(first, eps_hat, level(100)), 100, y)
    for t in range(1000, 100, -100):
        x = tools[0].mix(*studio.guess(x, t, y), level(t - 100))
    chosen, _ = studio.guess(x, 100, y)
    first, at_once, chosen = map(studio.decoded, (first, at_once, chosen))
    assert alike(at_once, first) > 0.9 > 0.8 > alike(chosen, first)


def test_the_noise_of_a_walk_is_what_keeps_the_print_of_a_shirt(studio, tools):
    """From t = 400 in 30 steps: with the noise left out the guess loses it, at one t as well as with t falling."""
    x_t = tools[0].mix(studio.latents[[0]], studio.noise(1), studio.level(400))
    falling = [round(400 * (30 - k) / 30) for k in range(31)]

    def print_after(times, noise):
        x = x_t
        for t, s in itertools.pairwise(times):
            x_0_hat, eps_hat = studio.guess(x, t, studio.labels[[0]])
            x = studio.level(s).alpha * x_0_hat + (studio.level(s).sigma * eps_hat if noise else 0)
        return np.ptp(studio.decoded(x_0_hat)[0, 0, 4:14, 9:19])

    first = print_after([400, 387], True)
    walk, alone, falls = print_after(falling, True), print_after([400] * 31, False), print_after(falling, False)
    assert walk > 0.9 * first > 2 * max(alone, falls)


def test_the_guessed_noise_of_a_walk_is_a_little_smaller_than_noise(studio):
    labels = studio.pipeline.labels("0-9", 60)
    walk = list(studio.pipeline.latents(labels, steps=50, seed=0, trace=True, guidance=1.0, solver="euler"))[:-1]
    size = {m.t: ((m.x_t - studio.level(m.t).alpha * m.x_0_hat) / studio.level(m.t).sigma).std() for m in walk}
    assert abs(size[1000] - 1) < 0.01 and abs(size[600] - 0.95) < 0.01 and abs(size[200] - 0.8) < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_with_little_noise_the_guess_is_the_picture(studio, tools, kind):
    x_t = tools[0].mix(studio.latents[[kind]], studio.noise(1), studio.level(100))
    guess, _ = studio.guess(x_t, 100, studio.labels[[kind]])
    assert alike(guess, studio.latents[[kind]]) > 0.97


def test_ddim_at_five_calls_draws_the_picture_of_twenty_and_ddpm_another(studio):
    def drawn(sampler, steps):
        options = {"seed": 0, "sampler": sampler, "guidance": 1.0, "solver": "euler"}
        return studio.pipeline.sample("0-9", steps=steps, **options)

    few, many = ({s: drawn(s, n) for s in ("ddim", "ddpm")} for n in (5, 20))
    for k in KINDS:
        near, far = (alike(few[s][k], many[s][k]) for s in ("ddim", "ddpm"))
        assert near > 0.9 > 0.65 > far
    assert np.array_equal(drawn("ddim", 1), drawn("ddpm", 1))


def test_ddims_paths_are_smooth_and_short_and_ddpms_are_jagged(tools):
    points = tools[1]

    def lengths(fresh):
        walk = points.in_one_frame(points.walked(points.Schedule.cosine(1000), fresh, points.STEPS))
        return sum(np.linalg.norm(b - a, axis=1) for a, b in itertools.pairwise(walk)), walk

    (jagged, _), (smooth, walk) = lengths(points.DDPM), lengths(points.ddim())
    straight = np.linalg.norm(walk[-1] - walk[0], axis=1)
    assert np.median(jagged) > 4 * np.median(smooth) and np.median(smooth) < 2 * np.median(straight)


def test_guidance_empties_the_cloud_in_the_ring(tools):
    points = tools[1]
    middle, reach = points.DATA.means[2], 2.5 * points.CLOUDS["stds"][2]

    def in_the_ring(w):
        x = points.walked(points.Schedule.cosine(1000), points.ddim(), 40, w)[-1][1]
        return np.count_nonzero(np.linalg.norm(x - middle, axis=1) < reach)

    one, two, four = map(in_the_ring, (1.0, 2.0, 4.0))
    assert one > 2 * two > 0 and two > 4 * four


def test_from_one_start_feeding_back_ends_in_few_places_and_a_walk_in_clouds(tools):
    points = tools[1]
    rounds, walk = points.from_one_start()
    assert np.array_equal(rounds[0], walk[0]) and len(rounds) == len(walk) == 31
    fed, data = (len({tuple(p) for p in np.round(x, 2)}) for x in (rounds[-1], walk[-1]))
    assert fed < 15 < 150 < data
