"""MM-DiT beside diffusers' SD3Transformer2DModel: the same outputs and all the same gradients; files both ways, official too.

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
from minidit.checkpoint.settings_streams import settings_of
from minidit.models.mmdit import MMDiT
from minidit.models.mmdit_config import MMDIT, MMDiTConfig
from minidit.nn import timestep_embedding
from minidit.random import Philox

torch = pytest.importorskip("torch", reason="the extra peers is not installed: torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers", reason="the extra peers is not installed: diffusers")
    from diffusers import SD3Transformer2DModel
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers as convert
    from diffusers.models.normalization import RMSNorm

pytestmark = pytest.mark.filterwarnings("ignore")

SD3 = MMDiTConfig(
    8, 2, 3, 16, 3, 2, context_ratio=4.0, qk_norm=False, position_side=6, class_dropout_prob=0.0,
    text_width=10, text_pooled=5,
)  # fmt: skip
CONFIGS = {
    "3": SD3, "3.5 large": replace(SD3, qk_norm=True), "3.5 medium": replace(SD3, qk_norm=True, dual_attention=(0, 2)),
    "dual without norm": replace(SD3, dual_attention=(1,), position_side=4),
}  # fmt: skip


def randomised(peer, dtype):
    """Every parameter random: zeros at the start would hide mistakes."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in peer.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=g, dtype=torch.float64))
    return peer.to(dtype).eval()


def theirs(config, dtype=torch.float64):
    """Their network of this configuration, built from the config.json that we write."""
    return randomised(SD3Transformer2DModel(**{k: v for k, v in settings_of(config).items() if k[0] != "_"}), dtype)


def with_exact_time(peer):
    """diffusers computes the time embedding in float32 whatever the model is; here the same embedding enters both."""
    peer.time_text_embed.time_proj.forward = lambda t: torch.tensor(timestep_embedding(t.numpy(), 256, np.float64))
    return peer


def with_exact_norms(peer):
    """It takes the mean of squares in float32, too."""
    for norm in peer.modules():
        if isinstance(norm, RMSNorm):
            exact = lambda x, m=norm: x * torch.rsqrt((x * x).mean(-1, keepdim=True) + m.eps) * m.weight
            norm.forward = exact
    return peer


def inputs(config, seed=0):
    r = np.random.default_rng(seed)
    text = r.standard_normal((2, 5, config.text_width)), r.standard_normal((2, config.text_pooled))
    return r.standard_normal((2, *config.shape)), np.array([37.5, 903.0]), text


def compared(name, ours, out, model, peer, grammar_names, record_property):
    """Outputs, and the gradients of a random sum of them: grammar_names turns a dict of ours into theirs."""
    far = np.abs(ours.data - out.detach().numpy()).max() / np.abs(out.detach().numpy()).max()
    weights = np.random.default_rng(1).standard_normal(ours.shape)
    (out * torch.tensor(weights)).sum().backward()
    (ours * weights).sum().backward()
    grads = {n: p.grad.numpy() for n, p in peer.named_parameters()}
    mine = grammar_names({n: p.grad for n, p in model.named_parameters()})
    assert set(mine) == set(grads)
    largest, worst = max(np.abs(g).max() for g in grads.values()), 0.0
    for n, g in grads.items():
        size = np.abs(g).max()
        size = size if size > 1e-6 * largest else largest  # a key's bias shifts all logits alike: its gradient is rounding
        worst = max(worst, float(np.abs(mine[n] - g).max() / size))
    for what, number in (("output", far), ("gradients", worst)):
        record_property(f"{name} {what}", float(number))
        print(f"{name} {what}: {number:.2g}")
        assert number <= 1e-9


def in_their_names(config, grammar="diffusers"):
    """Gradients of ours under their names, by the grammar that writes files."""
    from minidit.checkpoint.files import lazy
    from minidit.checkpoint.names_streams import theirs_from

    def turned(arrays):
        whole = {"pos_embed": np.zeros((1, 1, 1))} | arrays
        names = theirs_from({n: lazy(a) for n, a in whole.items()}, config, grammar)
        return {n: a.read() for n, a in names.items() if "pos_embed.pos_embed" not in n}

    return turned


@spec("N.14", "A.29", "T.22", "T.23", "T.24", "T.25")
@pytest.mark.parametrize("name", CONFIGS)
def test_an_mm_dit_answers_and_learns_as_diffusers_does(name, tmp_path, record_property):
    config = CONFIGS[name]
    peer = theirs(config)
    peer.save_pretrained(tmp_path / "sd3")
    model, meta = load_model(tmp_path / "sd3", dtype=np.float64)
    assert model.config == config and meta["kind"] == "mmdit"
    x, t, (tokens, vector) = inputs(config)
    peer = with_exact_norms(with_exact_time(peer))
    out = peer(torch.tensor(x), torch.tensor(tokens), torch.tensor(vector), torch.tensor(t)).sample
    compared(f"SD3 {name}", model(x, t, (tokens, vector)), out, model, peer, in_their_names(config), record_property)


@pytest.mark.parametrize("name", ["3", "3.5 medium"])
def test_their_file_comes_back_byte_for_byte(name, tmp_path):
    theirs(CONFIGS[name], torch.float32).save_pretrained(tmp_path / "theirs")
    found = describe(tmp_path / "theirs")
    assert any("halves change places" in str(d) for d in found.differences)
    model, _ = load_model(tmp_path / "theirs", dtype=found.dtype)
    save(tmp_path / "ours", model, grammar="diffusers")
    for file in ("diffusion_pytorch_model.safetensors", "config.json"):
        assert (tmp_path / "ours" / file).read_bytes() == (tmp_path / "theirs" / file).read_bytes(), file


def test_diffusers_reads_what_we_write_and_the_official_names_hold_the_same_numbers(tmp_path):
    model = MMDiT(CONFIGS["3.5 medium"], Philox(1))
    for p in model.parameters():
        p.data += np.random.default_rng(0).standard_normal(p.data.shape).astype(np.float32)
    save(tmp_path / "folder", model, grammar="diffusers", shard_bytes=20_000)
    peer = SD3Transformer2DModel.from_pretrained(tmp_path / "folder", low_cpu_mem_usage=False)
    peer.save_pretrained(tmp_path / "again")
    save(tmp_path / "official.safetensors", model, grammar="official")
    for place in ("again", "official.safetensors"):
        back, _ = load_model(tmp_path / place)
        assert all(np.array_equal(a, back.state_dict()[n]) for n, a in model.state_dict().items()), place
    assert back.config == replace(model.config, input_size=12)  # the whole table: no array shows the size of the picture


@pytest.mark.parametrize("name", ["3", "3.5 large"])
def test_diffusers_reads_an_official_file_as_we_do(name, tmp_path):
    model = MMDiT(CONFIGS[name], Philox(1))
    for p in model.parameters():
        p.data += np.random.default_rng(0).standard_normal(p.data.shape).astype(np.float32)
    save(tmp_path / "a.safetensors", model, grammar="official")
    save(tmp_path / "folder", model, grammar="diffusers")
    arrays = {n: torch.tensor(a) for n, a in load_file(tmp_path / "a.safetensors").items()}
    expected, ours = convert(arrays), load_file(tmp_path / "folder" / "diffusion_pytorch_model.safetensors")
    assert set(expected) == set(ours) and all(np.array_equal(expected[n].numpy(), a) for n, a in ours.items())


def test_a_whole_checkpoint_with_a_prefix_is_read(tmp_path):
    model = MMDiT(SD3, Philox(1))
    save(tmp_path / "a.safetensors", model, grammar="official")
    arrays = {f"model.diffusion_model.{n}": a for n, a in load_file(tmp_path / "a.safetensors").items()}
    save_file(arrays | {"first_stage_model.x": np.ones(3, np.float32)}, tmp_path / "whole.safetensors")
    found = describe(tmp_path / "whole.safetensors", num_heads=2)
    assert (found.grammar, found.kind, found.aside) == ("official", "mmdit", ("first_stage_model.x",))
    back, _ = load_model(tmp_path / "whole.safetensors", num_heads=2)
    assert np.array_equal(back.flat, model.flat)


def test_the_published_networks_have_as_many_numbers_as_diffusers_counts():
    """Built without memory from the published config.json files."""
    for name, config in MMDIT.items():
        if config.text_width:
            with torch.device("meta"):
                peer = SD3Transformer2DModel(**{k: v for k, v in settings_of(config).items() if k[0] != "_"})
            table = config.side[0] * config.side[1] * config.hidden_size
            assert sum(p.numel() for p in peer.parameters()) == config.parameters() - table, name


@pytest.mark.parametrize("change, message", [
    ({"qk_norm": "layer_norm"}, "qk_norm = 'layer_norm'"),
    ({"caption_projection_dim": 8}, "caption_projection_dim"),
    ({"dual_attention_layers": [7]}, "the blocks are 0 to 2"),
    ({"pos_embed_max_size": 2}, "at least 4"),
    ({"pos_embed_max_size": 2_000_000}, "more than it holds"),
    ({"_class_name": "UNet2DModel"}, "its config.json is of a UNet2DModel"),
])  # fmt: skip
def test_another_network_is_refused_in_one_line(change, message, tmp_path):
    save(tmp_path / "sd3", MMDiT(SD3, Philox(0)), grammar="diffusers")
    file = tmp_path / "sd3" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(tmp_path / "sd3")
    assert "\n" not in str(caught.value)


def test_what_diffusers_cannot_express_is_refused_by_name(tmp_path):
    for config, message in [
        (MMDIT["words"], "captions or classes of its own"), (replace(SD3, mlp_ratio=2.0), r"mlp_ratio 2\.0"),
        (replace(SD3, learn_sigma=True), "a learned variance"),
    ]:  # fmt: skip
        for grammar in ("diffusers", "official"):
            with pytest.raises(ValueError, match=message):
                save(tmp_path / "x", MMDiT(config, Philox(0)), grammar=grammar)
