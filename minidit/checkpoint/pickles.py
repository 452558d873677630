"""Weights in the zip files of torch.save, read without torch and without running anything.

Such a file is a pickle, a program that may call any function it names, and beside it the raw bytes of each storage. The
program is read here, never run: a name must be one of ALLOWED, a call of it becomes the description of an array or nothing, and
any other name or instruction refuses the whole file. No other module reads a foreign pickle.
"""

from __future__ import annotations

import math
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from minidit.backend import Array
from minidit.checkpoint.files import CheckpointError, Lazy, bytes_at, widened
from minidit.incoming import Budget, opened_zip, reading

ZIP = b"PK\x03\x04"
LIMIT = 2**24  # bytes of the pickle itself: names and shapes, a few MB even for the largest networks
STEPS = 2**19  # instructions and entries copied: 40 for each array
SECONDS = 5.0  # for all of them
EXPANDED = 2**20  # entries of an array that repeats the numbers of its storage (stride 0)

STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "bf16", "LongStorage": "<i8",
    "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip


Value = Any  # of a pickle: a number, a text, one of the classes below, a Lazy, or tuples, lists and dictionaries of them


class Refused(ValueError):
    """A pickle that is not a file of weights."""


@dataclass(frozen=True)
class Name:
    """The name of a function or class in a pickle; it is never looked up."""

    module: str
    name: str


@dataclass(frozen=True)
class Unknown:
    """An object that a training loop saved beside the weights; only its class is known, and nothing reads it."""

    name: Name


@dataclass(frozen=True)
class Storage:
    """Raw numbers of one type at a place in the file."""

    path: Path
    offset: int
    count: int
    code: str


def array(storage: Value, start: Value, shape: Value, strides: Value, *_: Value) -> Lazy:
    """The description of an array, checked against its storage."""
    numbers = (start, *shape, *strides)
    if not isinstance(storage, Storage) or any(type(n) is not int or not 0 <= n < 2**63 for n in numbers) or len(shape) > 32:
        raise Refused("an array that is not described by a storage and whole numbers")
    count = math.prod(shape)
    reach = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) if count else 0
    if (count > storage.count and (count > EXPANDED or 0 not in strides)) or start + reach > storage.count:
        raise Refused(f"an array of {count} numbers from place {start} of a storage of {storage.count}")
    bf16 = storage.code == "bf16"
    dtype = np.dtype("<u2" if bf16 else storage.code)

    def read() -> Array:
        a = bytes_at(storage.path, storage.offset + start * dtype.itemsize, reach, dtype)
        if count:
            a = np.lib.stride_tricks.as_strided(a, shape, [s * dtype.itemsize for s in strides], writeable=False)
        a = np.ascontiguousarray(a).reshape(shape)
        return widened(a) if bf16 else a

    return Lazy(tuple(shape), np.dtype(np.float32) if bf16 else dtype, read)


def table(items: Iterable[tuple[Value, Value]] = ()) -> dict[Value, Value]:
    """A dictionary from pairs. Only plain values are keys: a nested tuple could take years to hash."""
    return {k: v for k, v in items if k is None or isinstance(k, (str, int, float, Name, Unknown))}


# a name -> what a call of it becomes; None: an Unknown
ALLOWED: dict[Name, Callable[..., Value] | None] = {
    Name("collections", "OrderedDict"): table,
    Name("torch._utils", "_rebuild_tensor_v2"): array,
    Name("torch._utils", "_rebuild_tensor"): array,
    Name("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    Name("torch", "Size"): lambda items=(): tuple(items),
    Name("torch", "device"): None,
    Name("argparse", "Namespace"): None,
    Name("pathlib", "PosixPath"): None,
    Name("numpy", "dtype"): None,
    Name("numpy.core.multiarray", "scalar"): None,
    Name("numpy._core.multiarray", "scalar"): None,
    Name("_codecs", "encode"): None,
    Name("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"): None,
    **{Name("torch", name): None for name in STORAGES},
}


class Reader:
    """Follows the instructions of one pickle on a stack, as unpickling does, but looks up no name and calls no function."""

    def __init__(self, storage: Callable[[str, str, int], Storage]) -> None:
        self.storage = storage  # (key, code, count) -> the numbers in the zip file
        self.stack: list[Value] = []
        self.marks: list[int] = []
        self.memo: dict[int, Value] = {}
        self.budget = Budget(STEPS, SECONDS)

    def read(self, data: bytes) -> Value:
        """The value that a pickle describes. Raises Refused for one that is not about arrays."""
        for opcode, argument, _ in pickletools.genops(data):
            self.budget.spend()
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name not in INSTRUCTIONS:
                raise Refused(f"it has an instruction {opcode.name}, which no file of weights needs")
            INSTRUCTIONS[opcode.name](self, argument)
        raise Refused("it has no end")

    def push(self, value: Value) -> None:
        """Puts a value onto the stack."""
        self.stack.append(value)

    def since_mark(self) -> list[Value]:
        """Takes everything above the last mark off the stack."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def join(self, n: int) -> None:
        """The last n values on the stack become one tuple."""
        self.stack[-n:] = [tuple(self.stack[-n:])]

    def extend(self, items: list[Value]) -> None:
        """Adds items to the list on the stack; other containers stay as they are."""
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def update(self, items: list[Value]) -> None:
        """Sets key, value, key, value, … in the dictionary on the stack."""
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(table(zip(items[::2], items[1::2], strict=True)))

    def name(self, module: Value, name: Value) -> None:
        """Puts a name onto the stack. Raises Refused for any that does not describe arrays: nothing is imported."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused("it asks for a name that is no text")
        if Name(module, name) not in ALLOWED:
            raise Refused(f"it asks for {module[:99]}.{name[:99]}, which is no description of an array")
        self.push(Name(module, name))

    def name_from_stack(self) -> None:
        """The same, of the two texts on the stack."""
        name, module = self.stack.pop(), self.stack.pop()
        self.name(module, name)

    def call(self) -> None:
        """Replaces (name, arguments) by what this name stands for here. Raises Refused if they are something else."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise Refused("it calls what is no name")
        make = ALLOWED[function]
        self.budget.spend(sum(len(a) for a in arguments if isinstance(a, (list, tuple, dict))))  # what the call may copy
        self.push(Unknown(function) if make is None else make(*arguments))

    def load(self) -> None:
        """A persistent id, which torch uses for storages only."""
        kind, storage_type, key, _, count = self.stack.pop()
        if kind != "storage" or not isinstance(storage_type, Name) or storage_type.name not in STORAGES or type(count) is not int:
            raise Refused("a reference to something that is no storage")
        if not isinstance(key, str):
            raise Refused("a storage whose name is no text")
        self.push(self.storage(key, STORAGES[storage_type.name], count))


# an opcode -> what it does to the reader, given its argument; a pickle with any other opcode is refused
INSTRUCTIONS: dict[str, Callable[[Reader, Value], object]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda r, _: None),
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT"), Reader.push),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "UNICODE", "BINSTRING", "SHORT_BINSTRING"), Reader.push),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES"), Reader.push),
    "NONE": lambda r, _: r.push(None),
    "NEWTRUE": lambda r, _: r.push(True),
    "NEWFALSE": lambda r, _: r.push(False),
    "EMPTY_TUPLE": lambda r, _: r.push(()),
    "EMPTY_DICT": lambda r, _: r.push({}),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), lambda r, _: r.push([])),  # a list stands for a set: nothing is hashed
    "MARK": lambda r, _: r.marks.append(len(r.stack)),
    "POP": lambda r, _: r.stack.pop(),
    "TUPLE": lambda r, _: r.push(tuple(r.since_mark())),
    "TUPLE1": lambda r, _: r.join(1),
    "TUPLE2": lambda r, _: r.join(2),
    "TUPLE3": lambda r, _: r.join(3),
    "APPEND": lambda r, _: r.extend([r.stack.pop()]),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda r, _: r.extend(r.since_mark())),
    "SETITEM": lambda r, _: r.update([r.stack.pop(), r.stack.pop()][::-1]),
    "SETITEMS": lambda r, _: r.update(r.since_mark()),
    "GLOBAL": lambda r, names: r.name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda r, _: r.name_from_stack(),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda r, _: r.call()),
    "BUILD": lambda r, _: r.stack.pop(),  # the state of an object: none is made here
    "BINPERSID": lambda r, _: r.load(),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "PUT"), lambda r, place: r.memo.update({place: r.stack[-1]})),
    "MEMOIZE": lambda r, _: r.memo.update({len(r.memo): r.stack[-1]}),
    **dict.fromkeys(("BINGET", "LONG_BINGET", "GET"), lambda r, place: r.push(r.memo[place])),
}


def open_torch_zip(path: str | Path) -> Value:
    """What torch.save was given, arrays as Lazy. Raises CheckpointError, naming the file, for anything that is not weights."""
    path = Path(path)
    refused = reading(path, CheckpointError, "refused, not a file of weights: ")
    with opened_zip(path, CheckpointError) as file, open(path, "rb") as raw, refused:
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

        return Reader(storage).read(file.read(program))


def start_of(raw: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Where the bytes of a member begin: behind its local header, whose last two fields are the lengths of what follows it."""
    raw.seek(info.header_offset)
    header = raw.read(30)
    if len(header) != 30 or header[:4] != ZIP:
        raise Refused(f"{info.filename} is not where the zip's table says")
    name, extra = struct.unpack("<HH", header[26:30])
    return int(info.header_offset + 30 + name + extra)
