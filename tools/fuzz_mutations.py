"""Ways to damage an input: its bytes, the values of its JSON, the members of its zip, the chunks of its PNG.

A mutation is a function of a random generator and bytes. Those that know a format write lengths and checksums anew, so that the
damage reaches what lies behind them.
"""

from __future__ import annotations

import functools
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
        value = _parsed(data)  # it is copied where it is changed
    except ValueError:
        return bytes_damaged(r, data)
    for _ in range(r.choice((1, 1, 2, 3))):
        value = _value_damaged(r, value)
    return json.dumps(value).encode()


TRICKS = (  # what stands in place of a value in a JSON text, though no Python value is written so
    b"NaN", b"-Infinity", b"1e999", b"-0", b"1" * 5000, b"0." + b"1" * 5000, b"[" * 3000, b"[" * 500 + b"]" * 500, b'{"a":' * 800,
    b'"\\ud800"', b'"\\udc00\\ud800"', b'"\xff"', b'"\\u0000"', b'"\xe2\x80\xae"', b"01", b"1.", b"+1", b"0x1", b"\xef\xbb\xbf1",
    b"'a'",
    b"true", b"tru", b"/*x*/1", b'{"a":1,"a":[]}', b'{"":{}}', b"1 1", b",", b"", b"1_000", b"\x00", b"10000000000000000000000",
)  # fmt: skip
VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|\[\]')


def text_damaged(r: random.Random, data: bytes) -> bytes:
    """One value of a JSON text replaced by what no encoder writes; or a whole member written twice; or text around it."""
    places = [m.span() for m in VALUE.finditer(data)]
    chance = r.random()
    if not places or chance < 0.05:
        return r.choice(
            (b"\xef\xbb\xbf" + data, data + b"\x00", data + data, data.decode(errors="replace").encode("utf-16"), b"[" + data)
        )
    start, end = r.choice(places)
    if chance < 0.2:
        first, last = r.choice(places)[0], end
        first, last = min(first, last), max(first, last)
        return data[:last] + b"," + data[first:last] + data[last:]
    return data[:start] + r.choice(TRICKS) + data[end:]


TOML = (
    b"1979-05-27", b"07:32:00", b"1979-05-27T07:32:00Z", b"inf", b"-nan", b"1" * 5000, b"0x" + b"f" * 5000, b"[" * 300,
    b"[" * 300 + b"]" * 300,
    b"{a = {a = {a = 1}}}", b"{ kind = 1 }", b"[[1], [2]]", b"'''\n'''", b'"""x"""', b'"\\uD800"', b'"\\U0010FFFF"', b"true",
    b"0b101", b"1_0",
    b"[1, \"a\"]", b"-0.0", b"1e400", b'"\x7f"', b'"\\u202e"', b"", b"[]", b"{}",
)  # fmt: skip


def toml_damaged(r: random.Random, data: bytes) -> bytes:
    """One value of a TOML text replaced; or a key or section doubled, nested, quoted or made a table of tables."""
    lines = data.split(b"\n")
    at = r.randrange(len(lines))
    key, equals, value = lines[at].partition(b" = ")
    match r.randrange(8):
        case 0:
            lines.insert(r.randrange(len(lines)), lines[at])
        case 1:
            lines[at] = (
                r.choice((b"[[", b"[a.", b'["', b"[", b"[" + b"a." * 2000))
                + lines[at].strip(b"[]")
                + r.choice((b"]]", b"]", b'"]'))
            )
        case 2 if equals:
            lines[at] = r.choice((b"a." * 1500, b'"".', b"'x'.", b"kind.")) + key + equals + value
        case _:
            lines[at] = (key if equals else b"x") + b" = " + r.choice(TOML)
    return b"\n".join(lines)


@functools.lru_cache(8)
def _parsed(data: bytes) -> Any:
    return json.loads(data)


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


def without_digest(header: bytes) -> bytes:
    """The header of a safetensors file as long as before, without the digest of its contents."""
    return DIGEST.sub(lambda m: b" " * len(m[0]), header)


def safetensors_damaged(r: random.Random, data: bytes) -> bytes:
    """The header of a safetensors file, with its length written anew and without its digest."""
    n = int.from_bytes(data[:8], "little")
    plain = without_digest(data[8 : 8 + n])
    header = r.choice((json_damaged, json_damaged, text_damaged))(r, plain)
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + n :]


def zip_damaged(r: random.Random, data: bytes) -> bytes:
    """One member of a zip file, with its checksum written anew; sometimes doubled, renamed or left out."""
    members = list(_members(data))
    small = min(range(len(members)), key=lambda k: len(members[k][1]) if members[k][0].endswith("pkl") else 10**9)
    at = small if r.random() < 0.5 and members[small][0].endswith("pkl") else r.randrange(len(members))
    name, content = members[at]
    head = 128 if content[:6] == b"\x93NUMPY" and r.random() < 0.8 else len(content)
    members[at] = (name if r.random() < 0.95 else f"{name}x", npy_damaged(r, content[:head]) + content[head:])
    if r.random() < 0.05:
        members.append(r.choice(members))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", r.choice((0, 0, 8, 12, 14))) as archive:
        for k, (member, content) in enumerate(members):
            if k != at or r.random() < 0.98:
                archive.writestr(zipfile.ZipInfo(f"{member}#{k}" if member in archive.namelist() else member), content)
    packed = out.getvalue()
    return _directory_damaged(r, packed) if r.random() < 0.1 else packed


@functools.lru_cache(8)
def _members(data: bytes) -> tuple[tuple[str, bytes], ...]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return tuple((m.filename, archive.read(m)) for m in archive.infolist())


def _directory_damaged(r: random.Random, data: bytes) -> bytes:
    """A field of a zip's table of contents or of its end: flags, method, sizes, offsets, lengths of names."""
    out = bytearray(data)
    at = out.find(r.choice((b"PK\x01\x02", b"PK\x05\x06", b"PK\x03\x04")))
    if at >= 0:
        word = r.choice(WORDS)
        place = at + r.randrange(4, 46)
        out[place : place + len(word)] = word
    return bytes(out)


def npy_damaged(r: random.Random, head: bytes) -> bytes:
    """A number in the text of an .npy header, at the same length; or any bytes."""
    if head[:6] != b"\x93NUMPY" or r.random() < 0.3:
        return bytes_damaged(r, head)
    text = head[10:].rstrip().decode("latin1")
    for digits in r.sample("0123456789", 3):
        text = text.replace(digits, str(r.choice(NUMBERS)), 1) if digits in text else text
    text = text.replace("False", r.choice(("False", "True", "0", "None"))) if r.random() < 0.3 else text
    text = text.replace("(", r.choice(("(", "(-1,", "(" * 300)), 1) if r.random() < 0.2 else text
    text = text.replace(
        "|u1", r.choice(("|u1", "|O", "<f8", "|S9999999", "<U99999999", "|V8", "<M8[s]", "<c16", ">u1", "|b1"))
    ).encode()
    room = max(len(head) - 10, len(text) + 1)
    return head[:8] + room.to_bytes(2, "little") + text.ljust(room - 1) + b"\n"


ODD_CHUNKS = (
    b"tRNS",
    b"PLTE",
    b"gAMA",
    b"acTL",
    b"fcTL",
    b"fdAT",
    b"eXIf",
    b"tIME",
    b"sPLT",
    b"hIST",
    b"cHRM",
    b"IHDR",
    b"IEND",
    b"ABCD",
    b"\0\0\0\0",
)


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
    match r.randrange(8):
        case 0:
            chunks.insert(r.randrange(len(chunks) + 1), chunks[k])
        case 1:
            del chunks[k]
        case 2:
            chunks.insert(r.randrange(1, len(chunks) + 1), (r.choice(ODD_CHUNKS), r.randbytes(r.choice((0, 1, 4, 13, 300)))))
        case 3:
            text = zlib.compress(bytes(r.choice((10, 2**16, 2**21))))
            chunks.insert(1, (r.choice((b"zTXt", b"iCCP", b"iTXt")), b"a\0\0" + r.choice((b"", b"\0\0\0")) + text))
        case _:
            chunks[k] = (chunks[k][0], bytes_damaged(r, chunks[k][1]))
    parts = (len(c).to_bytes(4, "big") + kind + c + zlib.crc32(kind + c).to_bytes(4, "big") for kind, c in chunks)
    return data[:8] + b"".join(parts)
