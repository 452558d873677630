"""FLUX beside diffusers' FluxTransformer2DModel: the same outputs and all the same gradients; files both ways, official ones too.

Needs the extra `peers` (torch on a CPU, diffusers); skipped without it.
"""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from peers.test_sd3_diffusers import compared, in_their_names, inputs, randomised, with_exact_time
from safetensors.numpy import load_file
from support import host, spec

from minidit import ops
from minidit.checkpoint import CheckpointError, describe, load_model, save
from minidit.checkpoint.settings_streams import settings_of
from minidit.models.flux import Flux
from minidit.models.flux_config import FLUX, FluxConfig, turn_of
from minidit.random import Philox

torch = pytest.importorskip("torch", reason="the extra peers is not installed: torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers", reason="the extra peers is not installed: diffusers")
    from diffusers import FluxTransformer2DModel

pytestmark = pytest.mark.filterwarnings("ignore")

SMALL = FluxConfig((4, 6), 2, 3, 16, 2, 2, 2, class_dropout_prob=0.0, text_width=10, text_pooled=5, rope_widths=(4, 2, 2))
CONFIGS = {"schnell": SMALL, "dev": replace(SMALL, guidance="flux"), "single only": replace(SMALL, depth=0)}


def theirs(config, dtype=torch.float64):
    return randomised(FluxTransformer2DModel(**{k: v for k, v in settings_of(config).items() if k[0] != "_"}), dtype)


def with_exact_places(peer, config):
    """It rounds the tables of RoPE to float32, too."""

    def exact(ids):
        cos, sin = turn_of(len(ids) - config.tokens, config.grid, config.axes)
        return tuple(torch.tensor(table.repeat(2, axis=1)) for table in (cos, sin))

    peer.pos_embed.forward = exact
    return peer


def answer(peer, config, x, t, text, w):
    """Their network on packed patches, and its answer as a picture."""
    (h, width), p, C = config.grid, config.patch_size, config.in_channels
    ids = np.array([[0, r, c] for r in range(h) for c in range(width)], np.float64)
    packed, (tokens, vector) = torch.tensor(host(ops.patchify(x, patch_size=p))), map(torch.tensor, text)
    guidance = None if w is None else torch.tensor(w)
    at = {"img_ids": torch.tensor(ids), "txt_ids": torch.zeros(tokens.shape[1], 3, dtype=torch.float64), "guidance": guidance}
    out = peer(packed, tokens, vector, torch.tensor(t / 1000), **at).sample
    return out.reshape(len(x), h, width, C, p, p).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)


@spec("A.29", "A.30", "N.12", "N.14", "T.22", "T.23", "T.27", "T.28")
@pytest.mark.parametrize("name", CONFIGS)
def test_a_flux_answers_and_learns_as_diffusers_does(name, tmp_path, record_property, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # it turns by places in float32, whatever the model is
    config = CONFIGS[name]
    peer = theirs(config)
    peer.save_pretrained(tmp_path / "flux")
    loaded, meta = load_model(tmp_path / "flux", dtype=np.float64)
    assert loaded.config == replace(config, input_size=128) and meta["kind"] == "flux"  # no file states the size
    model = Flux(config, None, dtype=np.float64)
    model.load_state_dict(loaded.state_dict())
    x, t, text = inputs(config)
    w = np.array([1.5, 4.0]) if config.guidance == "flux" else None
    out = answer(with_exact_places(with_exact_time(peer), config), config, x, t, text, w)
    compared(f"FLUX {name}", model(x, t, text, w=w), out, model, peer, in_their_names(config), record_property)


def test_their_file_comes_back_byte_for_byte(tmp_path):
    theirs(CONFIGS["dev"], torch.float32).save_pretrained(tmp_path / "theirs")
    found = describe(tmp_path / "theirs")
    assert all(any(word in str(d) for d in found.differences) for word in ("halves change places", "packed already", "by 1000"))
    model, _ = load_model(tmp_path / "theirs", dtype=found.dtype)
    save(tmp_path / "ours", model, grammar="diffusers")
    for file in ("diffusion_pytorch_model.safetensors", "config.json"):
        assert (tmp_path / "ours" / file).read_bytes() == (tmp_path / "theirs" / file).read_bytes(), file


def test_the_official_names_hold_the_same_numbers(tmp_path):
    config = replace(CONFIGS["dev"], input_size=8, rope_widths=())
    model = Flux(config, Philox(1))
    for p in model.parameters():
        p.data += np.random.default_rng(0).standard_normal(p.data.shape).astype(np.float32)
    save(tmp_path / "a.safetensors", model, grammar="official")
    arrays = load_file(tmp_path / "a.safetensors")
    D = config.hidden_size
    assert arrays["single_blocks.0.linear1.weight"].shape == (7 * D, D)
    assert arrays["single_blocks.0.linear2.weight"].shape == (D, 5 * D)
    assert arrays["img_in.weight"].shape == (D, 12) and arrays["double_blocks.1.txt_attn.norm.key_norm.scale"].shape == (8,)
    back, _ = load_model(tmp_path / "a.safetensors")
    assert back.config == replace(config, input_size=128) and np.array_equal(back.flat, model.flat)


def test_flux_1_dev_has_as_many_numbers_as_diffusers_counts():
    with torch.device("meta"):
        peer = FluxTransformer2DModel(**{k: v for k, v in settings_of(FLUX["FLUX.1-dev"]).items() if k[0] != "_"})
    assert sum(p.numel() for p in peer.parameters()) == FLUX["FLUX.1-dev"].parameters()


@pytest.mark.parametrize("change, message", [
    ({"patch_size": 2}, "patch_size"), ({"in_channels": 6}, "not that of a FLUX.1"), ({"guidance_embeds": 1}, "not that of"),
    ({"axes_dims_rope": [4, 4]}, "three even numbers"), ({"axes_dims_rope": "wide"}, "must be a list of whole numbers"),
    ({"num_layers": 1000}, "cannot hold that|is missing"), ({"num_single_layers": "many"}, "must be a whole number"),
    ({"_class_name": "SD3Transformer2DModel"}, "its config.json is of a SD3Transformer2DModel"),
])  # fmt: skip
def test_another_network_is_refused_in_one_line(change, message, tmp_path):
    save(tmp_path / "flux", Flux(replace(SMALL, input_size=8), Philox(0)), grammar="diffusers")
    file = tmp_path / "flux" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(tmp_path / "flux")
    assert "\n" not in str(caught.value)
