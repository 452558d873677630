"""Spacetime patches beside CogVideoX's, and turned places beside FLUX's as Open-Sora 2 uses them: (time, row, column).

Needs the extra `peers` (torch on a CPU, diffusers); skipped without it.
"""

import warnings

import numpy as np
import pytest
from models.test_spacetime import inputs_of, model_of
from support import agree, spec

from minidit.models.spacetime import turns
from minidit.models.spacetime_config import SpacetimeConfig
from minidit.nn import sincos_1d

torch = pytest.importorskip("torch", reason="the extra peers is not installed: torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("diffusers", reason="the extra peers is not installed: diffusers")
    from diffusers.models.embeddings import CogVideoXPatchEmbed, get_1d_sincos_pos_embed_from_grid
    from diffusers.models.transformers.transformer_flux import FluxPosEmbed

pytestmark = pytest.mark.filterwarnings("ignore")


@spec("T.31")
@pytest.mark.parametrize(("t", "p"), [(1, 2), (2, 1), (2, 2), (3, 2)])
def test_patches_are_those_of_cogvideox_and_of_a_convolution_in_three_dimensions(t, p):
    config = SpacetimeConfig((4 * p, 3 * p), 2 * t, t, p, 3, 16, 1, 2, num_classes=0)
    model, state = model_of(config)
    x, *_ = inputs_of(config, 2)
    ours = model.x_embedder(x).data
    weight, bias = (torch.tensor(state[f"x_embedder.proj.{name}"]) for name in ("weight", "bias"))
    off = {"use_positional_embeddings": False, "use_learned_positional_embeddings": False}
    theirs = CogVideoXPatchEmbed(p, t, 3, 16, 8, **off).double()
    with torch.no_grad():
        theirs.proj.weight[...], theirs.proj.bias[...] = weight, bias
        frames_first = torch.tensor(x).permute(0, 2, 1, 3, 4)
        out = theirs(torch.zeros(2, 1, 8, dtype=torch.float64), frames_first)[:, 1:]
        size = (t, p, p)
        conv = torch.nn.functional.conv3d(torch.tensor(x), weight.reshape(16, 3, *size), bias, stride=size)
    agree(ours, out.numpy(), bound=1e-12, of="T.31")
    agree(ours, conv.flatten(2).transpose(1, 2).numpy(), bound=1e-12, of="T.31")


@spec("T.32")
def test_places_of_time_are_those_of_latte():
    theirs = get_1d_sincos_pos_embed_from_grid(16, torch.arange(7), output_type="pt")
    agree(sincos_1d(16, 7), theirs.numpy(), bound=1e-12, of="T.32")


@spec("T.37")
def test_turned_places_are_those_of_flux():
    ids = torch.tensor([(f, r, s) for f in range(3) for r in range(2) for s in range(4)], dtype=torch.float64)
    theirs = FluxPosEmbed(10000, [4, 6, 6])(ids)
    for ours, table in zip(turns(3, 2, 4, (4, 6, 6), np.float64), theirs, strict=True):
        agree(np.repeat(ours, 2, axis=1), table.numpy().astype(np.float64), bound=1e-6, of="T.37")
