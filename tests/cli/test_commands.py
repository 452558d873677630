"""The command line: help, suggestions, one-line errors with their exit codes, and who may print what where."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minidit.cli import COMMANDS, build_parser, main
from minidit.cli.progress import Progress
from minidit.runs.kinds import KINDS
from minidit.version import __version__

ROOT = Path(__file__).parents[2]


def parser_of(command):
    """The parser of one command."""
    return next(a for a in build_parser(command, [command])._actions if a.dest == "command").choices[command]


def outside(*arguments, **options):
    """Python with these arguments in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=120, **options)


# ------------------------------------------------------------------------------------------------ help and start


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(minidit, command):
    code, out, err = minidit(command, "--help")
    assert code == 0 and not err
    assert out.startswith(f"usage: minidit {command}") and "--debug" in out


def test_the_help_lists_every_command(minidit):
    code, out, err = minidit("--help")
    assert code == 0 and not err and all(f"    {name}" in out for name in COMMANDS)


def test_the_version(minidit):
    assert minidit("--version") == (0, f"minidit {__version__}\n", "")


def test_python_m_minidit_is_the_command():
    done = outside("-m", "minidit", "--version")
    assert (done.returncode, done.stdout) == (0, f"minidit {__version__}\n")
    done = outside("-m", "minidit", "trian")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "minidit: there is no command 'trian', did you mean 'train'?\n"


def test_a_reader_that_goes_away_is_no_disaster():
    gone = "import sys, os; from minidit.cli import main; read, write = os.pipe(); os.dup2(write, 1); os.close(read)"
    script = f"{gone}; sys.stdout.reconfigure(line_buffering=True); sys.exit(main(['info', '--no-speed']))"
    done = outside("-c", script)
    assert done.returncode == 1 and "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------------------ wrong usage


@pytest.mark.parametrize("arguments, message", [
    (["smaple"], "minidit: there is no command 'smaple', did you mean 'sample'?"),
    (["dance"], "minidit: there is no command 'dance'; minidit --help lists them"),
    (["compare", "a", "b"], "minidit: there is no command 'compare', did you mean minidit report RUN RUN?"),
    (["train", "--stpes", "3"], "minidit: unknown option --stpes, did you mean --steps?"),
    (["train", "--lerning-rate=3"], "minidit: unknown option --lerning-rate=3"),
    (["sample", "--sampler", "euler"], "minidit sample: --sampler 'euler' is not one of ddim, ddpm, consistency, did you"),
    (["train", "--steps", "many"], "minidit train: --steps 'many' is not a whole number"),
    (["train", "--steps", "0"], "minidit: steps = 0 must be at least 1"),
    (["train", "--prediction", "noise"], "minidit: prediction 'noise' is not one of eps, x_0, v"),
    (["train", "--hidden-size", "30"], "minidit: hidden_size 30 must be divisible by"),
    (["train", "--data", "/nowhere"], "minidit: /nowhere: no such file or folder; embedded sets are digits, fashion"),
    (["train", "--data", "fashoin"], "did you mean 'fashion'?"),
    (["train", "--config", "/nowhere.toml"], "minidit: /nowhere.toml: there is no such file"),
    (["train", "--data", "digits", "--size", "9"], "minidit: pictures of 9 x 9 do not fit patches of 2: give --size"),
    (["train", "--resume", "/nowhere"], "minidit: /nowhere: there is no such run (minidit train makes one)"),
    (["train", "--resume", "run", "--steps", "9", "--size", "8"], "configuration in run/config.toml: leave out size"),
    (["train", "--device", "tpu", "--print-config", "--lr", "-1"], "minidit: lr = -1.0 is out of range"),
    (["sample", "/nowhere"], "minidit: /nowhere: there is no such run (classes go after --labels, captions after --prompt)"),
    (["sample", "--out", "grid.jpg"], "minidit: --out grid.jpg: the name must end in .png, .gif or .npz"),
    (["sample", "--out", "/nowhere/grid.png"], "minidit: --out /nowhere/grid.png: there is no folder /nowhere"),
    (["sample", "--steps", "5000"], "minidit: --steps 5000: the ladder has 1000 rungs"),
    (["sample", "--spacing", "even"], "minidit sample: --spacing 'even' is not one of trailing, linspace,"),
    (["train", "--T", "30"], "minidit: --sample-steps 50: the ladder has 30 rungs"),
    (["train", "--tokenizer", "vqq"], "minidit: --tokenizer 'vqq' is not one of pixels, autoencoder"),
    (["train", "--tokenizer", "pixels", "--ae-widths", "8"], "minidit: --ae-widths: the tokenizer of this run is pixels; add"),
    (["train", "--process", "edm", "--T", "9"], "minidit: --T: the process of this run is edm; add --process ddpm"),
    (["train", "--process", "rectified_flow", "--times", "unifrom"], "minidit: times 'unifrom' is not one of uniform, logit_nor"),
    (["train", "--preset", "digits-flow", "--prediction", "eps"], "answer eps does not determine x_0: let the network predict v"),
    (["sample", "--path", "flow"], "minidit sample: --path 'flow' is not one of vp, straight, ve"),
    (["sample", "--shift", "3"], "minidit: only the times of the straight path are shifted: add --path straight"),
    (["train", "--data", "digits", "--ae-groups", "4"], "minidit: --ae-groups: the tokenizer of this run is pixels"),
    (["train", "--pixels", "--autoencoder", "runs/a"], "minidit: --pixels means that there is no autoencoder"),
    (["train", "--resume", "run", "--tokenizer", "pixels"], "configuration in run/config.toml: leave out tokenizer"),
    (["sample", "--steps", "0"], "minidit: --steps 0 must be at least 1"),
    (["sample", "-n", "0"], "minidit: -n 0 must be at least 1"),
    (["sample", "--guidance", "nan"], "minidit: --guidance nan must be finite"),
    (["sample", "--guidance-interval", "0", "inf"], "minidit: --guidance-interval 0.0 inf must be finite"),
    (["sample", "--sampler", "ddpm", "--eta", "1"], "minidit: --eta 1: how much fresh noise ddpm has is fixed"),
    (["sample", "--labels", "5-2"], "minidit: labels '5-2' go down: write 2-5"),
    (["sample", "--device", "gpu"], "minidit: unknown device 'gpu': use 'cpu', 'cuda', 'cuda:N' or 'auto'"),
    (["sample", "--sampler", "heun"], "did you mean --solver heun?"),
    (["sample", "--cfg-scale", "3"], "minidit: unknown option --cfg-scale, did you mean --guidance?"),
    (["train", "--learning-rate", "3"], "minidit: unknown option --learning-rate, did you mean --lr?"),
    (["train", "digits"], "minidit: 'digits' belongs to no option, did you mean --data digits?"),
    (["train", "digits-edm", "--steps", "3"], "minidit: 'digits-edm' belongs to no option, did you mean --preset digits-edm?"),
    (["train", "--preset", "fashoin"], "did you mean 'fashion'?"),
    (["train", "--data", ""], "minidit: --data is empty: name a folder or a set"),
    (["train", "--network", "DiT-S2"], "minidit: there is no network 'DiT-S2', did you mean 'DiT-S/2'?"),
    (["train", "--betas", "0.5", "2"], "minidit: betas = (0.5, 2.0) is out of range: it must be from 0 to below 1, each"),
    (["train", "--class-dropout-prob", "2"], "minidit: class_dropout_prob 2.0 is out of range: it must be from 0 to below 1"),
    (["rungs", "--steps", "0"], "minidit: --steps 0: of a ladder of 1000 rungs 1 to 1000 can be kept"),
    (["rungs", "--steps", "21", "--T", "20"], "minidit: --steps 21: of a ladder of 20 rungs 1 to 20 can be kept"),
    (["report", "/"], "minidit: /: no run there (no config.toml)"),
    (["report", "/", "--csv", "-"], "minidit: /: no numbers there"),
    (["verify", str(ROOT / "LICENSE")], "LICENSE: no Python file: its name must end in .py"),
    (["eval", "/nowhere"], "minidit: /nowhere: there is no such run"),
    (["report", "/nowhere"], "minidit: /nowhere: there is no such run"),
    (["sample", "--precision", "tf32"], "minidit: precision 'tf32' needs a GPU: on the CPU there are float32 and bf16"),
    (["train", "--precision", "tf32"], "minidit: precision 'tf32' needs a GPU: on the CPU there are float32 and bf16"),
    (["sample", "--precision", "fp8"], "minidit: precision 'fp8' is not one of float32, tf32, bf16"),
    (["sample", "--temperature", "0"], "are of models that write codes; this one denoises"),
    (["sample", "--weights", "raster", "--temperature", "0"], "temperature 0 must be above 0 (always the most"),
    (["sample", "--weights", "raster", "--temperature", "-1"], "minidit: temperature -1 must be above 0"),
    (["sample", "--weights", "raster", "--top-p", "2"], "minidit: top_p 2 must be above 0 and at most 1 (1: all codes)"),
    (["sample", "--weights", "raster", "--top-k", "-2"], "minidit: top_k -2 must be at least 0 (0: all codes)"),
    (["sample", "--prompt", "red", "heart"], "did you mean minidit sample --prompt 'red heart'?"),
    (["sample", "--prompt", "a", "red", "heart", "--seed", "3"], "did you mean minidit sample --prompt 'a red heart' --seed 3?"),
    (["sample", "--labels", "shirt", "bag"], "did you mean minidit sample --labels shirt,bag?"),
    (["sample", "help"], "help: there is no such run (classes go after --labels, captions after --prompt)"),
    (["convert", "clothes"], "clothes: there is no such file or run folder, and no shipped weights of this name (fashion, "),
    (["info", "flux"], "did you mean 'flux-words' or 'FLUX.1-dev'?"),
    (["info", "FLUX"], "did you mean 'flux-words' or 'FLUX.1-dev'?"),
    (["report"], "minidit report: RUN is missing (a run folder)"),
    (["--verson"], "minidit: unknown option --verson, did you mean --version?"),
    (["info", "--memory", "--network", "fasion"], "minidit: there is no network 'fasion', did you mean 'fashion'?"),
    (["info", "--memory", "--device", "tpu"], "minidit: unknown device 'tpu': use 'cpu', 'cuda', 'cuda:N' or 'auto'"),
])  # fmt: skip
def test_wrong_usage_is_one_line_and_exit_code_2(minidit, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = minidit(*arguments)
    assert code == 2 and out == ""
    assert err.count("\n") == 1 and message in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_no_beginning_of_an_option_is_taken_for_the_option(command):
    """--n is no short form of --no-rising-guidance: a beginning is unknown, with a whole option as the suggestion."""
    parser = parser_of(command)
    known = parser._option_string_actions
    for begun in {option[:k] for option in known for k in range(5, len(option))} - set(known):
        assert not parser._get_option_tuples(begun) or not parser.allow_abbrev
        assert "did you mean -" in parser._clearer(f"unrecognized arguments: {begun}")


def test_a_beginning_is_refused(minidit):
    assert minidit("sample", "--no-ris") == (2, "", "minidit: unknown option --no-ris, did you mean --no-rising-guidance?\n")


def test_n_is_the_number_of_pictures_with_one_dash_or_two():
    parser = parser_of("sample")
    assert parser.parse_args(["--n", "3"]).n == parser.parse_args(["-n", "3"]).n == 3


@pytest.mark.parametrize("words", [["sample"], ["eval"], ["report"], ["report", "runs/cats"], ["train", "--resume"],
                                   ["train", "--data", "digits", "--init"]])  # fmt: skip
@pytest.mark.parametrize("wrong", ["runs/cat", "cats"])
def test_a_misspelt_run_is_answered_with_the_right_one(minidit, words, wrong, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "cats").mkdir(parents=True)
    (tmp_path / "runs" / "cats" / "config.toml").write_text("")
    code, out, err = minidit(*words, wrong)
    kind = "run or file" if "--init" in words else "run"
    assert (code, out, err) == (2, "", f"minidit: {wrong}: there is no such {kind}, did you mean runs/cats?\n")


def test_a_folder_that_holds_no_pictures_is_told(minidit, tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "words.txt").write_text("meow")
    code, out, err = minidit("train", "--data", str(tmp_path))
    assert (code, out) == (2, "") and "words.txt: not a picture" in err and err.count("\n") == 1


def test_debug_shows_where_an_error_comes_from():
    with pytest.raises(ValueError, match="there is no such run"):
        main(["train", "--resume", "/nowhere", "--debug"])
    done = outside("-m", "minidit", "train", "--resume", "/nowhere", "--debug")
    assert done.returncode == 1 and "Traceback" in done.stderr


@pytest.mark.parametrize("error, code, message", [
    (RuntimeError("the loss is nan"), 1, "minidit: the loss is nan\n"),
    (OSError(28, "No space left on device"), 1, "minidit: [Errno 28] No space left on device\n"),
    (ValueError("two\nlines"), 2, "minidit: two lines\n"),
    (KeyError("x"), 1, "minidit: KeyError: 'x'\n"),
    (AssertionError(), 1, "minidit: AssertionError:\n"),
    (KeyboardInterrupt(), 130, "\nminidit: interrupted\n"),
])  # fmt: skip
def test_every_failure_has_its_exit_code(minidit, monkeypatch, error, code, message):
    def fail(args):
        raise error

    monkeypatch.setattr("minidit.cli.info.run", fail)
    assert minidit("info") == (code, "", message)


# ------------------------------------------------------------------------------------------------ info, print-config


def test_info_tells_the_versions_and_sizes(minidit):
    code, out, err = minidit("info", "--no-speed")
    assert code == 0 and not err
    assert f"minidit {__version__}" in out and f"{np.__version__}" in out
    assert "DiT-XL/2" in out and "675,129,632" in out and "118.6" in out


def test_flags_stand_over_the_file_and_the_file_over_the_preset(minidit, tmp_path):
    from minidit.runs.config import read_config
    from minidit.runs.presets import PRESETS

    file = tmp_path / "my.toml"
    file.write_text("[train]\nlr = 0.25\nsteps = 77\n[sample]\nguidance = 4\n")
    code, out, err = minidit("train", "--preset", "quick", "--config", str(file), "--steps", "5", "--betas", "0.5", "0.75",
                          "--no-learn-sigma", "--threads", "3", "--print-config")  # fmt: skip
    assert code == 0 and not err
    (tmp_path / "resolved.toml").write_text(out)
    found = read_config(tmp_path / "resolved.toml")
    assert (found.train.steps, found.train.lr, found.train.batch_size) == (5, 0.25, PRESETS["quick"].train.batch_size)
    assert found.train.betas == (0.5, 0.75) and found.sample.guidance == 4 and found.data == PRESETS["quick"].data
    assert {found.train.shards, found.tokenizer_train.shards, found.judge_train.shards} == {3}


@pytest.mark.parametrize("arguments, source, tokenizer", [
    ([], "fashion", "autoencoder"), (["--data", "digits"], "digits", "pixels"), (["--data", "mine"], "mine", "autoencoder"),
    (["--data", "mine", "--pixels"], "mine", "pixels"), (["--preset", "demo"], "fashion", "autoencoder"),
    (["--data", "digits", "--tokenizer", "autoencoder"], "digits", "autoencoder"),
    (["--data", "digits", "--autoencoder", "a.safetensors"], "digits", "autoencoder"),
    (["--data", "mine", "--tokenizer", "autoencoder_kl", "--ae-blocks", "1"], "mine", "autoencoder_kl"),
])  # fmt: skip
def test_the_data_choose_the_preset_where_none_is_named(minidit, arguments, source, tokenizer):
    code, out, err = minidit("train", *arguments, "--print-config")
    sections = tomllib.loads(out)
    assert code == 0 and not err and sections["data"]["source"] == source and sections["tokenizer"]["kind"] == tokenizer
    assert sections["data"]["tokenizer"] == ("a.safetensors" if "--autoencoder" in arguments else "")


@pytest.mark.parametrize("arguments, there, absent", [
    ([], ("--ae-widths", "--ae-steps", "--T", "--depth"), ("--ae-blocks",)),
    (["--pixels"], ("--ae-steps", "--T"), ("--ae-widths",)),
    (["--tokenizer=pixels"], ("--ae-steps", "--T"), ("--ae-widths",)),
    (["--tokenizer", "autoencoder_kl"], ("--ae-widths", "--ae-blocks"), ()),
    (["--process", "rectified_flow"], ("--times", "--shift", "--prediction"), ("--T", "--schedule", "--sigma-max")),
    (["--preset", "digits-edm"], ("--sigma-max", "--times-mean"), ("--T", "--shift", "--ae-widths")),
    (["--data", "digits"], ("--T",), ("--ae-widths", "--shift")),
])  # fmt: skip
def test_the_help_shows_the_flags_of_the_kinds_that_are_named(minidit, arguments, there, absent):
    code, out, _ = minidit("train", *arguments, "--help-all")
    assert code == 0 and all(f" {flag} " in out for flag in there) and not any(f" {flag} " in out for flag in absent)
    for section in ("model", "process"):
        assert f"--{section} {{{','.join(sorted(KINDS[section]))}}}" in out


# ------------------------------------------------------------------------------------------------ progress


def test_progress_is_plain_lines_on_stderr_where_there_is_no_terminal(capsys):
    progress = Progress()
    for step in range(1, 31):
        progress.tell("model", {"step": step, "loss": 1.0}, 30)
    progress.note("done")
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and "\r" not in err and "\x1b" not in err
    assert lines[0].startswith("model: 1/30, loss 1.0000, ") and lines[-2].startswith("model: 30/30") and lines[-1] == "done"
    assert len(lines) <= 4  # the first, the last, the note, and at most one between them on a slow day


def test_quiet_means_quiet(capsys):
    progress = Progress(quiet=True)
    progress.tell("model", {"step": 1, "loss": 1.0}, 1)
    progress.note("x")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_that_starts_no_thread(monkeypatch, capsys):
    import threading

    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    progress = Progress()
    before = threading.active_count()
    for step in range(3, 13):
        progress.tell("model", {"step": step, "loss": 0.5}, 12)
    assert threading.active_count() == before and progress.bar.n == 12
    progress.close()
    assert "12/12" in capsys.readouterr().err


def test_the_loss_is_looked_at_seldom():
    """A number on a GPU makes the host wait: not at every step."""
    looks = []

    class Number:
        def __float__(self):
            looks.append(1)
            return 1.0

    progress = Progress(quiet=False)
    for step in range(1, 101):
        progress.tell("model", {"step": step, "loss": Number()}, 1000)
    assert len(looks) <= 11


def test_a_picture_folder_is_no_place_for_a_run(tmp_path, monkeypatch):
    """Without --out the run goes to runs/NAME, NAME the last part of the path of the pictures, however that is written."""
    from minidit.cli.train import name_of

    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.cats").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "one.png")
    assert {name_of(p) for p in ("my.cats", "./my.cats/", str(tmp_path / "my.cats"))} == {"my.cats"}
    assert name_of("one.png") == "one" and name_of("digits") == "digits"
