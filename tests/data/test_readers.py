"""What is written in a foreign format is read back the same, whatever its content."""

import gzip
import os
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minidit import data
from minidit.data import cifar, idx, npz
from minidit.data.cache import Cache
from minidit.pictures import to_uint8

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(4, 9)
TANGO = Path("/usr/share/icons/Tango/32x32")


def room():
    return tempfile.TemporaryDirectory(prefix="minidit-")


def idx_bytes(array):
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def write_idx(folder, stem, x, y, dash="-", zipped=False):
    for what, rank, array in (("images", 3, x), ("labels", 1, y)):
        content = idx_bytes(array.astype(np.uint8))
        name = f"{stem}-{what}{dash}idx{rank}-ubyte" + (".gz" if zipped else "")
        (folder / name).write_bytes(gzip.compress(content) if zipped else content)


def drawn_set(seed, n, h, w, classes=4):
    r = np.random.default_rng(seed)
    return r.integers(0, 256, (n, h, w)).astype(np.uint8), r.integers(0, classes, n)


# ------------------------------------------------------------------------------------------------ IDX


@given(SEEDS, st.integers(1, 5), SIDES, SIDES, st.sampled_from("-."), st.booleans())
def test_idx_reads_back_from_a_folder_and_from_one_file(seed, n, h, w, dash, zipped):
    x, y = drawn_set(seed, n, h, w)
    with room() as path:
        folder = Path(path)
        write_idx(folder, "train", x, y, dash, zipped)
        write_idx(folder, "t10k", x[::-1], y[::-1], dash, zipped)
        train, test = data.load(folder), data.load(folder, part="test")
        one = data.load(next(folder.glob("train-images*")))
    for d, images, labels in ((train, x, y), (test, x[::-1], y[::-1]), (one, x, y)):
        np.testing.assert_array_equal(d.images, images[:, None])
        assert [d.class_names[label] for label in d.labels] == [str(k) for k in labels]
        assert d.num_classes == len(set(y.tolist())) and d.crop == 0 and d.levels == 256


def test_both_parts_of_an_idx_folder_have_the_same_classes(tmp_path):
    x, _ = drawn_set(0, 4, 8, 8)
    write_idx(tmp_path, "train", x, np.array([0, 1, 2, 6]))
    write_idx(tmp_path, "t10k", x, np.array([0, 1, 2, 3]))
    assert data.load(tmp_path).class_names == data.load(tmp_path, part="test").class_names == tuple("01236")


def test_an_images_file_without_labels_is_unconditional(tmp_path):
    (tmp_path / "scans").write_bytes(idx_bytes(np.zeros((2, 8, 8), np.uint8)))
    d = data.load(tmp_path / "scans")
    assert d.labels is None and d.num_classes == 0 and d.class_names == ()


@pytest.mark.parametrize("name", ["fashion-mnist", "FashionMNIST", "FashionMNIST/raw"])
def test_a_folder_called_fashion_mnist_names_its_classes_and_is_padded(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir(parents=True)
    x, y = drawn_set(0, 12, 28, 28, 10)
    write_idx(folder, "train", x, y)
    d = data.load(folder)
    assert d.class_names == idx.FASHION and d.size == (32, 32) and d.crop == 2
    np.testing.assert_array_equal(d.inner(d.images), x[:, None])
    np.testing.assert_array_equal(data.load(folder, size=28).images, x[:, None])
    assert data.load(folder, size=14).size == (14, 14)


# ------------------------------------------------------------------------------------------------ CIFAR


@settings(max_examples=15)
@given(SEEDS, st.integers(1, 4))
def test_cifar_10_reads_back_batch_after_batch(seed, n):
    r = np.random.default_rng(seed)
    x, y = r.integers(0, 256, (3 * n, 3, 32, 32)).astype(np.uint8), r.integers(0, 10, 3 * n)
    records = np.concatenate([y[:, None].astype(np.uint8), x.reshape(3 * n, -1)], axis=1)
    with room() as path:
        folder = Path(path)
        for i, name in enumerate(("data_batch_2.bin", "data_batch_10.bin", "test_batch.bin")):
            records[i * n : (i + 1) * n].tofile(folder / name)
        train, test, one = data.load(folder), data.load(folder, part="test"), data.load(folder / "data_batch_10.bin")
        (folder / "batches.meta.txt").write_text("".join(f"kind {i}\n" for i in range(10)) + "\n")
        assert data.load(folder).class_names[9] == "kind 9"
    np.testing.assert_array_equal(train.images, x[: 2 * n])
    np.testing.assert_array_equal(train.labels, y[: 2 * n])
    np.testing.assert_array_equal(test.images, x[2 * n :])
    np.testing.assert_array_equal(one.images, x[n : 2 * n])
    assert train.class_names == cifar.TEN and train.channels == 3


@settings(max_examples=10)
@given(SEEDS, st.integers(1, 4))
def test_cifar_100_reads_back_with_its_fine_labels(seed, n):
    r = np.random.default_rng(seed)
    x, coarse, fine = r.integers(0, 256, (n, 3, 32, 32)).astype(np.uint8), r.integers(0, 20, n), r.integers(0, 100, n)
    with room() as path:
        np.concatenate([coarse[:, None], fine[:, None], x.reshape(n, -1)], axis=1).astype(np.uint8).tofile(f"{path}/train.bin")
        d = data.load(path)
    np.testing.assert_array_equal(d.images, x)
    np.testing.assert_array_equal(d.labels, fine)
    assert d.num_classes == 100


# ------------------------------------------------------------------------------------------------ npz


@given(SEEDS, st.integers(1, 5), SIDES, SIDES, st.sampled_from(["NHW", "NHWC", "NCHW"]), st.booleans(), st.booleans())
def test_npz_reads_back_from_every_layout(seed, n, h, w, layout, named, ours):
    r = np.random.default_rng(seed)
    x, y = r.integers(0, 256, (n, 1 if layout == "NHW" else 3, h, w)).astype(np.uint8), r.integers(0, 3, n)
    arrays = {"images": {"NHW": x[:, 0], "NHWC": x.transpose(0, 2, 3, 1), "NCHW": x}[layout], "labels": y.astype(np.uint8)}
    if named:
        arrays["class_names"] = np.array(["añb", "b", "c"])
    with room() as path:
        file = Path(path) / "set.npz"
        if ours:
            npz.write(file, arrays)
        else:
            np.savez(file, **arrays)
        d = data.load(file)
    np.testing.assert_array_equal(d.images, x)
    names = ("añb", "b", "c") if named else tuple("012")
    assert [d.class_names[label] for label in d.labels] == [names[k] for k in y]
    assert d.class_names == (names if named else tuple(str(k) for k in sorted(set(y.tolist()))))


def saved(folder, **arrays):
    np.savez_compressed(Path(folder) / "set.npz", **arrays)
    return Path(folder) / "set.npz"


@given(SEEDS, st.sampled_from([np.float16, np.float32, np.float64, ">f4"]), st.sampled_from([-1, 0]))
def test_floats_that_were_bytes_become_the_same_bytes(seed, dtype, black):
    k = np.random.default_rng(seed).integers(0, 256, (3, 8, 8)).astype(np.uint8)
    k[0, 0, 0] = 0  # black occurs
    x = k / 255 if black == 0 else k / 127.5 - 1
    with room() as path:
        np.testing.assert_array_equal(data.load(saved(path, images=x.astype(dtype))).images, k[:, None])


def test_floats_between_the_bytes_go_to_the_nearest(tmp_path):
    x = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8))
    np.testing.assert_array_equal(data.load(saved(tmp_path, images=x)).images[:, 0], to_uint8(x))
    half = data.load(saved(tmp_path, images=x / 2 + 0.5, range=[0, 1]))
    np.testing.assert_array_equal(half.images[:, 0], to_uint8(x))
    bright = data.load(saved(tmp_path, images=abs(x), range=[-1.0, 1.0]))
    np.testing.assert_array_equal(bright.images[:, 0], to_uint8(abs(x)))


def test_levels_and_fortran_order_are_kept(tmp_path):
    x = np.asfortranarray(np.random.default_rng(0).integers(0, 5, (4, 8, 6)).astype(np.uint8))
    d = data.load(saved(tmp_path, images=x, levels=5))
    np.testing.assert_array_equal(d.images[:, 0], x)
    assert d.levels == 5 and d.x_0().max() == 1 and d.labels is None


# ------------------------------------------------------------------------------------------------ folders


@settings(max_examples=20)
@given(SEEDS, st.sampled_from([8, 16, 64, 12]), st.sampled_from(["L", "RGB"]), st.sampled_from([".png", ".bmp", ".tiff"]))
def test_a_folder_of_pictures_reads_back_with_its_classes(seed, size, mode, suffix):
    r = np.random.default_rng(seed)
    shape = (size, size) if mode == "L" else (size, size, 3)
    with room() as path:
        expected = []
        for name in ("ant/b", "ant/a", "bee/deep/er/c", "bee/a"):
            pixels = r.integers(0, 256, shape).astype(np.uint8)
            file = Path(path) / (name + suffix)
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
            expected.append(np.atleast_3d(pixels).transpose(2, 0, 1))
        d = data.load(path)
        flat = data.load(Path(path) / "ant")
    np.testing.assert_array_equal(d.images, np.stack([expected[i] for i in (1, 0, 3, 2)]))
    assert d.class_names == ("ant", "bee") and d.labels.tolist() == [0, 0, 1, 1]
    assert flat.labels is None and flat.num_classes == 0
    np.testing.assert_array_equal(flat.images, np.stack([expected[1], expected[0]]))


def save(path, pixels, **options):
    picture = Image.fromarray(np.asarray(pixels, np.uint8)) if not isinstance(pixels, Image.Image) else pixels
    picture.save(path, **options)


def only(folder, **wishes):
    d = data.load(folder, **wishes)
    assert len(d) == 1
    return d.images[0]


def test_transparency_lies_on_white(tmp_path):
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[..., 0], rgba[:4, :, 3], rgba[4:, :, 3] = 200, 0, 255
    rgba[0, 0, 3] = 51  # α = 1/5: 200/5 + 255·4/5 = 244, 0 + 204
    save(tmp_path / "a.png", rgba)
    x = only(tmp_path)
    assert (x[:, 1:4] == 255).all() and x[:, 0, 1:].min() == 255
    assert (x[:, 5, 5] == [200, 0, 0]).all() and np.abs(x[:, 0, 0].astype(int) - [244, 204, 204]).max() <= 1


def test_palettes_with_and_without_a_transparent_entry(tmp_path):
    picture = Image.fromarray(np.tile(np.arange(8, dtype=np.uint8) % 2, (8, 1)))
    picture = picture.convert("P")
    picture.putpalette([10, 20, 30, 40, 50, 60])
    for name, options in (("opaque", {}), ("clear", {"transparency": 1})):
        (tmp_path / name).mkdir()
        save(tmp_path / name / "a.png", picture, **options)
    assert (only(tmp_path / "opaque")[:, 0, :2].T == [[10, 20, 30], [40, 50, 60]]).all()
    assert (only(tmp_path / "clear")[:, 0, :2].T == [[10, 20, 30], [255, 255, 255]]).all()


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_are_rounded_to_eight(tmp_path, suffix):
    k = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(k).save(tmp_path / f"a{suffix}")
    x = only(tmp_path)
    np.testing.assert_array_equal(x[0], np.rint(k / 257).astype(np.uint8))
    assert x.shape == (1, 8, 8)


def test_one_bit_and_grey_with_alpha_are_grey(tmp_path):
    save(tmp_path / "a.png", Image.fromarray(np.eye(8, dtype=bool)))
    Image.merge("LA", [Image.new("L", (8, 8), 7), Image.new("L", (8, 8), 255)]).save(tmp_path / "b.png")
    d = data.load(tmp_path)
    assert d.channels == 1 and (d.images[0, 0] == 255 * np.eye(8)).all() and (d.images[1] == 7).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_as_exif_says(tmp_path, orientation):
    upright = np.arange(8 * 12, dtype=np.uint8).reshape(8, 12)
    stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
              6: np.rot90(upright), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "a.png", np.ascontiguousarray(stored), exif=exif)
    x = only(tmp_path)
    assert x.shape == (1, 8, 12), "the common size is that of the upright picture"
    np.testing.assert_array_equal(x[0], upright)


def test_a_grey_picture_of_sixteen_bits_stands_as_exif_says_and_its_clear_value_is_white(tmp_path):
    upright = np.arange(8 * 12).reshape(8, 12) * 257
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(upright)).astype(np.uint16))
    stored.save(tmp_path / "a.png", exif=exif)
    clear = b"tRNS" + struct.pack(">H", 257 * 5)  # by hand, behind the header of 33 bytes: early Pillows write none for 16 bits
    png = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(png[:33] + struct.pack(">I", 2) + clear + struct.pack(">I", zlib.crc32(clear)) + png[33:])
    x = only(tmp_path)
    expected = upright // 257
    expected[0, 5] = 255
    np.testing.assert_array_equal(x[0], expected)


def test_the_size_is_the_common_one_or_thirty_two_or_the_one_asked_for(tmp_path):
    save(tmp_path / "a.png", np.zeros((40, 48)))
    assert data.load(tmp_path).size == (40, 48)
    assert data.load(tmp_path, size=16).size == (16, 16)
    save(tmp_path / "b.png", np.zeros((40, 44)))
    assert data.load(tmp_path).size == (32, 32)
    for side in (30, 68):  # not divisible by 4, or too large
        folder = tmp_path / str(side)
        folder.mkdir()
        save(folder / "a.png", np.zeros((side, side)))
        assert data.load(folder).size == (32, 32)


def test_a_picture_of_another_size_is_told_of_with_what_becomes_of_all(tmp_path):
    """In memory and from the cache alike; pictures that all have the size of the set say nothing."""
    (tmp_path / "p").mkdir()
    for k in range(3):
        save(tmp_path / "p" / f"{k}.png", np.full((28, 28), 50 * k))
    caches = (None, Cache(tmp_path / "cache", least=0), Cache(tmp_path / "cache", least=0))
    assert [data.load(tmp_path / "p", cache=cache).resized for cache in caches] == ["", "", ""]
    save(tmp_path / "p" / "other.png", np.zeros((30, 40)))
    cut = "each is cut to the largest square in its middle and resampled to 32 x 32"
    line = f"sizes of pictures: 3 of 28 x 28, 1 of 40 x 30; {cut}"
    sets = [data.load(tmp_path / "p", cache=cache) for cache in caches]
    assert [d.resized for d in sets] == [f"{line}; --size 28 --pixels keeps most as they are"] * 3
    assert sets[0].split(0.25)[0].resized == sets[0].resized
    assert data.load(tmp_path / "p", size=16).resized == line.replace("32 x 32", "16 x 16")
    (tmp_path / "large").mkdir()
    save(tmp_path / "large" / "1.png", np.zeros((100, 100)))
    large = "sizes of pictures: 1 of 100 x 100; each is resampled to 32 x 32; --size N: another size"
    assert data.load(tmp_path / "large").resized == large


def test_the_centre_is_cut_out_before_resampling(tmp_path):
    wide = np.zeros((32, 96), np.uint8)
    wide[:, 32:64] = 200
    save(tmp_path / "a.png", wide)
    assert (only(tmp_path, size=32) == 200).all()
    assert (only(tmp_path, size=8) == 200).all()


def test_resampling_averages_rather_than_picks(tmp_path):
    save(tmp_path / "a.png", np.indices((64, 64)).sum(0) % 2 * 255)  # a chessboard of pixels is grey from afar
    x = only(tmp_path, size=8)
    assert np.abs(x.astype(int) - 127).max() <= 3


def test_channels_are_those_asked_for_or_the_fewest_that_lose_nothing(tmp_path):
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[..., 0] = 100
    save(tmp_path / "a.png", colour)
    assert only(tmp_path).shape[0] == 3
    assert (only(tmp_path, channels=1) == round(0.299 * 100)).all()
    save(tmp_path / "a.png", np.full((8, 8, 3), 9, np.uint8))  # an RGB file all of whose pixels are grey
    assert only(tmp_path).shape[0] == 1
    assert (only(tmp_path, channels=3) == 9).all()


def test_only_hidden_and_listed_names_are_passed_over(tmp_path):
    (tmp_path / "cat").mkdir()
    save(tmp_path / "cat" / "a.png", np.zeros((8, 8)))
    for name in (".DS_Store", "README.md", "Thumbs.db", "cat/.hidden", "cat/LICENSE"):
        (tmp_path / name).write_text("not a picture")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / ".git").mkdir()
    d = data.load(tmp_path)
    assert len(d) == 1 and d.class_names == ("cat",)


def test_links_to_files_and_folders_are_followed(tmp_path):
    (tmp_path / "store").mkdir()
    save(tmp_path / "store" / "a.png", np.full((8, 8), 5))
    (tmp_path / "set" / "file").mkdir(parents=True)
    os.symlink(tmp_path / "store" / "a.png", tmp_path / "set" / "file" / "b.png")
    os.symlink(tmp_path / "store", tmp_path / "set" / "folder")
    d = data.load(tmp_path / "set")
    assert d.class_names == ("file", "folder") and (d.images == 5).all() and len(d) == 2


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [Image.fromarray(np.full((8, 8), k, np.uint8)) for k in (10, 20)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (only(tmp_path) == 10).all()


@pytest.mark.skipif(not TANGO.is_dir(), reason="the Debian package tango-icon-theme is not installed")
def test_a_real_icon_folder_simply_works():
    d = data.load(TANGO)
    assert (len(d), d.size, d.channels, d.num_classes) == (850, (32, 32), 3, 10)
    assert d.class_names[:3] == ("actions", "animations", "apps") and d.labels[0] == 0 and d.labels[-1] == 9
    assert d.images[:, :, 0, 0].mean() > 230, "transparent corners are white"
