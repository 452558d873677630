"""Arrays in files: any layout of memory comes back as it was, a file is whole or not there, and bad files say so."""

import errno
import hashlib
import json
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from checkpoint import second_reader
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support import host

from minidit.checkpoint import CheckpointError, read_arrays, write_arrays, write_atomically
from minidit.checkpoint.files import lazy, write_lazy

DTYPES = st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.int32, np.uint8, np.bool_])
ROOT = Path(__file__).resolve().parents[2]


@st.composite
def laid_out(draw):
    """An array of 0 to 4 axes whose memory is transposed, strided, reversed, a slice, or repeated."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=4))
    a = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 100, shape).astype(draw(DTYPES))
    for change in draw(st.lists(st.sampled_from(["transpose", "stride", "reverse", "fortran", "stretch", "slice"]), max_size=3)):
        if change == "transpose":
            a = a.transpose(draw(st.permutations(range(a.ndim))))
        elif change == "stride" and a.ndim:
            a = a[::2]
        elif change == "reverse" and a.ndim:
            a = a[..., ::-1]
        elif change == "fortran":
            a = np.asfortranarray(a)
        elif change == "stretch":
            a = np.broadcast_to(a, (2, *a.shape))
        elif change == "slice" and a.ndim:
            a = a[1:]
    return a


def same(a, b):
    assert a.shape == b.shape and a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "arrays.safetensors"


def compact_header(path):
    """(the header without its digest and without spaces, the data), as the digest sees them."""
    data = path.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    entries = json.loads(data[8 : 8 + n])
    del entries["__metadata__"]["sha256"]
    return json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode(), data[8 + n :]


def leftovers(path):
    return sorted(p.name for p in path.parent.iterdir() if p != path)


# ------------------------------------------------------------------------------------------------ round trips


@given(st.dictionaries(st.text(min_size=1, max_size=8), laid_out(), max_size=4))
def test_arrays_of_any_layout_come_back_and_a_second_reader_sees_the_same(path, arrays):
    write_arrays(path, arrays, {"step": 3})
    ours, meta = read_arrays(path)
    theirs, raw = second_reader.read(path)
    assert set(ours) == set(theirs) == set(arrays)
    for name, a in arrays.items():
        same(ours[name], a)
        same(theirs[name], a)
    header, data = compact_header(path)
    assert meta == {"step": 3} and raw == {"step": "3", "sha256": hashlib.sha256(header + data).hexdigest()}
    assert leftovers(path) == []


@given(arrays=st.dictionaries(st.text(min_size=1, max_size=8), laid_out(), max_size=4))
def test_a_file_of_a_second_writer_is_read(path, arrays):
    second_reader.write(path, arrays, {"tool": "another"})
    ours, meta = read_arrays(path)
    assert meta == {"tool": "another"}
    for name, a in arrays.items():
        same(ours[name], a)


@pytest.mark.parametrize(
    "a",
    [
        np.arange(6.0).reshape(2, 3).T,
        np.arange(6.0)[::-1],
        np.arange(12.0).reshape(3, 4)[:, ::2],
        np.arange(12.0).reshape(3, 4)[::-1, ::-1],
        np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
        np.float64(3.5) + np.zeros(()),
        np.zeros((0, 3)),
        np.broadcast_to(np.float32(2), (3, 2)),
        np.arange(4, dtype=">f4"),
    ],
    ids=["transposed", "reversed", "strided", "both reversed", "columns first", "no axes", "empty", "stretched", "big-endian"],
)
def test_layouts_that_are_known_to_go_wrong(path, a):
    write_arrays(path, {"a": a, "after": np.ones(3)}, {})
    for arrays, _ in (read_arrays(path), second_reader.read(path)):
        assert arrays["a"].shape == a.shape and arrays["a"].dtype == a.dtype.newbyteorder("=")
        np.testing.assert_array_equal(arrays["a"], a)
        np.testing.assert_array_equal(arrays["after"], np.ones(3))


def test_arrays_of_a_device_are_written_from_the_host(xp, path):
    a = xp.arange(6, dtype=xp.float32).reshape(2, 3)
    write_arrays(path, {"a": a.T, "b": a[0, 0]}, {})
    arrays, _ = read_arrays(path)
    np.testing.assert_array_equal(arrays["a"], host(a).T)
    assert isinstance(arrays["a"], np.ndarray) and arrays["b"].shape == () and float(arrays["b"]) == 0


def test_float16_halves_the_floats_and_leaves_the_integers(path):
    a = np.random.default_rng(0).standard_normal((30, 40)).astype(np.float32)
    write_arrays(path, {"a": a.T, "n": np.arange(70_000)}, {}, dtype=np.float16)
    arrays, _ = second_reader.read(path)
    assert arrays["a"].dtype == np.float16 and arrays["n"].dtype == np.int64 and arrays["n"][-1] == 69_999
    assert np.abs(arrays["a"] - a.T).max() <= 2.0**-11 * np.abs(a).max()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e300, 1e300) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=4))
def test_metadata_is_any_json(path, meta):
    write_arrays(path, {"a": np.ones(2)}, meta)
    assert read_arrays(path)[1] == meta


def test_equal_contents_are_equal_bytes_and_the_arrays_stay_aligned(path):
    arrays, meta = {"a": np.arange(3.0), "b": np.ones((2, 2), np.float32)}, {k: k for k in "zyxwvutsrq"}
    files = set()
    for order in (list(meta), sorted(meta)):
        write_arrays(path, arrays, {k: meta[k] for k in order})
        files.add(path.read_bytes())
    (data,) = files
    assert int.from_bytes(data[:8], "little") % 8 == 0


def test_the_bytes_are_those_of_the_library(path):
    """Wide types first, then by name: whoever writes the same arrays writes the same file."""
    kinds = ("f4", "f8", "u1", "b1", "f2", "i8", "i4", "u2", "i2", "u4", "u8", "i1")
    arrays = {f"{i}é": np.arange(6).reshape(2, 3).astype(t) for i, t in enumerate(kinds)} | {"a": np.ones(3, "f4")}
    theirs = safetensors.numpy.save(arrays, {"format": "pt"})
    write_lazy(path, {name: lazy(a) for name, a in arrays.items()}, {"format": "pt"})
    assert path.read_bytes() == theirs


def test_metadata_that_is_not_json_stays_text(path):
    second_reader.write(path, {"a": np.ones(1)}, {"format": "pt", "license": "{MIT"})
    assert read_arrays(path)[1] == {"format": "pt", "license": "{MIT"}


# ------------------------------------------------------------------------------------------------ whole or not at all


def test_a_file_replaces_the_old_one_and_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two" and leftovers(path) == []


@pytest.mark.parametrize("where", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_accident_on_the_way_leaves_the_old_file_and_nothing_else(path, monkeypatch, where, error):
    write_arrays(path, {"a": np.zeros(3)}, {})
    old = path.read_bytes()

    def fail(*_):
        raise error

    monkeypatch.setattr(os, where, fail)
    with pytest.raises(type(error)):
        write_arrays(path, {"a": np.ones(3)}, {})
    assert path.read_bytes() == old and leftovers(path) == []


CHILD = """
import resource, signal, sys
import numpy as np
from minidit.checkpoint import write_arrays
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_arrays(sys.argv[1], {"a": np.ones(10_000)}, {})
except OSError as error:
    print(type(error).__name__, error.errno)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on the size of files")
def test_a_disk_that_is_full_half_way_leaves_the_old_file_and_nothing_else(path):
    write_arrays(path, {"a": np.zeros(3)}, {})
    old = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", CHILD, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["WriteError", str(errno.EFBIG)], done.stderr
    assert path.read_bytes() == old and leftovers(path) == []


def test_a_folder_in_the_place_of_a_file_is_an_error_that_leaves_nothing(path):
    path.mkdir()
    with pytest.raises(OSError, match=r"arrays\.safetensors"):
        write_arrays(path, {"a": np.zeros(3)}, {})
    assert leftovers(path) == []


def test_what_cannot_be_written_is_refused_before_the_old_file_is_touched(path):
    write_arrays(path, {"a": np.zeros(3)}, {})
    old = path.read_bytes()
    with pytest.raises(TypeError):
        write_arrays(path, {"a": np.ones(3)}, {"bad": object()})
    with pytest.raises(CheckpointError, match=r"arrays\.safetensors"):
        write_arrays(path, {"a": np.array(["words"])}, {})
    assert path.read_bytes() == old and leftovers(path) == []


# ------------------------------------------------------------------------------------------------ bad files


def refused(path):
    """Reading raises one line that names the file."""
    with pytest.raises(CheckpointError) as caught:
        read_arrays(path)
    line = str(caught.value)
    assert "\n" not in line and str(path) in line and isinstance(caught.value, ValueError)
    return line


@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_anywhere_is_refused(path, cut):
    write_arrays(path, {"a": np.arange(50.0), "b": np.ones((2, 3))}, {"k": "v"})
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))])
    assert "not a readable safetensors file" in refused(path)


@given(place=st.integers(0), bit=st.integers(0, 7))
def test_a_bit_that_flipped_anywhere_is_noticed(path, place, bit):
    """In the header, in the data, in the digest itself; only the spaces that fill up the header mean nothing."""
    write_arrays(path, {"a": np.arange(50.0), "b": np.ones((2, 3))}, {"step": 12345})
    data = bytearray(path.read_bytes())
    place %= len(data)
    filling = data[place : place + 1].isspace() and place < 8 + int.from_bytes(data[:8], "little")
    data[place] ^= 1 << bit
    path.write_bytes(data)
    if not filling:
        refused(path)


def test_a_number_that_changed_is_called_damage(path):
    write_arrays(path, {"a": np.arange(50.0)}, {"step": 12345})
    path.write_bytes(path.read_bytes().replace(b"12345", b"12845"))
    assert refused(path).endswith("damaged: its contents do not match its checksum")


def header(text):
    return struct.pack("<Q", len(text)) + text


ENTRY = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
FOREIGN = {
    "empty": b"",
    "text": b"hello, this is no checkpoint at all\n" * 10,
    "a zip, as torch.save writes": b"PK\x03\x04" + bytes(200),
    "a pickle": b"\x80\x04\x95" + bytes(100),
    "an npz name": b"\x93NUMPY\x01\x00v\x00" + bytes(200),
    "a header longer than the file": struct.pack("<Q", 2**40) + b"{}",
    "a header that is no JSON": header(b"{not json}"),
    "a header that is a list": header(b"[1, 2]"),
    "an unknown type": header(json.dumps({"a": {**ENTRY, "dtype": "F7"}}).encode()) + bytes(16),
    "a shape that does not match": header(json.dumps({"a": {**ENTRY, "shape": [5]}}).encode()) + bytes(16),
    "offsets outside": header(json.dumps({"a": {**ENTRY, "data_offsets": [16, 32]}}).encode()) + bytes(16),
    "a negative shape": header(json.dumps({"a": {**ENTRY, "shape": [-4]}}).encode()) + bytes(16),
    "more than it says": header(json.dumps({"a": ENTRY}).encode()) + bytes(99),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_something_else_is_refused(path, name):
    path.write_bytes(FOREIGN[name])
    assert "not a readable safetensors file" in refused(path)


def test_no_file_and_a_folder_are_named(path):
    assert "there is no such file" in refused(path)
    path.mkdir()
    refused(path)


@given(st.binary(max_size=300))
def test_random_bytes_never_do_anything_else(path, data):
    path.write_bytes(data)
    try:
        read_arrays(path)
    except CheckpointError as error:
        assert str(path) in str(error)
