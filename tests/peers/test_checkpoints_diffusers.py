"""Beside diffusers: the same weights give the same outputs and the same gradients, and its files become ours and its own again.

Needs the extra `peers` (torch on a CPU, diffusers); skipped without it.
"""

import json
import warnings
from argparse import Namespace

import numpy as np
import pytest

import minidit as md
from minidit.checkpoint import CheckpointError, describe, load_model, save
from minidit.nn import timestep_embedding

torch = pytest.importorskip("torch", reason="the extra peers is not installed: torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers", reason="the extra peers is not installed: diffusers")
    from diffusers import AutoencoderKL as TheirKL
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel, Transformer2DModel

pytestmark = pytest.mark.filterwarnings("ignore")

DIT = {"num_attention_heads": 3, "attention_head_dim": 8, "in_channels": 4, "out_channels": 8, "num_layers": 3, "sample_size": 8,
       "num_embeds_ada_norm": 5}  # fmt: skip
KL = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3, "latent_channels": 4,
      "block_out_channels": (8, 16, 16), "layers_per_block": 2, "norm_num_groups": 4, "sample_size": 16}  # fmt: skip
TYPES = {"float64": (torch.float64, 1e-9), "float32": (torch.float32, 5e-6)}


def randomised(model, dtype, size):
    """Every parameter random (a fresh one would say nothing), the copies of the embedders equal."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(size * torch.randn(p.shape, generator=g, dtype=torch.float64))
        for block in getattr(model, "transformer_blocks", []):
            block.norm1.emb.load_state_dict(model.transformer_blocks[0].norm1.emb.state_dict())
    return model.to(dtype).eval()


def their_dit(dtype=torch.float32, cls=DiTTransformer2DModel, **more):
    torch.manual_seed(0)
    return randomised(cls(**DIT, **more), dtype, 0.2)


def their_kl(dtype=torch.float32):
    return randomised(TheirKL(**KL), dtype, 0.2)


def with_exact_time(model, dtype):
    """diffusers computes the time embedding in float32 whatever the model is; here the same embedding enters both."""
    for block in model.transformer_blocks:
        exact = lambda t: torch.tensor(timestep_embedding(t.numpy(), 256, np.float64, shift=1)).to(dtype)
        block.norm1.emb.time_proj.forward = exact
    return model


def far(ours, theirs):
    theirs = theirs.detach().numpy().astype(np.float64)
    return np.abs(np.asarray(ours, np.float64) - theirs).max() / np.abs(theirs).max()


def inputs(dtype, *shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def told(record_property, name, number, bound):
    record_property(name, float(number))
    print(f"{name}: {number:.2g} (bound {bound:g})")
    assert number <= bound


# ------------------------------------------------------------------------------------------------ outputs and gradients


def gradients_under_our_names(model, peer, tmp_path, kind):
    """Their gradients through our own reader: saved in the place of the weights, summed where a block has its own copy."""
    with torch.no_grad():
        if kind == "dit":
            blocks = peer.transformer_blocks
            for ps in zip(*(b.norm1.emb.parameters() for b in blocks), strict=True):
                whole = sum(p.grad for p in ps)  # the one embedder of ours serves all blocks
                for p in ps:
                    p.grad = whole.clone()
        for p in peer.parameters():
            p.copy_(p.grad)
    peer.save_pretrained(tmp_path / "gradients")
    other, _ = load_model(tmp_path / "gradients", dtype=model.dtype)
    return dict(other.named_parameters())


def worst_gradient(model, theirs):
    """The worst parameter, relative to its own largest entry, or to the model's where it is zero in exact arithmetic."""
    largest = max(np.abs(p.data).max() for p in theirs.values())
    worst = 0.0
    for name, p in model.named_parameters():
        size = np.abs(theirs[name].data).max()
        size = size if size > 1e-6 * largest else largest  # a key's bias shifts all logits alike: its gradient is rounding
        worst = max(worst, float(np.abs(p.grad - theirs[name].data).max() / size))
    return worst


@pytest.mark.parametrize("name", TYPES)
def test_a_dit_answers_and_learns_as_diffusers_does(name, tmp_path, record_property):
    dtype, bound = TYPES[name]
    peer = their_dit(dtype)
    peer.save_pretrained(tmp_path / "dit")
    model, meta = load_model(tmp_path / "dit", dtype=np.dtype(name))
    assert model.config.freq_shift == 1 and model.config.mlp_norm_eps == 1e-5 and any("M76" in d for d in meta["differences"])
    x, t, y = inputs(name, 4, 4, 8, 8), np.array([0, 37, 500, 999]), np.array([0, 4, 5, 2])
    weights = inputs(name, 4, 8, 8, 8, seed=1)
    with_exact_time(peer, dtype)
    theirs = peer(torch.tensor(x), timestep=torch.tensor(t), class_labels=torch.tensor(y)).sample
    ours = model(x, t, y)
    told(record_property, f"DiT {name} output", far(ours.data, theirs), bound)
    (theirs * torch.tensor(weights)).sum().backward()
    (ours * weights).sum().backward()
    grads = gradients_under_our_names(model, peer, tmp_path, "dit")
    told(record_property, f"DiT {name} gradients", worst_gradient(model, grads), bound)


@pytest.mark.parametrize("name", TYPES)
def test_an_autoencoder_answers_and_learns_as_diffusers_does(name, tmp_path, record_property):
    dtype, bound = TYPES[name]
    peer = their_kl(dtype)
    peer.save_pretrained(tmp_path / "vae")
    model, _ = load_model(tmp_path / "vae", dtype=np.dtype(name))
    assert float(model.scale) == np.dtype(name).type(0.18215)
    x, z = inputs(name, 2, 3, 16, 24), inputs(name, 2, 4, 4, 6, seed=1)
    posterior, picture = peer.encode(torch.tensor(x)).latent_dist, peer.decode(torch.tensor(z)).sample
    mean, logvar = model.encode(x)
    decoded = model.decode(z)
    pairs = {"mean": (mean, posterior.mean), "logvar": (logvar, posterior.logvar), "picture": (decoded, picture)}
    for what, (ours, theirs) in pairs.items():
        told(record_property, f"KL {name} {what}", far(ours.data, theirs), bound)
    weights = [inputs(name, *a.shape, seed=2) for a in (mean, logvar, decoded)]
    sum((a * torch.tensor(w)).sum() for a, w in zip((posterior.mean, posterior.logvar, picture), weights, strict=True)).backward()
    ((mean * weights[0]).sum() + (logvar * weights[1]).sum() + (decoded * weights[2]).sum()).backward()
    grads = gradients_under_our_names(model, peer, tmp_path, "kl")
    told(record_property, f"KL {name} gradients", worst_gradient(model, grads), bound)


def test_time_in_float32_is_what_remains_between_the_two(tmp_path, record_property):
    peer = their_dit(torch.float64)
    peer.save_pretrained(tmp_path / "dit")
    model, _ = load_model(tmp_path / "dit", dtype=np.float64)
    x, t, y = inputs("float64", 2, 4, 8, 8), np.array([999, 500]), np.array([0, 3])
    theirs = peer(torch.tensor(x), timestep=torch.tensor(t), class_labels=torch.tensor(y)).sample
    number = far(model(x, t, y).data, theirs)
    record_property("DiT float64, their float32 time", float(number))
    print(f"their float32 time: {number:.2g}")
    assert 1e-9 < number < 1e-3
    model, _ = load_model(tmp_path / "dit", dtype=np.float64, dialect="official")
    assert far(model(x, t, y).data, theirs) > 0.01  # M76: the same weights with the other frequencies are another function


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("make", [their_dit, their_kl])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_their_file_comes_back_byte_for_byte(make, dtype, tmp_path):
    make(dtype).save_pretrained(tmp_path / "theirs")
    found = describe(tmp_path / "theirs")
    model, _ = load_model(tmp_path / "theirs", dtype=found.dtype)
    save(tmp_path / "ours", model, grammar="diffusers")
    for file in ("diffusion_pytorch_model.safetensors", "config.json"):
        assert (tmp_path / "ours" / file).read_bytes() == (tmp_path / "theirs" / file).read_bytes(), file


@pytest.mark.parametrize("grammar, shard_bytes", [("diffusers", None), ("diffusers", 20_000), ("diffusers-old", None)])
@pytest.mark.parametrize("make", [their_dit, their_kl])
def test_diffusers_reads_what_we_write(make, grammar, shard_bytes, tmp_path):
    peer = make()
    peer.save_pretrained(tmp_path / "theirs")
    model, _ = load_model(tmp_path / "theirs")
    save(tmp_path / "ours", model, grammar=grammar, shard_bytes=shard_bytes)
    cls = Transformer2DModel if grammar == "diffusers-old" and make is their_dit else type(peer)
    again = cls.from_pretrained(tmp_path / "ours", low_cpu_mem_usage=False)
    assert isinstance(again, type(peer)) and set(again.state_dict()) == set(peer.state_dict())
    for name, a in peer.state_dict().items():
        assert torch.equal(again.state_dict()[name], a), name


@pytest.mark.parametrize("make", [their_dit, their_kl])
@pytest.mark.parametrize("how", [{"max_shard_size": "20KB"}, {"safe_serialization": False}])
def test_their_shards_and_pickles_are_read(make, how, tmp_path):
    peer = make()
    peer.save_pretrained(tmp_path / "whole")
    peer.save_pretrained(tmp_path / "other", **how)
    a, _ = load_model(tmp_path / "whole")
    b, _ = load_model(tmp_path / "other")
    np.testing.assert_array_equal(a.flat, b.flat)
    container = describe(tmp_path / "other").container
    assert ("shards" in container) == ("max_shard_size" in how) and ("torch zip" in container) == ("safe_serialization" in how)


def test_bfloat16_is_read_exactly(tmp_path):
    peer = their_kl(torch.bfloat16)
    peer.save_pretrained(tmp_path / "vae")
    model, _ = load_model(tmp_path / "vae")
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(p.data, peer.state_dict()[name].float().numpy())


def test_a_dit_that_diffusers_trained_has_embedders_that_part_and_is_refused(tmp_path):
    peer = their_dit()
    with torch.no_grad():
        peer.transformer_blocks[2].norm1.emb.class_embedder.embedding_table.weight[3, 1] += 0.25
    peer.save_pretrained(tmp_path / "dit")
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path / "dit")
    line = str(caught.value)
    assert "transformer_blocks.2.norm1.emb.class_embedder.embedding_table.weight differs" in line and "by up to 0.25" in line
    assert "a copy of the time and label embedder in every block" in line and "\n" not in line


def test_a_checkpoint_of_the_official_training_script_is_read(tmp_path):
    """{"model", "ema", "opt", "args"}, the average taken; its names are ours."""
    model = md.DiT(md.DiTConfig(input_size=8, hidden_size=24, depth=2, num_heads=3, num_classes=5), md.Philox(1))
    ema = {k: torch.tensor(v) + 1 for k, v in model.state_dict().items()}
    raw = {f"module.{k}": torch.tensor(v) for k, v in model.state_dict().items()}
    args = Namespace(model="DiT-XL/2", num_classes=5, lr=1e-4)
    torch.save({"model": raw, "ema": ema, "opt": {"state": {0: {"step": torch.tensor(1.0)}}}, "args": args}, tmp_path / "0001.pt")
    found = describe(tmp_path / "0001.pt", num_heads=3)
    assert (found.grammar, found.kind, found.container) == ("official", "dit", "torch zip")
    assert set(found.aside) == {"model", "opt", "args"}
    loaded, _ = load_model(tmp_path / "0001.pt", num_heads=3)
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(loaded.state_dict()[name], p.data + np.float32(1))
    torch.save(raw, tmp_path / "bare.pt")
    loaded, _ = load_model(tmp_path / "bare.pt", num_heads=3)
    np.testing.assert_array_equal(loaded.flat, model.flat)


def test_a_whole_pipeline_becomes_a_pipeline_whose_steps_are_theirs(tmp_path):
    """Two DDIM steps from the same noise, theirs and ours, and the picture that each decodes."""
    dit, vae = their_dit(torch.float32), their_kl()
    scheduler = DDIMScheduler(clip_sample=False, beta_schedule="linear", timestep_spacing="trailing")
    DiTPipeline(dit, vae, scheduler).save_pretrained(tmp_path / "pipeline")
    index = tmp_path / "pipeline" / "model_index.json"  # the published one names its classes
    labels = {str(i): f"class {i}, other" for i in range(5)}
    index.write_text(json.dumps(json.loads(index.read_text()) | {"id2label": labels}))
    pipeline = md.load(tmp_path / "pipeline")
    assert pipeline.class_names == tuple(f"class {i}" for i in range(5)) and pipeline.ladder.T == 1000
    np.testing.assert_allclose(pipeline.ladder.alpha_bar[1:], scheduler.alphas_cumprod.numpy(), rtol=2e-6)
    x, y = inputs("float32", 2, 4, 8, 8), np.array([1, 3])
    scheduler.set_timesteps(2)
    z, ours = torch.tensor(x), x
    for t, s in ((1000, 500), (500, 0)):
        time = torch.full((2,), t - 1)
        eps_c = dit(z, timestep=time, class_labels=torch.tensor(y)).sample[:, :4]
        z = scheduler.step(eps_c, t - 1, z).prev_sample.detach()
        eps = pipeline.model(ours, pipeline.ladder.time[np.full(2, t)], y).data[:, :4]
        ours = md.ddim_step(ours, eps, t, s, pipeline.ladder)
    theirs = vae.decode(z / vae.config.scaling_factor).sample
    assert far(ours, z) < 1e-4  # the first ᾱ differs in its last float32 digits, and their time is float32
    assert far(pipeline.pictures(ours), theirs.clamp(-1, 1)) < 1e-3
    assert pipeline.sample([0, 1], steps=2).shape == (2, 3, 32, 32)
