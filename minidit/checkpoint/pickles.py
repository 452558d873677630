"""Weights in the zip files of torch.save, read without torch and without running anything.

Such a file is a pickle, a program that may call any function it names, and beside it the raw bytes of each storage. The
program is read here, never run: a name may only be one of ALLOWED, a call of it is turned into a description of an array or
into nothing, and any other name or instruction refuses the whole file. No other door lets a foreign pickle in.
"""

from __future__ import annotations

import math
import pickletools
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minidit.backend import Array
from minidit.checkpoint.files import CheckpointError, Lazy, bytes_at, widened

ZIP = b"PK\x03\x04"
LIMIT = 2**27  # bytes of the pickle itself: names and shapes, a few MB even for the largest networks

STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "bf16", "LongStorage": "<i8",
    "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip


class Refused(Exception):
    """A pickle that is not a file of weights."""


@dataclass(frozen=True)
class Name:
    """A global name in a pickle: never looked up."""

    module: str
    name: str


@dataclass(frozen=True)
class Unknown:
    """What a training loop kept beside the weights; nobody looks at it."""

    name: Name


@dataclass(frozen=True)
class Storage:
    """Raw numbers of one type at a place in the file."""

    path: Path
    offset: int
    count: int
    code: str


def array(storage: Any, start: Any, shape: Any, strides: Any, *_: Any) -> Lazy:
    """The description of an array, checked against its storage."""
    numbers = (start, *shape, *strides)
    if not isinstance(storage, Storage) or any(type(n) is not int or not 0 <= n < 2**63 for n in numbers) or len(shape) > 32:
        raise Refused("an array that is not described by a storage and whole numbers")
    count = math.prod(shape)
    reach = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) if count else 0
    if count > storage.count or start + reach > storage.count:
        raise Refused(f"an array of {count} numbers from place {start} of a storage of {storage.count}")
    bf16 = storage.code == "bf16"
    stored = np.dtype("<u2" if bf16 else storage.code)

    def read() -> Array:
        a = bytes_at(storage.path, storage.offset + start * stored.itemsize, reach, stored)
        if count:
            a = np.lib.stride_tricks.as_strided(a, shape, [s * stored.itemsize for s in strides], writeable=False)
        a = np.ascontiguousarray(a).reshape(shape)
        return widened(a) if bf16 else a

    return Lazy(tuple(shape), np.dtype(np.float32) if bf16 else stored, read)


def table(items: Any = ()) -> dict[Any, Any]:
    """A dictionary from pairs; a key is a plain value, so that none takes longer to hash than to read."""
    return {k: v for k, v in items if k is None or isinstance(k, (str, int, float, Name, Unknown))}


# a name -> what a call of it stands for; None: nothing that anybody looks at
ALLOWED: dict[Name, Callable[..., Any] | None] = {
    Name("collections", "OrderedDict"): table,
    Name("torch._utils", "_rebuild_tensor_v2"): array,
    Name("torch._utils", "_rebuild_tensor"): array,
    Name("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    Name("torch", "Size"): lambda items=(): tuple(items),
    Name("argparse", "Namespace"): None,
    Name("pathlib", "PosixPath"): None,
    Name("numpy", "dtype"): None,
    Name("numpy.core.multiarray", "scalar"): None,
    Name("numpy._core.multiarray", "scalar"): None,
    Name("_codecs", "encode"): None,
    Name("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"): None,
    **{Name("torch", name): None for name in STORAGES},
}


def read_pickle(data: bytes, storage: Callable[[str, str, int], Storage]) -> Any:
    """The value that a pickle describes, from its instructions one by one. Raises Refused for one that is not about arrays."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def named(module: Any, name: Any) -> Name:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused("it asks for a name that is no text")
        found = Name(module, name)
        if found not in ALLOWED:
            raise Refused(f"it asks for {module[:99]}.{name[:99]}, which is no description of an array")
        return found

    def called(function: Any, arguments: Any) -> Any:
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise Refused("it calls what is no name")
        make = ALLOWED[function]
        return Unknown(function) if make is None else make(*arguments)

    def stored(pid: Any) -> Storage:
        kind, found, key, _, count = pid
        if kind != "storage" or not isinstance(found, Name) or found.name not in STORAGES or type(count) is not int:
            raise Refused("a reference to something that is no storage")
        if not isinstance(key, str):
            raise Refused("a storage whose name is no text")
        return storage(key, STORAGES[found.name], count)

    def fill(target: Any, keys: list[Any], values: list[Any]) -> None:
        if isinstance(target, dict):
            target.update(table(zip(keys, values, strict=True)))

    argument: Any
    for op, argument, _ in pickletools.genops(data):
        match op.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "POP":
                stack.pop()
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[op.name])
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1" | "LONG4" | "BINFLOAT" | "FLOAT":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "UNICODE" | "BINSTRING" | "SHORT_BINSTRING" | "BINBYTES" | "SHORT_BINBYTES":
                stack.append(argument)
            case "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_TUPLE" | "EMPTY_SET":
                stack.append({"LIST": list, "DICT": dict, "TUPLE": tuple, "SET": list}[op.name[6:]]())
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(op.name[-1])
                stack[-n:] = [tuple(stack[-n:])]
            case "APPEND":
                item = stack.pop()
                if isinstance(stack[-1], list):
                    stack[-1].append(item)
            case "APPENDS" | "ADDITEMS":
                items = since_mark()
                if isinstance(stack[-1], list):
                    stack[-1].extend(items)
            case "SETITEM":
                item, key = stack.pop(), stack.pop()
                fill(stack[-1], [key], [item])
            case "SETITEMS":
                items = since_mark()
                fill(stack[-1], items[::2], items[1::2])
            case "GLOBAL":
                stack.append(named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(named(module, name))
            case "REDUCE" | "NEWOBJ":
                arguments, function = stack.pop(), stack.pop()
                stack.append(called(function, arguments))
            case "BUILD":
                stack.pop()  # the inner life of an object: there is none here
            case "BINPERSID":
                stack.append(stored(stack.pop()))
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(memo[argument])
            case other:
                raise Refused(f"it has an instruction {other}, which no file of weights needs")
    raise Refused("it has no end")


def open_torch_zip(path: str | Path) -> Any:
    """What torch.save was given, arrays as Lazy. Raises CheckpointError, naming the file, for anything that is not weights."""
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as file, open(path, "rb") as raw:
            members = {info.filename: info for info in file.infolist()}
            program = next((n for n in members if n.rpartition("/")[2] == "data.pkl"), None)
            if program is None:
                raise CheckpointError(f"{path}: a zip file without data.pkl: not what torch.save writes")
            root = program.removesuffix("data.pkl")
            order = members.get(f"{root}byteorder")
            if order is not None and order.file_size < 9 and file.read(order) != b"little":
                raise CheckpointError(f"{path}: its numbers are big-endian, which is not read here")
            if members[program].file_size > LIMIT:
                raise CheckpointError(f"{path}: its pickle claims {members[program].file_size} bytes, {LIMIT} are read at most")

            def storage(key: str, code: str, count: int) -> Storage:
                info = members.get(f"{root}data/{key}")
                width = 2 if code == "bf16" else np.dtype(code).itemsize
                if info is None or info.compress_type != zipfile.ZIP_STORED or info.file_size != count * width:
                    raise Refused(f"storage {key!r} is missing, packed, or not {count} numbers long")
                return Storage(path, start_of(raw, info), count, code)

            return read_pickle(file.read(program), storage)
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such file") from error
    except MemoryError as error:
        raise CheckpointError(f"{path}: its pickle asks for more memory than there is") from error
    except Exception as error:  # instructions that do not fit together fail in any way
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path}: refused, not a file of weights: {reason}") from error


def start_of(raw: Any, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored member begin: behind its own header, whose two last fields are lengths."""
    raw.seek(info.header_offset)
    header = raw.read(30)
    if len(header) != 30 or header[:4] != ZIP:
        raise Refused(f"{info.filename} is not where the zip's table says")
    name, extra = struct.unpack("<HH", header[26:30])
    return int(info.header_offset + 30 + name + extra)


def arrays_in(found: Any, path: str | Path) -> tuple[dict[str, Lazy], list[str]]:
    """(name -> Lazy, names of what was left aside) from a state, or from a training checkpoint that holds one.

    Of several states the averaged one is taken: what the published samples were drawn with.
    """
    aside: list[str] = []
    for inner in ("ema", "state_dict", "model"):
        state = found.get(inner) if isinstance(found, dict) else None
        if isinstance(state, dict) and any(isinstance(a, Lazy) for a in state.values()):
            aside = [str(k) for k in found if k != inner]
            found = state
            break
    if isinstance(found, dict):
        arrays = {str(k): a for k, a in found.items() if isinstance(a, Lazy)}
        if arrays:
            return arrays, aside + [str(k) for k, a in found.items() if not isinstance(a, Lazy)]
    raise CheckpointError(f"{path}: holds no arrays with names")
