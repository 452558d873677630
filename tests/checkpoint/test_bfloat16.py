"""bfloat16 in files: rounded to the nearest once, and never again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import host

import minidit as md
from minidit.checkpoint import load_model, read_arrays, write_arrays
from minidit.checkpoint.files import narrowed, widened
from minidit.cli import main

CONFIG = md.DiTConfig(input_size=4, in_channels=2, hidden_size=16, depth=1, num_heads=2, num_classes=3)


def model_of(device="cpu"):
    model = md.DiT(CONFIG, None, device=device)
    model.flat[...] = md.to_device(np.random.default_rng(0).standard_normal(model.layout.size).astype(np.float32), device)
    return model


@given(st.integers(0, 2**32 - 1))
def test_rounding_is_to_the_nearest_and_ties_go_to_even(bits):
    x = np.array([bits], np.uint32).view(np.float32)
    y = widened(narrowed(x))
    if np.isnan(x[0]):
        assert np.isnan(y[0])
        return
    low = np.array([bits & 0xFFFF0000], np.uint32).view(np.float32)[0]
    high = np.array([(bits & 0xFFFF0000) + 0x10000 & 0xFFFFFFFF], np.uint32).view(np.float32)[0]
    assert y[0] in (low, high)
    if np.isfinite(high):
        near, far = abs(float(x[0]) - float(y[0])), abs(float(x[0]) - float(low if y[0] == high else high))
        assert near < far or (near == far and not narrowed(x)[0] & 1)


def test_rounding_is_that_of_ml_dtypes():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    assert np.array_equal(narrowed(x), x.astype(bfloat16).view(np.uint16))
    assert np.array_equal(narrowed(x.astype(bfloat16)), narrowed(x))


def test_a_network_in_bfloat16_survives_a_round_trip(device, tmp_path):
    model = model_of(device)
    md.save(tmp_path / "a.safetensors", model, dtype="bfloat16")
    again, _ = load_model(tmp_path / "a.safetensors", device=device)
    for p, q in zip(again.parameters(), model.parameters(), strict=True):
        assert np.array_equal(host(p), widened(narrowed(host(q))))
    md.save(tmp_path / "b.safetensors", again, dtype="bfloat16")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert (tmp_path / "a.safetensors").stat().st_size < 0.6 * 4 * model.layout.size


def test_arrays_of_bfloat16_are_kept_bit_by_bit_beside_others(tmp_path):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(bfloat16)
    write_arrays(tmp_path / "a.safetensors", {"x": x.T, "n": np.arange(3), "h": np.ones(2, np.float16)}, {})
    arrays, _ = read_arrays(tmp_path / "a.safetensors")
    assert np.array_equal(arrays["x"], x.T.astype(np.float32)) and arrays["n"].tolist() == [0, 1, 2]


def test_the_bytes_are_those_of_the_safetensors_library(tmp_path):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    numpy = pytest.importorskip("safetensors.numpy")
    arrays = {"x": np.ones((3, 4), bfloat16), "n": np.arange(3), "f": np.ones(2, np.float16), "g": np.ones(2, np.float32)}
    write_arrays(tmp_path / "a.safetensors", arrays, {})
    numpy.save_file(arrays, tmp_path / "b.safetensors", {})
    ours, theirs = ((tmp_path / n).read_bytes() for n in ("a.safetensors", "b.safetensors"))
    data = sum(a.nbytes for a in arrays.values())
    assert ours[-data:] == theirs[-data:] and numpy.load_file(tmp_path / "a.safetensors")["x"].dtype == bfloat16


def test_the_command_writes_it(tmp_path, capsys):
    md.save(tmp_path / "a.safetensors", model_of())
    there = str(tmp_path / "b.safetensors")
    assert main(["convert", str(tmp_path / "a.safetensors"), there, "--dtype", "bfloat16"]) == 0
    capsys.readouterr()
    a, b = (read_arrays(tmp_path / n)[0] for n in ("a.safetensors", "b.safetensors"))
    assert all(np.array_equal(b[n], widened(narrowed(a[n]))) for n in a)
