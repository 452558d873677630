"""Every bad input gives one clear line that names the file."""

import bz2
import gzip
import os
import pickle
import re
import struct
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minidit import data
from minidit.data import checks, npz

DIMS = (3, 8, 8)


def refused(path, words, *, names=None, **wishes):
    """load(path) raises a DataError of one line that holds the name of the bad file and these words."""
    with pytest.raises(data.DataError, match=words) as caught:
        data.load(path, **wishes)
    line = str(caught.value)
    assert "\n" not in line and os.path.basename(names or path) in line
    assert isinstance(caught.value, ValueError)
    return line


def idx_file(path, dims=DIMS, length=None, magic=(0, 0, 8), zipped=False):
    body = bytes([*magic, len(dims)]) + b"".join(n.to_bytes(4, "big") for n in dims)
    body += bytes(int(np.prod(dims)) if length is None else length)
    path.write_bytes(gzip.compress(body) if zipped else body)
    return path


def npz_file(folder, **arrays):
    np.savez(folder / "set.npz", **arrays)
    return folder / "set.npz"


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
    refused(tmp_path / name, r"not a data set that is known here: \.npz, IDX")


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
    ({"length": 191}, "truncated, 191 are there"),
    ({"length": 193}, "there are more"),
    ({"length": 0}, "truncated, 0 are there"),
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
    refused(file, "there are more")
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


# ------------------------------------------------------------------------------------------------ npz


X = np.zeros((2, 8, 8), np.uint8)


@pytest.mark.parametrize(("arrays", "words"), [
    ({"x_train": X}, "holds x_train; expected images"),
    ({"images": X, "label": [0, 1]}, "holds images, label; expected"),
    ({"images": X[0]}, r"\(8, 8\); expected"),
    ({"images": X[..., None, None]}, "expected"),
    ({"images": X[:0]}, "holds no images"),
    ({"images": np.zeros((2, 3, 8, 3), np.uint8)}, "both the second and the last axis"),
    ({"images": np.zeros((2, 2, 8, 8), np.uint8)}, "no axis has 1 or 3 channels"),
    ({"images": X.astype(int)}, "images are int64"),
    ({"images": X > 0}, "images are bool"),
    ({"images": X.astype(complex)}, "images are complex128"),
    ({"images": X * np.nan}, "128 values of images are not finite"),
    ({"images": X + 1.5}, "must lie in"),
    ({"images": X + 255.0}, "these reach from 255 to 255 .bytes: uint8"),
    ({"images": X - 2.0}, "these reach from -2 to -2"),
    ({"images": X + 0.3}, r"\[0, 1\] or \[-1, 1\]\? Add an array `range`"),
    ({"images": X + 1.0}, r"\[0, 1\] or \[-1, 1\]\? Add an array `range`"),
    ({"images": X + 0.3, "range": [0, 2]}, "range is .0, 2."),
    ({"images": X - 0.3, "range": [0, 1]}, "reach down to -0.3"),
    ({"images": X, "range": [0, 1]}, "its images are uint8"),
    ({"images": X + 0.0, "levels": 2}, "its images are floats"),
    ({"images": X + 9, "levels": 5}, "grey level 9, levels are 0..4"),
    ({"images": X, "levels": 0}, "levels must be in 2..256"),
    ({"images": X, "levels": [2, 3]}, "levels must be one whole number"),
    ({"images": X, "labels": [0, 1, 2]}, "3 labels for 2 images"),
    ({"images": X, "labels": [0, -1]}, "label -1 is out of range"),
    ({"images": X, "labels": [0, 10**9]}, "label 1000000000 is out of range"),
    ({"images": X, "labels": [0, 2], "class_names": ["a", "b"]}, "label 2 is out of range: there are 2"),
    ({"images": X, "labels": [0.0, 1.0]}, "labels must be whole numbers"),
    ({"images": X, "labels": [[0, 1]]}, "labels must be whole numbers"),
    ({"images": X, "labels": [0, 1], "class_names": [1, 2]}, "class_names must be a list of text"),
    ({"images": X, "labels": [0, 1], "class_names": "ab"}, "class_names must be a list of text"),
    ({"images": X, "labels": [0, 1], "class_names": [b"\xff", b"a"]}, "cannot be read"),
    ({"images": X, "labels": [0, 1], "class_names": ["a", "a"]}, "same name"),
    ({"images": X, "class_names": ["a"]}, "no labels"),
])
def test_an_npz_set_is_refused_with_its_reason(tmp_path, arrays, words):
    refused(npz_file(tmp_path, **arrays), words)


class Trap:
    def __reduce__(self):
        return (os.abort, ())


def test_objects_in_an_npz_are_never_loaded(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive, archive.open("images.npy", "w") as member:
        np.lib.format.write_array(member, np.array([Trap()], dtype=object), allow_pickle=True)
    refused(tmp_path / "set.npz", "holds Python objects .a pickle., which are never loaded")


def npy_header(shape, descr="|u1"):
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(("content", "words"), [
    (npy_header((2, 8, 8)) + bytes(127), "says 128 bytes .*the file holds 127"),
    (npy_header((2, 8, 8)) + bytes(129), "the file holds 129"),
    (npy_header((2**40, 8, 8)), "above the limit"),
    (npy_header((-2, -8, 8)) + bytes(128), "cannot be read"),
    (npy_header((2, 8, 8), "<U400000000"), "the file holds 0"),
    (npy_header("(2, __import__('os').abort())"), "cannot be read"),
    (b"\x93NUMPY\3\0" + bytes(100), "holds records"),
    (b"hello", "cannot be read"),
    (b"", "cannot be read"),
])
def test_a_lying_npy_header_is_found_before_its_data_is_read(tmp_path, content, words):
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("images.npy", content)
    refused(tmp_path / "set.npz", words)


def test_a_zip_bomb_is_refused_by_its_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "MAX_BYTES", 2**20)
    with zipfile.ZipFile(tmp_path / "set.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", npy_header((2**20, 1, 1)) + bytes(2**20))
    refused(tmp_path / "set.npz", "unpacks to 1048704 bytes, above the limit")


@settings(max_examples=60)
@given(st.data())
def test_no_damage_to_an_npz_escapes_as_another_error(tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("damage")
    file = folder / "set.npz"
    npz.write(file, {"images": np.arange(128, dtype=np.uint8).reshape(2, 8, 8), "labels": np.array([0, 1])},
              drawn.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])))
    whole = bytearray(file.read_bytes())
    if drawn.draw(st.booleans()):
        whole = whole[: drawn.draw(st.integers(0, len(whole) - 1))]
    else:
        whole[drawn.draw(st.integers(0, len(whole) - 1))] ^= drawn.draw(st.integers(1, 255))
    file.write_bytes(whole)
    try:
        d = data.load(file)  # a flipped date harms nobody
    except data.DataError as error:
        assert "set.npz" in str(error) and "\n" not in str(error)
    else:
        assert d.images.tobytes() == bytes(range(128)), "damaged pixels never pass"


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
    refused(tmp_path, "a folder that it lies in", names="self")


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
    refused(tmp_path, "not a picture", names=file)


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
