"""A second reader and writer of safetensors, from the format's description: 8 bytes of length, a JSON header, raw bytes."""

import json
import math
import struct

import numpy as np

TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "|u1", "I8": "|i1", "BOOL": "|b1"}
CODES = {np.dtype(t): code for code, t in TYPES.items()}


def read(path):
    """(name -> array, metadata); the arrays lie one after the other without gaps, row by row."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    meta, body, arrays, end = header.pop("__metadata__", {}), data[8 + length :], {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        a, b = entry["data_offsets"]
        dtype = np.dtype(TYPES[entry["dtype"]])
        assert a == end and b - a == math.prod(entry["shape"]) * dtype.itemsize, name
        arrays[name], end = np.frombuffer(body[a:b], dtype).reshape(entry["shape"]), b
    assert end == len(body)
    return arrays, meta


def write(path, arrays, meta):
    """The file as a writer leaves it that knows no digest."""
    meta = {k: v for k, v in meta.items() if k != "sha256"}
    header, body = {"__metadata__": meta} if meta else {}, b""
    for name, a in arrays.items():
        raw = a.tobytes()
        entry = {"dtype": CODES[a.dtype], "shape": list(a.shape), "data_offsets": [len(body), len(body) + len(raw)]}
        header[name], body = entry, body + raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
