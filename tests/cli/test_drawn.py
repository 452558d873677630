"""A PNG of `minidit sample` is enough to draw its pictures again: it holds the command, and a sentence that says how."""

import argparse
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small import interrupted, run_config

import minidit as md
from minidit.cli import main
from minidit.cli.drawn import AGAIN, WITHOUT_EFFECT, again, walk_in_words, words_of
from minidit.cli.parser import Parser
from minidit.cli.sample import add_arguments
from minidit.runs.presets import SHIPPED
from minidit.runs.words import SOLVERS, SPACINGS

pytestmark = pytest.mark.skipif(not (SHIPPED / "fashion").is_dir(), reason="no weights are shipped")
NUMBERS = st.floats(0, 1, exclude_min=True)


def parser():
    made = Parser()
    add_arguments(made)
    return made


def drawn(folder, *words):
    """(pixels, sentence, command) of the PNG that a command writes."""
    out = folder / "x.png"
    assert main(["sample", *map(str, words), "--out", str(out), "--quiet"]) == 0
    with Image.open(out) as picture:
        sentence, command = picture.info["Description"].split(f"\n{AGAIN}")
        return picture.tobytes(), sentence, command


def same_again(folder, *words):
    """The sentence of a picture, which the command inside it draws again, with the same words inside."""
    first = drawn(folder, *words)
    assert first[2].startswith("minidit sample ")
    assert drawn(folder, *shlex.split(first[2])[2:]) == first
    return first[1]


@pytest.mark.parametrize("words, said", [
    ("", "16 pictures, 8 steps of ddim with ab2_arc, guidance 4 in (0.2, 0.7], seed 0"),
    ("-n 3 --steps 2", "3 pictures, 2 steps of a network for few steps, seed 0"),
    ("-n 3 --steps 2 --solver euler", "3 pictures, 2 steps of ddim, guidance 4 in (0.2, 0.7], seed 0"),
    ("-n 1 --guidance 1 --seed 7", "1 picture, 8 steps of ddim with ab2_arc, guidance 1, seed 7"),
    ("-n 2 --steps 3 --path straight --shift 2.5", "3 steps of ddim on the path straight, shift 2.5, guidance 4 in (0.2, 0.7]"),
    ("-n 2 --steps 3 --path ve", "3 steps of ddim on the path ve, guidance"),
    ("-n 1 --steps 4 --path vp --spacing karras --solver ab2", "4 steps of ddim with ab2 on the path vp, spacing karras, "),
    ("-n 2 --steps 3 --sampler ddpm --labels bag", "2 pictures, 3 steps of ddpm, guidance"),
    ("--weights raster -n 2 --top-k 5 --temperature 0.7 --guidance 2", "guidance 2, temperature 0.7, top-k 5, seed 0"),
    ("--weights scales -n 2 --no-rising-guidance", "4 steps of scales, guidance 2, the same guidance everywhere, seed 0"),
    ("--weights words --steps 2 -n 3", "by the weights words: "),
    ("--prompt='red heart, noto' --prompt frog --steps 2", "by the weights words: red heart noto; frog"),
])  # fmt: skip
def test_the_command_inside_a_picture_draws_it_again(words, said, tmp_path):
    assert said in same_again(tmp_path, *shlex.split(words))


@settings(max_examples=12)
@given(st.data())
def test_so_do_options_that_are_drawn_together(tmp_path_factory, data):
    solver, eta = data.draw(st.sampled_from(sorted({*SOLVERS, ""}))), data.draw(st.sampled_from([0.0, 0.1, 1 / 3, 1.0]))
    low, high = sorted(data.draw(st.tuples(NUMBERS, NUMBERS).filter(lambda pair: abs(pair[0] - pair[1]) > 0.01)))
    words = {"--steps": data.draw(st.integers(1, 3)), "--labels": data.draw(st.sampled_from(["3", "bag,0", "0-2"])),
             "--guidance": 4 * data.draw(NUMBERS), "--seed": data.draw(st.integers(0, 2**40)),
             "--spacing": data.draw(st.sampled_from([*SPACINGS, ""]))}  # fmt: skip
    if eta and not solver:
        words["--eta"] = eta
    words |= {"--solver": solver} if solver else {}
    some = [w for flag, value in words.items() if value != "" for w in (flag, value)]
    some += ["--guidance-interval", low, high] if data.draw(st.booleans()) else []
    said = same_again(tmp_path_factory.mktemp("x"), *some)
    for name in ("spacing", "eta"):
        assert (f", {name} " in said) == bool(words.get(f"--{name}"))


def test_no_option_of_the_command_is_forgotten():
    """Every option is in the command, unless it is one of the few that change no picture."""
    actions = [a for a in parser()._actions if a.dest not in {*WITHOUT_EFFECT, "help"}]
    args = parser().parse_args([])
    for a in actions:
        word = True if isinstance(a, argparse.BooleanOptionalAction) else next(iter(a.choices or "3"))
        value = [0.25, 0.75] if a.nargs == 2 else word
        setattr(args, a.dest, [value] if isinstance(a, argparse._AppendAction) else value)
    args.run = "nowhere"
    options = {"steps": 3, "sampler": "ddpm", "solver": "euler", "guidance": 3, "interval": (0.25, 0.75)}
    words = shlex.split(again(parser(), args, md.load(), options))
    assert all(set(a.option_strings) & set(words) for a in actions if a.option_strings) and "nowhere" in words
    assert vars(parser().parse_args(words[2:])).keys() == vars(args).keys()


@settings(max_examples=30)
@given(st.text(min_size=1), st.floats(allow_nan=False, allow_infinity=False), st.integers())
def test_a_value_is_read_as_it_was_meant(text, scale, seed):
    args = parser().parse_args([])
    chosen = {"prompt": [text, "-x", text], "guidance": scale, "seed": seed, "labels": text, "rising": False}
    words = [word for a in parser()._actions if a.dest in chosen for word in words_of(a, chosen[a.dest])]
    assert vars(parser().parse_args(shlex.split(shlex.join(words)))) == {**vars(args), **chosen}


def test_a_saved_state_goes_by_its_number_of_updates(tmp_path):
    job = interrupted(tmp_path / "a run", run_config(), 3)
    said = same_again(tmp_path, job.folder, "--steps", 2)
    assert "by the run a run after 3 updates" in said
    assert "--state 3" in drawn(tmp_path, job.folder, "--state", "latest", "--steps", 2)[2]


@pytest.mark.parametrize("spacing, path", [("", ""), ("leading", ""), ("karras", ""), ("karras", "vp"), ("", "straight")])
def test_a_picture_says_the_steps_that_were_made_also_where_rungs_are_merged(spacing, path):
    pipeline = md.load()
    how = pipeline.settings(steps=400, spacing=spacing, path=path)
    made = len(how.times(how.path or pipeline.process.path))
    said = walk_in_words(pipeline, {"steps": 400, "spacing": spacing, "path": path, "sampler": "ddim", "solver": "euler"})
    assert said.startswith(f"{made} steps of ddim") and (made < 400) == (spacing == "karras")


def test_info_shows_the_sentence_and_the_command(minidit, tmp_path, capsys):
    _, sentence, command = drawn(tmp_path, "-n", 1, "--steps", 1)
    capsys.readouterr()
    assert minidit("info", tmp_path / "x.png")[1].splitlines()[1:] == [f"  {sentence}", f"  again: {command}"]


def test_the_words_of_a_foreign_picture_cannot_steer_the_terminal(minidit, tmp_path):
    from PIL.PngImagePlugin import PngInfo

    words = PngInfo()
    words.add_itxt("Description", "red \x1b[31m\nagain: rm")
    Image.new("L", (8, 8)).save(tmp_path / "x.png", pnginfo=words)
    out = minidit("info", tmp_path / "x.png")[1]
    assert "\x1b" not in out and out.splitlines()[1:] == ["  red \\x1b[31m", "  again: rm"]
