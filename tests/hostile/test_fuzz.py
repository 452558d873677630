"""A taste of tools/fuzz.py: a few damaged inputs for every reader by default, a minute of them where slow tests run."""

import pytest

from tools import fuzz
from tools.fuzz_targets import Target, file_named, targets

TARGETS = {t.name: t for t in targets()}
INPUTS = {"vectors-manifest": 4, "vectors-schedules": 3, "process": 10}  # these take longer than the others


@pytest.mark.filterwarnings("ignore")  # of decoders, about odd metadata
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_are_read_or_refused_by_the_readers_own_error(name):
    tally = fuzz.fuzz(TARGETS[name], seed=0, inputs=INPUTS.get(name, 40))
    assert tally.bad == {} and tally.tried >= INPUTS.get(name, 40)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_two_seconds_of_damaged_inputs_each(name):
    assert fuzz.fuzz(TARGETS[name], seed=1, seconds=2).bad == {}


def deep(path):
    raise RecursionError


def hungry(path):
    bytearray(2 * fuzz.MEMORY)


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
        monkeypatch.setattr(fuzz, "HANG", 0.2)
        reader = lambda path: [None for _ in iter(int, 1)]
    target = Target("x", [b"abc"], reader, (lambda r, data: data[::-1],), file_named("x.bin"), seeds_may_fail=True)
    monkeypatch.setattr(fuzz, "SECONDS", 0.1 if why == "s" else 5)
    ((place, told),) = fuzz.fuzz(target, seed=0, inputs=1).bad.items()
    assert why in told and place.startswith("x: ")


def test_the_same_seed_damages_in_the_same_way():
    seen = [[], []]
    for k in range(2):
        keep = lambda path, k=k: seen[k].append(path.read_bytes())
        fuzz.fuzz(Target("x", [b'{"a": [1, 2]}'], keep, TARGETS["config-d"].mutations, file_named("x")), seed=7, inputs=50)
    assert seen[0] == seen[1] and len(set(seen[0])) > 20


def test_the_command_names_its_readers(capsys):
    with pytest.raises(SystemExit):
        fuzz.main(["--only", "nothing"])
    assert "no reader 'nothing'; there are dit, autoencoder" in capsys.readouterr().err
