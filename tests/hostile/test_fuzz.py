"""A taste of tools/fuzz.py: a few damaged inputs for every reader by default, a minute of them where slow tests run."""

import os
import signal

import pytest

from tools import fuzz, fuzz_judge, fuzz_page
from tools.fuzz_target import Target, file_named
from tools.fuzz_targets import targets

TARGETS = {t.name: t for t in targets()}
INPUTS = {"process": 10}  # it takes longer than the others


@pytest.mark.filterwarnings("ignore")  # of decoders, about odd metadata
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_are_read_or_refused_by_the_readers_own_error(name):
    tally = fuzz_judge.fuzz(TARGETS[name], seed=0, inputs=INPUTS.get(name, 100))
    assert tally.bad == {} and tally.tried >= INPUTS.get(name, 100)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_two_seconds_of_damaged_inputs_each(name):
    assert fuzz_judge.fuzz(TARGETS[name], seed=1, seconds=2).bad == {}


def deep(path):
    raise RecursionError


def hungry(path):
    bytearray(2 * fuzz_judge.MEMORY)


def rude(path):
    raise ValueError(f"{path}: \x1b[2J")


def nameless(path):
    raise ValueError("bad")


@pytest.mark.parametrize(
    ("reader", "why"),
    [(deep, "RecursionError"), (hungry, "MemoryError"), (rude, "not printable"), (nameless, "without the name"), (None, "s")],
)
def test_the_judge_notices(reader, why, monkeypatch):
    if reader is None:
        monkeypatch.setattr(fuzz_judge, "HANG", 0.2)
        reader = lambda path: [None for _ in iter(int, 1)]
    target = Target("x", [b"abc"], reader, (lambda r, data: data[::-1],), file_named("x.bin"), seeds_may_fail=True)
    monkeypatch.setattr(fuzz_judge, "SECONDS", 0.1 if why == "s" else 5)
    ((place, told),) = fuzz_judge.fuzz(target, seed=0, inputs=1).bad.items()
    assert why in told and place.startswith("x: ")


def test_the_same_seed_damages_in_the_same_way():
    seen = [[], []]
    for k in range(2):
        keep = lambda path, k=k: seen[k].append(path.read_bytes())
        fuzz_judge.fuzz(Target("x", [b'{"a": [1, 2]}'], keep, TARGETS["config-d"].mutations, file_named("x")), seed=7, inputs=50)
    assert seen[0] == seen[1] and len(set(seen[0])) > 20


def test_the_command_names_its_readers(capsys):
    with pytest.raises(SystemExit):
        fuzz.main(["--only", "nothing"])
    assert "no reader 'nothing'; there are part-labels, part-values" in capsys.readouterr().err


def test_a_process_that_ends_is_a_finding():
    tally = fuzz.in_a_child(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert tally.tried == 1 and "SIGKILL" in next(iter(tally.bad))


def test_counts_grow_from_batch_to_batch_and_become_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz_page, "COUNTS", tmp_path / "counts.json")
    monkeypatch.setattr(fuzz_page, "PAGE", tmp_path / "fuzzing.md")
    seen = []
    target = Target("x", [b"abc"], lambda path: seen.append(path.read_bytes()), (lambda r, d: bytes([r.randrange(256)]),),
                    file_named("x"))  # fmt: skip
    for k in range(3):
        tally = fuzz_judge.fuzz(target, seed=f"7 {k}", inputs=1000 + k)
        fuzz_page.add_counts("x", tally, 7, 2.0, coverage=k == 2)
    fuzz_page.add_counts("y", fuzz_judge.Tally(5, 2, 1.0, 0.25, 3 * 2**20, {"a place": "bad"}), 9, 3594.0, coverage=False)
    assert seen[:1000] != seen[1000:2000]  # another batch, other inputs
    text = fuzz_page.write_page().read_text()
    assert "3,008 inputs in 1.00 hours" in text and "1,002 of them chosen by coverage" in text and "Seeds: 7, 9." in text
    assert "| x | 3,003 | 1,002 | 3,003 |" in text and "| y | 5 | 0 | 2 | 5 | 250 | 3 | 1 |" in text


def test_the_recorded_page_adds_up_and_names_every_reader():
    """docs/fuzzing.md is made by `tools/fuzz.py --page` from what was run."""
    text = (fuzz.ROOT / "docs" / "fuzzing.md").read_text()
    rows = [row.split("|") for row in text.splitlines() if row.startswith("| ") and row.count("|") == 9]
    counts = [int(row[2].replace(",", "")) for row in rows if row[2].strip().replace(",", "").isdecimal()]
    assert f"{sum(counts):,} inputs in" in text and {row[1].strip() for row in rows} >= set(TARGETS)
