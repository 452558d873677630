"""`minidit report`: the numbers of runs in other programs' forms, the contact sheet, and what is held out."""

import csv
import io
import json

import pytest
from PIL import Image

from minidit.cli import main

TINY = [
    "--data", "digits", "--hidden-size", "32", "--depth", "1", "--num-heads", "2", "--batch-size", "8", "--shards", "2",
    "--T", "20", "--sample-steps", "3", "--sample-every", "4", "--sample-save-every", "5", "--steps", "12", "--quiet",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports") / "one"
    assert main(["train", *TINY, "--out", str(folder)]) == 0
    return folder


def lines_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_table_holds_every_recorded_number_once(minidit, run, tmp_path):
    code, out, _ = minidit("report", run, "--csv", "-")
    rows = list(csv.DictReader(io.StringIO(out)))
    lines = lines_of(run)
    assert code == 0 and len({(line["phase"], line["step"]) for line in lines}) == len(lines)  # one row per update
    for row, line in zip(rows, lines, strict=True):
        assert row.pop("run") == "one" and row.pop("phase") == line.pop("phase")
        assert {k: float(v) for k, v in row.items() if v} == line
        assert row["loss"] and row["wall_s"]
    assert minidit("report", run, "--csv", tmp_path / "table.csv")[1] == f"{tmp_path}/table.csv\n"
    assert (tmp_path / "table.csv").read_text() == out


def test_the_table_of_two_runs_names_them(minidit, run, tmp_path):
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "metrics.jsonl").write_text('{"phase": "model", "step": 1, "new": 2.5}\n')
    rows = list(csv.DictReader(io.StringIO(minidit("report", run, tmp_path / "two", "--csv", "-")[1])))
    assert {row["run"] for row in rows} == {"one", "two"} and [row["new"] for row in rows if row["new"]] == ["2.5"]
    assert minidit("report", run, "--csv", "-", "--out", "x.html")[0] == 2


def test_events_hold_the_same_numbers(minidit, run, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    code, out, _ = minidit("report", run, "--tensorboard", tmp_path / "tb")
    events = EventAccumulator(out.strip())
    events.Reload()
    expected = [(line["step"], line["loss"]) for line in lines_of(run) if "loss" in line]
    found = [(e.step, e.value) for e in events.Scalars("model/loss")]
    assert code == 0 and [s for s, _ in found] == [s for s, _ in expected]
    assert [v for _, v in found] == pytest.approx([v for _, v in expected], rel=1e-6)


def test_without_tensorboard_its_extra_is_named(minidit, run, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboard.compat.proto.event_pb2", None)
    code, out, err = minidit("report", run, "--tensorboard", tmp_path / "tb")
    assert (code, out) == (2, "") and "pip install 'minidit[tensorboard]'" in err and not (tmp_path / "tb").exists()


def test_the_contact_sheet_has_the_first_row_of_every_grid(run):
    grids = sorted((run / "samples").glob("*.png"))
    with Image.open(run / "pictures" / "learning.png") as sheet:
        pixels = sheet.convert("RGB")
        assert len(grids) == 3 and grids[-1].name == "step_00000012.png"  # the last one is drawn by the finished model
        for grid in grids:
            with Image.open(grid) as picture:
                row = picture.convert("RGB").crop((0, 2, picture.width, picture.height // 2 - 1))
            tops = range(pixels.height - row.height + 1)
            assert any(pixels.crop((0, top, row.width, top + row.height)).tobytes() == row.tobytes() for top in tops)


def test_the_page_says_what_was_trained_on_and_what_is_held_out(run):
    page = (run / "report.html").read_text("utf-8")
    assert "1,500 pictures are trained on; held out: the set&#x27;s own test part, 297 pictures." in page
    assert "10 classes: 0 149, 1 152" in page and "Watch it learn" in page and "kl_weight" not in page


def test_a_comparison_says_whether_the_pictures_are_from_the_same_noise(minidit, run, tmp_path):
    assert minidit("report", run, run, "--out", tmp_path / "both.html")[0] == 0
    assert "All from the same noise, seed 0." in (tmp_path / "both.html").read_text("utf-8")
