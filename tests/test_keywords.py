"""A misspelt keyword, name or configuration is answered with a suggestion; signatures show every option and no address."""

from __future__ import annotations

import inspect
import pydoc
import re
import string
from dataclasses import dataclass, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minidit as md
from minidit.keywords import Named, alike, meant, spelled_out, suggesting

NAMES = st.text(string.ascii_lowercase + "_", min_size=3, max_size=12)
CALLABLE = [name for name in md.__all__ if inspect.isclass(getattr(md, name)) or inspect.isfunction(getattr(md, name))]


@dataclass
class Options:
    """Some."""

    steps: int = 3
    guidance: float = 2.0


@spelled_out(Options)
def draw(x, /, y=0, *, seed=0, **changes):
    return x, y, seed, changes


@given(NAMES, st.integers(0, 9), st.sampled_from(string.ascii_lowercase))
def test_a_name_with_one_wrong_letter_is_suggested(name, place, letter):
    place %= len(name)
    wrong = name[:place] + letter + name[place + 1 :]
    assume(wrong != name)
    assert meant(wrong, [name]) == f", did you mean {name!r}?"
    with pytest.raises(KeyError) as caught:
        Named({name: 1})[wrong]
    assert str(caught.value) == f"there is no {wrong!r}, did you mean {name!r}?"


@pytest.mark.parametrize("name, near", [
    ("Dit", ["DiT"]), ("dIT", ["DIT"]), ("flux", ["flux-words", "FLUX.1-dev"]), ("FLUX.1-DEV", ["FLUX.1-dev"]), ("fi", []),
    ("flix-words", ["flux-words"]), ("DITS", ["DIT"]),
])  # fmt: skip
def test_other_capitals_come_first_then_what_begins_so_then_what_is_most_alike(name, near):
    assert alike(name, ["DIT", "DiT", "DiTConfig", "flux-words", "FLUX.1-dev"]) == near


@given(st.sampled_from(["y", "seed", "steps", "guidance"]), st.integers())
def test_a_function_takes_every_option_that_its_signature_shows(name, value):
    assert list(inspect.signature(draw).parameters) == ["x", "y", "seed", "steps", "guidance"]
    x, y, seed, changes = draw(1, **{name: value})
    assert x == 1 and {"y": y, "seed": seed, **changes}[name] == value


def test_the_defaults_of_a_signature_are_those_of_the_fields():
    assert {name: p.default for name, p in inspect.signature(draw).parameters.items()}["guidance"] == 2.0


def test_a_misspelt_keyword_is_answered_with_the_right_one():
    with pytest.raises(TypeError, match=r"^draw has no option 'stpes', did you mean 'steps'\?$"):
        draw(1, stpes=3)
    with pytest.raises(TypeError, match=r"^draw has no option 'qqq'; it has y, seed, steps, guidance$"):
        draw(1, qqq=3)
    with pytest.raises(TypeError, match="Options has no option 'guidnace', did you mean 'guidance'"):
        suggesting(Options)(guidnace=1)
    assert replace(Options(), steps=7) == Options(7)


@pytest.mark.parametrize(("call", "words"), [
    (lambda: md.smaple, "minidit has no 'smaple', did you mean 'sample'?"),
    (lambda: md.DIT["digit"], "there is no 'digit', did you mean 'digits'?"),
    (lambda: md.DiT("digits"), 'DiT takes a DiTConfig, not its name \'digits\': md.DIT["digits"]'),
    (lambda: md.DiT(md.DiTConfig), "DiT takes a DiTConfig, not <class"),
    (lambda: md.DiTConfig(hiden_size=3), "DiTConfig has no option 'hiden_size', did you mean 'hidden_size'?"),
    (lambda: md.train(None, None, stpes=3), "train has no option 'stpes', did you mean 'steps'?"),
    (lambda: md.sample(None, None, guidence=3), "sample has no option 'guidence', did you mean 'guidance'?"),
    (lambda: md.LoopConfig(batchsize=3), "LoopConfig has no option 'batchsize', did you mean 'batch_size'?"),
    (lambda: md.Sampling(stps=3), "Sampling has no option 'stps', did you mean 'steps'?"),
    (lambda: md.load(kaptions=True), "load has no option 'kaptions', did you mean 'captions'?"),
])  # fmt: skip
def test_a_public_name_or_option_is_suggested(call, words):
    with pytest.raises((TypeError, KeyError, AttributeError)) as caught:
        call()
    assert str(caught.value).startswith(words)


def test_the_methods_of_a_pipeline_suggest_their_options():
    for method in (md.Pipeline.sample, md.Pipeline.latents, md.Pipeline.settings):
        assert "guidance" in inspect.signature(method).parameters
        with pytest.raises(TypeError, match="has no option 'stpes', did you mean 'steps'"):
            method(None, stpes=3)


@pytest.mark.parametrize("name", CALLABLE)
def test_no_signature_shows_an_address_or_hides_its_options(name):
    thing = getattr(md, name)
    try:
        signature = inspect.signature(thing)
    except ValueError:  # of a type made in C
        return
    assert not re.search(r"0x[0-9a-f]{6}|<factory>|<lambda>", str(signature))
    assert not [p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]


@pytest.mark.parametrize("name", ["sample", "train", "load", "Pipeline", "Sampling", "DiT", "Schedule"])
def test_help_shows_no_address(name):
    text = pydoc.render_doc(getattr(md, name), renderer=pydoc.plaintext)
    assert not re.findall(r"0x[0-9a-f]{6,}", text)


def test_every_public_name_is_there_and_is_listed():
    assert sorted(md.__all__) == dir(md) and len(set(md.__all__)) == len(md.__all__)
    assert all(hasattr(md, name) for name in md.__all__)


def test_a_warning_about_unknown_words_points_at_the_line_of_the_caller():
    with pytest.warns(UserWarning, match="does not know 'frogg', did you mean 'frog'") as caught:
        md.load(captions=True).labels("frogg, fluent", 1)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning) as caught:
        md.load(captions=True).sample("frogg, fluent", steps=1)
    assert caught[0].filename == __file__
