"""The checker of SPEC.md passes a small tree that is in order, and names each kind of disorder in one line."""

import argparse
import ast
from pathlib import Path

import pytest

from minidit.cli.spec import add_arguments, one_entry, run
from minidit.html.sources import citations_of, proofs_of, recorded_in
from minidit.html.spec import parse, read
from minidit.html.ties import problems

SPEC = """# SPEC

Preface.

## 0 — Notation

### Letters

| ours | means |
|---|---|
| $x$ | data |

## D — Diffusion

What this chapter is about.

### D.1 — Forward
$$x_t=\\sqrt{\\bar\\alpha_t}\\,x_0$$
Source: Somebody 2020, eq. (4);
their t is ours.
Code: `law.py::forward`, `kernels/fast.py::forward` · Also: `law.py::again` · Deviations: M02, M21

Valid for t > 0; see D.2.

### D.2 — Table
$$a=1$$ $$b=2$$
Source: hand.
Code: `law.py::Ladder.table`
"""

LAW = '''"""The law.

    x_t = √ᾱ_t x_0       forward      (D.1)
"""

import math


def forward(x_0, a):
    """Data to noise."""
    return math.sqrt(a) * x_0    # (D.1)


def again(x_0, a):
    return a**0.5 * x_0  # (D.1)


class Ladder:
    @property
    def table(self):
        """The table (D.2)."""
        return 1
'''

FAST = "def forward(x_0, a):\n    return a**0.5 * x_0  # (D.1)\n"

TESTS = '''
from support import agree, spec


@spec("D.1", "D.2")
def test_the_law():
    agree(1, 1, bound=1, of="D.1")


class TestMore:
    @spec("D.2")
    def test_the_table(self):
        pass
'''


@pytest.fixture
def tree(tmp_path):
    """A small checkout in order, as a folder."""
    files = {"SPEC.md": SPEC, "minidit/law.py": LAW, "minidit/kernels/fast.py": FAST, "tests/test_law.py": TESTS}
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    return tmp_path


def change(tree, path, old, new):
    text = (tree / path).read_text(encoding="utf-8")
    assert old in text
    (tree / path).write_text(text.replace(old, new, 1), encoding="utf-8")
    return problems(read(tree))


def test_a_tree_in_order_has_no_problems(tree):
    assert problems(read(tree)) == []


def test_an_entry_is_read_with_all_its_fields(tree):
    spec = read(tree)
    one, two = spec.entries["D.1"], spec.entries["D.2"]
    assert (one.name, one.equations) == ("Forward", (r"x_t=\sqrt{\bar\alpha_t}\,x_0",))
    assert one.source == "Somebody 2020, eq. (4); their t is ours."
    assert [str(p) for p in one.homes] == ["law.py::forward", "kernels/fast.py::forward"]
    assert [str(p) for p in one.also] == ["law.py::again"]
    assert one.deviations == ("M02", "M21")
    assert one.prose == "Valid for t > 0; see D.2."
    assert two.equations == ("a=1", "b=2")
    assert spec.unicode_of(one) == "x_t = √ᾱ_t x_0    forward"
    assert [p.name for p in spec.proofs_of(two)] == ["test_the_law", "TestMore.test_the_table"]


def test_the_text_around_the_entries_is_kept():
    preface, chapters, malformed = parse(SPEC)
    assert preface.endswith("Preface.") and malformed == []
    assert [(c.letter, c.title) for c in chapters] == [("0", "Notation"), ("D", "Diffusion")]
    assert "### Letters" in chapters[0].intro and chapters[1].intro == "What this chapter is about."


DISORDERS = {
    "no test": ("tests/test_law.py", '@spec("D.1", "D.2")', '@spec("D.2")', "D.1 (Forward) has no test"),
    "no code": ("SPEC.md", "Code: `law.py::Ladder.table`\n", "", "D.2 (Table) has no code"),
    "unreadable code": ("SPEC.md", "`law.py::Ladder.table`", "law.py, Ladder.table", "D.2 (Table) has no code"),
    "no source": ("SPEC.md", "Source: hand.\n", "", "D.2 (Table) has no `Source:` line"),
    "empty source": ("SPEC.md", "Source: hand.", "Source:", "D.2 (Table) has no `Source:` line"),
    "no equation": ("SPEC.md", "$$a=1$$ $$b=2$$\n", "", "D.2 (Table) has no $$"),
    "no such file": ("SPEC.md", "`law.py::Ladder.table`", "`lore.py::Ladder.table`", "there is no such file"),
    "no such symbol": ("minidit/law.py", "def table", "def chair", "law.py::Ladder.table, but there is no such symbol"),
    "no such form": ("SPEC.md", "law.py::again", "law.py::never", "law.py::never, but there is no such symbol"),
    "home does not cite": ("minidit/law.py", "The table (D.2).", "The table.", "Ladder.table, but that does not cite (D.2)"),
    "twin does not cite": ("minidit/kernels/fast.py", "  # (D.1)", "", "kernels/fast.py::forward, but that does not cite (D.1)"),
    "comment of nothing": ("minidit/law.py", "return 1", "return 1  # (D.2, D.9)", "minidit/law.py:22: cites (D.9)"),
    "docstring of nothing": ("minidit/law.py", "forward      (D.1)", "forward      (D.3)", "minidit/law.py:3: cites (D.3)"),
    "test of nothing": ("tests/test_law.py", '@spec("D.1", ', '@spec("D.1", "D.8", ', "test_the_law is marked with 'D.8'"),
    "test without an id": ("tests/test_law.py", '@spec("D.1", ', '@spec("D.1", "M02", ', "test_the_law is marked with 'M02'"),
    "residual of nothing": ("tests/test_law.py", 'of="D.1"', 'of=("D.1", "D.7")', "records a residual of 'D.7'"),
    "second home": ("SPEC.md", " · Also: `law.py::again`", "", "minidit/law.py:15: computes D.1 outside its home"),
    "second home in a module": ("minidit/law.py", "import math", "import math\nONE = 1  # (D.2)", "7: computes D.2 outside"),
    "prose about nothing": ("SPEC.md", "see D.2", "see (D.2, D.5)", "D.1 (Forward) mentions (D.5)"),
    "defined twice": ("SPEC.md", "### D.2", "### D.1", "D.1 is defined twice"),
    "malformed id": ("SPEC.md", "### D.2 — Table", "### D.02 — Table", "cannot read the heading '### D.02 — Table'"),
    "malformed heading": ("SPEC.md", "### D.2 — Table", "### D.2: Table", "cannot read the heading '### D.2: Table'"),
    "wrong chapter": ("SPEC.md", "### D.2", "### G.2", "G.2 stands in chapter D"),
    "out of order": ("SPEC.md", "### D.1", "### D.3", "D.2 stands after D.3"),
    "unreadable code file": ("minidit/law.py", "import math", "import math as", "minidit/law.py:6: is not Python"),
    "unreadable test file": ("tests/test_law.py", "pass", "pass pass", "tests/test_law.py:13: is not Python"),
}


@pytest.mark.parametrize("path, old, new, complaint", DISORDERS.values(), ids=DISORDERS)
def test_each_kind_of_disorder_is_named_in_a_line(tree, path, old, new, complaint):
    found = change(tree, path, old, new)
    assert any(complaint in line for line in found), found
    assert all("\n" not in line for line in found)


def test_a_comment_on_its_own_line_is_a_mention_and_no_second_home(tree):
    assert change(tree, "minidit/law.py", "class Ladder", "# as in (D.1)\nclass Ladder") == []


def test_a_file_of_mistakes_is_no_home_of_an_equation_either(tree):
    (tree / "minidit/verify").mkdir()
    (tree / "minidit/verify/deviations.py").write_text("def bad(x):\n    return -x  # (D.1)\n", encoding="utf-8")
    (line,) = problems(read(tree))
    assert line.startswith("minidit/verify/deviations.py:2: computes D.1 outside its home")


def test_a_mark_on_a_class_holds_for_its_tests_also_under_a_condition(tree):
    old = 'class TestMore:\n    @spec("D.2")\n    def test_the_table(self):\n        pass\n'
    new = ('if agree:\n    @spec("D.1")\n    class TestMore:\n        @spec("D.2")\n'
           '        def test_the_table(self):\n            pass\n')
    assert change(tree, "tests/test_law.py", old, new) == []
    assert [p.ids for p in read(tree).proofs if p.name == "TestMore.test_the_table"] == [("D.1", "D.2")]


def test_symbols_under_a_condition_and_in_a_function_are_found(tree):
    more = "import math\nif math:\n    def outer():\n        def inner():\n            pass\n    A, B = 1, 2"
    change(tree, "minidit/law.py", "import math", more)
    assert {"outer", "outer.inner", "A", "B", "Ladder", "Ladder.table"} <= read(tree).sources["minidit/law.py"].symbols.keys()


# ------------------------------------------------------------------------------------------------ the command


def command(tree: Path, *words: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([*words, "--root", str(tree)]))


def test_the_command_prints_the_coverage_with_residuals(tree, capsys):
    (tree / "build").mkdir()
    (tree / "build/residuals.json").write_text('{"D.1": {"residual": 1.5e-15, "bound": 1e-10}}')
    assert command(tree) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1].split() == ["D.1", "Forward", "law.py::forward", "+1", "1", "1.5e-15", "1e-10"]
    assert out[2].split() == ["D.2", "Table", "law.py::Ladder.table", "2", "–", "–"]
    assert out[-1] == "2 equations, 2 tests, 0 problems" and out[-3].startswith("code: ")


def test_the_command_shows_one_entry_with_its_code_and_its_tests(tree, capsys):
    assert command(tree, "d.1") == 0
    out = capsys.readouterr().out
    for line in (r"  x_t=\sqrt{\bar\alpha_t}\,x_0", "  x_t = √ᾱ_t x_0    forward",
                 "   11      return math.sqrt(a) * x_0    # (D.1)",
                 "  test_the_law  tests/test_law.py:5", "Also: law.py::again", "Deviations: M02, M21"):
        assert line in out.splitlines(), line


def test_the_command_fails_when_something_is_untied(tree, capsys):
    change(tree, "SPEC.md", "Source: hand.\n", "")
    assert command(tree, "--problems") == 1
    assert capsys.readouterr().out == "SPEC.md:25: D.2 (Table) has no `Source:` line\n"


def test_the_command_says_so_where_there_is_nothing_to_read(tree, tmp_path, capsys):
    assert command(tree, "D.77") == 2
    assert "no equation 'D.77'" in capsys.readouterr().err
    (tree / "SPEC.md").unlink()
    assert command(tree) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "there is no SPEC.md in" in error and "--root DIR" in error


@pytest.mark.parametrize("word", ["d1", "D.1", "(D.1)", "forward", "law.py::forward", "again", "valid for"])
def test_an_equation_is_found_by_its_id_its_title_its_functions_and_its_words(tree, capsys, word):
    assert command(tree, *word.split()) == 0
    assert capsys.readouterr().out.startswith("D.1 — Forward")


@pytest.mark.parametrize("word", ["d", "A"])  # a chapter; a letter of both titles
def test_all_that_may_be_meant_are_listed(tree, capsys, word):
    assert command(tree, word) == 0
    out = capsys.readouterr().out
    assert out.startswith("D.1    Forward\nD.2    Table\n") and "\n2 equations; minidit spec D.1 shows one" in out


def test_others_with_the_same_words_are_named_below(tree, capsys):
    change(tree, "SPEC.md", "Valid for", "No tables. Valid for")
    assert command(tree, "tables") == 0
    out = capsys.readouterr().out
    assert out.startswith("D.2 — Table") and out.endswith("Others with these words: D.1 (Forward)\n")
    assert command(tree, "D.2") == 0
    assert "Others" not in capsys.readouterr().out


def test_an_equation_is_found_by_the_words_of_its_chapter_in_the_genitive_and_by_a_topic(capsys):
    """In the package's own SPEC: what a reader types who knows the matter and not our titles."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "SPEC.md").exists():
        pytest.skip("no SPEC.md beside the tests")
    first = {}
    for words in ("flow matching", "Heun's step", "ddim_step", "p_sample", "DDIM's step"):
        assert command(root, *words.split()) == 0
        first[words], *_, last = capsys.readouterr().out.splitlines()
        assert words != "flow matching" or last.startswith("Others with these words: F.1 (The marginal velocity), F.3")
    assert [line.split()[0] for line in first.values()] == ["F.2", "P.6", "D.7", "D.9", "D.6"]
    assert first["DDIM's step"] == "D.6    Fresh noise of a DDIM step"  # the first of a list
    assert command(root, "no_such_function") == 2


@pytest.mark.parametrize(("wrong", "answer"), [
    ("D.11", "did you mean D.1 (Forward)"), ("nonsense", "(minidit spec lists them)"),
    ("M02", "`minidit verify M02` says what it does; it is named at D.1 (Forward)"), ("m77", "`minidit verify M77`"),
])  # fmt: skip
def test_a_wrong_id_is_answered_in_one_line_with_what_may_be_meant(tree, capsys, wrong, answer):
    assert command(tree, wrong) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and answer in error


@pytest.mark.parametrize("name", ["spec", "pytest.mark.spec", "support.spec"])
def test_a_mark_and_a_record_are_known_by_their_last_name_and_a_docstring_wherever_it_stands(name):
    tree = ast.parse(f'@{name}("D.1")\ndef test_it():\n    {name.replace("spec", "agree")}(1, 1, of="D.2")')
    assert [p.ids for p in proofs_of("t.py", tree)] == [("D.1",)]
    assert [c.id for c in recorded_in("t.py", tree)] == ["D.2"]
    text = 'if True:\n    class A:\n        def f(self):\n            """As (D.3) says."""\nx = 1  # (D.4)\ny = "# (D.5)"\n'
    found = [(c.id, c.line, c.on_code) for c in citations_of("m.py", text, ast.parse(text))]
    assert found == [("D.4", 5, True), ("D.3", 4, False)]


def test_of_one_equation_only_the_files_that_name_it_are_read_and_it_reads_the_same(checkout):
    for i in [*list(checkout.entries)[::16], "D.1"]:  # of every chapter, and D.1, with which the names of others begin
        part = read(checkout.root, only=i)
        assert one_entry(part, part.entries[i]) == one_entry(checkout, checkout.entries[i])
        assert len(part.sources) < len(checkout.sources) / 2 and len(part.texts) < len(checkout.texts) / 2


def test_a_package_without_a_checkout_shows_what_it_carries(tmp_path, monkeypatch, capsys, tree):
    """As in a wheel: SPEC.md and the tests lie inside the package, which is not their neighbour."""
    carried = tree / "minidit/html/checkout"
    carried.mkdir(parents=True)
    (tree / "SPEC.md").rename(carried / "SPEC.md")
    (tree / "tests").rename(carried / "tests")
    for name, place in (("CHECKOUT", tree), ("PACKAGE", tree / "minidit"), ("CARRIED", carried)):
        monkeypatch.setattr(f"minidit.cli.spec.{name}", place)
    monkeypatch.chdir(tmp_path)
    for words in (["D.1"], ["--problems"]):
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        assert run(parser.parse_args(words)) == 0
    assert "  test_the_law  tests/test_law.py:5" in capsys.readouterr().out.splitlines()
