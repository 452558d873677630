"""`minidit train --process raster|scales --tokenizer …` and `minidit sample` of what they leave."""

import numpy as np
import pytest
from PIL import Image

from minidit.cli import main
from minidit.incoming import read_toml
from minidit.runs.loading import load
from minidit.runs.presets import SHIPPED
from minidit.runs.show import pace
from minidit.runs.writer import Writer

SMALL = (
    "--data", "digits", "--steps", "2", "--batch-size", "4", "--lr", "0.05", "--warmup", "0", "--hidden-size", "16",
    "--depth", "1", "--num-heads", "2", "--ae-widths", "8", "8", "8", "--ae-steps", "6", "--ae-batch-size", "4",
    "--sample-every", "0", "--quiet",
)  # fmt: skip
TINY = (*SMALL, "--ae-warm", "2")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs with a tokenizer each: one grid of codes, two scales, and latents."""
    place = tmp_path_factory.mktemp("cli")
    words = {"raster": ["--process", "raster", "--ae-codes", "16"],
             "scales": ["--process", "scales", "--ae-codes", "16", "--ae-sizes", "1", "2"],
             "latents": ["--tokenizer", "autoencoder"]}  # fmt: skip
    for name, more in words.items():
        assert main(["train", *(SMALL if name == "latents" else TINY), *more, "--out", str(place / name)]) == 0
    return place


def drawn(folder, *words):
    file = folder / "x.npz"
    assert main(["sample", *words, "--labels", "0-3", "--out", str(file), "--quiet"]) == 0
    with np.load(file) as arrays:
        return arrays["arr_0"]


def test_a_process_of_codes_brings_its_network_its_tokenizer_and_its_settings(runs, capsys):
    for name, kinds in {"raster": ("gpt", "vq"), "scales": ("var", "multiscale_vq")}.items():
        config = read_toml(runs / name / "config.toml", ValueError)
        assert (config["model"]["kind"], config["tokenizer"]["kind"]) == kinds
        assert config["sample"]["steps"] == {"raster": 4, "scales": 2}[name] and config["train"]["betas"] == [0.9, 0.95]
    assert main(["train", "--process", "scales", "--print-config"]) == 0
    asked = capsys.readouterr().out
    assert 'kind = "multiscale_vq"' in asked and 'source = "fashion"' in asked
    assert main(["train", "--preset", "digits", "--process", "raster", "--print-config"]) == 0
    assert 'kind = "vq"' in (asked := capsys.readouterr().out) and 'kind = "gpt"' in asked and 'source = "digits"' in asked


def test_a_run_is_named_where_a_kind_of_tokenizer_may_be(runs, tmp_path):
    out = tmp_path / "more"
    assert main(["train", *TINY, "--process", "raster", "--tokenizer", str(runs / "raster"), "--out", str(out)]) == 0
    first, second = (load(place).tokenizer.network for place in (runs / "raster", out))
    assert np.array_equal(first.flat, second.flat) and second.config.codes == 16


def test_a_picture_says_how_its_codes_were_chosen_and_by_which_weights(runs, tmp_path):
    out, place = tmp_path / "x.png", runs / "raster"
    words = ["--temperature", "0.9", "--top-k", "5", "--top-p", "0.95", "--guidance", "2"]
    chosen = "guidance 2, temperature 0.9, top-k 5, top-p 0.95, seed 0"
    for state, by in (([], "raster: 1"), (["--state", "latest"], "raster after 2 updates: 1")):
        assert main(["sample", str(place), "--labels", "1", *words, *state, "--out", str(out), "--quiet"]) == 0
        with Image.open(out) as picture:
            said = f"minidit sample: 1 picture, 4 steps of raster, {chosen}, by the run {by}\nagain: minidit sample {place} "
            assert picture.info["Description"].startswith(said)
    assert main(["sample", str(runs / "scales"), "--labels", "1", "--no-rising-guidance", "--out", str(out), "--quiet"]) == 0
    with Image.open(out) as picture:
        assert ", the same guidance everywhere, seed 0, by the run scales" in picture.info["Description"]


def test_a_film_of_a_few_stages_lasts_long_enough_to_see_them(runs, tmp_path):
    out = tmp_path / "x.gif"
    assert main(["sample", str(runs / "scales"), "--labels", "0-3", "--out", str(out), "--quiet"]) == 0
    with Image.open(out) as film:
        durations = [(film.seek(k), film.info["duration"])[1] for k in range(film.n_frames)]
    assert min(durations) >= 400 and durations[-1] >= 1500
    assert pace(64) == 80 and all(pace(n) * n >= 2400 for n in range(4, 99))


def test_seed_temperature_and_the_rest_reach_the_choice(runs, tmp_path):
    place = str(runs / "raster")
    plain = drawn(tmp_path, place)
    assert np.array_equal(plain, drawn(tmp_path, place)) and plain.shape == (4, 8, 8, 1)
    for words in (["--seed", "3"], ["--temperature", "0.2"], ["--guidance", "30"], ["--top-p", "0.1"]):
        assert not np.array_equal(plain, drawn(tmp_path, place, *words)), words
    best = [drawn(tmp_path, place, "--top-k", "1", "--seed", seed) for seed in "12"]
    assert np.array_equal(*best)
    scales, rising = str(runs / "scales"), ["--guidance", "30", "--seed", "2"]
    assert not np.array_equal(drawn(tmp_path, scales, *rising), drawn(tmp_path, scales, *rising, "--no-rising-guidance"))
    assert np.array_equal(drawn(tmp_path, scales, *rising), drawn(tmp_path, scales, *rising, "--rising-guidance"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", *TINY, "--process", "raster", "--tokenizer", "latents"],
         "--process raster goes with --tokenizer vq or fsq; this run has the tokenizer autoencoder"),
        (["train", *TINY, "--process", "raster", "--tokenizer", "scales"], "this run has the tokenizer multiscale_vq"),
        (["train", *TINY, "--process", "raster", "--tokenizer", "nowhere"], "--tokenizer 'nowhere' is not one of pixels"),
        (["train", *TINY, "--process", "raster", "--tokenizer", "raster", "--autoencoder", "latents"], "leave out one of them"),
        (["train", *TINY, "--process", "raster", "--model", "var"], "--process raster goes with --model gpt"),
        (["train", *TINY, "--process", "scales", "--ae-sizes", "1", "4"], "not the last of the scales (1, 4): give --ae-sizes"),
        (["train", "--data", "digits", "--process", "raster", "--pixels"], "this run has the tokenizer pixels"),
        (["sample", "raster", "--steps", "8"], "--steps 8: this model writes 4 codes in 4 passes, no more or less"),
        (["sample", "raster", "--solver", "heun"], "takes no sampler, solver, eta or path: leave them out"),
        (["sample", "raster", "--guidance-interval", "0.1", "0.2"], "takes no spacing, shift or interval of guidance"),
        (["sample", "raster", "--top-p", "0"], "top_p 0 must be above 0 and at most 1"),
        (["sample", "latents", "--top-k", "3"], "are of models that write codes; this one denoises"),
        (["sample", "raster", "--weights", "fashion"], "are both named: leave out one of them"),
        (["sample", "--weights", "nothing"], "no weights 'nothing' are shipped with this installation: there are fashion"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_one_line(words, message, runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    capsys.readouterr()
    assert main([*words, "--out", "refused" if words[0] == "train" else "x.png"]) != 0
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and message in err and not (runs / "refused").exists()


@pytest.mark.skipif(not (SHIPPED / "raster").is_dir(), reason="no weights for codes are shipped")
def test_the_shipped_weights_write_codes(tmp_path):
    for name, passes in (("raster", 64), ("scales", 4)):
        pipeline = load(weights=name)
        assert isinstance(pipeline, Writer) and pipeline.steps(None) == passes
        x = drawn(tmp_path, "--weights", name)
        assert x.shape == (4, 28, 28, 1) and x.std() > 30
        assert (SHIPPED / name / "CARD.md").read_text("utf-8").startswith("# Fashion-MNIST, written")
    assert sum(f.stat().st_size for name in ("raster", "scales") for f in (SHIPPED / name).glob("*.safetensors")) < 3_000_000
