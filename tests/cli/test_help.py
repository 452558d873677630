"""What --help says: every option, its words and its default, on two levels, from one home; and what it does not load."""

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from minidit.choices import comments_of, one_of, words_of
from minidit.cli import COMMANDS, build_parser
from minidit.cli.flags import HIDDEN, OFTEN, flags_of, in_words
from minidit.cli.options import defaults_in
from minidit.runs.kinds import KINDS, kind_of
from minidit.runs.presets import PRESETS, RunConfig, networks
from minidit.runs.process_config import USUAL
from minidit.runs.words import PATHS, SAMPLERS, SOLVERS, SPACINGS

ROOT = Path(__file__).parents[2]
SECTIONS = [f for f in RunConfig.__dataclass_fields__ if f != "data"]
KIND = [(section, kind) for section, kinds in KINDS.items() for kind in kinds]


def parser_of(command, *words):
    """The parser of one command, for a whole command line."""
    whole = build_parser(command, [command, *words])
    commands = next(a for a in whole._actions if isinstance(a, argparse._SubParsersAction))
    return commands.choices[command]


# ------------------------------------------------------------------------------------------------ every option is explained


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_option_of_every_command_has_help(command):
    for action in parser_of(command, "--help-all")._actions:
        assert action.help, f"minidit {command} {action.option_strings or action.dest}"


@pytest.mark.parametrize("section, kind", KIND)
def test_every_option_of_every_kind_has_help_and_its_default(section, kind):
    words = [f"--{section}", kind, "--help-all"]
    parser, defaults = parser_of("train", *words), defaults_in(words, RunConfig())
    assert kind_of(section, getattr(defaults, section)) == kind
    for name in SECTIONS:
        own = getattr(defaults, name)
        shown = {a.dest: a for a in parser._actions if a.help != argparse.SUPPRESS}
        for _, f, _ in flags_of(name, {name: type(own)}):
            action, default = shown[f"{name}.{f.name}"], in_words(getattr(own, f.name))
            assert action.help.removesuffix(f" (default: {default})"), (
                f"the field {f.name} of {type(own).__name__} has no comment"
            )
            assert not default or action.help.endswith(f"(default: {default})")
            assert not words_of(f) or action.metavar == f"{{{','.join(words_of(f))}}}"


@pytest.mark.parametrize("section, kind", KIND)
def test_the_words_in_the_help_are_those_that_the_class_takes(section, kind):
    own = KINDS[section][kind]()
    for f in fields(own):
        if words_of(f):
            with pytest.raises(ValueError, match="nonsense"):
                replace(own, **{f.name: "nonsense"})
        for word in words_of(f):
            try:
                replace(own, **{f.name: word})
            except ValueError as error:  # a word may conflict with another field, but it is known
                assert repr(word) not in str(error), error


@pytest.mark.parametrize("section, kind", KIND)
def test_every_field_of_a_configuration_has_a_flag_or_a_reason(section, kind):
    cls = KINDS[section][kind]
    flags = [f.name for _, f, _ in flags_of(section, {section: cls})]
    assert flags == [f.name for f in fields(cls) if f.name not in HIDDEN.get(section, ())]


def test_the_words_of_a_walk_are_those_that_it_takes_and_its_defaults_those_of_the_process():
    """The command spells them out, because its help loads no arrays."""
    parser = parser_of("sample")
    tables = {"sampler": SAMPLERS, "solver": SOLVERS, "spacing": SPACINGS, "path": PATHS}
    assert {a.dest: set(a.choices) for a in parser._actions if a.dest in tables} == {k: set(v) for k, v in tables.items()}
    quick, text = USUAL.quick, next(a.help for a in parser._actions if a.dest == "steps")
    assert f"{quick.steps} of {quick.solver} (in a film {quick.film}) down a ladder" in text and f"else {USUAL.steps}" in text


def test_rare_options_are_shown_by_help_all_alone(minidit):
    short, whole = minidit("train", "--help")[1], minidit("train", "--help-all")[1]
    for flag in ("--ema", "--ae-widths", "--classifier-lr", "--held-out"):
        assert f" {flag} " in whole and f" {flag} " not in short
    assert "--lr X" in short and f"(default: {PRESETS['fashion'].train.lr})" in short
    listed = [a for a in parser_of("train", "--help-all")._actions if a.help != argparse.SUPPRESS]
    hidden = [a for a in listed if not any(f" {o}" in short for o in a.option_strings)]
    assert f"{len(hidden)} more options, which few people need: minidit train --help-all" in short


def test_what_is_often_used_is_a_field():
    for section, names in OFTEN.items():
        known = {f.name for cls in [*KINDS.get(section, {}).values(), type(getattr(RunConfig(), section))] for f in fields(cls)}
        assert names <= known


def test_the_default_is_that_of_the_preset_the_file_and_the_kind(minidit, tmp_path):
    (tmp_path / "my.toml").write_text("[train]\nlr = 0.25\n")
    assert "(default: 0.25)" in minidit("train", "--config", str(tmp_path / "my.toml"), "--help")[1]
    assert f"(default: {PRESETS['words'].train.steps})" in minidit("train", "--data", "emoji", "--help")[1]
    assert "(default: 768)" in minidit("train", "--network", "DiT-B/2", "--help")[1]


# ---------------------------------------------------------------------------------------------- the comment is the documentation


def test_a_comment_belongs_to_its_field_and_is_inherited():
    from minidit.models.dit import DiTConfig
    from minidit.models.flow_map import FlowMapConfig
    from minidit.processes.classify import ClassifyConfig

    assert comments_of(ClassifyConfig)["lr"] == "the learning rate, the largest one of the run"  # written in another file
    assert comments_of(FlowMapConfig)["depth"] == comments_of(DiTConfig)["depth"] == "blocks"
    assert comments_of(FlowMapConfig)["learn_sigma"] != comments_of(DiTConfig)["learn_sigma"]
    assert set(comments_of(DiTConfig)) <= {f.name for f in fields(DiTConfig)}


def test_a_class_without_a_file_has_no_comments():
    cls = type("C", (), {"__annotations__": {"a": int}, "__module__": "nowhere"})
    assert comments_of(cls) == {} and one_of("a", "ab").metadata["words"] == ("a", "b")


# --------------------------------------------------------------------------------------------- one list of presets and networks


def test_a_name_means_one_network_everywhere(minidit):
    import tomllib

    from minidit.models.dit import DIT

    for name, preset in PRESETS.items():
        assert networks()[name] == preset.model
    assert DIT["fashion"] == PRESETS["fashion"].model and DIT["demo"] == PRESETS["demo"].model
    code, out, _ = minidit("train", "--data", "mine", "--network", "DiT-S/2", "--print-config")
    assert code == 0 and tomllib.loads(out)["model"]["hidden_size"] == 384
    out = minidit("info", "--no-speed")[1]
    assert all(f"\n{name} " in out for name in networks())


# ------------------------------------------------------------------------------------------------ no dead end


def test_minidit_alone_shows_the_first_steps(minidit):
    code, out, err = minidit()
    assert (code, out) == (2, "") and "first steps:" in err and "minidit train --data PICTURES" in err


def test_help_is_a_command_as_well(minidit):
    assert minidit("help", "rungs") == minidit("rungs", "--help") and minidit("help")[1] == minidit("--help")[1]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("line, there, absent", [
    ("minidit tr", ["train"], "sample"), ("minidit train --res", ["--resume"], "--out"),
    ("minidit train --preset fa", ["fashion", "fashion-flow"], "digits"),
    ("minidit sample --solver ", ["ab2", "heun"], "--steps"),
    ("minidit vectors ", ["export", "check", "list"], "--full"), ("minidit train --data d", ["digits"], "fashion"),
    ("minidit train --schedule ", ["linear", "cosine", "scaled_linear"], "--lr"), ("minidit train runs/", [], "digits"),
])  # fmt: skip
def test_bash_completes(minidit, tmp_path, line, there, absent):
    script = minidit("completion", "bash")[1]
    script += 'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _minidit; printf "%s\\n" "${COMPREPLY[@]}"'
    words = " ".join(f"'{word}'" for word in line.split(" "))
    done = subprocess.run(["bash", "-c", f"COMP_WORDS=({words}); {script}"], capture_output=True, text=True, cwd=tmp_path)
    found = done.stdout.split()
    assert done.stderr == "" and absent not in found and set(there) <= set(found)


def test_zsh_gets_the_same_words_after_its_own_start(minidit):
    bash, zsh = (minidit("completion", shell)[1] for shell in ("bash", "zsh"))
    assert "bashcompinit" in zsh and zsh.split("_minidit()", 1)[1] == bash.split("_minidit()", 1)[1]


# ------------------------------------------------------------------------------------------------ what is loaded


def loaded(script):
    """The modules that Python has after a script."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    whole = f"import sys; {script}; print(*sorted(sys.modules), file=sys.stderr)"
    return set(subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, env=environment).stderr.split())


@pytest.mark.parametrize(
    "words", [["--help"], *([c, "--help"] for c in ("sample", "report", "eval", "convert", "rungs", "vectors"))]
)
def test_help_loads_no_arrays(words):
    """NumPy alone takes as long as all of `minidit --help` may take."""
    modules = loaded(f"from minidit.cli import main; assert main({words}) == 0")
    assert "argparse" in modules and not modules & {"numpy", "scipy", "PIL", "tqdm"}


def test_the_help_of_train_loads_configurations_and_no_libraries_but_numpy():
    modules = loaded("from minidit.cli import main; assert main(['train', '--help']) == 0")
    assert "numpy" in modules and not modules & {"scipy", "PIL", "tqdm", "cupy", "safetensors"}


def test_importing_minidit_loads_nothing_heavy():
    modules = loaded("import minidit; minidit.DiT; minidit.train")
    assert "minidit.processes.train" in modules and not modules & {"scipy", "PIL", "cupy", "tqdm", "safetensors"}
