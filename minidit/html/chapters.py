"""Reads the chapters of the story: docs/story/1-….md and so on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StoryChapter:
    """One chapter. path : its Markdown;  text : that without the heading."""

    number: int
    title: str
    text: str
    path: Path

    @property
    def page(self) -> str:
        return f"story{self.number}"


def chapters(folder: Path) -> list[StoryChapter]:
    """The chapters in a folder, in their order; none if there is no such folder."""
    story = []
    for path in sorted(folder.glob("[1-9]-*.md")):
        heading, _, text = path.read_text("utf-8").partition("\n")
        number, _, title = heading.lstrip("# ").partition(". ")
        story.append(StoryChapter(int(number), title.strip(), text.strip(), path))
    return story
