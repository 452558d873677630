"""Our quantisation inside diffusers' VQModel: the same pictures, the same codes, and all the same gradients.

Encoder and decoder are those of the latent autoencoder, which VQModel shares; between them stands `Nearest` instead of its
VectorQuantizer. Needs the extra `peers` (torch on a CPU, diffusers); skipped without it.
"""

import warnings

import numpy as np
import pytest
from support import host, spec

from minidit import ops
from minidit.autoregressive.quantiser import Nearest
from minidit.models.autoencoder_kl import AutoencoderKLConfig, Decoder, Encoder
from minidit.nn import Conv2d, Embedding, Module
from minidit.verify import check

torch = pytest.importorskip("torch", reason="the extra peers is not installed: torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers", reason="the extra peers is not installed: diffusers")
    from diffusers import VQModel
    from diffusers.models.autoencoders.vae import VectorQuantizer

pytestmark = pytest.mark.filterwarnings("ignore")

WIDTHS, GROUPS, LATENT, D, K = (8, 16), 4, 6, 5, 11
SIZES = AutoencoderKLConfig(channels=2, widths=WIDTHS, groups=GROUPS, latent_channels=LATENT, blocks=1)


class Codes(Module):
    def __init__(self):
        self.embedding = Embedding(K, D)


class Ours(Module):
    """VQModel's parts under its names; the law between them is ours."""

    def __init__(self):
        half = AutoencoderKLConfig(channels=2, widths=WIDTHS, groups=GROUPS, latent_channels=LATENT // 2, blocks=1)
        self.encoder, self.decoder = Encoder(half), Decoder(SIZES)  # that encoder gives twice its latent channels
        self.quant_conv, self.post_quant_conv = Conv2d(LATENT, D, 1), Conv2d(D, LATENT, 1)
        self.quantize = Codes()
        self.build(None, dtype=np.float64)

    def forward(self, x, beta=0.25):
        law = Nearest(self.quantize.embedding.weight, beta=beta)
        z = ops.transpose(self.quant_conv(self.encoder(x)), axes=(0, 2, 3, 1))
        vectors, losses = law.training(z)
        return self.decoder(self.post_quant_conv(ops.transpose(vectors, axes=(0, 3, 1, 2)))), losses, law.numbers(z.data)


def theirs(legacy=False):
    """VQModel in float64, every number random: encoder and codes are made of one size, so that several codes are used."""
    peer = VQModel(
        in_channels=2, out_channels=2, down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=WIDTHS, latent_channels=LATENT, num_vq_embeddings=K, vq_embed_dim=D, norm_num_groups=GROUPS,
    ).double()  # fmt: skip
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in peer.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=g, dtype=torch.float64))
        peer.quantize.embedding.weight *= 5
    peer.quantize.legacy = legacy
    return peer.eval()


def both(legacy=False, beta=0.25):
    """(outputs, codes, gradients by name) of ours and of theirs, from the same weights and a random sum of the pictures."""
    peer, model = theirs(legacy), Ours()
    model.load_state_dict({n: p.numpy() for n, p in peer.state_dict().items()})
    r = np.random.default_rng(0)
    x, weights = r.standard_normal((2, 2, 8, 12)), r.standard_normal((2, 2, 8, 12))
    out = peer(torch.tensor(x))
    _, _, (_, _, index) = peer.quantize(peer.encode(torch.tensor(x)).latents)
    ((out.sample * torch.tensor(weights)).sum() + 50 * out.commit_loss).backward()
    y, losses, numbers = model(x, beta)
    ((y * weights).sum() + 50 * losses.mean()).backward()
    mine = {n: p.grad for n, p in model.named_parameters()}, host(y), numbers.ravel()
    return mine, ({n: p.grad.numpy() for n, p in peer.named_parameters()}, out.sample.detach().numpy(), index.numpy())


def farthest(mine, other):
    """The largest difference of two sets of gradients, each relative to its own size (to the largest where it is rounding)."""
    largest = max(np.abs(g).max() for g in other.values())
    size = {n: np.abs(g).max() if np.abs(g).max() > 1e-6 * largest else largest for n, g in other.items()}
    return max(float(np.abs(mine[n] - other[n]).max() / size[n]) for n in other)


@spec("Q.1", "Q.2", "Q.3")
def test_pictures_codes_and_gradients_are_those_of_vqmodel(record_property):
    (mine, y, numbers), (other, out, index) = both()
    assert np.array_equal(numbers, index) and len(set(index.tolist())) > 3
    assert set(mine) == set(other)
    for what, number in (("output", np.abs(y - out).max() / np.abs(out).max()), ("gradients", farthest(mine, other))):
        record_property(f"VQModel {what}", float(number))
        print(f"VQModel {what}: {number:.2g}")
        assert number <= 1e-9


@spec("Q.3")
def test_by_default_vqmodel_weighs_the_codes_by_beta_and_not_the_commitment():
    """VectorQuantizer(legacy=True): ours with the weights 1 and β exchanged is β times ours with 1/β."""
    assert VectorQuantizer(K, D, 0.25).legacy
    (mine, *_), (other, *_) = both(legacy=True)
    assert farthest(mine, other) > 0.1
    codes = "quantize.embedding.weight"
    assert np.allclose(0.25 * mine[codes], other[codes], rtol=1e-9, atol=0)  # what the codes get is a quarter of ours


@spec("Q.3")
@pytest.mark.parametrize("legacy", [True, False])
def test_the_kit_names_what_vqmodel_does_by_default(legacy):
    def loss(z, codes, beta):
        layer = VectorQuantizer(*codes.shape, beta, legacy=legacy).double()
        layer.embedding.weight.data[...] = torch.tensor(codes)
        v = torch.tensor(z.transpose(0, 2, 1)[..., None], requires_grad=True)
        _, value, _ = layer(v)
        value.backward()
        return value.item(), v.grad.numpy()[..., 0].transpose(0, 2, 1), layer.embedding.weight.grad.numpy()

    report = check({"codebook_loss": loss})
    assert report.mistakes == (["M130"] if legacy else [])
    assert check({"codebook_loss": loss}, dialect="diffusers").ok is legacy
