"""The book of SPEC.md: formulas as MathML, Markdown, coloured code, and pages that open in a real browser."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("latex2mathml")

from minidit.html.book import pages, write_book
from minidit.html.formula import mathml
from minidit.html.prose import coloured, inline, markdown, segments
from minidit.html.spec import read

ROOT = Path(__file__).resolve().parents[2]


def text_of(markup):
    return "".join(ElementTree.fromstring(f"<x>{markup}</x>").itertext())


def to_known(identifier):
    return f"{identifier[0]}.html#{identifier}" if identifier in ("D.7", "E.3") else ""


# ------------------------------------------------------------------------------------------------ formulas


def test_a_formula_becomes_one_math_element():
    made = ElementTree.fromstring(mathml(r"x_s=\sqrt{\bar\alpha_s}\,\hat x_0", display=True))
    assert made.tag == "math" and made.attrib["display"] == "block"
    assert "".join(made.itertext()) == "xs=α¯sx^0"


def test_letters_of_another_style_are_characters_because_browsers_ignore_mathvariant():
    made = mathml(r"\mathbb E\mathbb R\mathcal N\mathcal L\mathbf x\boldsymbol\mu\mathbf 1")
    assert text_of(made) == "𝔼ℝ𝒩ℒ𝐱𝝁𝟏"
    assert "mathvariant" not in made


def test_an_exponent_on_a_closing_fence_belongs_to_the_whole_row():
    made = ElementTree.fromstring(mathml(r"c\,\big(a+(b)_1\big)^2"))
    power = made.find(".//msup")
    assert "".join(power[0].itertext()) == "(a+(b)1)"
    assert power[1].text == "2"
    assert "".join(made.itertext()) == "c(a+(b)1)2"


def test_a_fence_without_a_partner_keeps_its_exponent():
    assert text_of(mathml("b)^2")) == "b)2"


@pytest.mark.parametrize("tex", [r"\nosuchthing x", r"\left( a", r"a & b"])
def test_a_formula_that_cannot_be_turned_is_named_in_the_error(tex):
    with pytest.raises(ValueError, match=re.escape(repr(tex))):
        mathml(tex)


# ------------------------------------------------------------------------------------------------ text


def test_inline_marks():
    made = inline("a < `b<c` **bold** *em* $x$ [site](https://example.org/?a=1&b=2) 2*3*4", to_known)
    assert "a &lt; <code>b&lt;c</code> <strong>bold</strong> <em>em</em> <math" in made
    assert '<a href="https://example.org/?a=1&amp;b=2">site</a> 2*3*4' in made


def test_equation_ids_are_links_and_those_of_papers_are_not():
    made = inline("see (D.7), not D.8, not Appendix D.7, eq. (D.7), not D.71 or fD.7; but E.3.", to_known)
    assert re.findall(r'<a href="([^"]*)">([^<]*)</a>', made) == [("D.html#D.7", "D.7"), ("E.html#E.3", "E.3")]


def test_only_web_addresses_and_anchors_become_links():
    assert "<a" not in inline("[x](javascript:alert(1))", to_known)


def test_blocks_of_every_kind():
    made = markdown("### Head\ntext\nmore\n- one\n  still one\n- two\n\n| a | b |\n|---|---|\n| `x\\|y` | 2 |\n\n"
                    "1. first\n2. second\n\n```\n<raw>\n\n```\nafter $$x$$ it", to_known)
    tags = re.findall(r"<(h3|p|ul|ol|li|pre|table|td|div class=\"equation)\b", made)
    assert tags == ["h3", "p", "ul", "li", "li", "table", "td", "ol", "li", "li", "pre", "p", 'div class="equation', "p"]
    assert "<p>text\nmore</p>" in made and "<li>one still one</li>" in made
    assert "<code>x|y</code>" in made and "<code>&lt;raw&gt;</code>" in made


# ------------------------------------------------------------------------------------------------ code


@pytest.mark.parametrize("path", ["minidit/backend.py", "minidit/html/prose.py", "tests/support.py", "tests/html/test_book.py"])
def test_colours_change_no_character_of_the_code(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    rows = [text_of(coloured(line, 0, to_known)) for line in segments(text)]
    assert rows == text.splitlines()


@given(st.integers(0, 8))
def test_a_smaller_indent_cuts_blanks_and_nothing_else(indent):
    rows = ["    def f(self):  # (D.7)", '        """One', "    two", '   three."""', "", "        return 1"]
    cut = [text_of(coloured(line, indent, to_known)) for line in segments("class A:\n" + "\n".join(rows) + "\n")[1:]]
    assert cut == [r[min(indent, len(r) - len(r.lstrip(" "))):] for r in rows]


def test_tokens_have_their_colours():
    made = "\n".join(coloured(line, 0, to_known) for line in segments('@mark("D.7")\ndef f(a):\n    return a @ 2  # (E.3)\n'))
    assert '<span class="d">@</span><span class="d">mark</span>(<span class="s">&quot;<a href="D.html#D.7">' in made
    assert '<span class="k">def</span> <span class="f">f</span>(a)' in made
    assert 'a @ <span class="n">2</span>  <span class="c"># (<a href="E.html#E.3">E.3</a>)</span>' in made


# ------------------------------------------------------------------------------------------------ pages


@pytest.fixture(scope="module")
def book():
    """The pages of this checkout's own book: name -> HTML."""
    if not (ROOT / "SPEC.md").exists():
        pytest.skip("no SPEC.md beside the tests")
    return dict(pages(read(ROOT)))


def test_every_equation_has_its_place_its_formula_its_code_and_its_tests(book):
    spec = read(ROOT)
    for e in spec.entries.values():
        page = book[f"{e.letter}.html"]
        article = page[page.index(f'<article id="{e.id}">') :]
        article = article[: article.index("</article>")]
        assert article.count('<div class="equation"') >= len(e.equations)
        for place in e.homes:
            assert f":: <b>{place.symbol}</b>" in article
        assert article.count('<details class="source">') == len(spec.proofs_of(e))


def test_every_internal_link_leads_somewhere(book):
    places = {f"{name}#{i}" for name, page in book.items() for i in re.findall(r' id="([^"]+)"', page)} | set(book)
    for name, page in book.items():
        for href in re.findall(r'<a [^>]*href="([^"]+)"', page):
            if not href.startswith("https://"):
                assert (name + href if href.startswith("#") else href) in places, f"{name} links to {href}"


def test_no_id_stands_twice_on_a_page(book):
    for name, page in book.items():
        ids = re.findall(r' id="([^"]+)"', page)
        assert len(ids) == len(set(ids)), name


def test_nothing_is_fetched(book):
    for page in book.values():
        assert not re.search(r'(?:src|href)="(?!https://|#|[\w.]+\.html)', page)
        assert "<link" not in page and "<img" not in page and "@import" not in page and "url(" not in page


def test_text_that_looks_like_markup_stays_text(tmp_path):
    (tmp_path / "minidit").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "minidit/law.py").write_text('def f():\n    """(D.1) </script><b>"""\n', encoding="utf-8")
    (tmp_path / "tests/test_law.py").write_text('@spec("D.1")\ndef test_f():\n    "<b>"\n', encoding="utf-8")
    (tmp_path / "SPEC.md").write_text("# S\n\n## D — </script><b>\n\n### D.1 — </script><b>\n$$a<b$$\nSource: <b>\n"
                                      "Code: `law.py::f`\n\n<b>x\n", encoding="utf-8")
    written = write_book(read(tmp_path), tmp_path / "book")
    assert [p.name for p in written] == ["index.html", "D.html", "code.html"]
    for page in written:
        text = page.read_text(encoding="utf-8").replace(f":: <b>{'f'}</b>", "").replace("<b>D.1</b>", "")
        text = re.sub(r"<b>(Source|See|Named by)</b>", "", text)
        assert "<b>" not in text and text.count("</script>") == 1
