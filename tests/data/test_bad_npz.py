"""A bad .npz file gives one clear line that names it, and no byte of it is trusted before it is checked."""

import os
import struct
import zipfile

import numpy as np
import pytest
from data.bad import npz_file, refused
from hypothesis import given, settings
from hypothesis import strategies as st

from minidit import data
from minidit.data import npz

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
    ({"images": X + 255.0}, "these lie in .255, 255. .bytes must be uint8"),
    ({"images": X - 2.0}, "these lie in .-2, -2."),
    ({"images": X + 0.3}, r"\[0, 1\] or \[-1, 1\]\? Add an array `range`"),
    ({"images": X + 1.0}, r"\[0, 1\] or \[-1, 1\]\? Add an array `range`"),
    ({"images": X + 0.3, "range": [0, 2]}, "range is .0, 2."),
    ({"images": X - 0.3, "range": [0, 1]}, "the lowest value of images is -0.3"),
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
    (npy_header((2, 8, 8)) + bytes(127), "announces 128 bytes .*the file holds 127"),
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
