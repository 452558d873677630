"""The cache of compiled files: made once, whole or not at all, whoever asks at the same time."""

import os
import threading

import pytest
import standin.cache as cache


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "FOLDER", tmp_path / "cache")
    return tmp_path / "cache"


def test_what_was_made_of_the_same_texts_is_not_made_again(folder):
    calls = []
    make = lambda path: (calls.append(1), path.write_text("made"))
    first, again, other = (cache.kept(".so", make, "text", flag) for flag in ("-O1", "-O1", "-O2"))
    assert first == again != other and len(calls) == 2 and first.read_text() == "made"
    assert cache.kept(".so", make, "te", "xt-O1") != first  # the border between two texts counts
    assert len(list(folder.iterdir())) == 3


def test_a_text_that_does_not_compile_leaves_nothing(folder):
    def refuse(path):
        path.write_text("half")
        raise RuntimeError("g++: error")

    with pytest.raises(RuntimeError):
        cache.kept(".so", refuse, "text")
    assert list(folder.iterdir()) == []


def test_all_who_make_a_file_at_the_same_time_see_it_whole():
    meet, seen = threading.Barrier(4), []

    def make(path):
        meet.wait()  # all four have found nothing
        path.write_text("whole" * 1000)

    def ask():
        seen.append(cache.kept(".so", make, "text").read_text())

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert seen == ["whole" * 1000] * 4


def test_a_file_that_nobody_has_asked_for_in_months_goes(folder):
    make = lambda path: path.write_text("made")
    old, used = cache.kept(".so", make, "old"), cache.kept(".so", make, "used")
    for path in (old, used):
        os.utime(path, (0, 0))
    cache.kept(".so", make, "used")
    cache.kept(".so", make, "new")
    assert used.exists() and not old.exists()
