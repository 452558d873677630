"""The cache of decoded pictures: what is read from it is what is decoded, whoever damages, kills or shares it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minidit import data
from minidit.data import cache as cache_module
from minidit.data import cached, decode
from minidit.data.cache import Cache, named
from minidit.data.rows import Rows

ROOT = Path(__file__).parents[2]


def folder_of(path, counts=(5, 4), size=8, seed=0, grey=False):
    """Classes a, b, … of random pictures."""
    rng = np.random.default_rng(seed)
    for name, n in zip("abcdef", counts, strict=False):
        (path / name).mkdir(parents=True)
        for i in range(n):
            shape = (size, size) if grey else (size, size, 3)
            Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(path / name / f"{i}.png")
    return path


def disk(path, **more):
    """A cache that takes every set."""
    return Cache(path / "cache", least=0, **more)


def assert_same(one, other):
    """Two sets of the same pictures, bit for bit."""
    assert np.array_equal(one.images, other.images) and one.x_0().tobytes() == other.x_0().tobytes()
    assert (one.labels is None) == (other.labels is None) and (one.labels is None or np.array_equal(one.labels, other.labels))
    assert (one.class_names, one.levels, one.skipped) == (other.class_names, other.levels, other.skipped)
    assert np.array_equal(one.prints, other.prints)


def never(*_, **__):
    raise AssertionError("a picture was opened")


# ------------------------------------------------------------------------------------------------ the same pictures


@settings(max_examples=15)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.sampled_from([None, 8, 13]), st.sampled_from([None, 1, 3]),
       st.booleans(), st.integers(1, 4))  # fmt: skip
def test_pictures_on_disk_are_those_in_memory(tmp_path_factory, counts, size, channels, grey, rows):
    path = tmp_path_factory.mktemp("set")
    source = folder_of(path / "pictures", counts, grey=grey)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "BLOCK", rows * 3 * (size or 8) ** 2)  # several blocks
        stored = data.load(source, size=size, channels=channels, cache=disk(path))
    here = data.load(source, size=size, channels=channels)
    assert isinstance(stored.images, Rows) and isinstance(here.images, np.ndarray) and stored.key and not here.key
    assert_same(stored, here)
    index = np.arange(len(here))[::-2]
    assert_same(stored.take(index), here.take(index))
    assert_same(stored.take(index).take([0]), here.take(index).take([0]))
    if len(here) > 1:
        for a, b in zip(stored.split(1), here.split(1), strict=True):
            assert_same(a, b)


def test_a_sub_set_of_stored_pictures_reads_only_its_own(tmp_path):
    d = data.load(folder_of(tmp_path / "p"), cache=disk(tmp_path))
    assert isinstance(d.take(slice(3)).images, Rows) and d.take(slice(3)).images.base is d.images.base
    assert len({d.key, d.take(slice(3)).key, d.take([0, 2, 1]).key}) == 3 and not d.images.base.flags.writeable


def test_a_small_set_stays_in_memory_and_nothing_is_written(tmp_path):
    d = data.load(folder_of(tmp_path / "p"), cache=Cache(tmp_path / "cache", least=9 * 3 * 64))
    assert isinstance(d.images, np.ndarray) and not (tmp_path / "cache").exists()
    assert Cache().least == 2**28


def test_the_second_start_decodes_nothing_and_says_nothing(tmp_path, monkeypatch):
    lines, steps = [], []
    source = folder_of(tmp_path / "p")
    first = data.load(source, cache=disk(tmp_path, tell=lines.append, progress=lambda *step: steps.append(step)))
    assert len(lines) == 1 and "up to 0.0 MB are written to" in lines[0] and steps[-1] == ("pictures", 9, 9)
    monkeypatch.setattr(decode, "opened", never)
    assert_same(data.load(source, cache=disk(tmp_path, tell=lines.append)), first)
    assert len(lines) == 1


# ------------------------------------------------------------------------------------------------ the key


def entries(path):
    return sorted(p.name for p in (path / "cache").iterdir() if p.name != "locks")


@pytest.mark.parametrize("change", ["pixel", "more", "fewer", "name", "size", "channels", "format"])
def test_whatever_changes_the_pictures_makes_another_entry(tmp_path, monkeypatch, change):
    source, request = folder_of(tmp_path / "p"), {}
    data.load(source, cache=disk(tmp_path))
    file = source / "a" / "0.png"
    if change == "pixel":
        picture = np.asarray(Image.open(file)).copy()
        picture[0, 0, 0] ^= 1
        Image.fromarray(picture).save(file)
    elif change == "more":
        shutil.copy(file, source / "a" / "9.png")
    elif change == "fewer":
        file.unlink()
    elif change == "name":
        file.rename(source / "a" / "z.png")
    elif change == "format":
        monkeypatch.setattr(cache_module, "VERSION", 2)
    else:
        request = {change: {"size": 5, "channels": 1}[change]}
    assert_same(data.load(source, cache=disk(tmp_path), **request), data.load(source, **request))
    assert len(entries(tmp_path)) == 2


def test_pictures_that_were_only_copied_are_not_decoded_again(tmp_path, monkeypatch):
    source = folder_of(tmp_path / "p")
    first = data.load(source, cache=disk(tmp_path))
    os.utime(source / "a" / "0.png", (1, 1))
    moved = shutil.copytree(source, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    monkeypatch.setattr(decode, "opened", never)
    for place in (source, moved):
        assert_same(data.load(place, cache=disk(tmp_path)), first)
    assert len(entries(tmp_path)) == 1


def test_other_pictures_of_the_same_names_and_sizes_are_not_taken_for_these(tmp_path):
    for seed, name in enumerate("xy"):
        (tmp_path / name).mkdir()
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / name / "1.bmp")
        os.utime(tmp_path / name / "1.bmp", (seed, seed))
        assert_same(data.load(tmp_path / name, cache=disk(tmp_path)), data.load(tmp_path / name))


# ------------------------------------------------------------------------------------------------ trust


def damaged(entry, how):
    images, about = entry / "images", entry / "about.json"
    content = json.loads(about.read_text())
    if how == "a bit":
        b = bytearray(images.read_bytes())
        b[77] ^= 4
        images.write_bytes(b)
    elif how == "cut":
        images.write_bytes(images.read_bytes()[:-1])
    elif how == "gone":
        images.unlink()
    elif how == "no about":
        about.unlink()
    elif how == "noise":
        about.write_bytes(b"\xff{")
    elif how == "another key":
        about.write_text(json.dumps(content | {"key": "0" * 64}))
    elif how == "another shape":
        content["arrays"]["images"]["shape"] = [9, 3, 4, 16]
        content["arrays"]["kept"]["shape"] = [8]
        about.write_text(json.dumps(content))
    else:
        content["arrays"]["images"]["dtype"] = "O"
        about.write_text(json.dumps(content))


@pytest.mark.parametrize("how", ["a bit", "cut", "gone", "no about", "noise", "another key", "another shape", "objects"])
def test_a_damaged_entry_is_said_and_written_again(tmp_path, how):
    source, lines = folder_of(tmp_path / "p"), []
    data.load(source, cache=disk(tmp_path))
    (name,) = entries(tmp_path)
    damaged(tmp_path / "cache" / name, how)
    assert_same(data.load(source, cache=disk(tmp_path, tell=lines.append)), data.load(source))
    assert len(lines) == 2 and lines[0].endswith(": it is written again") and "\n" not in lines[0]
    assert entries(tmp_path) == [name]


def child(tmp_path, body):
    """A process that loads the set of tmp_path with its cache; `body` runs before."""
    text = f"""
    import os, signal, sys, time
    from pathlib import Path
    from minidit import data
    from minidit.data import decode
    from minidit.data.cache import Cache
    path = Path({str(tmp_path)!r})
    {body}
    d = data.load(path / "p", cache=Cache(path / "cache", least=0, tell=lambda line: print(line, flush=True)))
    print(int(d.images[:].sum(dtype="int64")))
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(text)], stdout=subprocess.PIPE, text=True, env=environment)


def test_a_kill_leaves_nothing_that_is_mistaken_for_an_entry(tmp_path):
    source = folder_of(tmp_path / "p")
    seventh = "n.append(1) or real(p) if len(n) < 7 else os.kill(os.getpid(), signal.SIGKILL)"
    die = f"decode.BLOCK = 600; real = decode.to_rgb; n = []; decode.to_rgb = lambda p: {seventh}"
    with child(tmp_path, die) as process:
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    (left,) = entries(tmp_path)
    assert ".building-" in left and (tmp_path / "cache" / left / "images").exists()
    other = folder_of(tmp_path / "q", seed=1)
    data.load(other, cache=disk(tmp_path))  # another set: it sweeps as well
    assert not any(".building-" in name for name in entries(tmp_path))
    assert_same(data.load(source, cache=disk(tmp_path)), data.load(source))


def test_two_processes_that_start_together_write_one_entry(tmp_path):
    source = folder_of(tmp_path / "p")
    slow = "real = decode.to_rgb; decode.to_rgb = lambda p: (time.sleep(0.05), real(p))[1]"
    both = [child(tmp_path, slow) for _ in range(2)]
    texts = [process.communicate(timeout=60)[0] for process in both]
    total = str(int(data.load(source).images.sum(dtype=np.int64)))
    assert [process.returncode for process in both] == [0, 0] and all(text.splitlines()[-1] == total for text in texts)
    assert sum("are written to" in text for text in texts) == 1 and len(entries(tmp_path)) == 1


def test_where_nothing_can_be_locked_two_processes_do_no_harm(tmp_path, monkeypatch):
    """The other one finishes while this one writes: its entry stays, and both read the same."""
    monkeypatch.setattr(cache_module, "fcntl", None)
    source, once = folder_of(tmp_path / "p"), []

    def meanwhile(*_):
        if not once:
            once.append(data.load(source, cache=disk(tmp_path)))

    mine = data.load(source, cache=disk(tmp_path, progress=meanwhile))
    assert_same(mine, once[0])
    assert len(entries(tmp_path)) == 1


# ------------------------------------------------------------------------------------------------ the disk


def test_too_small_a_disk_is_refused_before_anything_is_decoded(tmp_path, monkeypatch):
    source = folder_of(tmp_path / "p", (20,), size=64)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    monkeypatch.setattr(decode.Decoding, "blocks", never)
    with pytest.raises(data.DataError, match=r"/cache: the cache of .*/p needs 0\.2 MB, and 0\.1 MB are free: free 0\.1 MB"):
        data.load(source, cache=disk(tmp_path))
    assert entries(tmp_path) == []


def test_a_disk_that_fills_up_is_one_line_and_nothing_is_left(tmp_path, monkeypatch):
    def full(self, name, block):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module.Writer, "append", full)
    with pytest.raises(data.DataError, match=r"/cache: the cache cannot be written \(No space left on device\): name another"):
        data.load(folder_of(tmp_path / "p"), cache=disk(tmp_path))
    assert entries(tmp_path) == []


def test_the_cache_is_where_the_configuration_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert named("").folder == tmp_path / "home" / "minidit" / "data" and named(str(tmp_path)).folder == tmp_path
    assert named("off") is None
    (tmp_path / "file").write_text("")
    with pytest.raises(data.DataError, match="a file, not a folder"):
        named(str(tmp_path / "file"))
    (tmp_path / "home").write_text("")  # a place where no folder can be made
    with pytest.raises(data.DataError, match=r"cannot be written .*--cache DIR, or --cache off"):
        data.load(folder_of(tmp_path / "p"), cache=Cache(named("").folder, least=0))


# ------------------------------------------------------------------------------------------------ files that are left out


def with_bad_files(path):
    source = folder_of(path)
    (source / "a" / "notes.txt").write_text("hello")
    (source / "b" / "0.png").write_bytes((source / "b" / "1.png").read_bytes()[:60])
    return source


@pytest.mark.parametrize("size", [None, 8])
def test_one_error_names_the_bad_files_that_one_would_meet_next(tmp_path, size):
    source = folder_of(tmp_path / "p")
    for name in ("x", "y", "z", *"12345"):
        (source / "a" / f"{name}.doc").write_text("hello")
    with pytest.raises(data.DataError) as error:
        data.load(source, size=size)
    first, _, others = str(error.value).partition("; of the next ")
    assert "a/1.doc: not a picture" in first and f"{source}/a/2.doc, " in others
    assert others.count(".doc") == 5 and "and 2 more" in others
    for name in ("x", "y", "z", *"2345"):
        (source / "a" / f"{name}.doc").unlink()
    with pytest.raises(data.DataError, match=r"1\.doc") as error:
        data.load(source, size=size)
    assert "of the next" not in str(error.value)


@pytest.mark.parametrize("on_disk", [False, True])
def test_bad_files_are_left_out_on_request_and_listed(tmp_path, on_disk):
    source, cache = with_bad_files(tmp_path / "p"), disk(tmp_path) if on_disk else None
    with pytest.raises(data.DataError, match=r"\(or --skip-bad: leave out files that cannot be read\)$"):
        data.load(source, cache=cache)
    d = data.load(source, skip_bad=True, cache=cache)
    assert [file for file, _ in d.skipped] == ["a/notes.txt", "b/0.png"] and all("\n" not in why for _, why in d.skipped)
    (source / "a" / "notes.txt").unlink()
    (source / "b" / "0.png").unlink()
    good = data.load(source)
    assert np.array_equal(d.images, good.images) and np.array_equal(d.labels, good.labels) and good.skipped == ()


@pytest.mark.parametrize("on_disk", [False, True])
def test_the_files_that_were_left_out_once_are_left_out_again_and_no_others(tmp_path, on_disk, monkeypatch):
    source, cache = with_bad_files(tmp_path / "p"), disk(tmp_path) if on_disk else None
    first = data.load(source, skip_bad=True, cache=cache)
    names = {file for file, _ in first.skipped}
    if on_disk:
        with monkeypatch.context() as patch:
            patch.setattr(decode, "opened", never)  # the entry of the first reading serves
            assert_same(data.load(source, skip_bad=True, leave_out=names, cache=cache), first)
    shutil.copy(source / "b" / "1.png", source / "b" / "0.png")  # repaired: and still left out
    again = data.load(source, skip_bad=True, leave_out=names, cache=cache)
    assert np.array_equal(again.images, first.images) and {file for file, _ in again.skipped} == names
    (source / "a" / "1.png").write_bytes(b"x")
    with pytest.raises(data.DataError, match=r"1\.png: not a picture"):
        data.load(source, skip_bad=True, leave_out=names, cache=cache)


def test_a_set_or_a_class_of_bad_files_alone_is_refused(tmp_path):
    source = folder_of(tmp_path / "p", (2, 1))
    (source / "b" / "0.png").write_bytes(b"x")
    with pytest.raises(data.DataError, match=r"/b: not one picture of this class can be read"):
        data.load(source, skip_bad=True)
    for file in (source / "a").iterdir():
        file.write_bytes(b"x")
    with pytest.raises(data.DataError, match="not one of its files is a picture that can be read"):
        data.load(source / "a", skip_bad=True)


def test_the_key_of_a_link_to_nothing_is_no_error(tmp_path):
    source = folder_of(tmp_path / "p")
    os.symlink(tmp_path / "gone.png", source / "a" / "gone.png")
    d = data.load(source, skip_bad=True, cache=disk(tmp_path))
    assert d.skipped == (("a/gone.png", "a link to nothing"),) and len(cached.keys_of(source, [], decode.Request())) == 2


def test_a_folder_of_somebody_elses_is_never_swept(tmp_path):
    mine = tmp_path / "house.building-plans"
    mine.mkdir()
    (tmp_path / "locks").mkdir()  # as in a folder that is a cache already
    (mine / "plan.txt").write_text("mine")
    Cache(tmp_path)._sweep("")
    assert (mine / "plan.txt").read_text() == "mine"


def test_a_cache_in_a_place_that_may_not_be_looked_at_is_an_error_only_for_a_set_that_needs_it(tmp_path, monkeypatch):
    """As another user's home is: every look at it fails."""
    real = os.stat

    def stat(path, *arguments, **options):
        if str(path).startswith(str(tmp_path / "home")):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    def mkdir(path, *arguments, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "mkdir", mkdir)
    cache = named(str(tmp_path / "home" / "cache"))
    assert cache is not None and cache.find("key") is None and list(cache.similar("any")) == []
    with pytest.raises(data.DataError, match=r"the cache cannot be written \(Permission denied\): name another folder"):
        cache.entry("key", "pictures", 100, lambda writer: {})


def test_a_file_that_was_replaced_by_one_of_its_size_and_time_has_another_key(tmp_path):
    file = tmp_path / "a.ppm"
    file.write_bytes(b"P5 1 1 255 \x01")
    os.utime(file, ns=(5, 5))
    before = cached.keys_of(tmp_path, [file], decode.Request())
    other = tmp_path / "b.ppm"
    other.write_bytes(b"P5 1 1 255 \x02")
    os.utime(other, ns=(5, 5))
    other.replace(file)
    after = cached.keys_of(tmp_path, [file], decode.Request())
    assert before[0] != after[0] and before[1] == after[1]
