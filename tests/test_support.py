"""The helpers of the tests: the record of residuals."""

import json

from support import keep_residuals, worst_of


def test_residuals_of_a_partial_run_leave_the_others_alone(tmp_path):
    path = tmp_path / "build" / "residuals.json"
    for measured in ({"D.1": {"residual": 1.0}, "D.2": {"residual": 2.0}}, {"D.2": {"residual": 3.0}}):
        keep_residuals(path, measured)
    assert json.loads(path.read_text()) == {"D.1": {"residual": 1.0}, "D.2": {"residual": 3.0}}
    assert list(path.parent.iterdir()) == [path]


def test_of_two_processes_the_worse_residual_is_kept():
    entry = lambda r: {"residual": r, "bound": 1.0}
    mine, theirs = {"D.1": entry(1.0), "D.2": entry(3.0)}, {"D.2": entry(2.0), "D.3": entry(4.0)}
    assert worst_of(mine, theirs) == worst_of(theirs, mine) == {"D.1": entry(1.0), "D.2": entry(3.0), "D.3": entry(4.0)}
