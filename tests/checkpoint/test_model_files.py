"""Networks in files: what was saved answers bit by bit as before, and a file that holds something else says so."""

import dataclasses
import json

import numpy as np
import pytest
from checkpoint import second_reader
from hypothesis import given, settings
from hypothesis import strategies as st
from models import draws
from nn import plain
from support import host

from minidit import checkpoint
from minidit.backend import to_device
from minidit.checkpoint import CheckpointError, config_from, load_model, read_arrays, save_model, write_arrays
from minidit.models.autoencoder import Autoencoder, AutoencoderConfig
from minidit.models.classifier import Classifier, ClassifierConfig
from minidit.models.dit import DiT, DiTConfig
from minidit.optim import AdamW, OptimConfig

DIT = DiTConfig(input_size=(4, 6), in_channels=2, hidden_size=16, depth=1, num_heads=2, num_classes=3)
AUTO = AutoencoderConfig(channels=2, latent_channels=3, widths=(4, 6, 8), groups=2, size=(8, 12))
CLASSES = ClassifierConfig(channels=2, size=(8, 12), num_classes=3, widths=(4, 8, 16), features=5)
MODELS = {"dit": (DiT, DIT), "autoencoder": (Autoencoder, AUTO), "classifier": (Classifier, CLASSES)}


def model_of(kind, device="cpu", seed=0):
    cls, config = MODELS[kind]
    model, _ = plain.grown(cls(config, None, device=device), device, seed, size=0.3)
    return model


def answers(model):
    """What the model says to a fixed question."""
    ask = lambda shape, dtype="f4": to_device(np.random.default_rng(1).uniform(0, 3, shape).astype(dtype), model.device)
    if isinstance(model, DiT):
        out = model(ask((2, 2, 4, 6)), ask((2,), "i8"), ask((2,), "i8"))
    elif isinstance(model, Autoencoder):
        return [host(a) for a in model(ask((2, 2, 8, 12)), ask((2, 3, 2, 3)))]
    else:
        return [host(a) for a in model(ask((2, 2, 8, 12)))]
    return [host(out)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("kind", MODELS)
def test_a_loaded_model_answers_bit_by_bit_as_the_saved_one(device, path, kind):
    model = model_of(kind, device)
    if kind == "autoencoder":
        model.scale[...] = 0.37
    save_model(path, model, step=7, note="here")
    other, meta = load_model(path, device=device)
    assert type(other) is type(model) and other.config == model.config and other.device == device
    for a, b in zip(answers(model), answers(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (meta["kind"], meta["format"], meta["step"], meta["note"]) == (kind, 1, 7, "here")
    if kind == "autoencoder":
        assert float(other.scale) == np.float32(0.37)


@settings(max_examples=10)
@given(draws.configs())
def test_any_configuration_travels_with_its_weights(path, config):
    model, state = draws.model_of(config)
    save_model(path, model)
    other, _ = load_model(path, dtype=np.float64)
    assert other.config == config and other.dtype == np.float64
    x, t, y = draws.inputs_of(config, 2)
    np.testing.assert_array_equal(host(other(x, t, y)), host(model(x, t, y)))
    arrays, meta = second_reader.read(path)
    assert set(arrays) == set(state) and json.loads(meta["config"])["hidden_size"] == config.hidden_size
    for name, a in state.items():
        np.testing.assert_array_equal(arrays[name], a)


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_shipped_in_float16_is_half_as_large_and_near(path, kind):
    model = model_of(kind)
    save_model(path, model)
    whole = path.stat().st_size
    save_model(path, model, dtype=np.float16)
    arrays, _ = second_reader.read(path)
    assert {a.dtype for a in arrays.values()} == {np.dtype("f2")}
    payload = sum(a.nbytes for a in arrays.values())
    assert whole - path.stat().st_size > 0.9 * payload
    other, _ = load_model(path)
    assert other.dtype == np.float32
    for name, a in model.state_dict().items():
        assert np.abs(other.state_dict()[name] - a).max() <= 2.0**-11 * np.abs(a).max(), name
    for a, b in zip(answers(model), answers(other), strict=True):
        assert np.abs(a - b).max() <= 0.02 * max(1, np.abs(a).max())


def test_an_average_can_be_saved_in_the_place_of_the_weights(path, device):
    """The EMA is a flat vector of the model's layout: filled with it, the same model is saved."""
    model = model_of("dit", device)
    optimiser = AdamW(model, OptimConfig(lr=0.1), 10)
    for n in range(1, 4):
        optimiser.step(to_device(np.random.default_rng(n).standard_normal(model.layout.size).astype(np.float32), device), n)
    model.flat[...] = optimiser.average
    save_model(path, model)
    other, _ = load_model(path)
    for a, b in zip(answers(model), answers(other), strict=True):
        assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()


def test_optimiser_states_travel_as_flat_arrays(path, device):
    model = model_of("dit", device)
    first, second = (AdamW(model, OptimConfig(), 10) for _ in range(2))
    first.step(to_device(np.ones(model.layout.size, np.float32), device), 1)
    write_arrays(path, first.state_dict(), {"step": 1})
    arrays, meta = read_arrays(path)
    second.load_state_dict(arrays)
    assert meta == {"step": 1}
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        np.testing.assert_array_equal(host(a), host(b))


# ------------------------------------------------------------------------------------------------ what is refused


def refused(path, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        load_model(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def rewritten(path, **changes):
    """The file of a small DiT whose header was changed; None takes an entry away."""
    save_model(path, model_of("dit"))
    arrays, meta = second_reader.read(path)
    meta |= {k: json.dumps(v) for k, v in changes.items()}
    second_reader.write(path, arrays, {k: v for k, v in meta.items() if v != "null"})


@pytest.mark.parametrize("kind", ["gan", 3, ["dit"], {"dit": 1}])
def test_a_file_that_is_no_model_of_ours_is_refused(path, kind):
    rewritten(path, kind=kind)
    refused(path, "not a minidit model")


@pytest.mark.parametrize("number", [None, 0, 2, "1"])
def test_another_format_is_refused(path, number):
    rewritten(path, format=number)
    refused(path, "this version reads 1")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, "holds no configuration"),
        ("large", "holds no configuration"),
        ([], "holds no configuration"),
        ({"hiden_size": 16}, "unknown key 'hiden_size', did you mean 'hidden_size'?"),
        ({"zzz": 1}, "unknown key 'zzz'$"),
        ({"patch_size": 5}, "not divisible by patch_size 5"),
        ({"depth": 0}, "every size must be positive"),
        ({"depth": "two"}, "model.safetensors"),
        ({"input_size": [4, 6, 8]}, "model.safetensors"),
        ({"hidden_size": None}, "model.safetensors"),
        ({"depth": 3}, "missing: blocks.1"),
        ({"depth": 1, "num_classes": 0}, "unexpected: y_embedder"),
        ({"num_classes": 5}, r"mis-shaped: y_embedder.embedding_table.weight is \(4, 16\), expected \(6, 16\)"),
    ],
)
def test_a_header_that_does_not_describe_the_arrays_is_refused(path, config, words):
    if isinstance(config, dict):
        config = dataclasses.asdict(DIT) | config
    rewritten(path, config=config)
    refused(path, words)


def test_a_bare_file_of_arrays_is_refused(path):
    write_arrays(path, model_of("classifier").state_dict(), {})
    refused(path, "not a minidit model, and no network that is known here has its names")
    write_arrays(path, model_of("dit").state_dict(), {})  # the names of an official DiT, in a size that none of them has
    refused(path, "no array shows the number of heads")


def test_an_array_that_is_missing_is_named(path):
    save_model(path, model_of("dit"))
    arrays, meta = second_reader.read(path)
    del arrays["final_layer.linear.bias"]
    second_reader.write(path, arrays, meta)
    refused(path, "missing: final_layer.linear.bias")


def test_what_is_no_file_is_refused(path):
    refused(path, "there is no such file")
    path.write_bytes(b"nothing")
    refused(path, "not a readable safetensors file")


@given(st.sampled_from([DIT, AUTO, CLASSES]))
def test_a_configuration_comes_back_from_json(config):
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    assert config_from(type(config), values, "here") == config
    assert config_from(type(config), {}, "here") == type(config)()


def test_save_is_the_public_door_and_knows_its_grammars(path):
    model = model_of("classifier")
    checkpoint.save(path, model)
    other, _ = load_model(path)
    np.testing.assert_array_equal(other.flat, model.flat)
    with pytest.raises(ValueError, match="grammar 'pickle' is not known"):
        checkpoint.save(path, model, grammar="pickle")
