"""The browser that the other tests drive."""

import pytest

LEAVES = "<title>first</title><script>onkeydown = () => setTimeout(() => location.href = 'second.html', {})</script>"


def test_a_key_may_lead_to_another_page_at_any_moment(tmp_path, page):
    (tmp_path / "second.html").write_text("<title>second</title>")
    for milliseconds in range(0, 36, 3):
        (tmp_path / "first.html").write_text(LEAVES.format(milliseconds))
        page.open(tmp_path / "first.html")
        page.press("a")


def test_whatever_else_the_browser_refuses_is_an_error(page, monkeypatch):
    def refuse(script):
        raise RuntimeError("refused")

    monkeypatch.setattr(page, "evaluate", refuse)
    with pytest.raises(RuntimeError, match="refused"):
        page.settle()
