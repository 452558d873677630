"""What the data decide of a run."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from small import begun, folder_of_pictures, run_config

from minidit.checkpoint import CheckpointError
from minidit.cli import build_parser
from minidit.cli.train import configure
from minidit.runs.config import run_config_from, tables_of
from minidit.runs.fitting import about_augmentation, fitted
from minidit.runs.phases import Run


def test_a_tenth_of_the_pictures_is_held_out_and_stays_so(tmp_path):
    source = folder_of_pictures(tmp_path / "pictures", (30, 20))
    job, train = begun(tmp_path / "run", run_config(source))
    (again, held_out), first = job.data(), job.data()[1]
    assert (len(train), len(held_out)) == (45, 5) and np.bincount(held_out.labels).tolist() == [3, 2]
    assert np.array_equal(first.images, held_out.images) and np.array_equal(again.images, train.images)
    assert job.config.model.num_classes == 2 and job.config.model.in_channels == 3


@pytest.mark.parametrize("each, held", [((2, 1), 1), ((3, 2), 1), ((5, 4), 1), ((10, 9), 1), ((10, 10), 2)])
def test_few_pictures_are_never_in_both_parts(tmp_path, each, held):
    job = Run(tmp_path, run_config(folder_of_pictures(tmp_path / "p", each)))
    train, held_out = job.data()
    assert (len(train), len(held_out)) == (sum(each) - held, held)
    assert not np.isin(held_out.prints, train.prints).any()
    assert job.parts.about == f"held out: {held} of {sum(each)} pictures, drawn from all classes alike, never trained on"


@pytest.mark.parametrize("each, words", [((1, 0), "1 picture"), ((1, 1), "2 pictures")])
def test_of_one_or_two_pictures_none_is_held_out_and_the_run_says_so(tmp_path, each, words):
    folder = folder_of_pictures(tmp_path / "p", each)
    job = Run(tmp_path, run_config(folder if all(each) else f"{folder}/a"))
    train, held_out = job.data()
    assert held_out is None and len(train) == sum(each)
    assert job.parts.about == (
        f"held out: nothing, there are too few; the model is trained on all ({words}) and cannot be measured"
    )


def test_how_many_are_held_out_may_be_chosen(tmp_path):
    source = folder_of_pictures(tmp_path / "p", (3, 2))
    assert [len(part) for part in Run(tmp_path, run_config(source, held_out=2)).data()] == [3, 2]
    job = Run(tmp_path, run_config(source, held_out=0))
    assert job.data()[1] is None and "nothing, as --held-out 0 asks; the model is trained on all" in job.parts.about
    with pytest.raises(ValueError, match="cannot hold out 5 of 5 images"):
        Run(tmp_path, run_config(source, held_out=5)).data()
    with pytest.raises(ValueError, match="digits: has its own test part of 297 pictures: leave out --held-out"):
        Run(tmp_path, run_config(held_out=5)).data()
    with pytest.raises(ValueError, match="held_out = -1 must be 0 or more"):
        run_config(held_out=-1)


def copied(folder, *names):
    """Each of the names becomes a copy of a/0.png."""
    for name in names:
        shutil.copy(folder / "a" / "0.png", folder / name)


def test_copies_of_a_picture_stay_on_one_side_and_are_counted(tmp_path):
    folder_of_pictures(tmp_path / "p", (6, 6))
    copied(tmp_path / "p", *(f"a/{k}.png" for k in range(1, 5)), "b/0.png")
    job = Run(tmp_path, run_config(str(tmp_path / "p"), held_out=3))
    train, held_out = job.data()
    assert len(held_out) == 3 and not np.isin(held_out.prints, train.prints).any()
    assert job.parts.about.endswith("; exact copies (5 in the set) stay on one side")


def test_pictures_that_are_all_the_same_are_all_trained_on(tmp_path):
    folder_of_pictures(tmp_path / "p", (3, 2))
    copied(tmp_path / "p", "a/1.png", "a/2.png", "b/0.png", "b/1.png")
    job = Run(tmp_path, run_config(str(tmp_path / "p")))
    assert job.data()[1] is None and "nothing, they are all the same; the model is trained on all" in job.parts.about


def idx(folder, name, array):
    header = b"\0\0\x08" + bytes([array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(header + array.tobytes())


def test_copies_of_training_pictures_in_a_test_part_are_counted(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8), np.uint8)
    for stem, rows in (("train", [0, 1, 2, 3, 4]), ("t10k", [5, 6, 0, 0])):
        idx(tmp_path, f"{stem}-images-idx3-ubyte", images[rows])
        idx(tmp_path, f"{stem}-labels-idx1-ubyte", np.array([k % 2 for k in rows], np.uint8))
    job = Run(tmp_path, run_config(str(tmp_path)))
    assert [len(part) for part in job.data()] == [5, 4]
    assert job.parts.about == (
        "held out: the set's own test part, 4 pictures; 2 of them are exact copies of training pictures"
    )
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")  # damaged: an error, and no other split
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte: truncated"):
        Run(tmp_path, run_config(str(tmp_path))).data()
    for path in tmp_path.glob("t10k*"):
        path.unlink()
    assert [len(part) for part in Run(tmp_path, run_config(str(tmp_path))).data()] == [4, 1]


@pytest.mark.parametrize("pixels, data, line", [
    (True, {}, ""),
    (True, {"flip": True, "crop": 2},
     "augmentation: training pictures are mirrored with probability 1/2 and shifted by up to 2 pixels"),
    (False, {"flip": True}, "augmentation: the autoencoder is trained on pictures mirrored with probability 1/2; "
                            "the model is trained on latents of pictures and of their mirror images"),
    (False, {"crop": 1}, "augmentation: the autoencoder is trained on pictures shifted by up to 1 pixels; "
                         "the model is trained on latents of unshifted pictures"),
    (False, {"flip": True, "tokenizer": "runs/ae"},
     "augmentation: the model is trained on latents of pictures and of their mirror images"),
])  # fmt: skip
def test_what_augmentation_does_is_one_line(pixels, data, line):
    assert about_augmentation(run_config(pixels=pixels, **data)) == line


def test_shifts_that_can_do_nothing_are_refused(tmp_path):
    for config, message in ((run_config(crop=8), "pictures of 8 x 8 are shifted by less than their size"),
                            (run_config(pixels=False, crop=1, tokenizer="runs/ae"), "runs/ae is trained already")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            fitted(config, Run(tmp_path, config).data()[0])


def test_an_embedded_set_brings_its_own_held_out_part_in_the_wanted_form(tmp_path):
    train, held_out = Run(tmp_path, run_config(size=16, channels=3)).data()
    assert (len(train), len(held_out)) == (1500, 297)
    assert train.images.shape[1:] == held_out.images.shape[1:] == (3, 16, 16)


@pytest.mark.parametrize("pixels, patch, size, message", [
    (True, 4, 10, r"^pictures of 10 x 10 do not fit patches of 4: give --size 8 or --size 12 \(a multiple of 4\)$"),
    (True, 4, 3, r"^pictures of 3 x 3 do not fit patches of 4: give --size 4 \(a multiple of 4\)$"),
    (False, 2, 12, r"do not fit an autoencoder of factor 4 and patches of 2: give --size 8 or --size 16 \(a multiple of 8\), or "
                   r"--pixels, which needs no autoencoder$"),
    (False, 2, 13, r"give --size 8 or --size 16 \(a multiple of 8\)$"),
])  # fmt: skip
def test_a_size_that_does_not_fit_is_told_with_the_sizes_that_do(tmp_path, pixels, patch, size, message):
    config = run_config(pixels=pixels, size=size)
    job = Run(tmp_path, replace(config, model=replace(config.model, input_size=patch, patch_size=patch)))
    with pytest.raises(ValueError, match=message):
        job.fit_to(job.data()[0])


@pytest.mark.parametrize("words, multiple, sides", [
    (["--size", "36", "--patch-size", "3"], 3, (9, 9)),
    (["--size", "24", "--pixels", "--patch-size", "3"], 3, (24, 24)),
    (["--size", "28", "--patch-size", "7"], 7, (7, 7)),
    (["--data", "fashion", "--size", "36", "--patch-size", "3"], 3, (9, 9)),
    (["--size", "24", "--pixels", "--model", "unet", "--widths", "8", "16", "16", "16", "--groups", "8"], 8, (24, 24)),
    (["--size", "24", "--pixels", "--config", "FILE"], 3, (24, 24)),
])  # fmt: skip
def test_patches_have_to_fit_the_pictures_and_not_the_size_that_a_preset_happens_to_have(tmp_path, words, multiple, sides):
    (tmp_path / "three.toml").write_text("[model]\npatch_size = 3\n")
    folder = folder_of_pictures(tmp_path / "pictures")
    line = [str(tmp_path / "three.toml") if word == "FILE" else word for word in words]
    line = ["train", *line, *([] if "--data" in line else ["--data", str(folder)])]
    config = configure(build_parser("train", line).parse_args(line))
    assert config.model.multiple == multiple and all(side % multiple == 0 for side in config.model.size)
    job = Run(tmp_path / "run", config)
    job.fit_to(job.data()[0])
    assert job.config.model.size == sides
    assert run_config_from(tables_of(config), "what --print-config shows") == config


def test_a_size_of_samples_that_is_named_is_never_another():
    with pytest.raises(CheckpointError, match="input_size 8 x 8 is not divisible by patch_size 3"):
        run_config_from({"model": {"kind": "dit", "input_size": 8, "patch_size": 3}}, "my.toml")


def test_more_rungs_than_the_ladder_has_are_refused_before_any_work(tmp_path):
    config = run_config()
    job = Run(tmp_path, replace(config, sample=replace(config.sample, steps=21)))
    with pytest.raises(ValueError, match="--sample-steps 21: the ladder has 20 rungs"):
        job.fit_to(job.data()[0])
