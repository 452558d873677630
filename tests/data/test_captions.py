"""Captions: words become numbers and words again; unknown ones are named; folders with metadata files say what is wrong."""

import csv
import json

import numpy as np
import pytest
from data.bad import refused
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support import spec

from minidit import data
from minidit.data import emoji
from minidit.data.captions import LONGEST, UNKNOWN, Vocabulary, words_of
from minidit.data.counts import class_lines
from minidit.data.npz import SETS

WORD = st.from_regex(r"[a-z0-9]+(-[a-z]+)?", fullmatch=True)
CAPTION = st.lists(WORD, min_size=1, max_size=8)


@spec("N.15")
@given(st.lists(CAPTION, min_size=1, max_size=6))
def test_captions_survive_the_way_into_numbers_and_back(captions):
    texts = [" ".join(words) for words in captions]
    vocabulary = Vocabulary.of(texts)
    rows = vocabulary.rows(texts)
    assert vocabulary.texts(rows) == texts and rows.shape == (len(texts), max(map(len, captions)))
    assert rows.max() < len(vocabulary) and UNKNOWN not in rows
    assert all(
        (row[len(words) :] == 0).all() and (row[: len(words)] > UNKNOWN).all() for row, words in zip(rows, captions, strict=True)
    )


@spec("N.15")
def test_case_and_punctuation_are_no_words_and_hyphens_belong_to_them():
    assert words_of("Woman Scientist, medium-dark skin tone; O’Hare’s no.1!") == [
        "woman", "scientist", "medium-dark", "skin", "tone", "o'hare's", "no.1"]  # fmt: skip
    assert words_of("-- … !") == []


@spec("N.15")
def test_a_word_outside_the_vocabulary_is_number_one():
    vocabulary = Vocabulary.of(["red apple", "green"])
    assert vocabulary.words == ("apple", "green", "red") and vocabulary.length == 2
    assert vocabulary.rows(["red pear", "apple"]).tolist() == [[4, UNKNOWN], [2, 0]]
    assert vocabulary.text([4, UNKNOWN]) == "red ?"


def test_a_long_caption_is_read_to_the_longest_that_is_allowed():
    text = " ".join(f"w{k}" for k in range(LONGEST + 5))
    vocabulary = Vocabulary.of([text])
    assert vocabulary.length == LONGEST and vocabulary.rows([text]).all()


def test_unknown_words_of_a_prompt_are_named_with_a_suggestion_and_left_out():
    vocabulary = Vocabulary.of(["woman scientist, noto", "frog"])
    rows, remarks = vocabulary.prompts(["Woman scintist, noto", "frog"])
    assert vocabulary.texts(rows) == ["woman noto", "frog"]
    assert remarks == ["'Woman scintist, noto': the model does not know 'scintist', did you mean 'scientist'?"]
    with pytest.raises(data.DataError, match="the model does not know 'forg', did you mean 'frog'"):
        vocabulary.prompts(["forg"])
    with pytest.raises(data.DataError, match="holds no word"):
        vocabulary.prompts(["!?"])
    with pytest.raises(data.DataError, match="has 4 words, the model reads 3"):
        vocabulary.prompts(["frog frog frog frog"])


@pytest.mark.parametrize(
    "words, length, why", [(("a", "a"), 2, "twice"), (("a b",), 2, "not a word"), (("a",), 0, "range"), ((), 2, "range")]
)
def test_a_damaged_vocabulary_is_refused(words, length, why):
    with pytest.raises(data.DataError, match=why):
        Vocabulary(words, length)


# ------------------------------------------------------------------------------------------------ folders


CAPTIONS = {"1.png": "a red cat", "more/2.png": "a dog, sleeping", "3.png": "A CAT"}


def pictures(folder, names=CAPTIONS):
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (50 * k, 0, 0)).save(folder / name)
    return folder


def jsonl(folder, entries):
    lines = [e if isinstance(e, str) else json.dumps(e) for e in entries]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def lines_of(captions):
    return [{"file_name": name, "text": text, "more": 1} for name, text in captions.items()]


def table(folder, captions):
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["id", "file_name", "text"], *([k, *pair] for k, pair in enumerate(captions.items()))])
    return folder


@pytest.mark.parametrize("write", [lambda f: jsonl(f, lines_of(CAPTIONS)), lambda f: table(f, CAPTIONS)])
def test_every_picture_gets_its_caption_in_whatever_order_the_file_has_them(tmp_path, write):
    found = data.load(write(pictures(tmp_path)))
    assert found.vocabulary.words == ("a", "cat", "dog", "red", "sleeping") and found.num_classes == 0
    texts = found.vocabulary.texts(found.captions)
    red = [int(picture[0, 0, 0]) for picture in found.images]
    assert dict(zip(red, texts, strict=True)) == {0: "a red cat", 50: "a dog sleeping", 100: "a cat"}
    assert class_lines(found) == ["captions: 3 different ones, of 2 to 3 words each, with 5 different words"]


def test_the_parts_of_a_split_keep_vocabulary_and_captions(tmp_path):
    whole = data.load(jsonl(pictures(tmp_path), lines_of(CAPTIONS)))
    train, held_out = whole.split(1)
    assert train.vocabulary is held_out.vocabulary is whole.vocabulary
    both = np.concatenate([train.captions, held_out.captions])
    assert sorted(map(tuple, both)) == sorted(map(tuple, whole.captions))


def test_a_cached_folder_keeps_its_captions(tmp_path):
    folder = jsonl(pictures(tmp_path / "set"), lines_of(CAPTIONS))
    cache = data.Cache(tmp_path / "cache", least=0)
    first, again = (data.load(folder, cache=cache) for _ in range(2))
    assert first.key and first.key == again.key and (first.captions == again.captions).all()
    assert (first.captions == data.load(folder).captions).all()
    jsonl(folder, lines_of(CAPTIONS | {"3.png": "a lion"}))  # the pictures stay in the cache, the words are read again
    assert "lion" in data.load(folder, cache=cache).vocabulary.words


@pytest.mark.parametrize("entries, words", [
    ([{"file_name": "4.png", "text": "x"}], "no picture '4.png'"),
    ([{"file_name": "../1.png", "text": "x"}], "no picture '../1.png'"),
    ([{"file_name": "1.png"}], "no text for '1.png'"),
    ([{"file_name": "1.png", "text": " ?! "}], "no text for '1.png'"),
    ([{"file_name": "1.png", "text": ["x"]}], "no text for '1.png'"),
    ([{"text": "x"}], "no file_name"),
    (["{"], "not JSON"),
    (["[" * 100_000], "not JSON"),
    (["3"], "must be an object"),
    ([*lines_of(CAPTIONS), {"file_name": "1.png", "text": "x"}], "second caption for '1.png'"),
])  # fmt: skip
def test_a_bad_line_is_named(tmp_path, entries, words):
    refused(jsonl(pictures(tmp_path), entries), words, names="metadata.jsonl")
    with pytest.raises(data.DataError, match=rf"metadata.jsonl, line {len(entries)}"):
        data.load(tmp_path)


def test_a_picture_without_a_caption_is_named(tmp_path):
    refused(jsonl(pictures(tmp_path), lines_of({"1.png": "x"})), "no caption", names="3.png")


def test_a_table_without_the_two_columns_and_two_files_of_captions_are_refused(tmp_path):
    (pictures(tmp_path) / "metadata.csv").write_text("file,caption\n1.png,x\n")
    refused(tmp_path, "needs a first line with the columns file_name and text", names="metadata.csv")
    refused(jsonl(tmp_path, lines_of(CAPTIONS)), "two files of captions")


# ------------------------------------------------------------------------------------------------ emoji


def test_the_emoji_take_little_room_and_their_licences_name_the_three_sources():
    assert (SETS / "emoji.npz").stat().st_size < 2_000_000
    licence = (SETS / "emoji.LICENSE").read_text("utf-8")
    for words in (
        "Google LLC. Licensed under the Apache License, Version 2.0",
        "CC BY 4.0",
        "Microsoft Corporation. Licensed under the MIT",
    ):
        assert words in licence


def test_the_emoji_are_three_drawings_of_every_name_and_tone():
    whole = emoji.everything()
    n = len(whole.images) // 3
    assert whole.images.shape == (9417, 3, 32, 32) and len(whole.names) == 1594
    assert all((whole.emoji[:n] == whole.emoji[k * n : (k + 1) * n]).all() for k in range(3))
    assert whole.captions[int(np.flatnonzero(whole.tone == 5)[0])].endswith(", dark skin tone, noto")


def test_what_is_held_out_was_seen_in_parts():
    """A style that is held out was seen in the two others, a tone in other tones, and no word is in held-out captions only."""
    whole = emoji.everything()
    train, test = data.load("emoji"), data.load("emoji", part="test")
    assert len(train) + len(test) == len(whole.images) and not set(map(tuple, train.captions)) & set(map(tuple, test.captions))
    assert set(np.unique(test.captions)) <= set(np.unique(train.captions))
    seen = ~whole.held_out
    for e in np.unique(whole.emoji[whole.new_style]):
        mine = whole.emoji == e
        assert len(set(whole.style[mine & whole.new_style])) == 1 and len(set(whole.style[mine & seen])) == 2
        assert not (mine & seen & (whole.style == whole.style[mine & whole.new_style][0])).any()
    for e, t in {(e, t) for e, t in zip(whole.emoji[whole.new_tone], whole.tone[whole.new_tone], strict=True)}:
        assert t and (whole.new_tone[(whole.emoji == e) & (whole.tone == t)]).all()
    assert 0.2 < whole.new_style.mean() * 3 < 0.28 and 0.06 < whole.new_tone[whole.tone > 0].mean() < 0.1


def test_labels_that_are_no_captions_of_the_vocabulary_are_refused():
    images, vocabulary = np.zeros((2, 3, 4, 4), np.uint8), Vocabulary.of(["a b"])
    for labels, why in [
        (np.zeros(2, np.int64), "must be int64"),
        (np.zeros((2, 3), np.int64), "must be int64"),
        (np.full((2, 2), 9), "go from 9 to 9"),
        (np.full((2, 2), -1), "go from -1"),
        (np.zeros((3, 2), np.int64), "3 labels for 2"),
    ]:
        with pytest.raises(data.DataError, match=why):
            data.Dataset("set", images, labels, (), vocabulary=vocabulary)
    with pytest.raises(data.DataError, match="has no captions"):
        _ = data.Dataset("set", images, None, ()).captions
