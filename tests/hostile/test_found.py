"""What damaged inputs were found to do otherwise than they should: each of these ended in another error, or cost too much."""

import gzip
import io
import json
import struct
import zipfile
import zlib

import numpy as np
import pytest
from data.test_bad_data import chunk
from hostile.bounds import measured, refused
from numpy.lib import format as npy_format
from PIL import Image

from minidit import data
from minidit.checkpoint import read_arrays, read_json
from minidit.html.report import report_of
from minidit.runs.config import read_config
from minidit.runs.diffusers_folder import process_from
from minidit.runs.folder import metrics_of
from minidit.runs.gallery import _has_loss
from minidit.verify import check
from minidit.verify.expect import surprises

REPORT = check({"ddim_step": lambda *args: 0}, topics="ddim_step")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10**5,
        '{"topics": []}',
        '{"topics": {}, "format": "\\u001b[2J"}',
        '{"format": 1}',
        "1" * 5000,
        "\ufeff{}",
        '{"topics": 3}',
    ],
)
def test_an_expectation_is_read_like_every_other_file(tmp_path, text):
    (tmp_path / "e.json").write_text(text)
    refused(lambda path: surprises(path, REPORT), tmp_path / "e.json", kind="Refusal")


def test_names_in_an_expectation_are_printed_without_escapes(tmp_path):
    held = {"format": 1, "dialect": "\x1b[2J", "topics": {"\x1b[2J": "\x07"}}
    (tmp_path / "e.json").write_text(json.dumps(held))
    assert all(line.isprintable() for line in surprises(tmp_path / "e.json", REPORT))


@pytest.mark.parametrize("key", ["_class_name", "prediction_type", "beta_schedule", "num_train_timesteps", "trained_betas"])
@pytest.mark.parametrize("value", [[], {}, [[]], 3.5, "x", -1, [None], True])
def test_a_scheduler_with_a_value_of_another_kind_is_refused(tmp_path, key, value):
    if (key, value) == ("trained_betas", []):
        value = [2.0]
    (tmp_path / "s.json").write_text(json.dumps({key: value}))
    refused(lambda path: process_from(read_json(path), str(path)).path(), tmp_path / "s.json", kind="CheckpointError")


# ------------------------------------------------------------------------------------------------ reports


def run_with(folder, name, text):
    (folder / "run").mkdir()
    (folder / "run" / name).write_text(text)
    return folder / "run"


@pytest.mark.parametrize(
    "line",
    [
        '{"phase": "model", "step": 1, "loss": 1e308}',
        '{"phase": "model", "step": 1e308, "loss": 1}',
        '{"phase": "model", "step": 1, "loss": -1e300, "lr": 5e-324}',
        '{"phase": "model", "step": 1, "loss": NaN}',
    ],
)
def test_numbers_at_the_ends_of_the_floats_are_left_out_of_a_chart(tmp_path, line):
    usual = '{"phase": "model", "step": 2, "loss": 0.5}'
    page = report_of(run_with(tmp_path, "metrics.jsonl", f"{line}\n{usual}\n" * 30))
    assert b"model: loss" in page


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metrics.jsonl", '{"phase": "model", "step": 1' + "0" * 400 + "}\n"),
        ("metrics.jsonl", "[" * 3000 + "\n{}\n"),
        ("metrics.jsonl", '{"phase": "model", "step": 1, "x": "' + "x" * 10**5 + '"}\n'),
        ("metrics.jsonl", "3\n"),
        ("metrics.jsonl", '{"phase": [], "step": 1}\n'),
        ("metrics.jsonl", '{"phase": "model", "step": true}\n'),
        ("eval.json", '{"rows": [], "neighbours": 3}'),
        ("eval.json", '{"rows": [{"name": "a"}, 3]}'),
        ("eval.json", "[]"),
        ("eval.json", "[" * 10**5),
        ("config.toml", "x = 0x" + "f" * 5000),
        ("config.toml", "x = " + "[" * 3000),
        ("config.toml", "a = 1\na = 2"),
    ],
)
def test_a_damaged_file_of_a_report_is_named(tmp_path, name, text):
    refused(report_of, run_with(tmp_path, name, text), name=name, kind="ReportError")


def test_metrics_of_any_size_are_not_read_whole(tmp_path):
    run = run_with(tmp_path, "metrics.jsonl", "")
    with open(run / "metrics.jsonl", "wb") as file:
        file.truncate(2**40)
    refused(report_of, run, "metrics of at most", name="metrics.jsonl")


def test_the_last_line_of_a_killed_run_is_left_out(tmp_path):
    page = report_of(run_with(tmp_path, "metrics.jsonl", '{"phase": "model", "step": 2, "loss": 0.5}\n{"phase": "mo'))
    assert b"model: loss" in page


@pytest.mark.parametrize("name", ["ddim.png", "denoising.gif", "other.png"])
@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"<script>", bytes(100)])
def test_a_damaged_picture_of_a_report_is_named(tmp_path, name, content):
    run = run_with(tmp_path, "eval.json", "{}")
    (run / "pictures").mkdir()
    (run / "pictures" / name).write_bytes(content)
    refused(report_of, run, name=name)


@pytest.mark.parametrize(
    "value", ["1" * 5000, "0x" + "f" * 5000, "99999999999999999999", "[[[[1" + "0" * 30 + "]]]]", "{a = 1" + "0" * 30 + "}"]
)
@pytest.mark.parametrize("place", ["[train]\nsteps = ", "[data]\nsource = ", "[environment]\nx = ", "x = "])
def test_whole_numbers_of_a_configuration_have_64_bits(tmp_path, value, place):
    (tmp_path / "config.toml").write_text(place + value)
    refused(read_config, tmp_path / "config.toml", kind="CheckpointError")


# ------------------------------------------------------------------------------------------------ pictures


def png(side, depth=1, extra=b"", rows=None):
    row = bytes(1 + side * depth // 8)
    head = struct.pack(">IIBBBBB", side, side, depth, 0, 0, 0, 0)
    packed = zlib.compress(row * side, 9) if rows is None else rows
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def icon(inner, side=16):
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", side, side, 0, 0, 1, 32, len(inner), 22) + inner


TEXT = zlib.compress(bytes(2**20 - 10), 9)
BOMBS = {
    "icon.ico": icon(png(13_000)),
    "icons.ico": icon(png(30_000, rows=b"")),
    "dib.ico": icon(struct.pack("<IiiHHIIiiII", 40, 20_000, 16_000, 1, 24, 0, 0, 0, 0, 0, 0)),
    "texts.png": png(8, 8, b"".join(chunk(b"zTXt", b"k%d\0\0" % i + TEXT) for i in range(1000))),
    "text.png": png(8, 8, chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(2**27), 9))),
    "profile.png": png(8, 8, chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(2**27), 9))),
    "short.png": png(2048, 8, rows=b""),
    "large.png": png(60_000, rows=b""),
    "frame.gif": b"GIF89a"
    + struct.pack("<HHBBB", 8, 8, 0x80, 0, 0)
    + bytes(6)
    + b","
    + struct.pack("<HHHHB", 65535, 65535, 60000, 60000, 0)
    + b"\2\2\x4c\1\0;",
    "screen.gif": b"GIF89a" + struct.pack("<HHBBB", 8000, 8000, 0x80, 0, 0) + bytes(6) + b";",
    "strips.tiff": b"II*\0\x08\0\0\0" + struct.pack("<H", 65535) + bytes(100),
    "loop.tiff": b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 330, 4, 1, 8) + struct.pack("<I", 8),
    "rle.bmp": b"BM"
    + struct.pack("<IHHI", 100, 0, 0, 1078)
    + struct.pack("<IiiHHIIiiII", 40, 2047, 2047, 1, 8, 1, 0, 0, 0, 0, 0)
    + bytes(1024)
    + b"\0\0" * 3000,
    "plain.ppm": b"P3 2000 2000 255\n" + b"1 " * 100,
    "rle.tga": bytes([0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0]) + struct.pack("<HHBB", 2047, 2047, 32, 0) + b"\xff\0\0\0\0" * 100,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_picture_that_would_unfold_is_refused_within_the_bounds(tmp_path, name):
    (tmp_path / name).write_bytes(BOMBS[name])
    refused(data.load, tmp_path, name=name, kind="DataError")


@pytest.mark.parametrize("orientation", [0, 9, 65535, 2**31 - 1])
def test_odd_metadata_of_a_picture_cost_nothing(tmp_path, orientation):
    """65,535 entries, each a claim of gigabytes: the picture is read, upright."""
    content = io.BytesIO()
    Image.new("L", (8, 8)).save(content, "jpeg")
    jpeg = content.getvalue()
    entry = struct.pack("<HHII", 0x0112, 3, 2**32 - 1, orientation)
    exif = (b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 65535) + entry * 5000)[:65531]
    (tmp_path / "a.jpeg").write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    seen = measured(data.load, tmp_path)
    assert seen["error"] is None and seen["seconds"] < 1 and seen["bytes"] < 64 * 2**20


def test_the_bounds_of_pillow_are_its_own_again(tmp_path):
    from PIL import PngImagePlugin

    before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_MEMORY
    (tmp_path / "a.ico").write_bytes(BOMBS["icon.ico"])
    with pytest.raises(data.DataError):
        data.load(tmp_path)
    assert before == (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_MEMORY)


# ------------------------------------------------------------------------------------------------ arrays and names


def npy(header, body=b"\0" * 64, version=b"\1\0"):
    text = header.encode("latin1")
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + body


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|O', 'fortran_order': False, 'shape': (8, 8, 1)}\n",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 8, 8)}\n",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-8, -8)}\n",
        "{'descr': '|u1', 'fortran_order': 3, 'shape': (1, 8, 8)}\n",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2**70, 8, 8)}\n",
        "{'descr': '|u1', 'fortran_order': False}\n",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (True, 8, 8)}\n",
        "__import__('os').system('touch ran')\n",
        "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (8,)}\n",
        "(" * 5000,
        "{'descr': '|u1', 'fortran_order': False, 'shape': (9e9,)}\n",
        "{'descr': '|V8', 'fortran_order': False, 'shape': (8,)}\n",
        "{'descr': 'M8[s]', 'fortran_order': False, 'shape': (8,)}\n",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 8, 8), 'more': 1}\n",
        "\xff\xfe\n",
        "",
    ],
)
def test_an_array_whose_header_lies_is_refused(tmp_path, header):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", npy(header))
    refused(data.load, tmp_path / "x.npz", kind="DataError")
    assert not (tmp_path / "ran").exists()


def test_an_array_in_fortran_order_is_read_as_it_is_meant(tmp_path):
    images = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)
    np.savez(tmp_path / "x.npz", images=np.asfortranarray(images))
    np.testing.assert_array_equal(data.load(tmp_path / "x.npz").images[:, 0], images)


@pytest.mark.parametrize(
    "name", ["a\u202eb", "a\nb", "\x1b[31m", "\ud800", "a\u200eb", "\ufeffa", "a\u200bb", "\U000e0041", "a\u2066", "\u2028"]
)
def test_a_class_name_that_a_terminal_obeys_or_nobody_sees_is_refused(tmp_path, name):
    images = np.zeros((2, 8, 8), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=[0, 1], class_names=np.array([name, "b"]))
    refused(data.load, tmp_path / "x.npz", "class name")


@pytest.mark.parametrize(
    "name", ["{0}", "%s%n", "{x.__class__}", "<script>", "a, b", "-1", "0-9", "é", "日本", "می‌خواهم", "👩‍👧", "$(ls)"]
)
def test_a_class_name_of_any_other_kind_is_a_name(tmp_path, name):
    images = np.zeros((2, 8, 8), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=[0, 1], class_names=np.array([name, "b"]))
    assert data.load(tmp_path / "x.npz").class_names == (name, "b")


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"a": {"b": 1, "b": 1}}', '[{"a": 1, "a": []}]', '{"x": 1, "": 1, "": 1}'])
def test_a_key_that_stands_twice_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    refused(read_json, tmp_path / "a.json", "it holds the key '.?' twice", kind="CheckpointError")


def test_metadata_that_stand_twice_are_refused(tmp_path):
    header = b'{"__metadata__":{"x":"1","x":"2"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    refused(read_arrays, tmp_path / "a.safetensors", "it holds the key 'x' twice", kind="CheckpointError")


def test_a_curve_is_drawn_of_the_lines_that_can_be_read(tmp_path):
    good = [{"phase": "model", "step": n, "loss": 0.5 / n} for n in range(1, 40)]
    lines = [json.dumps(line) for line in good] + [
        "3",
        "[]",
        "{",
        '{"phase": "model", "step": 1}',
        '{"phase": 3, "step": 1, "loss": 1}',
        "[" * 5000,
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert [line for line in metrics_of(tmp_path) if _has_loss(line)] == good


def test_archives_that_unpack_next_to_nothing_to_gigabytes_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("images.npy", "w") as member:
        npy_format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (200, 1024, 1024)})
        for _ in range(200):
            member.write(bytes(2**20))
    refused(data.load, tmp_path / "x.npz", "no data are that empty", kind="DataError")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    with gzip.open(path, "wb") as file:
        file.write(b"\0\0\x08\x03" + struct.pack(">3I", 200, 1024, 1024))
        for _ in range(200):
            file.write(bytes(2**20))
    refused(data.load, path, "no data are that empty", kind="DataError")


def test_pictures_of_two_colours_are_not_that_empty(tmp_path):
    """Half a million bitmaps of 8 × 8 are read, as packed as they are."""
    images = np.random.default_rng(0).integers(0, 2, (2**19 + 1, 8, 8)).astype(np.uint8) * 255
    np.savez_compressed(tmp_path / "x.npz", images=images)
    assert len(data.load(tmp_path / "x.npz")) == len(images)


def test_a_long_header_of_an_array_is_not_parsed(tmp_path):
    """NumPy takes seconds for a few thousand spaces."""
    header = "'descr': '|u1', 'fortran_order': False, 'shape': (4, 4, 4), }" + " " * 9000 + '"'
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", npy(header))
    refused(data.load, tmp_path / "x.npz", kind="DataError")
