"""Pickles: arrays come out of them, and nothing ever runs, whatever they ask for."""

import ast
import os
import pickle
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from checkpoint.torch_zip import Call, Name, Raw, Reference, Zip, code, storage, tensor
from hostile import bounds
from hypothesis import given
from hypothesis import strategies as st

from minidit.checkpoint import CheckpointError, describe
from minidit.checkpoint.pickles import open_torch_zip
from minidit.checkpoint.states import arrays_in

ROOT = Path(__file__).resolve().parents[2]
A = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pt"


def arrays_of(path):
    return {name: a.read() for name, a in arrays_in(open_torch_zip(path), path)[0].items()}


# ------------------------------------------------------------------------------------------------ what comes out


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1"])
@pytest.mark.parametrize("strided", [False, True])
def test_arrays_come_out_as_they_went_in(path, dtype, strided):
    file, a = Zip(), (A % 3).astype(dtype)
    file.write(path, {"a": file.array(a, strided), "empty": file.array(a[:0]), "one": file.array(a[0, 0])})
    found = arrays_of(path)
    for name, expected in (("a", a), ("empty", a[:0]), ("one", a[0, 0])):
        assert found[name].dtype == expected.dtype and found[name].shape == expected.shape
        np.testing.assert_array_equal(found[name], expected)


def test_several_arrays_may_be_parts_of_one_storage(path):
    file = Zip()
    file.members["0"] = A.tobytes()
    whole = storage("0", 12)
    file.write(path, {"row": tensor(whole, (4,), (1,), 4), "column": tensor(whole, (3,), (4,), 1)})
    found = arrays_of(path)
    np.testing.assert_array_equal(found["row"], A[1])
    np.testing.assert_array_equal(found["column"], A[:, 1])


def test_bfloat16_becomes_float32_exactly(path):
    file, a = Zip(), np.array([1.0, -2.5, 3e38, 1e-40, np.inf], np.float32)
    bits = (a.view(np.uint32) >> 16).astype(np.uint16)
    file.members["0"] = bits.tobytes()
    file.write(path, {"a": tensor(storage("0", 5, "BFloat16"), (5,), (1,))})
    np.testing.assert_array_equal(arrays_of(path)["a"], (bits.astype(np.uint32) << 16).view(np.float32))


def test_of_a_training_checkpoint_the_average_is_taken_and_the_rest_is_left_in_the_file(path):
    file = Zip()
    raw, ema = file.array(A), file.array(A + 1)
    arguments = Raw(code(Call(Name("argparse", "Namespace"), ())) + code({"lr": 1e-4}) + b"b")
    state = {"state": {0: {"step": 3, "exp_avg": file.array(A)}}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999)}]}
    file.write(path, {"model": {"w": raw}, "ema": {"w": ema, "n": 3}, "opt": state, "args": arguments})
    arrays, aside = arrays_in(open_torch_zip(path), path)
    assert list(arrays) == ["w"] and set(aside) == {"model", "opt", "args", "n"}
    np.testing.assert_array_equal(arrays["w"].read(), A + 1)


def test_only_what_is_wanted_is_read(path):
    """Opening reads names and shapes; an array costs memory when it is asked for."""
    file, big = Zip(), np.zeros(2_000_000, np.float32)
    file.write(path, {"big": file.array(big), "small": file.array(A)})
    tracemalloc.start()
    arrays, _ = arrays_in(open_torch_zip(path), path)
    np.testing.assert_array_equal(arrays["small"].read(), A)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < big.nbytes / 4


# ------------------------------------------------------------------------------------------------ what is refused


def refused(path, words="refused"):
    line = bounds.refused(lambda p: arrays_in(open_torch_zip(p), p), path, words, name=str(path), kind="CheckpointError")
    assert len(line) < 600


class Runs:
    """What a hostile pickle is made of: unpickled, it would leave a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("place", ["value", "key beside arrays", "list"])
def test_a_pickle_that_runs_a_command_is_refused_and_runs_nothing(path, tmp_path, protocol, place):
    mark, file = tmp_path / "ran", Zip()
    evil = {"value": {"w": Runs(mark)}, "key beside arrays": {"w": 1, "opt": [Runs(mark)]}, "list": [Runs(mark)]}[place]
    file.write(path, pickle.dumps(evil, protocol))
    refused(path, r"system|reduce_ex|instruction")
    path.write_bytes(pickle.dumps(evil, max(protocol, 2)))  # not in a zip either
    with pytest.raises(CheckpointError, match="refused, a bare pickle"):
        describe(path)
    assert not mark.exists()


NAMES = ["os.system", "posix.system", "builtins.eval", "builtins.exec", "builtins.getattr", "builtins.__import__",
         "subprocess.Popen", "torch.load", "torch._utils._rebuild_tensor_v2.__globals__", "numpy.load", "pickle.loads",
         "importlib.import_module",
         "minidit.checkpoint.pickles.array", "runpy.run_path", "torch.nn.Module", "collections.deque", "operator.attrgetter",
         "torch.storage._load_from_bytes"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stacked", [False, True])
def test_a_name_that_is_no_description_of_an_array_refuses_the_file(path, name, stacked):
    module, _, last = name.rpartition(".")
    found = Raw(code(module) + code(last) + b"\x93") if stacked else Name(module, last)
    file = Zip()
    file.write(path, {"w": file.array(A), "x": found})
    refused(path, "no description of an array")


INSTRUCTIONS = {
    "INST": b"(cos\nsystem\n" b"(X\x02\x00\x00\x00lsios\nsystem\n",
    "OBJ": b"(ccollections\nOrderedDict\no",
    "EXT1": b"\x82\x01",
    "PERSID": b"Pstorage\n",
    "NEXT_BUFFER": b"\x97",
    "NEWOBJ_EX": b"ccollections\nOrderedDict\n)}\x92",
    "DUP": b"N2",
    "unknown": b"\xff",
    "a call of a dictionary": b"})R",
    "a call with a list": b"ccollections\nOrderedDict\n]R",
    "a mark that is not there": b"t",
    "a memo that is not there": b"h\x07",
    "an empty stack": b"R",
    "a name that is no text": b"NN\x93",
    "a key that cannot be one": b"}(]Nu",
}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_an_instruction_that_no_weights_need_refuses_the_file(path, name):
    file = Zip()
    file.write(path, b"\x80\x02" + INSTRUCTIONS[name] + b".")
    with pytest.raises(CheckpointError, match=r"weights\.pt"):
        arrays_in(open_torch_zip(path), path)


LIES = {
    "more than the storage": tensor(storage("0", 12), (4, 4), (4, 1)),
    "behind the storage": tensor(storage("0", 12), (3, 4), (4, 1), 1),
    "a storage of another length": tensor(storage("0", 13), (3, 4), (4, 1)),
    "a storage of another type": tensor(storage("0", 12, "Double"), (3, 4), (4, 1)),
    "no such storage": tensor(storage("1", 12), (3, 4), (4, 1)),
    "a storage outside": tensor(storage("../../etc/passwd", 12), (3, 4), (4, 1)),
    "a negative stride": tensor(storage("0", 12), (3, 4), (-4, 1)),
    "a negative start": tensor(storage("0", 12), (3, 4), (4, 1), -1),
    "a negative side": tensor(storage("0", 12), (-3, 4), (4, 1)),
    "one number repeated a billion times": tensor(storage("0", 12), (10**9,), (0,)),
    "a huge number": tensor(storage("0", 12), (2**70, 2**70), (0, 0)),
    "too many axes": tensor(storage("0", 12), (1,) * 40, (1,) * 40),
    "shapes of two lengths": tensor(storage("0", 12), (3, 4), (4,)),
    "a side that is no number": tensor(storage("0", 12), ("3", 4), (4, 1)),
    "no storage": tensor(None, (3, 4), (4, 1)),
    "another reference": tensor(Reference(("module", Name("torch", "FloatStorage"), "0", "cpu", 12)), (3, 4), (4, 1)),
    "a reference to another name": tensor(Reference(("storage", Name("argparse", "Namespace"), "0", "cpu", 12)), (3, 4), (4, 1)),
}


@pytest.mark.parametrize("name", LIES)
def test_an_array_that_its_storage_cannot_hold_refuses_the_file(path, name):
    file = Zip()
    file.members["0"] = A.tobytes()
    file.write(path, {"w": LIES[name]})
    refused(path)


def test_nothing_takes_longer_than_its_size(path):
    """Tuples of tuples of tuples would take 2^60 steps to hash or to print; they are keys nowhere and printed nowhere."""
    bomb = b")q\x00" + b"".join(b"0h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))
    for around in (b"}(" + bomb + b"Nu.", bomb + b"h\x3ch\x3c\x93.", bomb + b"Q.", bomb + b")R."):
        began = time.perf_counter()
        Zip().write(path, b"\x80\x02" + around)
        with pytest.raises(CheckpointError):
            arrays_in(open_torch_zip(path), path)
        assert time.perf_counter() - began < 5  # it would be years


def test_a_dictionary_that_holds_itself_is_no_state(path):
    file = Zip()
    array = code({"w": file.array(A)})[2:-1]
    file.write(path, b"\x80\x02}q\x00(X\x03\x00\x00\x00emah\x00" + array + b"u.")
    assert list(arrays_of(path)) == ["w"]


def test_zips_of_something_else_are_refused(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")
    refused(path, "without data.pkl")
    file = Zip()
    file.write(path, {"w": file.array(A)}, packed=True)
    refused(path, "missing, packed")
    file.write(path, {"w": file.array(A)}, order=b"big")
    refused(path, "big-endian")
    file.write(path, {"n": 3})
    refused(path, "holds no arrays")
    file.write(path, [1, 2])
    refused(path, "holds no arrays")
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    refused(path)


def test_a_pickle_that_unpacks_to_gigabytes_is_refused_before(path, monkeypatch):
    monkeypatch.setattr("minidit.checkpoint.pickles.LIMIT", 1000)
    Zip().write(path, {"n": "x" * 2000}, packed=True)
    refused(path, "1000 are read at most")


@given(st.binary(max_size=60), st.booleans())
def test_random_instructions_never_do_anything_else(path, data, whole):
    Zip().write(path, data if whole else b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + data + b"tR.")
    try:
        arrays_in(open_torch_zip(path), path)
    except CheckpointError as error:
        assert str(path) in str(error)


@given(st.binary(max_size=40))
def test_random_files_never_do_anything_else(path, data):
    for head in (b"", b"PK\x03\x04", b"\x80", b"\x80\x02", struct.pack("<Q", len(data))):
        path.write_bytes(head + data)
        with pytest.raises(CheckpointError, match=r"weights\.pt"):
            describe(path)


def test_pickles_stay_out_of_every_other_door():
    """No file of the package reads a pickle: but for workers.py, which hears its own child processes through its own pipe."""
    own = {"training/workers.py"}
    readers = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch"}
    for source in sorted((ROOT / "minidit").rglob("*.py")):
        text = source.read_text()
        if not any(word in text for word in (*readers, "allow_pickle")):
            continue
        for node in ast.walk(ast.parse(text)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found = {n.partition(".")[0] for n in names} & (readers - ({"torch"} if "verify" in source.parts else set()))
            name = str(source.relative_to(ROOT / "minidit"))
            assert not found or name in own, f"{name} imports {found}"
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, name
