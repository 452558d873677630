"""What the data decide of a run."""

from dataclasses import replace

import numpy as np
import pytest
from small import begun, folder_of_pictures, run_config

from minidit.runs.phases import Run


def test_a_tenth_of_the_pictures_is_held_out_and_stays_so(tmp_path):
    source = folder_of_pictures(tmp_path / "pictures", (30, 20))
    job, train = begun(tmp_path / "run", run_config(source))
    (again, held_out), first = job.data(), job.data()[1]
    assert (len(train), len(held_out)) == (45, 5) and np.bincount(held_out.labels).tolist() == [3, 2]
    assert np.array_equal(first.images, held_out.images) and np.array_equal(again.images, train.images)
    assert job.config.model.num_classes == 2 and job.config.model.in_channels == 3


def test_very_few_pictures_are_all_trained_on(tmp_path):
    train, held_out = Run(tmp_path, run_config(folder_of_pictures(tmp_path / "p", (3, 2)))).data()
    assert len(train) == len(held_out) == 5


def test_an_embedded_set_brings_its_own_held_out_part_in_the_wanted_form(tmp_path):
    train, held_out = Run(tmp_path, run_config(size=16, channels=3)).data()
    assert (len(train), len(held_out)) == (1500, 297)
    assert train.images.shape[1:] == held_out.images.shape[1:] == (3, 16, 16)


@pytest.mark.parametrize("pixels, patch, size, message", [
    (True, 4, 10, r"pictures of 10 x 10 do not fit patches of 4: give --size, a multiple of 4"),
    (False, 2, 12, r"do not fit an autoencoder of factor 4 and patches of 2: give --size, a multiple of 8"),
])  # fmt: skip
def test_a_size_that_does_not_fit_is_told_with_the_sizes_that_do(tmp_path, pixels, patch, size, message):
    config = run_config(pixels=pixels, size=size)
    job = Run(tmp_path, replace(config, model=replace(config.model, input_size=patch, patch_size=patch)))
    with pytest.raises(ValueError, match=message):
        job.fit_to(job.data()[0])


def test_more_rungs_than_the_ladder_has_are_refused_before_any_work(tmp_path):
    config = run_config()
    job = Run(tmp_path, replace(config, sample=replace(config.sample, steps=21)))
    with pytest.raises(ValueError, match="--sample-steps 21: the ladder has 20 rungs"):
        job.fit_to(job.data()[0])
