"""Ways to damage an input: its bytes, the values of its JSON, the members of its zip, the chunks of its PNG.

A mutation is a function of a random generator and bytes. Those that know a format write lengths and checksums anew, so that the
damage reaches what lies behind them.
"""

from __future__ import annotations

import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

DIGEST = re.compile(rb',?"sha256":"[0-9a-f]*"')
Mutation = Callable[[random.Random, bytes], bytes]

NUMBERS = (0, 1, -1, 2, 127, 128, 255, 256, 4095, 65535, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30)
VALUES: tuple[Any, ...] = (
    *NUMBERS, 0.5, -0.0, 1e308, float("inf"), float("nan"), None, True, False, "", "0", "NaN", "../..", "/dev/zero", "x" * 5000,
    "\x1b[2J", "\udcff", "\0", [], {}, [[]], [0], [-1, 2**40], [[[[[]]]]], {"a": {"b": []}}, ["a", None, 1.5],
)  # fmt: skip
WORDS = tuple(
    struct.pack(code, n % 2 ** (8 * struct.calcsize(code))) for n in NUMBERS for code in ("<H", ">H", "<I", ">I", "<Q", "B")
)


def bytes_damaged(r: random.Random, data: bytes) -> bytes:
    """A few flips, words, cuts and copies."""
    out = bytearray(data)
    for _ in range(r.choice((1, 1, 2, 4, 16))):
        at, n = r.randrange(len(out) + 1), r.choice((1, 2, 4, 8, 64))
        match r.randrange(6):
            case 0 if out:
                out[at % len(out)] ^= 1 << r.randrange(8)
            case 1:
                word = r.choice(WORDS)
                out[at : at + len(word)] = word
            case 2:
                del out[at : at + n]
            case 3:
                out[at:at] = bytes(r.randrange(256) for _ in range(n))
            case 4:
                out[at:at] = out[max(0, at - n) : at] * r.choice((1, 2, 50))
            case _:
                out[at : at + n] = bytes(n)
    return bytes(out) if r.random() < 0.9 else bytes(out[: r.randrange(len(out) + 1)])


def json_damaged(r: random.Random, data: bytes) -> bytes:
    """One to three values of a JSON text replaced, removed, doubled or renamed; metadata that are JSON themselves as well."""
    try:
        value = json.loads(data)
    except ValueError:
        return bytes_damaged(r, data)
    for _ in range(r.choice((1, 1, 2, 3))):
        value = _value_damaged(r, value)
    return json.dumps(value).encode()


def _value_damaged(r: random.Random, value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "[") and r.random() < 0.9:
        return json_damaged(r, value.encode()).decode()
    if not isinstance(value, (dict, list)) or not value or r.random() < 0.1:
        return r.choice(VALUES)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = "__metadata__" if "__metadata__" in keys and r.random() < 0.5 else r.choice(keys)
    out = value.copy()
    chance = r.random()
    if chance < 0.05:
        del out[key]
    elif chance < 0.1 and isinstance(out, dict):
        out[r.choice((f"{key}x", "", "kind", "__metadata__", key * 3))] = out.pop(key)
    elif chance < 0.15 and isinstance(out, list):
        out[key:key] = [value[key]] * r.choice((1, 3, 40))
    else:
        out[key] = _value_damaged(r, value[key])
    return out


def lines_damaged(r: random.Random, data: bytes) -> bytes:
    """One line of JSON lines, or one value behind = of a TOML file."""
    lines = data.split(b"\n")
    at = r.randrange(len(lines))
    key, equals, _ = lines[at].partition(b" = ")
    if equals and r.random() < 0.8:
        value = r.choice(VALUES)
        lines[at] = key + equals + json.dumps(value if value is not None else [[]]).encode()
    elif lines[at][:1] == b"{":
        lines[at] = json_damaged(r, lines[at])
    else:
        lines[at] = bytes_damaged(r, lines[at])
    return b"\n".join(lines)


def safetensors_damaged(r: random.Random, data: bytes) -> bytes:
    """The header of a safetensors file, with its length written anew and without its digest."""
    n = int.from_bytes(data[:8], "little")
    header = json_damaged(r, DIGEST.sub(b"", data[8 : 8 + n]))
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + n :]


def zip_damaged(r: random.Random, data: bytes) -> bytes:
    """One member of a zip file, with its checksum written anew; sometimes doubled, renamed or left out."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(m.filename, archive.read(m)) for m in archive.infolist()]
    small = min(range(len(members)), key=lambda k: len(members[k][1]) if members[k][0].endswith("pkl") else 10**9)
    at = small if r.random() < 0.5 and members[small][0].endswith("pkl") else r.randrange(len(members))
    name, content = members[at]
    head = 128 if content[:6] == b"\x93NUMPY" and r.random() < 0.8 else len(content)
    members[at] = (name if r.random() < 0.95 else f"{name}x", _npy_damaged(r, content[:head]) + content[head:])
    if r.random() < 0.05:
        members.append(r.choice(members))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", r.choice((0, 0, 8, 12, 14))) as archive:
        for k, (member, content) in enumerate(members):
            if k != at or r.random() < 0.98:
                archive.writestr(zipfile.ZipInfo(f"{member}#{k}" if member in archive.namelist() else member), content)
    return out.getvalue()


def _npy_damaged(r: random.Random, head: bytes) -> bytes:
    """A number in the text of an .npy header, at the same length; or any bytes."""
    if head[:6] != b"\x93NUMPY" or r.random() < 0.3:
        return bytes_damaged(r, head)
    text = head[10:].rstrip().decode("latin1")
    for digits in r.sample("0123456789", 3):
        text = text.replace(digits, str(r.choice(NUMBERS)), 1) if digits in text else text
    text = text.replace("|u1", r.choice(("|u1", "|O", "<f8", "|S9999999", "<U99999999", "|V8", "<M8[s]"))).encode()
    room = max(len(head) - 10, len(text) + 1)
    return head[:8] + room.to_bytes(2, "little") + text.ljust(room - 1) + b"\n"


def png_damaged(r: random.Random, data: bytes) -> bytes:
    """One chunk of a PNG file, with its checksum written anew."""
    if data[:4] != b"\x89PNG":
        return bytes_damaged(r, data)
    chunks, at = [], 8
    while at + 12 <= len(data):
        n = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + n]))
        at += 12 + n
    k = r.randrange(len(chunks))
    chunks[k] = (chunks[k][0], bytes_damaged(r, chunks[k][1]))
    parts = (len(c).to_bytes(4, "big") + kind + c + zlib.crc32(kind + c).to_bytes(4, "big") for kind, c in chunks)
    return data[:8] + b"".join(parts)
