"""Files are written whole or not at all; an error names the file that was meant, the cause and the way on."""

import errno
import os
import stat
from pathlib import Path

import pytest

from minidit.cli import main
from minidit.outgoing import WriteError, check_writable, write_atomically, write_text

REASONS = [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EACCES]


def refusing(monkeypatch, number, call="fsync"):
    """The disk answers every flush (or every move) with an error, as a full or broken one does."""

    def refuse(*_):
        raise OSError(number, os.strerror(number), "/somewhere/.hidden.tmp")

    monkeypatch.setattr(os, call, refuse)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", REASONS)
def test_an_error_names_the_file_the_cause_and_the_way_on_and_the_old_file_stays(tmp_path, monkeypatch, number, call):
    path = write_atomically(tmp_path / "a.bin", b"old")
    refusing(monkeypatch, number, call)
    with pytest.raises(WriteError) as caught:
        write_atomically(path, b"new")
    text = str(caught.value)
    assert text.startswith(f"{path}: cannot be written: {os.strerror(number)} (") and ".tmp" not in text
    assert caught.value.errno == number and text.isprintable()
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.bin"]


def test_what_interrupts_the_writing_leaves_nothing_half(tmp_path):
    def chunks():
        yield b"half"
        raise KeyboardInterrupt

    path = write_atomically(tmp_path / "a.bin", b"old")
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, chunks())
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.bin"]


def test_the_file_and_its_folder_are_flushed_in_this_order(tmp_path, monkeypatch):
    flushed, real = [], os.fsync

    def fsync(number):
        flushed.append(stat.S_ISDIR(os.fstat(number).st_mode))
        moved = (tmp_path / "a.bin").exists()
        assert moved == flushed[-1]  # the contents before the move, the folder's entry after it
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(tmp_path / "a.bin", b"x")
    assert flushed == [False, True]


def test_a_link_is_followed_and_a_mode_kept(tmp_path):
    target, link = tmp_path / "folder" / "a.bin", tmp_path / "link.bin"
    write_atomically(target, b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    assert write_atomically(link, b"new") == link
    assert link.is_symlink() and target.read_bytes() == b"new" and stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_device_is_written_to_and_stays_a_device():
    before = os.stat("/dev/null").st_rdev
    write_text("/dev/null", "x")
    assert os.stat("/dev/null").st_rdev == before and stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(WriteError, match="/dev/full: cannot be written: No space left on device"):
        write_text("/dev/full", "x")


def test_the_longest_name_that_a_folder_allows_can_be_written(tmp_path):
    assert write_atomically(tmp_path / ("x" * 255), b"a").read_bytes() == b"a"
    with pytest.raises(WriteError, match="choose a shorter name"):
        write_atomically(tmp_path / ("x" * 256), b"a")


def test_text_that_has_no_utf8_is_written_as_escapes(tmp_path):
    assert write_text(tmp_path / "a", "x̂ \udcff").read_bytes() == "x̂ \\udcff".encode()


def test_a_place_is_looked_at_before_the_work(tmp_path, monkeypatch):
    check_writable(tmp_path / "new" / "folder" / "a.bin", 10)
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").touch()
    for path, words in ((tmp_path, "name a file"), (tmp_path / "file" / "a", "one of its folders is a file")):
        with pytest.raises(WriteError, match=words):
            check_writable(path)
    with pytest.raises(WriteError, match=r"it takes about 1000000000000\.0 MB"):
        check_writable(tmp_path / "a.bin", 1e18)
    monkeypatch.setattr("tempfile.TemporaryFile", lambda dir: refuse_in(dir))
    with pytest.raises(WriteError, match=r"a\.bin: cannot be written: Read-only file system \(choose a place"):
        check_writable(tmp_path / "a.bin")


def refuse_in(folder):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))


# ------------------------------------------------------------------------------------------------ commands

SAMPLE = ["sample", "--labels", "0", "-n", "4", "--steps", "1", "--quiet"]


@pytest.mark.parametrize("number", REASONS)
@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([*SAMPLE, "--out", "grid.png"], "grid.png"), ([*SAMPLE, "--out", "grid.npz"], "grid.npz"),
        ([*SAMPLE, "--out", "grid.gif"], "grid.gif"), (["vectors", "export", "suite"], "suite"),
        (["verify", "mine.py", "--json", "r.json"], "r.json"), (["verify", "mine.py", "--html", "r.html"], "r.html"),
        (["verify", "mine.py", "--write-expect", "e.json"], "e.json"), (["report", "run"], "run/report.html"),
        (["convert", "m.safetensors", "n.safetensors"], "n.safetensors"),
        (["convert", "m.safetensors", "folder", "--to", "diffusers"], "folder/diffusion_pytorch_model.safetensors"),
    ],
)  # fmt: skip
def test_every_command_that_cannot_write_says_so_in_one_line(tmp_path, monkeypatch, capsys, words, name, number):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def ddim_step(*args):\n    return 0\n")
    if words[0] == "report":
        Path("run").mkdir()
        Path("run/config.toml").touch()
    if words[0] == "convert":
        from minidit.checkpoint import save
        from minidit.models.dit import DiT, DiTConfig
        from minidit.random import Philox

        save("m.safetensors", DiT(DiTConfig(8, 2, 1, 16, 1, 2, num_classes=3), Philox(0)))
    before = sorted(tmp_path.rglob("*"))
    refusing(monkeypatch, number)
    assert main(words) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"minidit: {name}: cannot be written: {os.strerror(number)} (") and err.count("\n") == 1, err
    assert sorted(p for p in tmp_path.rglob("*") if p.name != "folder") == before


@pytest.mark.parametrize(
    "words", [[*SAMPLE, "--out", "place"], ["verify", "mine.py", "--json", "place"], ["vectors", "export", "file/suite"],
              ["convert", "m.safetensors", "file/n.safetensors"]],
)  # fmt: skip
def test_what_can_be_known_is_said_before_the_work(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    Path("place.png").mkdir()
    Path("place").mkdir()
    Path("file").touch()
    words = ["place.png" if w == "place" and words[0] == "sample" else w for w in words]
    for work in ("minidit.runs.loading.load", "minidit.verify.check", "minidit.verify.vectors.writing._export"):
        monkeypatch.setattr(work, lambda *args, **options: pytest.fail("the work began"))
    if words[0] == "convert":
        from minidit.checkpoint import save
        from minidit.models.dit import DiT, DiTConfig
        from minidit.random import Philox

        save("m.safetensors", DiT(DiTConfig(8, 2, 1, 16, 1, 2, num_classes=3), Philox(0)))
        monkeypatch.setattr("minidit.checkpoint.load_model", lambda *args, **options: pytest.fail("the work began"))
    assert main(words) == 1
    err = capsys.readouterr().err
    assert "cannot be written" in err and err.count("\n") == 1


def test_an_animation_of_one_picture_is_written_although_its_captions_are_wider(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "--labels", "0", "-n", "1", "--steps", "2", "--quiet", "--out", "one.gif"]) == 0
    assert Path("one.gif").read_bytes()[:6] == b"GIF89a"
