"""Runs on pictures with captions: trained, drawn from prompts, measured, shown, from their folder alone."""

import json

import numpy as np
import pytest
from data.test_captions import CAPTIONS, jsonl, lines_of, pictures
from PIL import Image

from minidit.cli import main
from minidit.data import Dataset
from minidit.data.captions import Vocabulary
from minidit.html.measures import SOURCES
from minidit.runs.fitting import EXAMPLES, known_words
from minidit.runs.loading import WORDS, load
from minidit.runs.presets import SHIPPED
from minidit.runs.prompted import shares, similarity, spread

PAIRS = [(c, s) for c in ("red", "green", "blue", "black", "white") for s in ("cat", "dog", "cow", "pig")]
NAMES = {f"{k:02d}.png": f"{colour} {shape}, style{k % 3}" for k, (colour, shape) in enumerate(PAIRS)}
SMALL = [
    "--preset", "words", "--steps", "3", "--batch-size", "4", "--hidden-size", "16", "--depth", "1", "--num-heads", "2",
    "--patch-size", "4", "--sample-steps", "2", "--sample-every", "2", "--warmup", "1", "--threads", "1", "--quiet",
]  # fmt: skip


@pytest.fixture(scope="module", params=["dit", "mmdit"])
def run(request, tmp_path_factory):
    """The folder of a finished run."""
    home = tmp_path_factory.mktemp(request.param)
    folder = jsonl(pictures(home / "set", NAMES), lines_of(NAMES))
    assert main(["train", "--data", str(folder), "--model", request.param, "--out", str(home / "run"), *SMALL]) == 0
    return home / "run"


def test_the_words_travel_with_the_weights(run):
    pipeline = load(run)
    assert set(pipeline.vocabulary.words) == {word for text in NAMES.values() for word in text.replace(",", "").split()}
    assert pipeline.vocabulary.length == 3 and len(pipeline.examples()) <= EXAMPLES
    assert (run / "samples" / "step_00000002.png").exists() and (run / "pictures" / "samples.png").exists()


def test_prompts_are_drawn_in_their_order_and_their_unknown_words_named(run, tmp_path, capsys):
    out = tmp_path / "x.npz"
    words = ["--prompt", "red cat, style0", "--prompt", "Grean dog style1", "--steps", "2", "--out", str(out)]
    assert main(["sample", str(run), *words, "--quiet"]) == 0
    assert "note: 'Grean dog style1': the model does not know 'grean', did you mean 'green'?" in capsys.readouterr().err
    with np.load(out) as arrays:
        assert arrays["captions"].tolist() == ["red cat style0", "dog style1"] and arrays["arr_0"].shape == (2, 8, 8, 3)
    with pytest.warns(UserWarning, match="did you mean 'green'"):
        x = load(run).sample(["red cat, style0", "Grean dog style1"], steps=2)
    with np.load(out) as arrays:
        assert np.abs(arrays["arr_0"].transpose(0, 3, 1, 2) / 127.5 - 1 - x).max() < 0.01


def test_what_is_drawn_without_a_prompt_are_captions_that_were_kept(run, tmp_path):
    pipeline = load(run)
    rows = pipeline.labels(None, 5)
    assert pipeline.vocabulary.texts(rows)[:2] == pipeline.examples()[:2] and len(rows) == 5
    assert (pipeline.labels("red cat") == pipeline.vocabulary.rows(["red cat"])).all()
    assert main(["sample", str(run), "-n", "3", "--steps", "2", "--out", str(tmp_path / "x.png"), "--quiet"]) == 0
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.width > 3 * 100


@pytest.mark.parametrize("words, why", [
    (["--labels", "3"], "reads captions: say what to draw with --prompt (its words: minidit info "),
    (["--prompt", "giraffe"], "does not know 'giraffe' (its words: minidit info "),
    (["--prompt", "red cat red cat"], "has 4 words, the model reads 3"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_refused_in_one_line(run, words, why, capsys):
    assert main(["sample", str(run), *words, "--quiet"]) != 0
    error = capsys.readouterr().err
    assert why in error and error.count("\n") == 1


def test_a_prompt_that_is_shorter_than_every_caption_is_remarked_on(run, tmp_path, capsys):
    for words, remarked in (("cat", True), ("red cat, style0", False)):
        assert main(["sample", str(run), "--prompt", words, "--steps", "1", "--out", str(tmp_path / "x.png"), "--quiet"]) == 0
        assert ("'cat' is shorter than the captions that the model knows, such as '" in capsys.readouterr().err) == remarked


def test_a_prompt_for_a_model_of_classes_is_refused(tmp_path, capsys):
    assert main(["sample", str(SHIPPED / "fashion"), "--prompt", "bag", "--out", str(tmp_path / "x.png")]) != 0
    assert "--prompt: this model knows 10 classes, no captions: choose with --labels" in capsys.readouterr().err


def test_eval_looks_for_the_right_picture_among_all(run, capsys):
    assert main(["eval", str(run), "-n", "4", "--quiet"]) == 0
    rows = {row["name"]: row for row in json.loads((run / "eval.json").read_text())["rows"]}
    assert set(rows) <= set(SOURCES)
    assert set(rows) == {"held-out captions", "training captions", "nearest caption's picture", "chance"}
    assert all(0 <= row["top_1"] <= row["top_5"] <= 1 for row in rows.values()) and rows["chance"]["top_1"] == 1 / len(NAMES)
    assert (run / "pictures" / "prompted.png").exists() and "right first" in (run / "report.html").read_text("utf-8")


def test_a_network_without_words_is_refused_for_captions(tmp_path, capsys):
    folder = jsonl(pictures(tmp_path / "set"), lines_of(CAPTIONS))
    words = ["--model", "unet", "--pixels", "--steps", "1", "--out", str(tmp_path / "run"), "--quiet"]
    assert main(["train", "--data", str(folder), *words]) != 0
    assert "does not read: add --model mmdit, or dit" in capsys.readouterr().err


def test_captions_are_as_like_as_their_words():
    rows = np.array([[2, 3, 0], [3, 4, 5], [2, 3, 2]])
    agree = similarity(rows, rows, 6)
    assert np.allclose(agree, [[1, 1 / 4, 1], [1 / 4, 1, 1 / 4], [1, 1 / 4, 1]])
    assert shares(np.array([0, 1, 4, 5])) == {"top_1": 0.25, "top_5": 0.75, "median": 3.5}
    assert spread(10, 3).tolist() == [0, 4, 9] and spread(2, 5).tolist() == [0, 1]


def test_a_word_of_held_out_captions_alone_is_unknown():
    vocabulary = Vocabulary.of(["red cat", "green cat", "blue dog"])
    images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1)
    whole = Dataset("set", images, vocabulary.rows(["red cat", "green cat", "blue dog"]), (), vocabulary=vocabulary)
    train, held_out = known_words(whole.take([0, 1]), whole.take([2]))
    assert train.vocabulary.words == ("cat", "green", "red") and train.vocabulary == held_out.vocabulary
    assert train.vocabulary.texts(train.captions) == ["red cat", "green cat"]
    assert held_out.vocabulary.texts(held_out.captions) == ["? ?"]


@pytest.mark.skipif(not (SHIPPED / WORDS).is_dir(), reason="no weights for words are shipped")
def test_the_shipped_weights_draw_what_they_are_asked_for(tmp_path):
    """A red heart is mostly red and a blue book mostly blue, whatever else they are; the whole is small enough to be shipped."""
    file = tmp_path / "x.npz"
    words = ["--prompt", "red heart, noto", "--prompt", "blue book, fluent", "--steps", "8", "--out", str(file), "--quiet"]
    assert main(["sample", *words]) == 0
    with np.load(file) as arrays:
        red, green, blue = arrays["arr_0"][:, 8:24, 8:24].astype(float).mean((1, 2)).T
    assert red[0] > max(green[0], blue[0]) + 80 and blue[1] > red[1] + 80
    assert (SHIPPED / WORDS / "model.safetensors").stat().st_size < 10_000_000
    assert "CC BY 4.0" in (SHIPPED / WORDS / "CARD.md").read_text("utf-8")
