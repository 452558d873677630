"""Every bad input gives one clear line that names the file."""

import bz2
import gzip
import os
import pickle
import re
import struct
import zlib

import numpy as np
import pytest
from data.bad import npz_file, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minidit import data
from minidit.data import checks

DIMS = (3, 8, 8)


def idx_file(path, dims=DIMS, length=None, magic=(0, 0, 8), zipped=False):
    body = bytes([*magic, len(dims)]) + b"".join(n.to_bytes(4, "big") for n in dims)
    body += bytes(int(np.prod(dims)) if length is None else length)
    path.write_bytes(gzip.compress(body) if zipped else body)
    return path


def png(path, size=(8, 8), value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)
    return path


# ------------------------------------------------------------------------------------------------ paths


def test_a_missing_path_suggests_the_set_that_was_meant():
    assert "did you mean 'fashion'?" in refused("fasion", "no such file or folder; embedded sets are digits, fashion")
    assert "did you mean" not in refused("/nowhere/at/all", "no such file or folder")


def test_what_is_neither_file_nor_folder_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    refused(tmp_path / "pipe", "neither a file nor a folder")
    os.mkfifo(tmp_path / "a.png")
    refused(tmp_path, "not a file", names="a.png")


def test_impossible_names_are_one_line_too():
    refused("a\0b", "cannot be read|no such file")
    refused("two\nlines", "no such file", names="two lines")
    refused("x" * 5000, "cannot be read|no such file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    png(tmp_path / "a.png").chmod(0)
    refused(tmp_path, "Permission denied", names="a.png")


@pytest.mark.parametrize(("name", "content"), [
    ("a.txt", b"hello"), ("empty", b""), ("set.tar.gz", gzip.compress(b"ustar" * 200, mtime=0)), ("a.npy", b"\x93NUMPY"),
    ("a.bin", bytes(3073)), ("a.bz2", bz2.compress(b"x")),
])
def test_files_of_other_kinds_are_told_what_is_known(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, r"not a data set in a known format: \.npz, IDX")


@pytest.mark.parametrize("wishes", [{"size": 0}, {"size": 5000}, {"size": 2.5}, {"size": True}, {"channels": 2}, {"part": "dev"}])
def test_wishes_that_cannot_be_granted(wishes):
    with pytest.raises(data.DataError, match=next(iter(wishes))):
        data.load("digits", **wishes)


def test_a_part_of_what_comes_in_one_piece(tmp_path):
    png(tmp_path / "set" / "a.png")
    refused(tmp_path / "set", "no separate 'test' part", part="test")
    refused(npz_file(tmp_path, images=np.zeros(DIMS, np.uint8)), "no separate 'test' part", part="test")


# ------------------------------------------------------------------------------------------------ IDX


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("change", "words"), [
    ({"length": 191}, "truncated: it holds 191"),
    ({"length": 193}, "it holds more"),
    ({"length": 0}, "truncated: it holds 0"),
    ({"dims": (3, 8)}, "rank 2"),
    ({"dims": (3,)}, "images are type 0x08"),
    ({"dims": (2, 2, 8, 3)}, "rank 4"),
    ({"magic": (0, 0, 13)}, "type 0x0d"),
    ({"dims": (0, 8, 8)}, "holds no images"),
    ({"dims": (3, 0, 8)}, "holds no images"),
    ({"dims": (2**32 - 1,) * 3, "length": 8}, "above the limit"),
])
def test_an_idx_file_must_be_exactly_what_its_header_announces(tmp_path, change, words, zipped):
    refused(idx_file(tmp_path / "train-images-idx3-ubyte", **change, zipped=zipped), words)


def test_an_idx_file_by_name_that_is_something_else_by_content(tmp_path):
    idx_file(tmp_path / "train-labels-idx1-ubyte", (3,))
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(b"<html>not found</html>")
    refused(tmp_path, "not an IDX file .it starts with 3c 68 74 6d", names=file)
    file.write_bytes(b"\0\0\x08\x03\0\0")
    refused(tmp_path, "header is not complete", names=file)
    file.write_bytes(b"")
    refused(tmp_path, "not an IDX file", names=file)


def test_a_damaged_gz_file(tmp_path):
    file = idx_file(tmp_path / "train-images-idx3-ubyte.gz", (9, 64, 64), zipped=True)
    whole = file.read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:-4] + b"\0\0\0\1", whole[:12] + b"\xff" * 30, whole[:5]):
        file.write_bytes(broken)
        refused(file, "cannot be read")


def test_a_gz_bomb_is_not_unpacked_further_than_its_header_says(tmp_path, monkeypatch):
    file = tmp_path / "train-images-idx3-ubyte.gz"
    header = b"\0\0\x08\x03" + struct.pack(">3I", *DIMS)
    file.write_bytes(gzip.compress(header + bytes(2**24), 9))
    taken = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, size=-1: taken.append(size) or read(self, size))
    refused(file, "it holds more")
    with pytest.raises(data.DataError):  # again, in this process
        data.load(file)
    assert max(taken) == np.prod(DIMS) + 1 and min(taken) > 0


def test_idx_labels_must_be_there_and_as_many(tmp_path):
    idx_file(tmp_path / "train-images-idx3-ubyte")
    refused(tmp_path, "train-labels-idx1-ubyte .or .gz. is missing")
    idx_file(tmp_path / "train-labels-idx1-ubyte", (4,))
    refused(tmp_path, "4 labels for 3 images", names="train-labels-idx1-ubyte")
    refused(tmp_path / "train-images-idx3-ubyte", "4 labels for 3 images", names="train-labels-idx1-ubyte")
    refused(tmp_path, "t10k-images-idx3-ubyte .or .gz. is missing", part="test")
    refused(tmp_path / "train-labels-idx1-ubyte", "images are type 0x08 .bytes. of rank 3")


# ------------------------------------------------------------------------------------------------ CIFAR


def cifar_file(path, labels=(1, 2), extra=b"", lead=0):
    path.write_bytes(b"".join(bytes([0] * lead + [y]) + bytes(3072) for y in labels) + extra)
    return path


def test_cifar_records_must_be_whole_and_their_labels_in_range(tmp_path):
    refused(cifar_file(tmp_path / "data_batch_1.bin", extra=b"x"), "6147 bytes is not a whole number of records of 3073")
    refused(cifar_file(tmp_path / "data_batch_1.bin", labels=()), "0 bytes")
    refused(cifar_file(tmp_path / "data_batch_1.bin", labels=(3, 10)), "label 10 is out of range: there are 10")
    refused(cifar_file(tmp_path / "train.bin", labels=(3, 100), lead=1), "label 100 is out of range: there are 100")
    refused(cifar_file(tmp_path / "train.bin", labels=(3,)), "records of 3074")


def test_cifar_folders_must_hold_the_part_and_as_many_names(tmp_path):
    cifar_file(tmp_path / "data_batch_1.bin")
    refused(tmp_path, "test file is missing", part="test")
    (tmp_path / "batches.meta.txt").write_text("cat\ndog\n")
    refused(tmp_path, "names 2 classes, not 10", names="batches.meta.txt")
    (tmp_path / "batches.meta.txt").write_bytes(b"\xff\xfe")
    refused(tmp_path, "cannot be read", names="batches.meta.txt")


def test_the_python_version_of_cifar_is_refused_and_not_run(tmp_path):
    content = pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [1]}, protocol=2)
    (tmp_path / "data_batch_1").write_bytes(content)
    refused(tmp_path, "is a pickle .*never loaded: use the binary version", names="data_batch_1")
    refused(tmp_path / "data_batch_1", "is a pickle")
    (tmp_path / "data_batch_1").rename(tmp_path / "data_batch_1.bin")
    refused(tmp_path / "data_batch_1.bin", "is a pickle")


# ------------------------------------------------------------------------------------------------ folders


def test_folders_without_pictures(tmp_path):
    refused(tmp_path, "holds no pictures")
    (tmp_path / ".hidden").write_text("x")
    refused(tmp_path, "holds no pictures")
    png(tmp_path / "cat" / "a.png")
    (tmp_path / "dog" / "deeper").mkdir(parents=True)
    refused(tmp_path, "holds no pictures", names="dog")


def test_files_that_are_not_pictures_are_named_and_not_skipped(tmp_path):
    png(tmp_path / "cat" / "a.png")
    note = tmp_path / "cat" / "deep" / "notes.txt"
    note.parent.mkdir()
    note.write_text("hello")
    refused(tmp_path, "not a picture", names=note)
    note.unlink()
    png(tmp_path / "stray.png")
    refused(tmp_path, "a file beside the class folders", names="stray.png")


def test_parts_are_not_taken_for_classes(tmp_path):
    for part in ("train", "test"):
        png(tmp_path / part / "cat" / "a.png")
    refused(tmp_path, r"are parts \(test, train\), not classes: name one of them")
    assert data.load(tmp_path / "train").class_names == ("cat",)


def test_broken_and_circular_links(tmp_path):
    png(tmp_path / "cat" / "a.png")
    os.symlink(tmp_path / "gone.png", tmp_path / "cat" / "b.png")
    refused(tmp_path, "a link to nothing", names="b.png")
    (tmp_path / "cat" / "b.png").unlink()
    os.symlink(tmp_path / "cat", tmp_path / "cat" / "self")
    refused(tmp_path, "a folder that contains it", names="self")


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bytes(w, h, rows):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_a_picture_bomb_is_refused_by_its_header(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(png_bytes(8193, 8193, b"\0" * 100))
    refused(tmp_path, "8193×8193 is 67125249 pixels, above the limit of 67108864", names=file)
    file.write_bytes(png_bytes(60000, 60000, b"\0" * 100))
    refused(tmp_path, "pixels", names=file)


def test_truncated_and_damaged_pictures(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    for suffix in (".png", ".jpg", ".gif", ".bmp"):
        file = tmp_path / f"a{suffix}"
        Image.fromarray(noise).save(file)
        file.write_bytes(file.read_bytes()[:1500])
        refused(tmp_path, "cannot be read", names=file)
        file.unlink()
    file = tmp_path / "a.png"
    file.write_bytes(png_bytes(8, 8, b"\0" * 20))  # fewer rows than announced
    refused(tmp_path, "cannot be read", names=file)
    file.write_bytes(b"")
    refused(tmp_path, "an empty file, of 0 bytes: copy it again", names=file)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_of_unknown_range_are_not_guessed(tmp_path, dtype):
    Image.fromarray(np.zeros((8, 8), dtype)).save(tmp_path / "a.tiff")
    refused(tmp_path, "pixels of mode '[FI]' have no known range", names="a.tiff")


def test_more_values_than_the_limit_are_refused_before_they_are_allocated(tmp_path, monkeypatch):
    for i in range(5):
        png(tmp_path / f"{i}.png")
    monkeypatch.setattr(checks, "MAX_VALUES", 5 * 3 * 64)
    assert len(data.load(tmp_path)) == 5
    refused(tmp_path, r"\(5, 3, 16, 16\) is 3840 values, above the limit of 960", size=16)


@settings(max_examples=60)
@given(st.binary(max_size=64), st.sampled_from(["a.npz", "train-images-idx3-ubyte", "x.gz", "train.bin", "b.png"]),
       st.sampled_from([b"", b"PK\3\4", b"\x1f\x8b\x08", b"\0\0\x08\x03", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF89a"]))
def test_arbitrary_bytes_never_escape_as_another_error(tmp_path_factory, content, name, start):
    folder = tmp_path_factory.mktemp("noise")
    (folder / name).write_bytes(start + content)
    for path in (folder, folder / name):
        with pytest.raises(data.DataError, match=re.escape(folder.name)):
            data.load(path)
