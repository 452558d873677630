"""Names, shapes and sizes: the official checkpoints', the paper's tables, and what is really allocated."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from models import draws
from support import agree, spec

from minidit.models.dit import DIT, DiT, DiTConfig

# Peebles and Xie 2023: "Gflops" of table 4 (patch sizes 2, 4, 8); parameters counted on the published architecture
PAPER = {
    "S": ((6.06, 1.41, 0.36), (32_963_360, 32_945_024, 33_148_160)),
    "B": ((23.01, 5.56, 1.42), (130_512_416, 130_475_648, 130_881_536)),
    "L": ((80.71, 19.70, 5.01), (458_102_816, 458_053_760, 458_594_816)),
    "XL": ((118.64, 29.05, 7.39), (675_129_632, 675_074_432, 675_683_072)),
}
CELLS = [(f"DiT-{size}/{p}", *(column[k] for column in PAPER[size])) for size in PAPER for k, p in enumerate((2, 4, 8))]


@spec("T.9")
@pytest.mark.parametrize(("name", "gmacs", "parameters"), CELLS)
def test_a_preset_has_the_published_number_of_parameters(name, gmacs, parameters):
    config = DIT[name]
    assert config.parameters() == parameters
    trained = parameters - config.tokens * config.hidden_size
    assert {"DiT-S/2": 32_865_056, "DiT-B/2": 130_315_808, "DiT-L/2": 457_840_672, "DiT-XL/2": 674_834_720}.get(
        name, trained
    ) == trained


@spec("T.8")
@pytest.mark.parametrize(("name", "gmacs", "parameters"), CELLS)
def test_what_the_paper_calls_gflops_are_multiply_accumulates(name, gmacs, parameters):
    agree(DIT[name].macs() / 1e9 / gmacs, np.float64(1), bound=0.006, of="T.8")


@spec("T.8")
def test_the_largest_model_on_large_pictures():
    config = dataclasses.replace(DIT["DiT-XL/2"], input_size=64)
    agree(config.macs() / 1e9 / 524.60, np.float64(1), bound=0.0005, of="T.8")


@spec("T.8")
@given(draws.configs())
def test_multiply_accumulates_are_those_of_every_product(config):
    """Counted product by product, with the weights' shapes taken from a model that was built."""
    state = DiT(config, None).state_dict()
    N, D, total = config.tokens, config.hidden_size, 0
    for name, w in state.items():
        if name.endswith("weight") and "embedding_table" not in name:
            once = "adaLN" in name or name.startswith("t_embedder")  # for each sample; all others for each token
            total += int(np.prod(w.shape)) * (1 if once else N)
    total += config.depth * 2 * N * N * D  # scores, and values weighted by them
    assert config.macs() == total


@spec("T.9")
@given(draws.configs())
def test_the_count_is_what_a_checkpoint_holds(config):
    model = DiT(config, None)
    assert config.parameters() == sum(a.size for a in model.state_dict().values())
    assert model.count_parameters() == config.parameters() - config.tokens * config.hidden_size


def test_presets_have_the_published_shapes():
    assert set(DIT) == {name for name, *_ in CELLS} | {"demo", "fashion", "digits", "words"}
    for size, width, depth, heads in (("S", 384, 12, 6), ("B", 768, 12, 12), ("L", 1024, 24, 16), ("XL", 1152, 28, 16)):
        for p in (2, 4, 8):
            c = DIT[f"DiT-{size}/{p}"]
            assert (c.hidden_size, c.depth, c.num_heads, c.patch_size) == (width, depth, heads, p)
            assert (c.size, c.in_channels, c.out_channels, c.num_classes) == ((32, 32), 4, 8, 1000)
            assert (c.class_dropout_prob, c.mlp_ratio, c.learn_sigma) == (0.1, 4.0, True)


@pytest.mark.parametrize(("D", "L", "C", "p", "classes"), [(24, 2, 4, 2, 1000), (16, 1, 3, 4, 10)])
def test_names_and_shapes_are_those_of_the_official_checkpoints(D, L, C, p, classes):
    config = DiTConfig(input_size=(8, 12), patch_size=p, in_channels=C, hidden_size=D, depth=L, num_heads=4, num_classes=classes)
    expected = {
        "pos_embed": (1, 96 // p**2, D),
        "x_embedder.proj.weight": (D, C, p, p),
        "x_embedder.proj.bias": (D,),
        "t_embedder.mlp.0.weight": (D, 256),
        "t_embedder.mlp.0.bias": (D,),
        "t_embedder.mlp.2.weight": (D, D),
        "t_embedder.mlp.2.bias": (D,),
        "y_embedder.embedding_table.weight": (classes + 1, D),
        "final_layer.adaLN_modulation.1.weight": (2 * D, D),
        "final_layer.adaLN_modulation.1.bias": (2 * D,),
        "final_layer.linear.weight": (p * p * 2 * C, D),
        "final_layer.linear.bias": (p * p * 2 * C,),
    }
    for i in range(L):
        for name, rows, columns in (
            ("attn.qkv", 3 * D, D),
            ("attn.proj", D, D),
            ("mlp.fc1", 4 * D, D),
            ("mlp.fc2", D, 4 * D),
            ("adaLN_modulation.1", 6 * D, D),
        ):
            expected |= {f"blocks.{i}.{name}.weight": (rows, columns), f"blocks.{i}.{name}.bias": (rows,)}
    assert {n: tuple(a.shape) for n, a in DiT(config, None).state_dict().items()} == expected


def test_without_classes_there_is_no_table_and_without_dropout_no_null_row():
    base = DiTConfig(input_size=4, hidden_size=8, depth=1, num_heads=2, num_classes=3)
    name = "y_embedder.embedding_table.weight"
    assert DiT(base, None).state_dict()[name].shape == (4, 8)
    assert DiT(dataclasses.replace(base, class_dropout_prob=0.0), None).state_dict()[name].shape == (3, 8)
    assert name not in DiT(dataclasses.replace(base, num_classes=0), None).state_dict()


def test_an_int_is_a_square():
    assert DiTConfig(input_size=6).size == (6, 6) == DiTConfig(input_size=(6, 6)).size
    assert DiTConfig(input_size=[4, 6]).size == (4, 6)


def test_the_presets_for_small_pictures():
    """Four channels of latents of 32 × 32 pictures, and the pixels of 8 × 8 digits; v is learned, so no variance."""
    for name, channels, width in (("demo", 4, 128), ("digits", 1, 96)):
        c = DIT[name]
        assert (c.size, c.patch_size, c.in_channels, c.hidden_size, c.depth, c.num_heads) == ((8, 8), 2, channels, width, 4, 4)
        assert (c.num_classes, c.learn_sigma, c.out_channels, c.conditioning) == (10, False, channels, "adaln_zero")


@pytest.mark.parametrize("name", ["patch_size", "in_channels", "hidden_size", "depth", "num_heads", "mlp_ratio", "input_size"])
def test_every_size_is_positive(name):
    for bad in (0, -2):
        with pytest.raises(ValueError, match="every size must be positive"):
            DiTConfig(**{name: bad})
    for bad in ((0, 2), (2, 0), (-2, 2)):
        with pytest.raises(ValueError, match="every size must be positive"):
            DiTConfig(input_size=bad)


def test_the_smallest_transformer():
    c = DiTConfig(input_size=1, patch_size=1, in_channels=1, hidden_size=4, depth=1, num_heads=1, mlp_ratio=0.25, num_classes=0)
    assert (c.tokens, c.out_channels) == (1, 2)
    assert DiTConfig(class_dropout_prob=0.0, num_classes=1).num_classes == 1
