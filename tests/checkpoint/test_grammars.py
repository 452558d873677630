"""Grammars: names by hand, round trips through files bit by bit, what cannot be said is refused, what differs has a name."""

import dataclasses
import json
import tracemalloc

import numpy as np
import pytest
from checkpoint import second_reader
from checkpoint.torch_zip import Zip
from nn import plain

from minidit.checkpoint import CheckpointError, describe, load_model, save, write_arrays
from minidit.checkpoint.files import lazy
from minidit.checkpoint.names_kl import from_diffusers, from_ldm, to_ldm, to_old
from minidit.checkpoint.settings import dit_from_shapes
from minidit.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from minidit.models.dit import DIT, DiT, DiTConfig

SMALL = DiTConfig(input_size=8, hidden_size=24, depth=2, num_heads=3, num_classes=5)
FOREIGN = dataclasses.replace(SMALL, freq_shift=1, mlp_norm_eps=1e-5)
KL = AutoencoderKLConfig(widths=(4, 8, 8), blocks=2, groups=4, scale=0.5, size=16)
FOLDERS = ("diffusers", "diffusers-old")


def dit(config=SMALL, dtype=np.float32):
    model, _ = plain.grown(DiT(config, None, dtype=dtype), size=0.3)
    return model


def kl(config=KL, dtype=np.float32):
    model, _ = plain.grown(AutoencoderKL(config, None, dtype=dtype), size=0.3)
    return model


def place(tmp_path, grammar):
    return tmp_path / (f"{grammar}" if grammar in FOLDERS else f"{grammar}.safetensors")


def weights_of(path):
    return second_reader.read(path / "diffusion_pytorch_model.safetensors" if path.is_dir() else path)[0]


def same(a, b):
    """The same arrays bit by bit."""
    a, b = a.state_dict(), b.state_dict()
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# ------------------------------------------------------------------------------------------------ round trips


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("grammar", ["official", "diffusers", "diffusers-old"])
def test_a_dit_comes_back_from_every_grammar(tmp_path, grammar, dtype):
    config = SMALL if grammar == "official" else FOREIGN
    model, path = dit(config, dtype), place(tmp_path, grammar)
    model.pos_embed[...] = model.pos_embed.astype(np.float32)  # what a file or a computed table holds
    save(path, model, grammar=grammar)
    found = describe(path)
    assert (found.grammar, found.kind, found.config, found.dtype) == (grammar, "dit", config, dtype)
    other, meta = load_model(path, dtype=dtype)
    same(model, other)
    assert other.config == config and meta["grammar"] == grammar
    if dtype != np.float16:
        x, t, y = plain_inputs(dtype)
        np.testing.assert_array_equal(other(x, t, y).data, model(x, t, y).data)


def plain_inputs(dtype):
    return np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(dtype), np.array([3, 900]), np.array([0, 5])


@pytest.mark.parametrize("grammar", ["diffusers", "diffusers-old", "ldm"])
def test_an_autoencoder_comes_back_from_every_grammar(tmp_path, grammar):
    config = dataclasses.replace(KL, groups=32, widths=(32, 32), scale=0.18215, size=256) if grammar == "ldm" else KL
    model, path = kl(config), place(tmp_path, grammar)
    save(path, model, grammar=grammar)
    found = describe(path)
    assert (found.grammar, found.kind, found.config) == (grammar, "autoencoder_kl", config)
    other, _ = load_model(path)
    same(model, other)


def test_a_scale_that_was_measured_travels(tmp_path):
    model = kl()
    model.scale[...] = 0.37
    save(tmp_path / "vae", model, grammar="diffusers")
    assert json.loads((tmp_path / "vae" / "config.json").read_text())["scaling_factor"] == 0.37
    assert float(load_model(tmp_path / "vae")[0].scale) == np.float32(0.37)


@pytest.mark.parametrize("shard_bytes", [1, 2000, 10**9])
def test_shards_are_one_network(tmp_path, shard_bytes):
    model, path = kl(), tmp_path / "vae"
    save(path, model, grammar="diffusers")
    save(path, model, grammar="diffusers", shard_bytes=shard_bytes)  # in the place of the whole file
    assert not (path / "diffusion_pytorch_model.safetensors").exists()
    index = json.loads((path / "diffusion_pytorch_model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) == {1: len(model.parameters()), 2000: len(files), 10**9: 1}[shard_bytes]
    assert index["metadata"]["total_size"] == 4 * model.count_parameters()
    for where in (path, path / "diffusion_pytorch_model.safetensors.index.json"):
        same(model, load_model(where)[0])
        assert "shards" in describe(where).container


def test_a_torch_zip_of_a_folder_is_read(tmp_path):
    model, path = dit(FOREIGN), tmp_path / "dit"
    save(path, model, grammar="diffusers")
    file, arrays = Zip(), weights_of(path)
    file.write(path / "diffusion_pytorch_model.bin", {n: file.array(a) for n, a in arrays.items()})
    (path / "diffusion_pytorch_model.safetensors").unlink()
    assert describe(path).container == "torch zip"
    np.testing.assert_array_equal(load_model(path)[0].flat, model.flat)


def test_loading_keeps_one_array_more_than_the_network(tmp_path):
    config = dataclasses.replace(SMALL, hidden_size=96, depth=12)
    model = dit(config)
    for grammar in ("official", "diffusers"):
        path = place(tmp_path, grammar)
        save(path, model, grammar=grammar)
        load_model(path, num_heads=3) if grammar == "official" else load_model(path)
        tracemalloc.start()
        load_model(path, num_heads=3) if grammar == "official" else load_model(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak <= 1.2 * model.flat.nbytes


# ------------------------------------------------------------------------------------------------ names by hand


def test_a_dit_in_the_words_of_diffusers(tmp_path):
    model = dit(FOREIGN)
    save(tmp_path / "dit", model, grammar="diffusers")
    theirs, own = weights_of(tmp_path / "dit"), model.state_dict()
    q, k, v = np.split(own["blocks.1.attn.qkv.weight"], 3)
    for name, a in (("to_q", q), ("to_k", k), ("to_v", v), ("to_out.0", own["blocks.1.attn.proj.weight"])):
        np.testing.assert_array_equal(theirs[f"transformer_blocks.1.attn1.{name}.weight"], a)
    table = own["y_embedder.embedding_table.weight"]
    for i in (0, 1):
        emb = f"transformer_blocks.{i}.norm1.emb"
        np.testing.assert_array_equal(theirs[f"{emb}.class_embedder.embedding_table.weight"], table)
        np.testing.assert_array_equal(theirs[f"{emb}.timestep_embedder.linear_1.bias"], own["t_embedder.mlp.0.bias"])
        np.testing.assert_array_equal(theirs[f"{emb}.timestep_embedder.linear_2.weight"], own["t_embedder.mlp.2.weight"])
    np.testing.assert_array_equal(theirs["transformer_blocks.0.ff.net.2.bias"], own["blocks.0.mlp.fc2.bias"])
    np.testing.assert_array_equal(theirs["proj_out_1.bias"], own["final_layer.adaLN_modulation.1.bias"])
    assert theirs["proj_out_2.weight"].shape == (32, 24) and not any("pos_embed" in n and "proj" not in n for n in theirs)
    config = json.loads((tmp_path / "dit" / "config.json").read_text())
    assert config["num_embeds_ada_norm"] == 5 and config["norm_eps"] == 1e-5 and config["attention_head_dim"] == 8


def test_an_autoencoder_in_the_words_of_ldm():
    own = {n: lazy(a) for n, a in kl(AutoencoderKLConfig(widths=(32, 32, 64, 64))).state_dict().items() if n != "scale"}
    theirs = to_ldm(own)
    by_hand = {
        "decoder.up.3.block.2.conv1.weight": "decoder.up_blocks.0.resnets.2.conv1.weight",
        "decoder.up.0.block.0.norm1.bias": "decoder.up_blocks.3.resnets.0.norm1.bias",
        "decoder.up.1.block.0.nin_shortcut.weight": "decoder.up_blocks.2.resnets.0.conv_shortcut.weight",
        "decoder.up.3.upsample.conv.bias": "decoder.up_blocks.0.upsamplers.0.conv.bias",
        "encoder.down.2.block.0.nin_shortcut.weight": "encoder.down_blocks.2.resnets.0.conv_shortcut.weight",
        "encoder.down.0.downsample.conv.weight": "encoder.down_blocks.0.downsamplers.0.conv.weight",
        "encoder.mid.block_2.norm2.weight": "encoder.mid_block.resnets.1.norm2.weight",
        "encoder.mid.attn_1.norm.bias": "encoder.mid_block.attentions.0.group_norm.bias",
        "encoder.norm_out.weight": "encoder.conv_norm_out.weight",
        "post_quant_conv.weight": "post_quant_conv.weight",
    }
    for name, ours in by_hand.items():
        np.testing.assert_array_equal(theirs[name].read(), own[ours].read())
    assert theirs["decoder.mid.attn_1.proj_out.weight"].shape == (64, 64, 1, 1)
    assert not set(theirs) & {n for n in own if "block" in n} and len(theirs) == len(own)
    for back in (from_ldm(theirs), from_diffusers(to_old(own))):
        assert {n: a.shape for n, a in back.items()} == {n: a.shape for n, a in own.items()}
    assert "encoder.mid_block.attentions.0.proj_attn.bias" in to_old(own)


def test_an_autoencoder_is_found_inside_a_whole_checkpoint(tmp_path):
    model = kl(dataclasses.replace(KL, groups=32, widths=(32, 32)))
    save(tmp_path / "vae.safetensors", model, grammar="ldm")
    arrays = {f"first_stage_model.{n}": a for n, a in weights_of(tmp_path / "vae.safetensors").items()}
    beside = {"model.diffusion_model.out.2.bias": np.ones(4), "cond_stage_model.logit_scale": np.ones(())}
    file, path = Zip(), tmp_path / "sd.ckpt"
    file.write(path, {"state_dict": {n: file.array(a) for n, a in (arrays | beside).items()}, "global_step": 3})
    found = describe(path)
    assert found.grammar == "ldm" and set(found.aside) == {*beside, "global_step"} and "M89" in str(found)
    np.testing.assert_array_equal(load_model(path)[0].flat, model.flat)


@pytest.mark.parametrize("before", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_an_official_file_may_bear_the_marks_of_its_training(tmp_path, before):
    model, path = dit(), tmp_path / "dit.safetensors"
    write_arrays(path, {before + n: a for n, a in model.state_dict().items()}, {})
    same(model, load_model(path, num_heads=3)[0])
    with pytest.raises(CheckpointError, match="width 24 and depth 2 are no preset's, and no array shows the number of heads"):
        load_model(path)
    arrays = model.state_dict()
    del arrays["pos_embed"]
    write_arrays(path, arrays, {})
    table = load_model(path, num_heads=3)[0].pos_embed  # 32 × 32 where nothing tells the size
    assert table.shape == (1, 256, 24) and table.any()


def test_a_preset_tells_its_own_heads():
    for name in ("DiT-S/8", "DiT-XL/2"):
        config = DIT[name]
        D, p = config.hidden_size, config.patch_size
        shape = {
            "x_embedder.proj.weight": (D, 4, p, p), "pos_embed": (1, (32 // p) ** 2, D), "blocks.0.mlp.fc1.bias": (4 * D,),
            f"blocks.{config.depth - 1}.x": (1,), "final_layer.linear.bias": (8 * p * p,),
            "y_embedder.embedding_table.weight": (1001, D),
        }  # fmt: skip
        assert dit_from_shapes({n: lazy(np.empty(s, "f2")) for n, s in shape.items()}, None, "") == config


# ------------------------------------------------------------------------------------------------ differences


def test_the_same_weights_run_in_either_dialect_and_the_difference_is_named(tmp_path):
    model = dit(FOREIGN)
    save(tmp_path / "dit", model, grammar="diffusers")
    a, told = load_model(tmp_path / "dit")
    b, other = load_model(tmp_path / "dit", dialect="official")
    assert (a.config, b.config) == (FOREIGN, SMALL)
    np.testing.assert_array_equal(a.flat, b.flat)
    x, _, y = plain_inputs(np.float32)
    far = lambda t: np.abs(a(x, np.full(2, t), y).data - b(x, np.full(2, t), y).data).max()
    assert far(0) < 1e-3 < 0.01 < far(999)
    kept = lambda lines: {d.partition(":")[0]: d.endswith("[kept]") for d in lines}
    assert kept(told["differences"])["M76"] and kept(told["differences"])["M61"] and not kept(told["differences"])["M83"]
    assert not kept(other["differences"])["M76"] and not kept(other["differences"])["M61"]
    assert "M81" in kept(told["differences"])  # the pipeline's null label is 1000
    with pytest.raises(ValueError, match="dialect 'mine' is not one of official, diffusers"):
        load_model(tmp_path / "dit", dialect="mine")


def test_saving_tells_what_the_readers_will_do(tmp_path):
    told = {d.name: d.kept for d in save(tmp_path / "dit", dit(), grammar="diffusers")}
    assert (told["M76"], told["M61"]) == (False, True)  # its config says the ε, nothing in it says the frequencies
    told = {d.name: d.kept for d in save(tmp_path / "old", dit(), grammar="diffusers-old")}
    assert (told["M76"], told["M61"]) == (False, False)
    told = {d.name: d.kept for d in save(tmp_path / "dit.safetensors", dit(), grammar="official")}
    assert (told["M76"], told["M61"]) == (True, True)
    assert save(tmp_path / "own.safetensors", dit()) == ()


def test_embedders_that_differ_are_refused_with_the_reason(tmp_path):
    save(tmp_path / "dit", dit(FOREIGN), grammar="diffusers")
    path = tmp_path / "dit" / "diffusion_pytorch_model.safetensors"
    arrays, meta = second_reader.read(path)
    for end in ("timestep_embedder.linear_1.bias", "class_embedder.embedding_table.weight"):
        name = f"transformer_blocks.1.norm1.emb.{end}"
        changed = arrays[name].copy()
        changed[0] += 0.5
        second_reader.write(path, arrays | {name: changed}, meta)
        with pytest.raises(CheckpointError, match=f"{name} differs from .*0.* by up to 0.5: diffusers keeps a copy"):
            load_model(tmp_path / "dit")
