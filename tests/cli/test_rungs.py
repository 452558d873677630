"""`minidit rungs`: the table of every spacing, in our words and in those of others."""

import re

import pytest
from support import spec

from minidit.cli import main
from minidit.diffusion import rungs
from minidit.diffusion.schedule import Schedule


def told(capsys, *arguments):
    code = main(["rungs", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def walks(out):
    """title -> its steps (t, s)."""
    blocks, step = out.strip().split("\n\n"), re.compile(r"^  (\d+) → (\d+) ", re.MULTILINE)
    return {b.partition("\n")[0]: [(int(t), int(s)) for t, s in step.findall(b)] for b in blocks}


@spec("D.24", "D.25", "D.26", "D.27", "D.28", "D.29", "D.30")
def test_without_a_spacing_all_of_them_are_walked(capsys):
    code, out, _ = told(capsys, "--steps", "50")
    assert code == 0
    expected = {
        "leading (D.24)": rungs.leading(1000, 50),
        "linspace (D.25)": rungs.linspace(1000, 50),
        "trailing (D.26)": rungs.trailing(1000, 50),
        "quadratic (D.27)": rungs.quadratic(1000, 50),
        "karras (P.28)": rungs.karras(Schedule.linear(1000), 50),
        "50 (D.28)": rungs.sections(1000, [50]),
        "ddim50 (D.29)": rungs.stride(1000, 50),
    }
    assert walks(out) == {title: rungs.pairs(kept) for title, kept in expected.items()}


@pytest.mark.parametrize("spacing, title, kept", [
    ("3,2", "3,2 (D.28)", [1, 6, 11, 12, 21]),
    ("ddim7", "ddim7 (D.29)", [1, 4, 7, 10, 13, 16, 19]),
    ("trailing", "trailing (D.26)", [7, 14, 21]),
])  # fmt: skip
def test_one_spacing_by_hand(capsys, spacing, title, kept):
    code, out, _ = told(capsys, "--T", "21", "--steps", "3", "--spacing", spacing, "--schedule", "cosine")
    assert code == 0 and walks(out) == {title: rungs.pairs(kept)}


def test_a_line_says_the_step_its_signal_and_its_names_elsewhere(capsys):
    _, out, _ = told(capsys, "--steps", "4", "--spacing", "leading", "--offset", "1")
    heading, first = out.splitlines()[1:3]
    assert heading.split("  ")[1] == "t → s" and "latent diffusion" in heading
    a = Schedule.linear(1000).alpha_bar
    assert f"  752 → 502  {a[752]:.6g}  " in first and f"{a[502]:.6g}" in first
    for words in ("t=3, timestep_map[3]=751", "timestep=751, prev_timestep=501", "alphas_prev=alphas_cumprod[501]"):
        assert words in first


def test_a_spacing_that_cannot_be_is_told_and_alone_it_is_an_error(capsys):
    code, out, _ = told(capsys, "--steps", "60")
    assert code == 0 and "ddim60 (D.29)\n  no integer stride takes exactly 60 of 1000 rungs" in out
    assert told(capsys, "--spacing", "ddim60") == (2, "", "minidit: no integer stride takes exactly 60 of 1000 rungs\n")
    code, _, err = told(capsys, "--spacing", "uniform")
    assert code == 2 and "'uniform'" in err and "leading, linspace, trailing, quadratic" in err and err.count("\n") == 1
