"""Inputs that used to give a wrong answer without a word."""

from dataclasses import replace

import numpy as np
import pytest
from checkpoint.torch_zip import Call, Name, Zip
from nn import plain
from PIL import Image

from minidit import data, ops
from minidit.autograd import Tensor
from minidit.checkpoint import CheckpointError, describe, load_model, save, settings, write_arrays
from minidit.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from minidit.models.dit import DiT, DiTConfig

SMALL = DiTConfig(input_size=8, hidden_size=24, depth=2, num_heads=3, num_classes=5)


@pytest.fixture
def state():
    model, _ = plain.grown(DiT(SMALL, None), size=0.3)
    return model.state_dict()


def loaded(path, saved, **options):
    """The first weight of the network that is read from what a training loop saved."""
    file = Zip()

    def kept(value):
        if isinstance(value, dict):
            return {k: kept(v) for k, v in value.items()}
        return file.array(value) if hasattr(value, "dtype") else value

    file.write(path, kept(saved))
    model, _ = load_model(path, num_heads=3, **options)
    return model.state_dict()["x_embedder.proj.weight"]


# ------------------------------------------------------------------------------------------------ which weights


@pytest.mark.parametrize(
    "names",
    [("state_dict", "state_dict_ema"), ("model", "model_ema"), ("model", "ema"), ("net", "ema_model"), ("model", "averaged")],
)
@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
def test_averaged_weights_are_taken_under_every_name(tmp_path, state, names, prefix):
    raw = {prefix + k: v + 1 for k, v in state.items()}
    averaged = {prefix + k: v for k, v in state.items()}
    weight = loaded(tmp_path / "w.pt", {names[0]: raw, names[1]: averaged, "epoch": 3})
    np.testing.assert_array_equal(weight, state["x_embedder.proj.weight"])


def test_averaged_weights_beside_the_raw_ones_in_one_state_are_taken(tmp_path, state):
    both = {"model." + k: v + 1 for k, v in state.items()} | {"ema." + k: v for k, v in state.items()}
    weight = loaded(tmp_path / "w.pt", {"state_dict": both})
    np.testing.assert_array_equal(weight, state["x_embedder.proj.weight"])
    assert sum("model." in name for name in describe(tmp_path / "w.pt", num_heads=3).aside) == len(state)


def test_two_networks_of_equal_right_are_not_chosen_between(tmp_path, state):
    for saved in ({"ema_1": state, "ema_2": state}, {"generator": state, "discriminator": state}):
        with pytest.raises(CheckpointError, match=f"several networks .{', '.join(saved)}"):
            loaded(tmp_path / "w.pt", saved)


@pytest.mark.parametrize("name", ["model_state_dict", "params", "net"])
def test_one_state_is_found_whatever_it_is_called(tmp_path, state, name):
    device = Call(Name("torch", "device"), ("cpu",))
    weight = loaded(tmp_path / "w.pt", {name: state, "lr": 0.1, "device": device})
    np.testing.assert_array_equal(weight, state["x_embedder.proj.weight"])


def test_what_no_array_shows_is_said(tmp_path, state):
    shown = {k: v for k, v in state.items() if k != "pos_embed"}
    write_arrays(tmp_path / "w.safetensors", shown, {"num_heads": 3})
    (assumed,) = [d for d in describe(tmp_path / "w.safetensors").differences if d.name == "input size"]
    assert "32 is assumed" in assumed.about and not assumed.kept
    with pytest.raises(CheckpointError, match="num_heads = 2 was asked for, the file states 3"):
        describe(tmp_path / "w.safetensors", num_heads=2)


def test_what_stands_in_place_of_a_file_is_named(tmp_path):
    (tmp_path / "w.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CheckpointError, match=r"Git LFS.*git lfs pull"):
        describe(tmp_path / "w.pt")
    (tmp_path / "w.pt").write_text("<!DOCTYPE html><html>")
    with pytest.raises(CheckpointError, match="a web page"):
        describe(tmp_path / "w.pt")


def test_weights_in_bfloat16_are_found_in_a_folder(tmp_path, state):
    model, _ = plain.grown(DiT(replace(SMALL, freq_shift=1), None))
    save(tmp_path / "f", model, grammar="diffusers")
    (tmp_path / "f" / "diffusion_pytorch_model.safetensors").rename(tmp_path / "f" / "diffusion_pytorch_model.bf16.safetensors")
    assert describe(tmp_path / "f").config.hidden_size == 24


@pytest.mark.parametrize("groups", [1, 4, 32])
def test_an_autoencoder_of_any_groups_is_read_back_from_its_ldm_file(tmp_path, groups):
    config = AutoencoderKLConfig(widths=(32, 32), blocks=1, groups=groups, scale=0.5, size=16)
    model, _ = plain.grown(AutoencoderKL(config, None))
    save(tmp_path / "k.safetensors", model, grammar="ldm")
    again, _ = load_model(tmp_path / "k.safetensors")
    assert again.config.groups == groups and again.config.scale == 0.5
    np.testing.assert_array_equal(again.flat, model.flat)


# ------------------------------------------------------------------------------------------------ schedulers


@pytest.mark.parametrize("kind", ["FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler", "VQDiffusionScheduler", None, 3])
def test_a_scheduler_without_a_ladder_is_refused(kind):
    with pytest.raises(CheckpointError, match=rf"s\.json: a {kind} has no ladder"):
        settings.of_scheduler({"_class_name": kind, "shift": 3.0}, "s.json")


def test_settings_that_are_not_done_are_named():
    told = settings.of_scheduler(
        {"_class_name": "DDIMScheduler", "beta_start": 1e-4, "clip_sample": True, "clip_sample_range": 3.0, "thresholding": True,
         "variance_type": "fixed_large", "sigma_max": 700.0, "use_karras_sigmas": True, "steps_offset": 1}, "s.json",
    )  # fmt: skip
    names = {d.name.removeprefix("scheduler ") for d in told}
    assert names == {"clip_sample", "clip_sample_range", "thresholding", "variance_type", "sigma_max", "use_karras_sigmas"}
    usual = {"_class_name": "DDPMScheduler", "clip_sample": False, "clip_sample_range": 1.0, "variance_type": "fixed_small"}
    assert settings.of_scheduler(usual, "s.json") == ()


def test_a_switch_written_as_text_is_refused():
    with pytest.raises(CheckpointError, match="clip_sample = 'False' must be true or false"):
        settings.of_scheduler({"_class_name": "DDIMScheduler", "clip_sample": "False"}, "s.json")


# ------------------------------------------------------------------------------------------------ pictures


def npz(folder, **arrays):
    np.savez(folder / "x.npz", **arrays)
    return folder / "x.npz"


def test_a_number_that_nobody_has_is_no_class(tmp_path):
    d = data.load(npz(tmp_path, images=np.zeros((6, 8, 8), np.uint8), labels=np.array([1, 2, 3] * 2)))
    assert d.class_names == ("1", "2", "3") and d.labels.tolist() == [0, 1, 2] * 2
    assert data.parse_labels("3", d.class_names) == [2]


def test_two_classes_of_one_name_are_not_chosen_between():
    with pytest.raises(data.DataError, match="2 classes are called 'crane': use their numbers 1, 2"):
        data.parse_labels("crane", ("bag", "crane", "crane"))
    assert data.parse_labels("2", ("bag", "crane", "crane")) == [2]


def test_one_colour_picture_is_not_eight_grey_ones(tmp_path):
    with pytest.raises(data.DataError, match=r"one picture \(H, W, C\)\?"):
        data.load(npz(tmp_path, images=np.zeros((8, 8, 3), np.uint8)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_rounding_beyond_the_range_is_clipped_and_more_is_refused_with_its_digits(tmp_path, dtype):
    x = np.array([[[1, 0], [0, -1]]], dtype)
    x[0, 0, 0] = np.nextafter(dtype(1), dtype(2))
    assert data.load(npz(tmp_path, images=x)).images.max() == 255
    with pytest.raises(data.DataError, match=r"\[-1, 1\.00999"):
        data.load(npz(tmp_path, images=np.array([[[1.00999999, 0], [0, -1]]])))


@pytest.mark.parametrize(("top", "fine"), [(4095, False), (4096, True), (65535, True), (0, True)])
def test_twelve_bits_in_sixteen_are_noticed(tmp_path, top, fine):
    for k, brightest in enumerate((top // 2, top)):
        Image.fromarray(np.full((8, 8), brightest, np.uint16)).save(tmp_path / f"{k}.png")
    if fine:
        assert len(data.load(tmp_path)) == 2
    else:
        with pytest.raises(data.DataError, match="end at 4095 of 65535: values of 12 bits or fewer"):
            data.load(tmp_path)


def test_an_archive_unpacked_into_a_folder_is_found_there(tmp_path):
    (tmp_path / "cifar-10-batches-bin").mkdir()
    (tmp_path / "cifar-10-batches-bin" / "data_batch_1.bin").write_bytes(bytes(2 * 3073))
    assert data.load(tmp_path).images.shape == (2, 3, 32, 32)


def test_the_formats_that_are_read_are_named(tmp_path):
    (tmp_path / "a.avif").write_bytes(b"\0\0\0\x1cftypavif" + bytes(20))
    with pytest.raises(data.DataError, match=r"a\.avif: not a picture in a format that is read here \(PNG, JPEG"):
        data.load(tmp_path)


# ------------------------------------------------------------------------------------------------ shapes, indices, gradients


def t(*shape):
    return Tensor(np.arange(1.0, 1 + int(np.prod(shape))).reshape(shape))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ops.mse(t(3), t(3, 1).data), r"mse: shapes \(3,\) and \(3, 1\) must be the same"),
        (lambda: ops.gaussian_kl(t(2, 3), t(2, 1)), "gaussian_kl: shapes"),
        (lambda: ops.cross_entropy(t(2, 3), labels=np.array([[0], [1]])), r"expected \(B, K\) and \(B,\)"),
        (lambda: ops.cross_entropy(t(2, 3), labels=np.array([0, -1])), r"index -1 \.\. 0, the rows are 0 \.\. 2"),
        (lambda: ops.cross_entropy(t(2, 3), labels=np.array([0, 3])), r"index 0 \.\. 3"),
        (lambda: ops.embedding(t(3, 2), index=np.array([-1])), r"embedding: index -1 \.\. -1, the rows are 0 \.\. 2"),
        (lambda: ops.group_norm(t(1, 6, 2, 2), t(6), t(6), groups=4), "6 channels cannot be cut into 4 equal groups"),
        (lambda: ops.conv2d(t(1, 1, 2, 2), t(1, 1, 3, 3), t(1)), "does not fit on"),
        (lambda: ops.conv2d(t(1, 2, 4, 4), t(1, 1, 3, 3), t(1)), "does not fit on"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_would_be_stretched_or_wrapped_is_refused(call, words, dtype, monkeypatch):
    monkeypatch.setitem(globals(), "t", lambda *shape: Tensor(np.ones(shape, dtype)))
    with pytest.raises(ValueError, match=words):
        call()


def test_every_leaf_owns_its_gradient():
    a, b = t(3), t(3)
    s = a + b
    (s * s).sum().backward()
    right = 4 * (np.arange(3) + 1.0)
    for p in (a, b):
        np.testing.assert_array_equal(p.grad, right)
        p.grad *= 0.5  # as clipping does: once for each
    np.testing.assert_array_equal(a.grad, right / 2)
    np.testing.assert_array_equal(b.grad, right / 2)


def test_a_gradient_may_be_written_to_and_is_not_the_callers():
    a, bar = t(3), np.ones(3)
    a.sum().backward()
    a.grad *= 2
    np.testing.assert_array_equal(a.grad, [2, 2, 2])
    b = t(3)
    (b + 0.0).backward(bar)
    b.grad *= 2
    np.testing.assert_array_equal(bar, 1)
    c = t(3)
    c.backward(bar)
    assert c.grad is not bar


@pytest.mark.parametrize(("a", "b"), [((3,), (3,)), ((2, 3), (3,)), ((2,), (2, 3)), ((4, 2, 3), (3,)), ((2,), (4, 2, 3))])
def test_vectors_multiply_backwards_as_one_row_or_column(a, b):
    x, y = t(*a), t(*b)
    (x @ y).sum().backward()
    rows, columns = Tensor(x.data[None] if x.ndim == 1 else x.data), Tensor(y.data[:, None] if y.ndim == 1 else y.data)
    (rows @ columns).sum().backward()
    np.testing.assert_array_equal(x.grad, rows.grad.reshape(a))
    np.testing.assert_array_equal(y.grad, columns.grad.reshape(b))


def test_the_power_zero_has_gradient_zero_at_zero():
    x = Tensor(np.array([0.0, 2.0]))
    (x**0.0).sum().backward()
    np.testing.assert_array_equal(x.grad, [0, 0])


def test_numpy_does_not_take_a_tensor_apart_and_zero_is_false():
    with pytest.raises(TypeError, match=r"forget its history: take \.data"):
        np.asarray(t(3))
    for function in (np.mean, np.sum, np.max, np.concatenate, lambda x: np.einsum("i->", x), lambda x: np.stack([x, x])):
        with pytest.raises(TypeError, match=r"forget its history: take \.data"):
            function(t(3))
    assert np.shape(t(3)) == (3,) and np.ndim(t(3)) == 1 and np.size(t(3)) == 3
    assert not Tensor(np.zeros(1)) and Tensor(np.ones(1))
    with pytest.raises(ValueError, match="truth value"):
        bool(t(3))
