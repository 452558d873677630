"""The U-Net beside diffusers' UNet2DModel: the same weights give the same outputs and all the same gradients; files both ways.

Needs the extra `peers` (torch on a CPU, diffusers); skipped without it.
"""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import spec

from minidit.checkpoint import CheckpointError, describe, load_model, save
from minidit.checkpoint.settings_unet import unet_settings
from minidit.models.unet import UNet, UNetConfig
from minidit.nn import timestep_embedding
from minidit.random import Philox

torch = pytest.importorskip("torch", reason="the extra peers is not installed: torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers", reason="the extra peers is not installed: diffusers")
    from diffusers import UNet2DModel

pytestmark = pytest.mark.filterwarnings("ignore")

DDPM = UNetConfig(input_size=8, in_channels=2, widths=(8, 16), blocks=1, groups=4, num_classes=0)  # the paper's choices
CONFIGS = {
    "ddpm": DDPM,
    "three sizes": replace(DDPM, widths=(8, 16, 12), blocks=2, attention=(1, 2), num_classes=5, class_dropout_prob=0.0),
    "no attention": replace(DDPM, attention=(), middle_attention=False, learn_sigma=True),
    "resnets": replace(DDPM, resample="resnet", attention=(), num_classes=3, class_dropout_prob=0.0),
    "resnets, scale and shift": replace(DDPM, resample="resnet", attention=(0, 1), scale_shift=True, head_width=4),
    "its defaults": replace(DDPM, head_width=8, freq_shift=0, cosine_first=True, even_padding=True, norm_eps=1e-5),
}


def theirs(config, dtype=torch.float64):
    """Their network of this configuration, every parameter random, built from the config.json that we write."""
    peer = UNet2DModel(**{k: v for k, v in unet_settings(config).items() if k[0] != "_"})
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in peer.parameters():
            p.copy_(0.2 * torch.randn(p.shape, generator=g, dtype=torch.float64))
    return peer.to(dtype).eval()


def with_exact_time(peer, config):
    """diffusers computes the time embedding in float32 whatever the model is; here the same embedding enters both."""
    c = config
    exact = lambda t: torch.tensor(
        timestep_embedding(t.long().numpy(), c.widths[0], np.float64, shift=c.freq_shift, sine_first=not c.cosine_first)
    )
    peer.time_proj.forward = exact
    return peer


def inputs(config):
    r = np.random.default_rng(0)
    y = np.array([0, 2, 1]) if config.num_classes else None
    return r.standard_normal((3, *config.shape)), np.array([0, 37, 999]), y


@spec("N.11", "T.15", "T.16", "T.17")
@pytest.mark.parametrize("name", CONFIGS)
def test_a_u_net_answers_and_learns_as_diffusers_does(name, tmp_path, record_property):
    config = CONFIGS[name]
    peer = theirs(config)
    peer.save_pretrained(tmp_path / "unet")
    model, meta = load_model(tmp_path / "unet", dtype=np.float64)
    assert model.config == replace(config, class_dropout_prob=0.0) and meta["kind"] == "unet"
    with_exact_time(peer, config)
    x, t, y = inputs(config)
    out = peer(torch.tensor(x), torch.tensor(t), None if y is None else torch.tensor(y)).sample
    ours = model(x, t, y)
    far = np.abs(ours.data - out.detach().numpy()).max() / np.abs(out.detach().numpy()).max()
    weights = np.random.default_rng(1).standard_normal(ours.shape)
    (out * torch.tensor(weights)).sum().backward()
    (ours * weights).sum().backward()
    grads = {n: p.grad.numpy() for n, p in peer.named_parameters()}
    largest, worst = max(np.abs(g).max() for g in grads.values()), 0.0
    assert set(grads) == {n for n, _ in model.named_parameters()}
    for n, p in model.named_parameters():
        size = np.abs(grads[n]).max()
        size = size if size > 1e-6 * largest else largest  # a key's bias shifts all logits alike: its gradient is rounding
        worst = max(worst, float(np.abs(p.grad - grads[n]).max() / size))
    for what, number in (("output", far), ("gradients", worst)):
        record_property(f"U-Net {name} {what}", float(number))
        print(f"{name} {what}: {number:.2g}")
        assert number <= 1e-9


@pytest.mark.parametrize("name", ["ddpm", "three sizes", "resnets, scale and shift"])
def test_their_file_comes_back_byte_for_byte(name, tmp_path):
    theirs(CONFIGS[name], torch.float32).save_pretrained(tmp_path / "theirs")
    found = describe(tmp_path / "theirs")
    model, _ = load_model(tmp_path / "theirs", dtype=found.dtype)
    save(tmp_path / "ours", model, grammar="diffusers")
    for file in ("diffusion_pytorch_model.safetensors", "config.json"):
        assert (tmp_path / "ours" / file).read_bytes() == (tmp_path / "theirs" / file).read_bytes(), file


def test_diffusers_reads_what_we_write(tmp_path):
    model = UNet(replace(DDPM, num_classes=3), Philox(1))
    save(tmp_path / "ours", model, grammar="diffusers", shard_bytes=20_000)
    peer = UNet2DModel.from_pretrained(tmp_path / "ours", low_cpu_mem_usage=False)
    assert peer.config.num_class_embeds == 4  # the null label is a row as others are
    for name, a in peer.state_dict().items():
        assert np.array_equal(a.numpy(), model.state_dict()[name]), name


def test_attention_in_its_former_names_is_read(tmp_path):
    theirs(DDPM, torch.float32).save_pretrained(tmp_path / "new")
    arrays = load_file(tmp_path / "new" / "diffusion_pytorch_model.safetensors")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    stems = {name: next((stem for stem in old if f".{stem}." in name), None) for name in arrays}
    renamed = {name.replace(stem, old[stem]) if stem else name: arrays[name] for name, stem in stems.items()}
    assert len(set(renamed) - set(arrays)) == 8 * 4  # four attentions
    (tmp_path / "old").mkdir()
    save_file(renamed, tmp_path / "old" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    (tmp_path / "old" / "config.json").write_bytes((tmp_path / "new" / "config.json").read_bytes())
    a, b = (load_model(tmp_path / name)[0] for name in ("new", "old"))
    assert np.array_equal(a.flat, b.flat)


@pytest.mark.parametrize("change, message", [
    ({"up_block_types": ["UpBlock2D", "UpBlock2D"]}, "up_block_types"),
    ({"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}, "down_block_types"),
    ({"time_embedding_type": "fourier"}, "time_embedding_type"),
    ({"attn_norm_num_groups": 2}, "attn_norm_num_groups"),
    ({"norm_num_groups": 3}, "8 channels cannot be cut into 3 equal groups"),
    ({"_class_name": "UNet2DConditionModel"}, "its config.json is of a UNet2DConditionModel"),
    ({"block_out_channels": "wide"}, "widths = 'wide' must be a list of numbers"),
    ({"out_channels": 5}, "out_channels"),
])  # fmt: skip
def test_another_u_net_is_refused_in_one_line(change, message, tmp_path):
    save(tmp_path / "unet", UNet(DDPM, Philox(0)), grammar="diffusers")
    file = tmp_path / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(tmp_path / "unet")
    assert "\n" not in str(caught.value) and "config.json" in str(caught.value)


def test_without_its_config_a_u_net_is_not_guessed(tmp_path):
    save(tmp_path / "unet", UNet(DDPM, Philox(0)), grammar="diffusers")
    (tmp_path / "unet" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"put its config\.json beside it"):
        load_model(tmp_path / "unet")
