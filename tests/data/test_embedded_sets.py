"""The sets inside the package: what is in them, and that their makers make exactly this."""

import hashlib
import importlib.util
import zipfile
from pathlib import Path

import numpy as np
import pytest

from minidit import data
from minidit.data import idx, npz
from minidit.data.embedded import SETS

TOOLS = Path(__file__).parents[2] / "tools"
FULL_FASHION = Path("/usr/share/datasets/fashion-mnist")
needs_fashion = pytest.mark.skipif(not FULL_FASHION.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed")

SHA_256 = {
    ("digits.npz", "images"): "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3",
    ("digits.npz", "labels"): "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0",
    ("fashion.npz", "train_images"): "2b17438af55637db62c122a92490b5b4275bed5719a838b5b0486ea2193a98a4",
    ("fashion.npz", "train_labels"): "f16e201ddc15b401c509545575d23793b230f5735ae378c1ced3a6156cb72251",
    ("fashion.npz", "test_images"): "3d7f6d64869a3f2d1afe64ae33ffb9b20670a91b31e3bbf0657e3999ec7b35cf",
    ("fashion.npz", "test_labels"): "6b25654537ff83dd6c40fe0a122c7778d8219b2a88ff02c36dbdd21152fdb075",
}


def tool(name):
    module_spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("file", "array"), SHA_256)
def test_the_arrays_are_those_that_were_published(file, array):
    assert hashlib.sha256(npz.read_arrays(SETS / file)[array].tobytes()).hexdigest() == SHA_256[file, array]


def test_numpy_alone_reads_the_files_and_they_stay_small():
    for file, limit in (("digits.npz", 50_000), ("fashion.npz", 3_000_000)):
        with np.load(SETS / file, allow_pickle=False) as ours:
            for name, array in npz.read_arrays(SETS / file).items():
                np.testing.assert_array_equal(ours[name], array)
        assert (SETS / file).stat().st_size <= limit
        assert "Citation" in (SETS / file).with_suffix(".LICENSE").read_text()


def test_digits_are_eight_by_eight_in_seventeen_levels_with_a_fixed_part_held_out():
    train, test = data.digits(), data.digits("test")
    assert (len(train), len(test), train.size, train.channels, train.levels) == (1500, 297, (8, 8), 1, 17)
    assert train.class_names == tuple("0123456789")
    assert not {x.tobytes() for x in train.images} & {x.tobytes() for x in test.images}
    assert set(np.bincount(test.labels)) <= {29, 30}


def test_fashion_is_balanced_bordered_and_its_parts_share_nothing():
    train, test = data.fashion(), data.fashion("test")
    for part, per_class in ((train, 600), (test, 100)):
        assert (part.size, part.channels, part.levels, part.crop) == ((32, 32), 1, 256, 2)
        assert np.bincount(part.labels).tolist() == [per_class] * 10
        assert part.images.sum() == part.inner(part.images).sum(), "the border is black"
    assert train.class_names[6] == "Shirt" and train.class_names[9] == "Ankle boot"
    assert not {x.tobytes() for x in train.images} & {x.tobytes() for x in test.images}


def test_the_names_lead_to_the_sets_at_any_size_and_in_colour():
    np.testing.assert_array_equal(data.load("fashion").images, data.fashion().images)
    np.testing.assert_array_equal(data.load("fashion", part="test").images, data.fashion("test").images)
    bare = data.load("fashion", size=28, channels=3)
    assert (bare.size, bare.channels, bare.crop) == ((28, 28), 3, 0)
    np.testing.assert_array_equal(bare.images[:, 2], data.fashion().inner(data.fashion().images)[:, 0])
    large = data.load("digits", size=16)
    assert (large.size, large.levels, large.crop) == ((16, 16), 256, 0)
    assert large.images.max() == 255 and large.images.min() == 0


def test_an_upright_trouser_is_taller_than_wide_and_a_sneaker_points_left():
    d = data.fashion()
    trouser, sneaker = (d.images[d.labels == c].mean(0)[0] for c in (1, 7))
    assert (trouser > 64).any(1).sum() > 1.3 * (trouser > 64).any(0).sum()
    left, right = np.hsplit(sneaker[:16] > 40, 2)  # above the sole there is only the heel, on the right
    assert right.sum() > 2 * left.sum()


def test_the_digits_maker_makes_exactly_this_file(tmp_path):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    made = tool("make_digits").arrays()
    ours = npz.read_arrays(SETS / "digits.npz")
    assert made.keys() == ours.keys()
    for name in ours:
        np.testing.assert_array_equal(made[name], ours[name])
        assert made[name].dtype == ours[name].dtype
    for copy in ("a.npz", "b.npz"):
        npz.write(tmp_path / copy, made)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@needs_fashion
def test_the_fashion_maker_makes_exactly_this_file():
    made, ours = tool("make_fashion").arrays(FULL_FASHION), npz.read_arrays(SETS / "fashion.npz")
    assert made.keys() == ours.keys()
    for name in ours:
        np.testing.assert_array_equal(made[name], ours[name])
        assert made[name].dtype == ours[name].dtype
    with zipfile.ZipFile(SETS / "fashion.npz") as archive:
        assert {e.date_time[0] for e in archive.infolist()} == {1980}, "no time of day in the file"


@needs_fashion
def test_the_full_set_by_its_path_begins_with_the_same_images():
    full = data.load(FULL_FASHION, part="test")
    assert (len(full), full.size, full.crop, full.class_names) == (10_000, (32, 32), 2, idx.FASHION)
    ours = data.fashion("test")
    for c in range(10):
        np.testing.assert_array_equal(full.images[full.labels == c][:100], ours.images[ours.labels == c])
    bare = data.load(FULL_FASHION / "t10k-images-idx3-ubyte.gz", size=28)
    np.testing.assert_array_equal(bare.images, full.inner(full.images))
    np.testing.assert_array_equal(bare.labels, full.labels)
