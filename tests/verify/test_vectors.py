"""The vectors: the same bytes twice, a check that sees every accident, and the shipped pack is that of today's reference."""

import json
import shutil
from pathlib import Path

import pytest

from minidit.cli import main
from minidit.verify import TOPICS, vectors


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors") / "suite"
    vectors.export(folder)
    return folder


@pytest.fixture
def copy(suite, tmp_path):
    return Path(shutil.copytree(suite, tmp_path / "suite"))


def test_a_second_export_has_the_same_bytes(suite, tmp_path):
    vectors.export(tmp_path)
    assert vectors.same_bytes(suite, tmp_path) == []
    (tmp_path / "layers.json").write_bytes(b"{}")
    assert vectors.same_bytes(suite, tmp_path) == ["layers.json"]


def test_the_core_pack_is_small_and_holds_every_topic_and_kind_of_case(suite):
    manifest = json.loads((suite / "manifest.json").read_text("utf-8"))
    assert sum(p.stat().st_size for p in suite.iterdir()) < 2e6
    held = {topic["topic"] for topic, _ in vectors.read(suite)}
    assert held | {entry["topic"] for entry in manifest["left_out"]} == set(TOPICS)
    cases = [case for _, case in vectors.read(suite)]
    assert {c["result"] for c in cases} == {"valid", "invalid"}
    assert len({c["id"] for c in cases}) == len(cases) == manifest["cases"]
    blocks = next(c for c in cases if c["id"].startswith("network.dit."))["intermediate"]
    steps = next(c for c in cases if c["id"].startswith("chains.ddim_sample.N4-"))["intermediate"]
    assert {"x_embedder", "blocks.0.attn", "blocks.0", "final_layer"} <= blocks.keys()
    assert list(steps) == [f"step {k}" for k in range(4)]


def test_the_shipped_pack_is_todays():
    """After a change of questions or laws: minidit vectors export minidit/vectors, with a new version of the suite."""
    assert vectors.check(vectors.SHIPPED) == []
    shipped = {case["id"] for _, case in vectors.read(vectors.SHIPPED)}
    today = {f"{t.group}.{t.name}.{p.name}" for t in TOPICS.values() for p in t.probes()[:1]} - {
        f"chains.ddpm_gaussian.{p.name}" for p in TOPICS["ddpm_gaussian"].probes()
    }
    assert today <= shipped


def test_what_independent_implementations_needed_is_within_the_tolerance():
    for about, _ in vectors.read(vectors.SHIPPED):
        for who, error in about["observed"].items():
            kind = "float32" if "float32" in who else "float64"
            assert error <= about["tolerance"][kind], (about["topic"], who)


def changed(path, edit):
    content = json.loads(path.read_text("utf-8"))
    edit(content)
    path.write_text(json.dumps(content), "utf-8")


def resealed(folder):
    """Checksums that fit again, as somebody who edits a suite would write them."""
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest["files"] = [vectors._file(folder / e["path"], e["cases"]) for e in manifest["files"]]
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")


def first_case(content):
    return content["topics"][0]["cases"][0]


@pytest.mark.parametrize(
    ("accident", "says"),
    [
        (lambda f: (f / "layers.json").write_text("{}"), "layers.json is not the file of the manifest"),
        (lambda f: (f / "layers.safetensors").unlink(), "layers.safetensors is missing"),
        (lambda f: (f / "more.json").write_text("{}"), "more.json is not in the manifest"),
        (lambda f: changed(f / "manifest.json", lambda m: m.pop("rule")), "manifest.json: lacks 'rule'"),
        (lambda f: changed(f / "manifest.json", lambda m: m.update(format=2)), "format 2, this version reads 1"),
    ],
)
def test_an_accident_to_a_file_is_told(copy, accident, says):
    accident(copy)
    assert any(says in line for line in vectors.check(copy))


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda c: first_case(c).update(result="maybe"), "'maybe' is not one of ['valid', 'invalid']"),
        (lambda c: first_case(c).update(extra=1), "unknown 'extra'"),
        (lambda c: first_case(c).update(result="invalid"), "not refused today"),
        (lambda c: c["topics"][0]["cases"].append(first_case(c)), "is there twice"),
        (lambda c: c["topics"][0].update(topic="liner"), "there is no such topic any more"),
        (lambda c: c["topics"][0]["cases"][-1].update(result="valid", answer=1.0), "refused today"),
        (lambda c: first_case(c)["answer"]["data"].__setitem__(0, 7.0), "(error "),
    ],
)
def test_an_edited_case_is_told_although_the_checksums_fit(copy, edit, says):
    changed(copy / "layers.json", edit)
    resealed(copy)
    assert any(says in line for line in vectors.check(copy)), vectors.check(copy)


def test_the_commands(tmp_path, capsys):
    assert main(["vectors", "export", str(tmp_path / "v")]) == 0
    assert "core pack" in capsys.readouterr().out
    assert main(["vectors", "check", str(tmp_path / "v")]) == 0
    (tmp_path / "v" / "layers.json").unlink()
    assert main(["vectors", "check", str(tmp_path / "v")]) == 1
    assert "layers.json is missing" in capsys.readouterr().out
    assert main(["vectors", "list"]) == 0
    assert "network.dit.ends" in capsys.readouterr().out
    assert main(["vectors", "check", str(tmp_path)]) == 2 and main(["vectors", "export"]) == 2
    (tmp_path / "v" / "notes.txt").write_text("mine")
    assert main(["vectors", "export", str(tmp_path / "v")]) == 2
    assert "holds other files (notes.txt)" in capsys.readouterr().err and (tmp_path / "v" / "manifest.json").exists()
