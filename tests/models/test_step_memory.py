"""What a config says of a training step's memory, against the count spelled out once more."""

import math
from dataclasses import replace

import pytest
from models import draws

from minidit.models.backbone import BackboneConfig
from minidit.models.dit import DIT, VARIANTS, DiTConfig

NETS = [
    DiTConfig(input_size=8, in_channels=4, hidden_size=64, depth=3, num_heads=2, num_classes=5, learn_sigma=False),
    DiTConfig(input_size=(6, 12), in_channels=3, hidden_size=24, depth=2, num_heads=3, num_classes=0, mlp_ratio=1.5),
    DIT["DiT-XL/2"],
]
KEPT = {"adaln_zero": 10, "adaln": 8, "cross_attention": 12, "in_context": 8}  # numbers per token and channel


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
@pytest.mark.parametrize("home", ["cpu", "cuda"])
@pytest.mark.parametrize("conditioning", sorted(VARIANTS))
@pytest.mark.parametrize("net", NETS)
def test_every_variant_is_counted_number_by_number(net, conditioning, home, precision):
    config: BackboneConfig = replace(net, conditioning=conditioning)
    r, D, h, M = config.mlp_ratio, config.hidden_size, config.num_heads, 2 if config.num_classes else 1
    n = config.tokens + (M if conditioning == "in_context" else 0)
    size = 2 if precision == "bf16" and home == "cuda" and conditioning in ("adaln", "adaln_zero") else 4
    of_sample = {"adaln_zero": 7, "adaln": 5}.get(conditioning, 2 * M)  # vectors per sample
    inner_kept, inner_made, working, ends = (1, 2, 14, 6) if home == "cpu" else (2, 1, 1, 1)
    block = size * ((KEPT[conditioning] + inner_kept * r) * n * D + of_sample * D)
    block += 4 * h * n * n if home == "cpu" else 4 * n * (4 + h)
    latents = 4 * math.prod(config.size) * (config.in_channels + config.out_channels)
    memory = config.step_memory(home, precision)
    assert (memory.block, memory.kept, memory.size) == (block, config.depth * block, size)
    assert memory.inputs == config.depth * size * n * D
    assert memory.working == size * (working + inner_made * r) * n * D + ends * latents


def test_the_parts_of_a_variant_are_those_that_it_is_built_of():
    for config in (replace(NETS[0], conditioning=name) for name in VARIANTS):
        model, _ = draws.model_of(config)
        assert {type(block) for block in model.blocks} == {config.variant.block}
        assert type(model.final_layer) is config.variant.final
