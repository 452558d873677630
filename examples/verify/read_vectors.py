"""A runner of the test vectors that needs NumPy and nothing of minidit: read a suite, answer, compare.

    minidit vectors export vectors
    python examples/verify/read_vectors.py vectors

The files are JSON and safetensors (8 bytes of length, a JSON header, the numbers), so that the same can be written in any
language in as many lines. Topics that MINE lacks are left out; an invalid case has to raise an exception.
"""

import json
import sys
from pathlib import Path

import numpy as np


def guide(eps_u, eps_c, w):
    if eps_u.shape != eps_c.shape:
        raise ValueError("both guesses have one shape")
    return eps_u + w * (eps_c - eps_u)


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def q_sample(x_0, eps, t, alpha_bar):
    if t.min() < 0 or t.max() >= len(alpha_bar) or x_0.shape != eps.shape:
        raise ValueError("t lies in 0..T-1, and x_0 and eps have one shape")
    a = alpha_bar[t][:, None, None, None]
    return np.sqrt(a) * x_0 + np.sqrt(1 - a) * eps


MINE = {"guide": guide, "layer_norm": layer_norm, "q_sample": q_sample}
SPECIAL = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}


def safetensors(path):
    """name -> array. The header says dtype, shape and place of each."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    kinds = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}
    header, out = json.loads(content[8 : 8 + size]), {}
    for name, about in header.items():
        if name != "__metadata__":
            start, end = (8 + size + n for n in about["data_offsets"])
            out[name] = np.frombuffer(content[start:end], kinds[about["dtype"]]).reshape(about["shape"])
    return out


def value(form, tensors):
    """What the JSON form stands for: arrays are {dtype, shape, data} or {dtype, shape, file, name}."""
    if isinstance(form, dict) and "shape" in form:
        data = tensors[form["name"]] if "name" in form else np.array([value(v, {}) for v in form["data"]])
        return data.astype(form["dtype"]).reshape(form["shape"])
    if isinstance(form, dict):
        return {k: value(v, tensors) for k, v in form.items()}
    if isinstance(form, list):
        return [value(v, tensors) for v in form]
    return SPECIAL.get(form, form) if isinstance(form, str) else form


def error(a, b):
    """max |a - b| / max |b|; infinite where the shapes differ."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        return np.inf
    return float(np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 1e-30))


def main(folder, mine=MINE):
    """Runs every case that `mine` answers; returns {case id: whether it passed}."""
    folder, outcome = Path(folder), {}
    for entry in json.loads((folder / "manifest.json").read_text("utf-8"))["files"]:
        path = folder / entry["path"]
        if not entry["cases"]:
            continue
        tensors = safetensors(path.with_suffix(".safetensors")) if path.with_suffix(".safetensors").exists() else {}
        for topic in json.loads(path.read_text("utf-8"))["topics"]:
            for case in topic["cases"] if topic["topic"] in mine else []:
                try:
                    answer = mine[topic["topic"]](*value(case["args"], tensors))
                    off = np.inf if case["result"] == "invalid" else error(answer, value(case["answer"], tensors))
                except Exception as problem:
                    off = 0.0 if case["result"] == "invalid" else np.inf
                    print(f"{case['id']}: {type(problem).__name__}: {problem}")
                outcome[case["id"]] = off <= topic["tolerance"]["float64"]
                print(f"{'ok   ' if outcome[case['id']] else 'WRONG'} {case['id']} {off:.1e}")
    return outcome


if __name__ == "__main__":
    sys.exit(0 if all(main(sys.argv[1]).values()) else 1)
