"""The time of a training step on a GPU, predicted from the machine code of the kernels, without a GPU.

    python -m benchmarks.model                                    # S/2, B/2, XL/2 on an H200, and the bars
    python -m benchmarks.model --device a100 --network S/2 --batch 64
    python -m benchmarks.model --measured                         # the kernels that an H200 ran, predicted beside measured

A kernel keeps five units busy, each for a time that its work and the ceiling of the unit give: memory (bytes), the issue of
instructions, shared memory (wavefronts), tensor cores (HMMA) and the special unit (exponentials, inverses). Its time is

    t = longest + OVERLAP · (sum of the others)                   0: they overlap perfectly    1: they take turns

The special unit is a bound and not in the sum, because a warp goes on while it works; so is memory where tiles come by
asynchronous copies (judged: no kernel with such copies has been measured). OVERLAP is the only number that was fitted: to ten
kernels of 27 November 2026 (`--measured`; without the special unit in the sum the ratios scatter by 10 %, with it by 12 %).
Counts come from NVRTC and nvdisasm (sass.py), how often loops run from model_kernels.py. CEILINGS and PEERS say what is judged.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass

from benchmarks import sass
from benchmarks.model_kernels import Kernel, Shape, block, columns, ends, measured_kernels, optimiser

OVERLAP = 0.8
KILO = 1 << 10


@dataclass(frozen=True)
class Ceilings:
    """One device. Judged: what a step sustains of the clock and of the memory's rate; all else is the maker's."""

    arch: str
    multiprocessors: int
    clock: float  # GHz while a step runs
    memory: float  # TB/s, of a copy
    mma: float  # FLOPs per cycle and multiprocessor by mma.sync
    product: float  # TFLOP/s of products of 8192³
    of_product: float  # share of that which the products of a step reach
    shared: int  # KiB that a block may ask for
    peer_attention: tuple[float, float]  # TFLOP/s forward and backward of the attention that PyTorch calls, HEAD 64, N 256


# H200: memory and product measured (4.3 TB/s, 786 TFLOP/s), of_product 652 of 786 in S/2 at batch 256, peer_attention cuDNN's 79
# and 335 µs, all on 27 November. The clock is judged: Nsight Compute saw 1.81 to 1.97 GHz for single
# kernels, and a whole update draws more power.
# mma.sync on Hopper: 62 % of wgmma's 4096 FLOPs per cycle (Luo et al. 2024, "Benchmarking and Dissecting the Nvidia Hopper GPU
# Architecture"). H100: the same chip with 3.35 TB/s. A100, 4090: 90 % of the maker's memory, 83 % of the tensor peak,
# FlashAttention-2 judged at 60 and 45 % of the peak.
CEILINGS = {
    "h200": Ceilings("sm_90", 132, 1.75, 4.3, 2540, 786, 0.83, 227, (326, 192)),
    "h100": Ceilings("sm_90", 132, 1.75, 3.0, 2540, 740, 0.83, 227, (326, 192)),
    "a100": Ceilings("sm_80", 108, 1.41, 1.83, 2048, 260, 0.83, 163, (187, 140)),
    "4090": Ceilings("sm_89", 128, 2.52, 0.91, 512, 137, 0.83, 99, (99, 74)),
}


@dataclass(frozen=True)
class Peer:
    """What another engine moves between products, in arrays of tokens in bfloat16, and how the host bounds it."""

    arrays: float  # per block
    around: float  # the blocks, per update
    launch: float  # µs of the host per launch
    launches: float  # per block


# eager: measured, S/2 at batch 256: 72.6 ms of kernels less 13.4 of products and 5.0 of attention are 54.2 ms, 386 arrays of
# 50.3 MB per block at 4.3 TB/s; its launches and their time from batch 64, which the host bounds (34.3 ms, 1,436).
# compile: JUDGED. Inductor joins what eager does in pieces: 60 arrays with a residual stream in float32, at 85 % of 4.3 TB/s.
PEERS = {"eager": Peer(386.0, 0.0, 23.9, 119.7), "compile": Peer(60.0 / 0.85, 60.0, 0.0, 0.0)}
NETWORKS = {"S/2": (384, 12, 6), "B/2": (768, 12, 12), "XL/2": (1152, 28, 16)}  # width, depth, heads
TOKENS = 256
AROUND, GAP = (
    70.0,
    0.6,
)  # arrays' time outside of the blocks (measured 1.5 ms in S/2, less 0.6 of casts since replaced); µs per launch
LEAST = 2.0  # µs of a launch, however small: judged, a few trips to memory one after another
EPILOGUE = 0.1  # of its product's time: judged, from the 5 to 9 % that a bias took in PyTorch's products of 27 November


@dataclass(frozen=True)
class Prediction:
    """Of one launch: µs of every unit, and the time."""

    kernel: Kernel
    units: dict[str, float]
    instructions: float
    beside: frozenset[str]  # units that are a bound and not in the sum

    @property
    def us(self) -> float:
        summed = [us for name, us in self.units.items() if name not in self.beside]
        return max(LEAST, *self.units.values(), max(summed) + OVERLAP * (sum(summed) - max(summed)))

    @property
    def limit(self) -> str:
        return max(self.units, key=lambda name: self.units[name])


def counted(kernel: Kernel, arch: str) -> dict[str, float]:
    """{"issued", "shared", "HMMA", "MUFU"}: of all warps together."""
    text = sass.body(kernel.file, kernel.name, arch, tuple(kernel.defines.items()), kernel.commit)
    outside, loops = sass.loops(text, shortest=kernel.shortest)
    taken = [(outside, kernel.warps)]
    for part in kernel.parts:
        fitting = [x for x in loops if x.count(part.has) and not x.count(part.lacks) and x.count(part.marker)]
        if not fitting:
            raise ValueError(f"{kernel.name} on {arch} has no loop with {part.has} and {part.marker} without {part.lacks}")
        loop = max(fitting, key=lambda x: x.count(part.marker))
        taken.append((loop, part.total / loop.count(part.marker)))

    def total(of: str) -> float:
        return sum(loop.count(of) * times for loop, times in taken)

    shared = sum(
        loop.wavefronts(name) * kernel.conflicts.get(name, 1.0) * times
        for loop, times in taken for name in ("LDS", "STS", "LDSM", "LDGSTS")
    )  # fmt: skip
    issued = sum(loop.issued * times for loop, times in taken)
    return {"issued": issued, "shared": shared, "HMMA": total("HMMA"), "MUFU": total("MUFU"), "LDGSTS": total("LDGSTS")}


def predicted(kernel: Kernel, c: Ceilings) -> Prediction:
    n, per_us = counted(kernel, c.arch), c.multiprocessors * c.clock * 1e3  # cycles of all multiprocessors in a µs
    units = {
        "memory": kernel.bytes / (c.memory * 1e6), "issue": n["issued"] / (4 * per_us), "shared": n["shared"] / per_us,
        "tensor": n["HMMA"] * 4096 / c.mma / per_us, "special": n["MUFU"] * 2 / per_us,
    }  # fmt: skip
    return Prediction(kernel, units, n["issued"], frozenset({"special", "memory"} if n["LDGSTS"] else {"special"}))


@dataclass(frozen=True)
class Step:
    """An update of one network, in ms. `ways`: ours by our own kernels; by cuDNN's attention; with epilogues; with both."""

    rows: list[Prediction]
    parts: dict[str, float]
    ways: dict[str, float]
    eager: float
    compiled: float

    @property
    def best(self) -> float:
        """What MINIDIT_CUDNN=auto and MINIDIT_CUBLASLT=auto choose, which time both sides at the first use."""
        return min(self.ways.values())


def epilogues(shape: Shape, c: Ceilings, us: dict[str, float]) -> float:
    """The µs of a block that the epilogues of cublasLt save: GELU, its slope and the sum for the bias of q, k and v.

    Each adds EPILOGUE of its product's time, and reads or writes what it keeps; the bias of the first layer is summed apart.
    """
    product = 2.0 * shape.rows * shape.D**2 / (c.of_product * c.product * 1e6)  # µs of rows x D x D
    kept = 2 * 4 * shape.T / (c.memory * 1e6)  # the input of GELU, written and read
    apart = predicted(columns(shape, "column_sum", 4 * shape.D, 1, 1, sums=True, store=False), c).us
    return us["bias_gelu"] + us["gelu_backward"] + us["column_sum"] - apart - kept - EPILOGUE * (4 + 4 + 3) * product


def step(network: str, batch: int, c: Ceilings) -> Step:
    D, depth, heads = NETWORKS[network]
    shape = Shape(batch, TOKENS, D, heads, c.multiprocessors, c.shared * KILO)
    rows = [predicted(k, c) for k in block(shape)]
    array, parameters = shape.T / (c.memory * 1e9), depth * 18 * D * D + 2 * D * D  # ms, and a number
    parts = {
        "products": 72.0 * shape.rows * D * D * depth / (c.of_product * c.product * 1e9),
        "between": depth * sum(p.kernel.per_block * (p.us + GAP) for p in rows) / 1e3,
        "ends": sum(k.per_block * (predicted(k, c).us + GAP) for k in ends(shape)) / 1e3,
        "update": predicted(optimiser(parameters), c).us / 1e3 + 4.0 * parameters / (c.memory * 1e9),  # and the norm
        "around": AROUND * array,
    }
    attention = [p for p in rows if p.kernel.flops]
    peers = depth * sum(p.kernel.flops / (rate * 1e9) for p, rate in zip(attention, c.peer_attention, strict=True))
    ours, saved = sum(parts.values()), depth * epilogues(shape, c, {p.kernel.name: p.us for p in rows}) / 1e3
    other = ours - depth * sum(p.us for p in attention) / 1e3 + peers  # its bias comes by an epilogue, or by passes over q and v
    passes = 4 * array + predicted(columns(shape, "column_sum", 3 * D, 2 / 3, 1, sums=True, store=False, share=2 / 3), c).us / 1e3
    ways = {"own": ours, "cuDNN": other + depth * passes, "epilogues": ours - saved, "both": other - saved}
    eager, compiled = (
        max(
            parts["products"] + peers + (p.arrays * depth + p.around) * array + parts["update"],
            p.launch * p.launches * depth / 1e3,
        )
        for p in (PEERS["eager"], PEERS["compile"])
    )
    return Step(rows, parts, ways, eager, compiled)


def print_step(network: str, batch: int, c: Ceilings) -> Step:
    s = step(network, batch, c)
    print(f"{network}, batch {batch}: µs per launch; ideal: the longest unit at its ceiling")
    print(
        f"  {'kernel':24s} {'a block':>7s} {'µs':>7s} {'ideal':>7s}  {'limit':8s}"
        + "".join(f"{u:>9s}" for u in s.rows[0].units)
        + "  rate"
    )
    for p in s.rows:
        k = p.kernel
        rate = f"{k.flops / p.us / 1e6:.0f} TFLOP/s" if k.flops else f"{k.bytes / p.us / 1e6:.2f} TB/s"
        units = "".join(f"{us:9.1f}" for us in p.units.values())
        print(f"  {k.name:24s} {k.per_block:7.0f} {p.us:7.1f} {max(p.units.values()):7.1f}  {p.limit:8s}{units}  {rate}")
    print("  ms: " + ", ".join(f"{name} {ms:.2f}" for name, ms in s.parts.items()))
    print(f"  eager {s.eager:.2f}, compile {s.compiled:.2f}; ours and what they take of it:")
    print(
        "".join(f"    {name:10s} {ms:7.2f}   {s.eager / ms:5.2f} x   {s.compiled / ms:5.2f} x\n" for name, ms in s.ways.items())
    )
    return s


def print_bars(steps: dict[tuple[str, int], Step]) -> None:
    forward, backward = (p for p in steps["S/2", 256].rows if p.kernel.flops)
    rows = [
        ("own attention forward, TFLOP/s", forward.kernel.flops / forward.us / 1e6, 200.0),
        ("own attention backward, TFLOP/s", backward.kernel.flops / backward.us / 1e6, 140.0),
    ]
    for (network, batch), s in steps.items():
        for name, ms in (("own kernels", s.ways["own"]), ("auto", s.best)):
            if network != "XL/2":
                rows.append((f"{network} at batch {batch} / eager, {name}", s.eager / ms, 1.5))
            rows.append((f"{network} at batch {batch} / compile, {name}", s.compiled / ms, 1.0 if network == "XL/2" else 1.05))
    for name, value, bar in rows:
        print(f"  {name:44s} {value:8.2f}  bar {bar:6.2f}  {'predicted' if value >= bar else 'NOT PREDICTED'}")


def print_measured(c: Ceilings) -> None:
    print("The kernels of 27 November 2026, S/2 at batch 256, on an H200: µs")
    print(f"  {'kernel':24s} {'predicted':>9s} {'measured':>9s} {'ratio':>6s}  limit    where    instructions")
    logs: list[float] = []
    for kernel, measured, where in measured_kernels(Shape(256, TOKENS, 384, 6)):
        p = predicted(kernel, c)
        row = f"  {kernel.name:24s} {p.us:9.1f} {measured:9.1f} {p.us / measured:6.2f}  {p.limit:8s} {where:6s}"
        print(f"{row} {p.instructions / 1e6:9.1f} M")
        logs.append(math.log(p.us / measured))
    mean, scatter = math.exp(sum(logs) / len(logs)), math.sqrt(sum(x * x for x in logs) / len(logs))
    print(f"  ratios: mean {mean:.2f}, scatter {scatter:.0%}\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=CEILINGS, default="h200")
    parser.add_argument("--network", choices=NETWORKS, help="(default: all, and the bars)")
    parser.add_argument("--batch", type=int, default=256, help="(default 256)")
    parser.add_argument("--measured", action="store_true", help="only the kernels that were measured, as they were")
    args = parser.parse_args()
    if sass.nvrtc() is None or sass.disassembler() is None:
        sys.exit("the model reads machine code: pip install 'minidit[cuda-test]'")
    c = CEILINGS[args.device]
    if args.measured:
        return print_measured(c)
    if args.network:
        print_step(args.network, args.batch, c)
        return None
    if args.device == "h200":
        print_measured(c)
    steps = {(n, b): print_step(n, b, c) for n, b in (("S/2", 256), ("B/2", 256), ("XL/2", 64))}
    return print_bars(steps)


if __name__ == "__main__":
    main()
