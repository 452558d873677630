"""The public names: all of them are there, they are looked up late, and a wrong one is told with the right ones."""

import ast
import importlib
from pathlib import Path

import pytest

import minidit as md

PROMISED = (
    "xp_of", "to_device", "to_host", "Philox", "Tensor", "no_grad", "primitive", "PRIMITIVES", "Gradients",
    "ops", "nn", "data", "metrics", "pictures", "verify",
    "DIT", "DiT", "DiTConfig", "UNet", "UNetConfig", "Autoencoder", "AutoencoderConfig", "AutoencoderKL", "AutoencoderKLConfig",
    "describe",
    "AdamW", "OptimConfig",
    "Schedule", "q_sample", "posterior", "ddpm_step", "ddim_step", "ddim_invert_step", "guide",
    "predict_x_0", "predict_eps", "predict_v", "EPS", "X_0", "V", "Level",
    "Diffusion", "Level", "Sampling", "DDPM", "DDPM_LARGE", "DDPM_LEARNED", "ddim", "train", "loop_for", "loss",
    "Loop", "LoopConfig", "save_state", "load_state", "times", "drawn", "Classes", "Nothing",
    "sample", "Sampling", "ddim", "DDPM", "DDPM_LARGE", "DDPM_LEARNED",
    "autoencode", "AutoencodeConfig", "latents_of", "decode", "reconstruct", "save", "load", "Pipeline", "__version__",
)  # fmt: skip


@pytest.mark.parametrize("name", PROMISED)
def test_a_promised_name_is_there(name):
    assert getattr(md, name) is not None and name in md.__all__ and name in dir(md)


@pytest.mark.parametrize("name", sorted(md._HOME))
def test_a_public_name_is_the_thing_in_its_home(name):
    home = md._HOME[name]
    module = importlib.import_module(f"minidit.{home or name}")
    assert getattr(md, name) is (getattr(module, name) if home else module)


def test_what_the_type_checker_sees_is_what_there_is():
    """The imports under TYPE_CHECKING name exactly the names that are looked up late, each from its home."""
    tree = ast.parse(Path(md.__file__).read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {alias.name: (node.module.removeprefix("minidit").lstrip(".")) for node in block.body for alias in node.names}
    assert seen == md._HOME


def test_a_wrong_name_is_told_with_the_right_ones():
    with pytest.raises(AttributeError, match=r"minidit has no 'Dit', did you mean 'DiT'\?"):
        md.Dit  # noqa: B018
    with pytest.raises(AttributeError, match=r"minidit has no 'qqq'; it has .*DiT, "):
        md.qqq  # noqa: B018
