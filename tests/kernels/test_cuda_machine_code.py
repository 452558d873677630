"""The machine code of the kernels between products: loads of 16 bytes, nothing spilled, no slow divisions. Needs nvdisasm."""

import re

import pytest

from benchmarks.sass import disassembler, instructions, nvrtc
from minidit.kernels.cuda_normalise import held_in_registers

COLUMNS = ["add_bias", "bias_gelu", "gelu_backward", "column_sum", "gated_residual", "gated_residual_backward"]
MISSING = "no compiler for CUDA, or no nvdisasm (pip install 'minidit[cuda-test]')"
pytestmark = pytest.mark.skipif(nvrtc() is None or disassembler() is None, reason=MISSING)


def loads(names):
    """How many loads there are of every width in bits."""
    widths = [re.search(r"\.(64|128|U16)\b", name) for name in names if name.startswith("LDG")]
    return {w: sum((m[1] if m else "32") == w for m in widths) for w in ("U16", "32", "64", "128")}


@pytest.mark.parametrize("arch", ["sm_80", "sm_89", "sm_90"])
@pytest.mark.parametrize("kernel", COLUMNS)
def test_kernels_of_columns_load_sixteen_bytes_at_once_and_spill_nothing(kernel, arch):
    names = instructions("elementwise", kernel, arch, STORAGE="bf16", VEC=8)
    assert not [name for name in names if name.startswith(("LDL", "STL"))]
    widths = loads(names)
    assert widths["128"] >= 2 and widths["U16"] == widths["32"] == widths["64"] == 0


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_gelu_takes_two_special_instructions_per_number_and_few_others(arch):
    names = instructions("elementwise", "bias_gelu", arch, STORAGE="bf16", VEC=8)
    numbers = 8 * sum(name.startswith("STG") for name in names)  # every store writes eight
    assert sum(name.startswith("MUFU") for name in names) == 2 * numbers
    assert len([name for name in names if name != "NOP"]) < 14 * numbers


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("D, storage, most", [
    (384, "bf16", 8), (768, "bf16", 8), (1152, "bf16", 8), (1024, "bf16", 8), (160, "bf16", 8),
    (384, "float", 4), (1152, "float", 4),
])  # fmt: skip
def test_a_row_of_layer_norm_stays_in_registers(D, storage, most, arch):
    variant = held_in_registers(D, most) | {"STORAGE": storage}
    for kernel, residual in (("layer_norm", 0), ("layer_norm", 1), ("layer_norm_backward", 0), ("layer_norm_backward", 1)):
        names = instructions("normalise", kernel, arch, **variant, RESIDUAL=residual)
        assert not [name for name in names if name.startswith(("LDL", "STL"))]
        wide = loads(names)["128" if variant["VEC"] * (2 if storage == "bf16" else 4) == 16 else "64"]
        arrays = 3 + (2 if residual else 0) + (kernel == "layer_norm_backward")
        assert wide >= arrays * variant["STEPS"]
