"""What a grammar cannot say is not written, and files that contradict themselves are refused, with the reason."""

import dataclasses
import json

import numpy as np
import pytest
from checkpoint import second_reader
from checkpoint.test_grammars import FOREIGN, SMALL, dit, kl, place

from minidit.checkpoint import CheckpointError, load_model, save
from minidit.models.classifier import Classifier, ClassifierConfig
from minidit.models.dit import DiT


@pytest.mark.parametrize(
    ("change", "grammar", "words"),
    [
        ({"input_size": (8, 12)}, "official", "a picture of 8 × 12"),
        ({"num_classes": 0}, "diffusers", "no classes"),
        ({"class_dropout_prob": 0.0}, "official", "no null label"),
        ({"conditioning": "in_context"}, "official", "conditioning 'in_context'"),
        ({"mlp_ratio": 2.0}, "diffusers", "mlp_ratio 2.0"),
    ],
)
def test_what_a_grammar_cannot_say_is_not_written(tmp_path, change, grammar, words):
    with pytest.raises(ValueError, match=f"cannot express a DiT with {words}"):
        save(place(tmp_path, grammar), DiT(dataclasses.replace(SMALL, **change)), grammar=grammar)
    assert list(tmp_path.iterdir()) == []


def test_places_and_kinds_that_do_not_fit_are_refused(tmp_path):
    model, table = dit(), dit()
    table.pos_embed[0, 0, 0] += 1
    for path, what, options, words in (
        ("a.safetensors", model, {"grammar": "diffusers"}, "is a folder, weights and config.json"),
        ("a.pt", model, {"grammar": "official"}, "never as a pickle"),
        ("a.safetensors", model, {"grammar": "ldm"}, "of the kind dit cannot be written in the grammar 'ldm'"),
        ("a.safetensors", Classifier(ClassifierConfig()), {"grammar": "official"}, "of the kind classifier"),
        ("a.safetensors", model, {"grammar": "official", "shard_bytes": 9}, "shard_bytes"),
        ("a", model, {"grammar": "diffusers", "shard_bytes": 0}, "shard_bytes"),
        ("a", table, {"grammar": "diffusers"}, "a position table of its own"),
    ):
        with pytest.raises(ValueError, match=words):
            save(tmp_path / path, what, **options)
    with pytest.raises(TypeError, match="save writes networks, and this is of the type object"):
        save(tmp_path / "a", object())


@pytest.mark.parametrize(
    ("make", "change", "words"),
    [
        (dit, {"activation_fn": "geglu"}, "activation_fn = 'geglu', a network with 'gelu-approximate'"),
        (dit, {"norm_type": "ada_norm_single"}, "norm_type"),
        (dit, {"num_layers": 3}, "missing: blocks.2"),
        (dit, {"num_layers": "3"}, "num_layers = '3' must be a positive whole number"),
        (dit, {"out_channels": 5}, "out_channels = 5, expected 4 or 8"),
        (dit, {"num_attention_heads": 0}, "num_attention_heads"),
        (dit, {"norm_eps": -1.0}, "norm_eps"),
        (dit, {"patch_size": 3}, "not divisible by patch_size 3"),
        (dit, {"_class_name": "PixArtTransformer2DModel"}, "its config.json is of a PixArtTransformer2DModel"),
        (kl, {"use_quant_conv": False}, "use_quant_conv = False"),
        (kl, {"shift_factor": 0.1}, "shift_factor"),
        (kl, {"block_out_channels": "wide"}, "block_out_channels"),
        (kl, {"block_out_channels": [4, 8]}, "down_block_types"),
        (kl, {"norm_num_groups": 3}, "equal groups"),
        (kl, {"scaling_factor": 0}, "scaling_factor"),
    ],
)
def test_settings_of_another_network_are_refused(tmp_path, make, change, words):
    save(tmp_path / "net", make(), grammar="diffusers")
    config = tmp_path / "net" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(CheckpointError, match=words) as caught:
        load_model(tmp_path / "net")
    assert str(tmp_path / "net") in str(caught.value) and "\n" not in str(caught.value)


def test_a_setting_that_nobody_knows_is_told(tmp_path):
    save(tmp_path / "net", dit(), grammar="diffusers")
    config = tmp_path / "net" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"interpolation_scale": 2, "cross_attention_dim": None}))
    told = [d for d in load_model(tmp_path / "net")[1]["differences"] if "unknown setting" in d]
    assert told == ["unknown setting: interpolation_scale = 2 [differs]"]


def test_indices_that_lie_are_refused(tmp_path):
    save(tmp_path / "net", dit(FOREIGN), grammar="diffusers", shard_bytes=5000)
    index = tmp_path / "net" / "diffusion_pytorch_model.safetensors.index.json"
    good = json.loads(index.read_text())
    name, file = next(iter(good["weight_map"].items()))
    for places, words in (
        ({name: "../secret"}, "not the name of a file beside the index"),
        ({name: "/etc/passwd"}, "not the name of a file beside the index"),
        ({name: 3}, "not the name of a file beside the index"),
        ({name: index.name}, "not the name of a file beside the index"),
        ({name: "gone.safetensors"}, "there is no such file"),
        ({"zzz": file}, "has no array zzz, which the index puts there"),
        ({}, "has no weight_map"),
        ([1], "has no weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": places}))
        with pytest.raises(CheckpointError, match=words):
            load_model(tmp_path / "net")
    index.write_text("[1]")
    with pytest.raises(CheckpointError, match="not a JSON object"):
        load_model(tmp_path / "net")


def test_parts_that_are_missing_are_named(tmp_path):
    save(tmp_path / "net", dit(FOREIGN), grammar="diffusers")
    path = tmp_path / "net" / "diffusion_pytorch_model.safetensors"
    arrays, meta = second_reader.read(path)
    for gone in ("transformer_blocks.1.attn1.to_k.bias", "transformer_blocks.1.norm1.emb.timestep_embedder.linear_2.weight"):
        second_reader.write(path, {n: a for n, a in arrays.items() if n != gone}, meta)
        with pytest.raises(CheckpointError, match=f"{gone} is missing"):
            load_model(tmp_path / "net")
    second_reader.write(path, arrays | {"adapter": np.ones(2)}, meta)
    with pytest.raises(CheckpointError, match="unexpected: adapter"):
        load_model(tmp_path / "net")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no diffusion_pytorch_model"):
        load_model(tmp_path / "empty")


def test_a_position_table_that_was_stored_in_half_precision_is_still_the_usual_one(tmp_path):
    """As in the shipped weights, which are computed in float32."""
    save(tmp_path / "half.safetensors", dit(), dtype=np.float16)
    model, _ = load_model(tmp_path / "half.safetensors", dtype=np.float32)
    save(tmp_path / "folder", model, grammar="diffusers")
    assert load_model(tmp_path / "folder")[0].config.hidden_size == model.config.hidden_size
    model.pos_embed[0, 0, 0] += 2e-4
    with pytest.raises(ValueError, match="a position table of its own"):
        save(tmp_path / "other", model, grammar="diffusers")
