"""The model of time: loops that are counted as they run, and times that follow from counts. Needs NVRTC and nvdisasm."""

from dataclasses import replace

import pytest

from benchmarks import model, sass
from benchmarks.model_kernels import Shape, block, measured_kernels

MISSING = "no compiler for CUDA, or no nvdisasm (pip install 'minidit[cuda-test]')"
needs_compiler = pytest.mark.skipif(sass.nvrtc() is None or sass.disassembler() is None, reason=MISSING)

TEXT = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
        /*0010*/               @P0 EXIT ;
.L_x_0:
        /*0020*/                   LDG.E.128 R4, [R2.64] ;
        /*0030*/               @P1 BRA `(.L_x_1) ;
        /*0040*/                   FADD R4, R4, 1 ;
        /*0050*/                   FADD R4, R4, 1 ;
.L_x_1:
        /*0060*/              @!P2 BRA `(.L_x_2) ;
        /*0070*/                   LDS.64 R6, [R8] ;
        /*0080*/                   BRA `(.L_x_3) ;
.L_x_2:
        /*0090*/                   LDG.E R6, [R8.64] ;
        /*00a0*/                   FADD R6, R6, 1 ;
        /*00b0*/                   STS.128 [R8], R4 ;
.L_x_3:
        /*00c0*/                   BRA.DIV UR5, `(.L_x_9) ;
.L_x_4:
        /*00d0*/                   LDSM.16.M88.4 R4, [R9] ;
        /*00e0*/                   HMMA.16816.F32.BF16 R4, R8, R2, R4 ;
        /*00f0*/               @P3 BRA `(.L_x_4) ;
        /*0100*/              @!P4 BRA `(.L_x_0) ;
        /*0110*/                   STG.E.128 [R2.64], R4 ;
        /*0120*/                   EXIT ;
.L_x_9:
        /*0130*/                   WARPSYNC R3 ;
        /*0140*/                   BRA `(.L_x_4) ;
"""


def test_a_loop_is_counted_along_its_longest_way_without_exceptions_and_inner_loops():
    outside, (outer, inner) = sass.loops(TEXT)
    assert list(outside.names) == ["MOV", "EXIT", "STG.E.128"] and outside.names["EXIT"] == 2
    assert dict(inner.names) == {"LDSM.16.M88.4": 1, "HMMA.16816.F32.BF16": 1, "BRA": 1}
    assert outer.names["LDG.E"] == 1 and outer.names["STS.128"] == 1 and outer.names["LDS.64"] == 0  # the longer of two ways
    assert outer.names["FADD"] == 1  # what a branch jumps over without touching memory is an exception
    assert outer.wavefronts("STS") == 4 and inner.wavefronts("LDSM") == 4 and outer.wavefronts("LDS") == 0


def test_the_shortest_way_takes_the_other_branch():
    _, (outer, _) = sass.loops(TEXT, shortest=True)
    assert outer.wavefronts("LDS") == 2 and outer.names["STS.128"] == 0


@needs_compiler
def test_ten_kernels_take_the_time_that_an_h200_measured_within_a_quarter():
    try:
        rows = measured_kernels(Shape(256, 256, 384, 6))
        ratios = {k.name: model.predicted(k, model.CEILINGS["h200"]).us / us for k, us, _ in rows}
    except OSError as error:
        pytest.skip(f"a checkout of its repository has the kernels of that day: {error}")
    assert all(0.75 < ratio < 1.25 for ratio in ratios.values()), ratios


@needs_compiler
@pytest.mark.parametrize("device", [pytest.param(d, marks=[pytest.mark.slow] if d != "h200" else []) for d in model.CEILINGS])
def test_every_kernel_of_a_block_is_found_on_every_device(device):
    """Twice the batch is twice the work, a little less than that where a launch has a beginning and an end."""
    c = model.CEILINGS[device]
    shape = Shape(64, 256, 384, 6, c.multiprocessors, c.shared << 10)
    for one, two in zip(block(shape), block(replace(shape, B=128)), strict=True):
        a, b = (model.predicted(kernel, c).us for kernel in (one, two))
        assert a == b == model.LEAST or 1.3 * a < b < 2.05 * a, one.name


def prediction(beside=(), **units):
    return model.Prediction(block(Shape(1, 64, 64, 1))[0], units, 0, frozenset(beside)).us


def test_a_kernel_takes_its_longest_unit_and_a_part_of_the_others():
    assert prediction(memory=10.0, issue=5.0) == 10 + 5 * model.OVERLAP
    assert prediction(["special"], memory=10.0, issue=5.0, special=7.0) == 10 + 5 * model.OVERLAP
    assert prediction(["special"], memory=10.0, issue=5.0, special=70.0) == 70
