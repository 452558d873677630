"""Arrays shared with other libraries by DLPack, both ways and without a copy; the device that a command line names."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

import minidit as md
from minidit.backend import chosen_device, resident
from minidit.cli import main

CUPY = sys.modules["cupy"]


class Foreign:
    """An array of a library of its own: it speaks DLPack, and nothing else."""

    def __init__(self, a, kind=1):
        self.a, self.kind = a, kind

    def __dlpack__(self, **options):
        return self.a.__dlpack__(**options)

    def __dlpack_device__(self):
        return (self.kind, 0)


def test_memory_is_shared_in_both_directions():
    theirs = np.arange(6, dtype=np.float32).reshape(2, 3)
    ours = md.from_dlpack(Foreign(theirs.T))
    ours[2, 0] = 9
    assert theirs[0, 2] == 9 and ours.dtype == np.float32
    x = md.Tensor(np.ones((2, 2), np.float32))
    np.from_dlpack(x)[0, 1] = 7
    assert x.data[0, 1] == 7


def test_parameters_of_a_model_are_shared_too():
    model = md.nn.Linear(3, 2).build(md.Philox(0))
    np.from_dlpack(model.weight)[...] = 5
    assert (model.flat[:6] == 5).all()


def test_memory_is_shared_with_torch():
    torch = pytest.importorskip("torch")
    theirs = torch.arange(6.0).reshape(2, 3).T
    ours = md.from_dlpack(theirs)
    ours[0, 0] = 9
    assert theirs[0, 0] == 9
    x = md.Tensor(np.ones((2, 2), np.float32))
    torch.from_dlpack(x)[1, 1] = 7
    assert x.data[1, 1] == 7
    with pytest.raises(ValueError, match="require"):
        md.from_dlpack(torch.ones(2, requires_grad=True))
    with pytest.raises(ValueError, match=r"from_dlpack: "):
        md.from_dlpack(torch.ones(2, dtype=torch.bfloat16))


def test_memory_is_shared_with_jax():
    jnp = pytest.importorskip("jax.numpy")
    theirs = jnp.arange(3.0)
    assert np.shares_memory(md.from_dlpack(theirs), np.from_dlpack(theirs))


def test_an_array_of_a_gpu_goes_to_cupy(monkeypatch):
    taken = []
    monkeypatch.setitem(CUPY.__dict__, "from_dlpack", lambda x: taken.append(x) or CUPY.ones(2))
    x = Foreign(None, kind=2)
    assert type(md.from_dlpack(x)) is CUPY.ndarray and taken == [x]


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([1.0], TypeError, "list has no __dlpack__"),
        (Foreign(np.ones(1), kind=7), ValueError, "device of kind 7"),
        (Foreign(np.ones(1, object)), ValueError, r"from_dlpack: "),
    ],
)
def test_what_cannot_be_shared_is_told_in_one_line(x, error, message):
    with pytest.raises(error, match=message):
        md.from_dlpack(x)


# ------------------------------------------------------------------------------------------------ --device


def package(**contents):
    module = ModuleType("cupy")
    module.__dict__.update(contents)
    return module


def broken(*_):
    raise RuntimeError("libnvrtc.so.12 not found")


WITHOUT = {
    "no package": (None, "CuPy is not installed"),
    "no driver": (package(is_available=lambda: False), "CuPy finds no GPU"),
    "no libraries": (package(is_available=lambda: True, ones=broken), "the CUDA libraries do not work: libnvrtc"),
}


@pytest.mark.parametrize("case", WITHOUT)
def test_auto_is_the_cpu_where_there_is_no_gpu_and_says_why(monkeypatch, case, tmp_path, capsys):
    cupy, reason = WITHOUT[case]
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    device, why = chosen_device("auto")
    assert device == "cpu" and why.startswith(reason)
    out = str(tmp_path / "a.png")
    assert main(["sample", "--device", "auto", "-n", "1", "--steps", "1", "--out", out, "--labels", "3"]) == 0
    assert f"minidit: device cpu ({reason}" in capsys.readouterr().err
    for command in (["sample", "-n", "1", "--out", out], ["train", "--out", str(tmp_path / "run")], ["demo", "--quick"]):
        assert main([*command, "--device", "cuda"]) == 2
        assert capsys.readouterr().err.startswith(f"minidit: device 'cuda': {reason}")
    assert main(["bench", "--launches"]) == 2
    told = capsys.readouterr().err
    said = f"minidit: launches are counted on a GPU, and none can be used: {reason}"
    assert told.startswith(said) and told.count("\n") == 1


def test_auto_is_the_gpu_where_there_is_one():
    device, why = chosen_device("auto")
    assert device == "cuda" and why and chosen_device("cuda") == ("cuda", f"{why}, as asked")
    assert chosen_device("cpu") == ("cpu", "as asked")
    with pytest.raises(ValueError, match="unknown device"):
        chosen_device("gpu")
    with pytest.raises(ValueError, match="device 'cuda:99': there is no GPU of that number"):
        chosen_device("cuda:99")


def test_a_read_only_table_is_copied_to_a_device_once():
    table = np.arange(3.0)
    assert resident(table, np.ones(1)) is table
    assert resident(table, CUPY.ones(1)) is not resident(table, CUPY.ones(1))
    table.flags.writeable = False
    assert resident(table, CUPY.ones(1)) is resident(table, CUPY.ones(2))
