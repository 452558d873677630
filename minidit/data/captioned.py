"""A folder of pictures with captions: a file `metadata.jsonl` or `metadata.csv` in it, as other trainers read them.

    {"file_name": "cats/1.png", "text": "a sleeping cat"}          one object per line of metadata.jsonl
    file_name,text                                                 or a table with these two columns, metadata.csv

File names are relative to the folder; other keys and columns are ignored. Each picture has one caption and each caption one
picture: a line without its picture, a picture without its line, and a caption without a word are errors that name them.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from minidit.data.captions import words_of
from minidit.data.checks import MAX_FILES, fault, reading

NAMES = ("metadata.jsonl", "metadata.csv")
MAX_BYTES = 2**28  # of such a file
Line = tuple[int, object, object]  # number, file name, text


def captions_file(folder: Path) -> Path | None:
    """The file of captions in a folder, or None. Raises DataError if there are two."""
    files = [folder / name for name in NAMES if (folder / name).is_file()]
    if len(files) > 1:
        raise fault(folder, f"has two files of captions, {' and '.join(NAMES)}: remove one of them")
    return files[0] if files else None


def read_captions(file: Path, files: list[Path]) -> list[str]:
    """The caption of every picture, in the order of `files`, which are all pictures of the folder.

    Raises DataError for a line without a file name, a text or a picture, with its number, and for a picture that no line names.
    """
    if file.stat().st_size > MAX_BYTES:
        raise fault(file, f"is larger than {MAX_BYTES >> 20} MiB")
    with reading(file):
        content = file.read_bytes().decode("utf-8-sig")
    pictures = {path.relative_to(file.parent).as_posix(): path for path in files}
    captions: dict[Path, str] = {}
    for number, name, text in (_csv if file.suffix == ".csv" else _jsonl)(file, content):
        where = f"{file}, line {number}"
        if not isinstance(name, str) or not name:
            raise fault(where, "has no file_name")
        if not isinstance(text, str) or not words_of(text):
            raise fault(where, f"has no text for {name!r:.80}")
        path = pictures.get(name.removeprefix("./").replace("\\", "/"))
        if path is None:
            raise fault(where, f"there is no picture {name!r:.80} in {file.parent}")
        if path in captions:
            raise fault(where, f"a second caption for {name!r:.80}")
        captions[path] = text
    missing = [path for path in files if path not in captions]
    if missing:
        more = f", and {len(missing) - 1} more pictures have none" if len(missing) > 1 else ""
        raise fault(missing[0], f"has no caption in {file.name}{more}")
    return [captions[path] for path in files]


def _jsonl(file: Path, content: str) -> Iterator[Line]:
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise fault(f"{file}, line {number}", "is not JSON") from error
        if not isinstance(entry, dict):
            raise fault(f"{file}, line {number}", 'must be an object such as {"file_name": "1.png", "text": "a cat"}')
        yield number, entry.get("file_name"), entry.get("text")
        if number > MAX_FILES:
            raise fault(file, f"has more than {MAX_FILES} lines")


def _csv(file: Path, content: str) -> Iterator[Line]:
    with reading(file):
        table = csv.DictReader(io.StringIO(content, newline=""))
        if not {"file_name", "text"} <= set(table.fieldnames or ()):
            raise fault(file, "needs a first line with the columns file_name and text")
        for row in table:
            yield table.line_num, row["file_name"], row["text"]
