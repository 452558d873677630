"""`minidit info NAME`: everything that is shipped is listed, and every name on the list leads somewhere."""

import re

import pytest

import minidit as md
from minidit.cli.about import calls_of, calls_of_writing, shipped
from minidit.data.embedded import EMBEDDED
from minidit.runs.presets import PRESETS, networks

NAMES = sorted({*shipped(), *EMBEDDED, *PRESETS, *networks()})


def test_everything_that_has_a_name_is_listed(minidit):
    out = minidit("info", "--no-speed")[1]
    assert [name for name in NAMES if not re.search(rf"^{re.escape(name)} ", out, re.M)] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_explained(minidit, name):
    code, out, err = minidit("info", name)
    said = {"shipped weights": name in shipped(), "an embedded data set": name in EMBEDDED, "a preset": name in PRESETS,
            "the sizes of a network": name in networks()}  # fmt: skip
    assert (code, err) == (0, "") and {what: f"{name}: {what}" in out for what in said} == said


def test_all_words_of_the_weights_and_all_captions_of_the_set_are_told(minidit):
    known = md.load(weights="words").vocabulary
    out = minidit("info", "words", "--all")[1]
    told = {word for line in out.splitlines() for word in re.split(r",\s*", line.strip())}
    assert set(known.words) <= told
    emoji = EMBEDDED["emoji"]("train")
    captions = {line.strip() for line in minidit("info", "emoji", "--all")[1].splitlines()}
    assert set(emoji.vocabulary.texts(emoji.captions)) <= captions


def test_a_name_that_nothing_has_is_answered_with_the_nearest(minidit):
    code, out, err = minidit("info", "fashon")
    assert (code, out) == (2, "") and err.endswith("did you mean 'fashion'?\n")


def test_the_calls_that_are_told_are_those_that_are_made(monkeypatch):
    """A guided call asks for two samples at once, one with and one without its class."""
    pipeline, asked, forward = md.load(weights="fashion"), [], md.DiT.forward

    def counted(self, x, *more):
        asked.append(len(x))
        return forward(self, x, *more)

    monkeypatch.setattr(md.DiT, "forward", counted)
    pipeline.sample([3], steps=8, solver="ab2_arc", shards=1)
    assert len(asked) == 8 and sum(asked) == calls_of(pipeline, pipeline.ladder, 8, "ab2_arc") == 12


@pytest.mark.parametrize("name", ["raster", "scales"])
def test_the_calls_of_codes_that_are_told_are_those_that_are_made(minidit, name):
    pipeline, asked = md.load(weights=name), []
    forward = pipeline.model.forward
    pipeline.model.forward = lambda seen, y, cache: [asked.append(len(y)), forward(seen, y, cache)][1]
    pipeline.sample([3], shards=1)
    calls = calls_of_writing(pipeline)
    assert len(asked) == pipeline.steps(None) and sum(asked) == calls
    assert f"{calls} calls, one per pass and two where it is guided" in " ".join(minidit("info", name)[1].split())
