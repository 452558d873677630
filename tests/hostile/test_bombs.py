"""Files that would fill the memory, wait for ever or print on somebody's terminal: each is one line within a second."""

import io
import os
import zipfile
import zlib

import numpy as np
import pytest
from checkpoint.torch_zip import Call, Name, Raw, Zip, storage, tensor
from data.test_bad_data import chunk
from hostile.bounds import refused
from numpy.lib import format as npy

from minidit import data
from minidit.checkpoint import CheckpointError, describe, load_model, read_arrays, read_json, save, write_arrays
from minidit.checkpoint.pickles import open_torch_zip
from minidit.incoming import MAX_DIRECTORY, MAX_MESSAGE, MAX_TEXT, Budget, printable
from minidit.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from minidit.models.dit import DiT, DiTConfig
from minidit.random import Philox
from minidit.verify import vectors

SMALL = DiTConfig(input_size=4, patch_size=2, in_channels=1, hidden_size=16, depth=1, num_heads=2, num_classes=3)
READERS = [describe, load_model, read_arrays, read_json, data.load, lambda path: list(vectors.read(path.parent))]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder"])
def test_only_regular_files_are_opened(tmp_path, reader, kind):
    path = tmp_path / "manifest.json"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(ValueError, match=r"manifest\.json"):
        reader(path)


@pytest.mark.parametrize("inner", ["a.png", "train.bin", "train-images-idx3-ubyte"])
def test_a_pipe_inside_a_data_folder_is_not_waited_for(tmp_path, inner):
    os.mkfifo(tmp_path / inner)
    with pytest.raises(data.DataError, match=r"a pipe, not a file|missing|is not a file"):
        data.load(tmp_path)


# ------------------------------------------------------------------------------------------------ torch


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (b"\x80\x02" + b"}" * 10**6 + b".", "more than 524288 steps"),
        (b"\x80\x02" + b"(" * 10**6 + b".", "more than 524288 steps"),
        (b"\x80\x02" + b"N\x85" * 400_000 + b".", "more than 524288 steps"),
        (b"\x80\x02" + b"}" * 2**24 + b".", "are read at most"),
    ],
)
def test_millions_of_small_objects_in_a_pickle_are_not_made(tmp_path, program, words):
    Zip().write(tmp_path / "w.pt", program, packed=True)
    refused(describe, tmp_path / "w.pt", words)


def test_copies_of_one_long_list_are_counted_entry_by_entry(tmp_path):
    """A list of 1,000 pairs under one name, made into a dictionary and a size 100,000 times."""
    pair = b"K\x01K\x02\x86"
    program = b"\x80\x02](" + pair * 1000 + b"eq\x00" + (b"ccollections\nOrderedDict\nh\x00\x85R0" * 20_000) + b"."
    Zip().write(tmp_path / "w.pt", program)
    refused(describe, tmp_path / "w.pt", "more than 524288 steps")


def test_arrays_that_share_or_repeat_their_numbers_are_read_but_not_without_end(tmp_path):
    file = Zip()
    file.members["0"] = np.arange(3, dtype=np.float32).tobytes()
    file.write(tmp_path / "w.pt", {"w": tensor(storage("0", 3), (4, 3), (0, 1))})
    np.testing.assert_array_equal(open_torch_zip(tmp_path / "w.pt")["w"].read(), np.tile(np.arange(3, dtype=np.float32), (4, 1)))
    file.write(tmp_path / "w.pt", {"w": tensor(storage("0", 3), (2**40, 3), (0, 1))})
    refused(describe, tmp_path / "w.pt", "an array of 3298534883328 numbers")


def test_a_zip_with_a_long_table_of_contents_is_not_listed(tmp_path):
    path, names = tmp_path / "w.pt", b"x" * 60_000
    local = zipfile.ZipInfo("archive/data.pkl")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(local, b"")
    raw = buffer.getvalue()
    at = raw.index(b"PK\x01\x02")
    size = MAX_DIRECTORY + 1
    end = raw[raw.index(b"PK\x05\x06") :]
    path.write_bytes(raw[:at] + names * (size // len(names) + 1) + end[:12] + size.to_bytes(4, "little") + end[16:])
    for reader in (describe, lambda p: data.load(p.rename(p.with_suffix(".npz")))):
        with pytest.raises(ValueError, match=f"table of contents takes {size} bytes"):
            reader(path)


# ------------------------------------------------------------------------------------------------ claims


@pytest.mark.parametrize(
    "claim",
    [{"hidden_size": 2**20}, {"depth": 10**9}, {"input_size": 2**20}, {"num_classes": 2**40}, {"in_channels": 2**30},
     {"mlp_ratio": 1e300}, {"mlp_ratio": float("inf")}],
)  # fmt: skip
def test_a_configuration_that_claims_more_than_the_file_holds_allocates_nothing(tmp_path, claim):
    model = DiT(SMALL, Philox(1))
    header = {"format": 1, "kind": "dit", "config": {**SMALL.__dict__, **claim}}
    write_arrays(tmp_path / "m.safetensors", model.state_dict(), header)
    refused(load_model, tmp_path / "m.safetensors", "m.safetensors")


@pytest.mark.parametrize("scale", [1e308, float("inf"), float("nan"), -1.0])
def test_a_scale_that_no_float32_holds_is_refused(tmp_path, scale):
    config = AutoencoderKLConfig(widths=(4, 8), blocks=1, groups=2, size=8)
    path = tmp_path / "k.safetensors"
    header = {"format": 1, "kind": "autoencoder_kl", "config": {**config.__dict__, "scale": scale}}
    write_arrays(path, AutoencoderKL(config, Philox(1)).state_dict(), header)
    refused(load_model, path, "scale")


@pytest.mark.parametrize("value", ["../..", [], {}, None, True, 0.5, 1e308, [[[]], 8, 8], 2**200, -1, float("nan")])
@pytest.mark.parametrize("key", ["hidden_size", "input_size", "mlp_ratio", "conditioning", "learn_sigma"])
def test_a_value_of_another_kind_in_a_header_is_named(tmp_path, key, value):
    if (key, value) in [("learn_sigma", True), ("mlp_ratio", 0.5)]:
        return
    header = {"format": 1, "kind": "dit", "config": {**SMALL.__dict__, key: value}}
    write_arrays(tmp_path / "m.safetensors", DiT(SMALL, Philox(1)).state_dict(), header)
    refused(load_model, tmp_path / "m.safetensors", "m.safetensors: ")


def test_a_picture_that_is_nearly_all_claim_is_not_decoded(tmp_path):
    side = 8192
    header = chunk(b"IHDR", side.to_bytes(4, "big") * 2 + b"\1\0\0\0\0")
    rows = zlib.compress(bytes(side // 8 + 1) * side, 9)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    assert (tmp_path / "a.png").stat().st_size < 16_384
    with pytest.raises(data.DataError, match="no picture is that empty"):
        data.load(tmp_path)


def test_an_npz_packed_by_a_method_that_unpacks_without_end_is_refused(tmp_path):
    raw = io.BytesIO()
    npy.write_array(raw, np.zeros((64, 512, 512), np.uint8), allow_pickle=False)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("images.npy", raw.getvalue())
    refused(data.load, tmp_path / "x.npz", "packed in another way")


def test_an_idx_header_is_compared_with_the_file_before_anything_is_read(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(b"\0\0\x08\x03" + (2**10).to_bytes(4, "big") * 3 + bytes(100))
    refused(data.load, path, "announces 1073741824 bytes")


def test_long_texts_and_deep_ones_are_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("[" * 100_000)
    refused(read_json, path, "not a readable JSON file: RecursionError")
    path.write_text(" " * (MAX_TEXT + 1))
    refused(read_json, path, "a text of at most")
    path = tmp_path / "w.safetensors"
    write_arrays(path, {"a": np.zeros(3)}, {})
    raw = path.read_bytes()
    path.write_bytes((2**40).to_bytes(8, "little") + raw[8:])
    refused(read_arrays, path, "header claims 1099511627776 bytes")


def test_what_takes_too_long_or_too_much_ends():
    budget = Budget(10, 5.0)
    budget.spend(10)
    with pytest.raises(ValueError, match="more than 10 steps"):
        budget.spend()
    with pytest.raises(ValueError, match="more than 0 s"):
        Budget(10**6, 0.0).spend(5000)


# ------------------------------------------------------------------------------------------------ terminals

ESCAPES = "\x1b]0;owned\x07\x1b[2J"


def test_no_escape_of_a_name_reaches_the_terminal(tmp_path):
    assert printable(f"a\n{ESCAPES}\u202e\udc80") == "a \\x1b]0;owned\\x07\\x1b[2J\\u202e\\udc80"
    path = tmp_path / f"w{ESCAPES}.safetensors"
    write_arrays(path, {f"blocks{ESCAPES}": np.zeros(1)}, {"note": ESCAPES})
    for reader in (describe, data.load, read_json):
        with pytest.raises(ValueError) as caught:
            reader(path)
        assert str(caught.value).isprintable()
    with pytest.raises(CheckpointError) as caught:
        describe(tmp_path / ("x" * 3 * MAX_MESSAGE))
    assert len(str(caught.value)) < 2 * MAX_MESSAGE
    file = Zip()
    model = DiT(SMALL, Philox(1))
    file.write(tmp_path / "w.pt", {**{k: file.array(v) for k, v in model.state_dict().items()}, ESCAPES: 3})
    assert "\x1b" not in str(describe(tmp_path / "w.pt", num_heads=2))


def test_a_class_whose_name_holds_an_escape_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 4, 4), np.uint8), labels=[0, 1], class_names=["a", ESCAPES])
    with pytest.raises(data.DataError, match="a class name holds control characters"):
        data.load(tmp_path / "x.npz")


def test_a_call_of_what_is_no_name_is_refused_without_printing_it(tmp_path):
    Zip().write(tmp_path / "w.pt", {"w": Call(Name("os", f"system{ESCAPES.replace(chr(10), '')}"), (1,)), "v": Raw(b"N")})
    assert "\x1b" not in refused(describe, tmp_path / "w.pt", "no description of an array")


def test_what_is_written_is_read_again(tmp_path):
    model = DiT(SMALL, Philox(3))
    save(tmp_path / "m.safetensors", model)
    again, _ = load_model(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again.flat, model.flat)
