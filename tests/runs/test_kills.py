"""SIGKILL to the real command: nothing that was saved is lost, and the next command makes the bits of an undisturbed run."""

import os

import pytest

from benchmarks.faulty.kills import kill_plans, stop_plans
from benchmarks.faulty.runs import scenarios

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="signals")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("kills")


@pytest.fixture(scope="module")
def found(place):
    return scenarios(place)


@pytest.mark.parametrize("k", range(20))
def test_a_killed_command_goes_on_to_the_same_bits(place, found, k):
    """20 moments, spread over the changes of four commands, with the workers and without; benchmarks/faults.py tries 200."""
    work, scenario, *more = list(kill_plans(found, 20))[k]
    trial = work(scenario, place / f"kill {k}", *more)
    assert trial.faults == [], trial.what


@pytest.mark.parametrize("k", range(8))
def test_a_stopped_command_goes_on_to_the_same_bits(place, found, k):
    work, scenario, *more = list(stop_plans(found, 8))[k]
    trial = work(scenario, place / f"stop {k}", *more)
    assert trial.faults == [], trial.what
