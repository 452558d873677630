"""`minidit convert`: looks into files of weights, writes them in other grammars, and fails in one line."""

import pytest
from checkpoint.test_grammars import FOREIGN, dit

from minidit.checkpoint import DIALECTS, SPOKEN, save
from minidit.cli import convert, main
from minidit.runs.presets import SHIPPED


def test_the_choices_are_the_grammars_and_dialects_that_there_are():
    assert tuple(SPOKEN) == convert.GRAMMARS and convert.DIALECTS == DIALECTS


def test_convert_looks_and_writes_and_fails_in_one_line(tmp_path, capsys):
    save(tmp_path / "dit", dit(FOREIGN), grammar="diffusers")
    assert main(["convert", str(tmp_path / "dit")]) == 0
    out = capsys.readouterr().out
    assert "dit in the grammar diffusers" in out and "M76" in out and "[kept]: computed here in that project's way too" in out
    official, back = tmp_path / "o.safetensors", tmp_path / "back"
    assert main(["convert", str(tmp_path / "dit"), str(official), "--to", "official"]) == 0
    out = capsys.readouterr().out
    assert "M76" in out  # the official code uses other frequencies than this network
    assert out.count("[differs]: computed here otherwise") == 2  # of the source, and of what is written
    assert main(["convert", str(official), str(back), "--to", "diffusers", "--num-heads", "3", "--dialect", "diffusers"]) == 0
    for file in ("diffusion_pytorch_model.safetensors", "config.json"):
        assert (back / file).read_bytes() == (tmp_path / "dit" / file).read_bytes()
    capsys.readouterr()
    for arguments, words in (
        ([tmp_path / "none"], "there is no such file"),
        ([tmp_path], "name one of o.safetensors"),
        ([back, tmp_path / "x.pt", "--to", "official"], "never as a pickle"),
        ([back, back, "--to", "diffusers"], "the same"),
        ([back, tmp_path / "y", "--to", "ldm"], "cannot be written"),
        ([back, tmp_path / "y", "--num-heads", "0"], "at least 1"),
    ):
        assert main(["convert", *map(str, arguments)]) == 2
        out, err = capsys.readouterr()
        assert words in err and err.count("\n") == 1


def test_a_run_folder_and_shipped_weights_are_converted_by_their_names(tmp_path, capsys):
    save(tmp_path / "run/model.safetensors", dit(FOREIGN))
    assert main(["convert", str(tmp_path / "run"), str(tmp_path / "o.safetensors"), "--to", "official"]) == 0
    assert main(["convert", str(tmp_path / "o.safetensors"), "--num-heads", "3"]) == 0
    assert "dit in the grammar official" in capsys.readouterr().out
    if (SHIPPED / "fashion").is_dir():
        assert main(["convert", "fashion", str(tmp_path / "dif"), "--to", "diffusers"]) == 0
        assert (tmp_path / "dif/config.json").exists()
    capsys.readouterr()
    assert main(["convert", str(tmp_path / "run"), "--to", "official"]) == 2
    assert "say where to write it" in capsys.readouterr().err


@pytest.mark.parametrize("place, words, reason", [
    ("folder", "", "folder: is a folder, and the grammar 'minidit' is one file: folder/NAME.safetensors, say"),
    ("folder", "--to official", "the grammar 'official' is one file"),
    ("w.safetensors", "--to diffusers", "the grammar 'diffusers' is a folder"),
    ("w.pt", "", "never as a pickle"),
    ("w.safetensors", "--to ldm", "a network of the kind dit cannot be written in the grammar 'ldm'"),
    ("w.safetensors", "--shard-mb 3", "--shard-mb: the grammar minidit is one file: leave it out, or add --to diffusers"),
])  # fmt: skip
def test_what_cannot_be_written_is_refused_before_overwriting_is_advised(place, words, reason, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "mine.safetensors", dit(FOREIGN))
    (tmp_path / "folder").mkdir()
    for file in ("folder/x", "w.safetensors", "w.pt"):
        (tmp_path / file).write_text("mine")
    answers = []
    for more in ([], ["--overwrite"]):
        assert main(["convert", "mine.safetensors", place, *words.split(), *more]) == 2
        answers.append(capsys.readouterr())
    assert answers[0] == answers[1] and answers[0].out == "" and reason in answers[0].err
    assert all((tmp_path / file).read_text() == "mine" for file in ("folder/x", "w.safetensors", "w.pt"))
