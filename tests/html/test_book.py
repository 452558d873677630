"""The book of SPEC.md: formulas as MathML, Markdown, coloured code, and pages that open in a real browser."""

import contextlib
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("latex2mathml")

from minidit.html.book import write_book
from minidit.html.formula import displayed, mathml, pieces
from minidit.html.markup import inline, markdown
from minidit.html.prose import coloured, segments
from minidit.html.spec import read
from minidit.verify.bank import DEVIATIONS

ROOT = Path(__file__).resolve().parents[2]


def text_of(markup):
    quoted = re.sub(r"<i class=(\w)>", r'<i class="\1">', markup)  # HTML needs no quotes, XML does
    return "".join(ElementTree.fromstring(f"<x>{quoted}</x>").itertext())


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
    made = ElementTree.fromstring(mathml(r"c\,\big((a)+(b)_1\big)^2"))
    power = made.find(".//msup")
    assert "".join(power[0].itertext()) == "((a)+(b)1)"
    assert power[1].text == "2"
    assert "".join(made.itertext()) == "c((a)+(b)1)2"


@pytest.mark.parametrize("one, two", [(r"\lVert", r"\rVert"), (r"\|", r"\|"), ("|", "|"), ("(", ")"), (r"\{", r"\}")])
def test_both_fences_of_a_pair_keep_one_size_beside_something_high(one, two):
    made = ElementTree.fromstring(mathml(rf"{one} x {two}^2=\frac{{(a+b)^2}}{{c^2}}"))
    fences = [node for node in made.iter("mo") if node.text != "=" and not node.text.isalnum() and node.text != "+"]
    assert len(fences) == 4 and {node.get("stretchy") for node in fences} == {"false"}
    grows = ElementTree.fromstring(mathml(rf"\left{one} \frac ab \right{two}"))
    assert {node.get("stretchy") for node in grows.iter("mo")} == {"true"}


def test_fences_of_a_given_size_are_signs_and_not_commands():
    assert text_of(mathml(r"\Big\{\Big\lfloor\big\|x\big\|\Big\rfloor\Big\}")) == "{⌊‖x‖⌋}"


def test_is_distributed_as_is_a_relation_and_no_letter():
    assert "<mo>∼</mo>" in mathml(r"\epsilon\sim\tilde x") and "<mi>~" not in mathml(r"\epsilon\sim\tilde x")


def test_a_fence_without_a_partner_keeps_its_exponent():
    assert text_of(mathml("b)^2")) == "b)2"


def test_a_formula_is_cut_where_a_narrow_page_may_break_it_and_nowhere_else():
    assert pieces(r"x_t=a,\qquad 1\le t\quad\Longrightarrow\quad b") == [r"x_t=a,", r" 1\le t", r"\Longrightarrow", " b"]
    whole = r"\left\{\text{a\quad b}\quad c\right.\begin{cases}a\quad b\end{cases}\{\quadratic"
    assert pieces(whole + r"\quad d") == [whole, " d"]
    assert displayed(r"a\qquad b").count("<math") == 2


@pytest.mark.parametrize("tex", [r"\nosuchthing x", r"\left( a", r"a & b"])
def test_a_formula_that_cannot_be_turned_is_named_in_the_error(tex):
    with pytest.raises(ValueError, match=re.escape(repr(tex))):
        mathml(tex)


def test_a_function_keeps_its_distance_from_letters_and_not_from_brackets():
    def spaces(tex):
        return "".join("_" if node.tag == "mspace" else node.text or "" for node in ElementTree.fromstring(mathml(tex)).iter())

    assert spaces(r"a\log x") == "a_log_x"
    assert spaces(r"2\log_{10}x+\cos(y)") == "2_log10_x+cos(y)"
    assert spaces(r"\sqrt{2\ln u_1}\,\sin y") == "2_ln_u1_sin_y"


# ------------------------------------------------------------------------------------------------ text


def test_inline_marks():
    made = inline("a < `b<c` **bold** *em* $x$ [site](https://example.org/?a=1&b=2) 2 * 3 * 4", to_known)
    assert "a &lt; <code>b&lt;c</code> <strong>bold</strong> <em>em</em> <math" in made
    assert '<a href="https://example.org/?a=1&amp;b=2">site</a> 2 * 3 * 4' in made


def test_indices_of_single_letters_stand_low():
    made = inline("ᾱ_t/ᾱ_{t-1}, x̂_0 and n_in; not eps_u, x_start or `x_0`", to_known)
    assert made.startswith("ᾱ<sub>t</sub>/ᾱ<sub>t-1</sub>, x̂<sub>0</sub> and n<sub>in</sub>; not eps_u, x_start or")
    assert made.endswith("<code>x_0</code>")


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
    assert "<p>text\nmore</p>" in made and "<li>one\nstill one</li>" in made
    assert "<code>x|y</code>" in made and "<code>&lt;raw&gt;\n\n</code>" in made


def test_a_line_that_begins_with_a_modulus_is_no_table():
    assert markdown("|z| is\n|y| small", to_known) == "<p>|z| is\n|y| small</p>"


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
    assert '<i class=d>@</i><i class=d>mark</i>(<i class=s>&quot;<a href="D.html#D.7">' in made
    assert '<i class=k>def</i> <i class=f>f</i>(a)' in made
    assert 'a @ <i class=n>2</i>  <i class=c># (<a href="E.html#E.3">E.3</a>)</i>' in made


# ------------------------------------------------------------------------------------------------ pages


def test_every_equation_has_its_place_its_formula_its_code_and_its_tests(checkout, book):
    for e in checkout.entries.values():
        page = book[f"{e.letter}.html"]
        article = page[page.index(f'<article id="{e.id}">') :]
        article = article[: article.index("</article>")]
        assert article.count('<div class="equation"') >= len(e.equations)
        for place in e.homes:
            assert f":: <b>{place.symbol}</b>" in article
        assert article.count('<details class="source">') == len(checkout.proofs_of(e))
        assert all(f"<code>{DEVIATIONS[m].name}</code>" in article for m in e.deviations)


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
        assert not re.search(r'(?:src|href)="(?!https://|#|data:image/png;base64,|[\w.]+\.html)', page)
        assert "<link" not in page and "@import" not in page and not re.search(r"url\((?!#)", page)


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


# ------------------------------------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def folder(book, tmp_path_factory):
    """The pages of this checkout's own book, as files."""
    where = tmp_path_factory.mktemp("book")
    for name, text in book.items():
        (where / name).write_text(text, encoding="utf-8")
    return where


WIDTHS = (320, 390, 820, 1280, 1900)
FLAT = """[...document.querySelectorAll('math')].filter(m => {
    const b = m.getBoundingClientRect();
    return !(m instanceof MathMLElement) || b.width < 3 || b.height < 3 || m.querySelector('merror');
}).map(m => m.outerHTML)"""


@pytest.fixture(scope="module")
def seen(folder, book, chromium_page):
    """What the browser makes of each page: name -> its errors, requests, formulas that are not drawn, overflow at each width."""
    found = {}
    for name in book:
        chromium_page.set_width(1280)
        chromium_page.open(folder / name)
        found[name] = {"flat": chromium_page.evaluate(FLAT), "too wide": []}
        for width in WIDTHS:
            chromium_page.set_width(width)
            found[name]["too wide"] += [width] if chromium_page.overflow() else []
        found[name] |= {"errors": list(chromium_page.errors), "requests": list(chromium_page.requests)}
    return found


@pytest.mark.parametrize("what", ["errors", "requests", "flat", "too wide"])
def test_every_page_has_no(seen, what):
    assert {name: page[what] for name, page in seen.items() if page[what]} == {}


def test_a_wide_formula_scrolls_inside_its_box(folder, page):
    page.set_width(320)
    page.open(folder / "0.html")
    page.evaluate("""document.querySelector('.intro').insertAdjacentHTML('beforeend', '<div class="equation" id="wide"><math '
        + 'display="block"><mi>' + 'abc'.repeat(90) + '</mi></math></div>')""")
    assert page.evaluate("wide.scrollWidth > wide.clientWidth && wide.firstChild.getBoundingClientRect().left >= 0")
    assert page.overflow() == 0


def type_into_search(page, words):
    """The addresses that the search offers for the words."""
    page.press("/")
    assert page.evaluate("document.activeElement === box")
    page.evaluate(f"box.value = {words!r}; box.dispatchEvent(new Event('input'))")
    return page.evaluate("[...document.querySelectorAll('.search ol a')].map(a => a.getAttribute('href'))")


def arrived(page, where):
    """Whether the browser goes there; what one asks while it leaves a page is lost, and asked again."""
    for _ in range(500):
        with contextlib.suppress(RuntimeError):
            if page.evaluate("new Promise(done => setTimeout(() => done(location.href), 20))").endswith(where):
                return True
    return False


def test_the_search_finds_every_id_first_and_enter_leads_there(checkout, folder, page):
    ids = list(checkout.entries)
    page.open(folder / "index.html")
    first = page.evaluate("INDEX.map(e => { box.value = e.id; show(); return list.querySelector('a').getAttribute('href'); })")
    assert first == [f"{i[0]}.html#{i}" for i in ids]
    assert type_into_search(page, ids[-1])[0] == first[-1]
    page.press("Enter")
    assert arrived(page, f"/{first[-1]}")


def test_the_search_finds_words_of_a_name_and_says_nothing_to_nonsense(checkout, folder, page):
    name = next(iter(checkout.entries.values())).name
    page.open(folder / "index.html")
    assert len(type_into_search(page, name.lower())) >= 1
    assert page.evaluate("list.querySelector('span').textContent") == name
    page.press("Escape")
    assert page.evaluate("[list.children.length, box.value]") == [0, ""]
    assert type_into_search(page, "qqxyz") == []


def test_an_anchor_on_the_index_leads_to_the_entry_wherever_it_is(checkout, folder, page):
    last = list(checkout.entries)[-1]
    page.open(folder / "index.html")
    page.evaluate(f"location.hash = '#{last}'")
    assert arrived(page, f"/{last[0]}.html#{last}")


def test_dark_and_light_are_what_the_reader_prefers(folder, page):
    page.open(folder / "index.html")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.set_dark(True)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", light))) > 600 and sum(map(int, re.findall(r"\d+", dark))) < 150
