"""The laws that a browser computes are those of the package: the same numbers from the same questions, to 1e-9."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidit.diffusion import rungs, times
from minidit.diffusion.exact import Mixture
from minidit.diffusion.fresh import DDPM, EVERYTHING, ddim
from minidit.diffusion.gaussian import feedback_factor
from minidit.diffusion.guidance import guide
from minidit.diffusion.level import Level
from minidit.diffusion.path import Exploding, Straight
from minidit.diffusion.prediction import X_0, U
from minidit.diffusion.schedule import Schedule, zero_terminal_snr
from minidit.diffusion.solver import heun
from minidit.diffusion.step import step
from minidit.html import line
from minidit.html.moving import CLOUDS
from minidit.random import Philox

LAWS = Path(line.__file__).with_name("laws.js")
DATA = {k: CLOUDS[k] for k in ("weights", "means", "stds", "classes")}
EXACT = Mixture(
    np.array(CLOUDS["weights"]),
    np.array(CLOUDS["means"]),
    np.array(CLOUDS["stds"]) ** 2,
    np.array(CLOUDS["classes"]),
    path=Straight(),
)


@pytest.fixture(scope="module")
def ask():
    """ask(expression): its value in Node; clouds is the mixture, and a typed array becomes a list."""
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    loop = f"""const L = require({json.dumps(str(LAWS))}), clouds = {json.dumps(DATA)};
        const flat = (k, v) => ArrayBuffer.isView(v) ? [...v] : v;
        require('readline').createInterface({{ input: process.stdin }}).on('line', question => {{
          let answer; try {{ answer = eval('(' + question + ')'); }} catch (error) {{ answer = String(error); }}
          console.log(JSON.stringify(answer, flat)); }});"""
    with subprocess.Popen(["node", "-e", loop], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:

        def asked(expression):
            node.stdin.write(" ".join(expression.split()) + "\n")
            node.stdin.flush()
            return json.loads(node.stdout.readline())

        yield asked


def same(ours, theirs):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-9 * max(1.0, np.abs(ours).max())


def cloud(n=12, scale=1.0, seed=5):
    return scale * Philox(seed).normal((n, 2), dtype=np.float64)


def numbers(x):
    return json.dumps(np.asarray(x).ravel().tolist())


LEVELS = (Level(1.0, 80.0), Level(0.6, 0.8), Level(1.0, 0.03), Level(0.0, 1.0))


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_its_noise_is_that_of_philox(ask, seed, per, draw, stream):
    ours = Philox(seed, stream, draw).normal((3, per), dtype=np.float64)
    same(ours.ravel(), ask(f"L.normal(3, {per}, {seed}, {draw}, {stream})"))


@pytest.mark.parametrize("T", [25, 1000])
def test_its_ladders_are_those_of_schedule(ask, T):
    same(Schedule.linear(T).alpha_bar, ask(f"L.linear({T})"))
    same(Schedule.scaled_linear(T).alpha_bar, ask(f"L.scaledLinear({T})"))
    same(Schedule.cosine(T).alpha_bar, ask(f"L.cosine({T})"))
    same(zero_terminal_snr(Schedule.scaled_linear(T)).alpha_bar, ask(f"L.zeroTerminal(L.scaledLinear({T}))"))


@given(st.integers(1, 1000))
@settings(max_examples=25)
def test_its_short_walks_visit_the_same_rungs(ask, n):
    T = 1000
    for spacing in (rungs.leading, rungs.linspace, rungs.trailing, rungs.quadratic):
        assert spacing(T, n) == ask(f"L.{spacing.__name__}({T}, {n})")
    assert rungs.pairs(rungs.trailing(T, n)) == [tuple(p) for p in ask(f"L.pairs(L.trailing({T}, {n}))")]
    counts = [1 + n // 4, n // 3 + 1, 1 + n // 5]
    if max(counts) <= T // 3:
        assert rungs.sections(T, counts) == ask(f"L.sections({T}, {counts})")
    try:
        whole = rungs.stride(T, n)
    except ValueError:
        whole = []
    assert whole == ask(f"L.stride({T}, {n})")


def test_its_grids_of_continuous_paths_are_the_same(ask):
    for n in (1, 2, 7):
        same(times.linear(n), ask(f"L.straight.grid({n})"))
        same(Exploding(0.5).grid(n), ask(f"L.exploding().grid({n})"))
        same(Exploding(0.5, end=0.002).grid(n), ask(f"L.exploding({{ end: 0.002 }}).grid({n})"))


@pytest.mark.parametrize("at", LEVELS)
def test_its_guess_is_the_exact_denoiser_with_guidance_too(ask, at):
    x, level = cloud(scale=at.sigma + at.alpha), json.dumps(at._asdict())
    plain = EXACT.denoise(x, at)
    same(plain.ravel(), ask(f"L.denoise({numbers(x)}, {level}, clouds)"))
    for kind in (0, 1):
        one = EXACT.denoise(x, at, np.full(len(x), kind))
        same(one.ravel(), ask(f"L.denoise({numbers(x)}, {level}, clouds, {kind})"))
        for w in (0.0, 1.0, 3.5):
            eps_u, eps_c = (X_0.pair(guess, x, at)[1] for guess in (plain, one))
            theirs = np.reshape(ask(f"L.guided({numbers(x)}, {level}, clouds, {kind}, {w})"), x.shape)
            same(guide(eps_u, eps_c, w), X_0.pair(theirs, x, at)[1])


WALKS = {
    "ddpm": (Schedule.cosine(1000), DDPM, "path: L.ladder(L.cosine()), fresh: L.posterior"),
    "ddim": (Schedule.cosine(1000), ddim(), "path: L.ladder(L.cosine())"),
    "flow": (Straight(), ddim(), "path: L.straight"),
    "edm": (Exploding(0.5), ddim(), "path: L.exploding()"),
    "all": (Exploding(0.5, end=0.002), EVERYTHING, "path: L.exploding({ end: 0.002 }), fresh: L.everything"),
}


@pytest.mark.parametrize("name", WALKS)
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_its_walks_are_those_of_the_package(ask, name, steps):
    path, fresh, words = WALKS[name]
    x = path.start(cloud())
    ours = [z for _, z in line.moments(x, path, list(path.grid(steps)), fresh, lambda x, at, t: EXACT.denoise(x, at), Philox(4))]
    theirs = ask(f"""(() => {{ const how = {{ {words}, guess: (x, at) => L.denoise(x, at, clouds) }};
        return L.walk(Float64Array.from({numbers(x)}), how, how.path.grid({steps}), (k, n) => L.normal(n, 2, 4, k)); }})()""")
    same(np.reshape(ours, (steps + 1, -1)), theirs)


def test_heuns_walk_takes_the_mean_of_both_velocities(ask):
    path, x = Straight(), cloud()
    theirs = ask(f"""(() => {{ const how = {{ path: L.straight, heun: true, guess: (x, at) => L.denoise(x, at, clouds) }};
        return L.walk(Float64Array.from({numbers(x)}), how, L.straight.grid(5)); }})()""")
    for k, (t, s) in enumerate(path.grid(5)):
        now, below = path.level(t), path.level(s)
        pair = X_0.pair(EXACT.denoise(x, now), x, now)
        x_s = step(*pair, below)
        if below.sigma > 0:
            there = X_0.pair(EXACT.denoise(x_s, below), x_s, below)
            x_s = step(*U.pair(heun(U.target(*pair, now), U.target(*there, below)), x, now), below)
        x = x_s
        same(x.ravel(), theirs[k + 1])


def test_the_end_of_a_curve_is_that_of_a_fine_walk(ask):
    t = 3.0
    path, x = Exploding(0.5, low=t / 1000, high=t), cloud(scale=t)
    *_, (_, x_0) = line.moments(x, path, path.grid(60), ddim(), lambda x, at, t: EXACT.denoise(x, at))
    same(x_0.ravel(), ask(f"L.end(Float64Array.from({numbers(x)}), {t}, (x, at) => L.denoise(x, at, clouds))"))


def test_feeding_back_shrinks_one_gaussian_by_the_factor_of_the_law(ask):
    at, one = Level(0.8, 0.6), '{ "weights": [1], "means": [[0, 0]], "stds": [0.5], "classes": [0] }'
    x = cloud()
    same(feedback_factor(at, 0.25) * x.ravel(), ask(f"L.shift({numbers(x)}, {json.dumps(at._asdict())}, {one})"))
