"""How training scales over ranks: 1 and 2 measured, each on one core; 8, 64 and 512 on paper, from the bytes that they exchange.

    strong    the batch of the size, dealt out to the ranks         speedup     t(1)/t(R)        ideal R
    weak      the batch of the size on every rank                   efficiency  t(1)/t(R)        ideal 1

    on paper    t(R) = t_1 · (samples per rank)/(samples of one) + u + x(R)
                x(R) = 2 (R-1)/R n/B + 2 (R-1) α + n/M

t_1 is the measured time of the gradient of one batch, and u that of the optimiser, which every rank runs on all weights.
n : bytes of the gradient.  B : bytes per second of a rank's network.  α : seconds per message.  M : bytes per second of adding.
Nothing is overlapped, on paper as in the code. `python -m benchmarks.ranks` needs mpi4py, mpiexec, and two quiet cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.machine import load, machine
from benchmarks.sizes import SIZES

HERE = Path(__file__).parent
GIGABIT = 1e9 / 8
NETWORKS = {  # B and α per rank: bytes per second, seconds per message
    "25 Gbit/s Ethernet, 1 rank per node": (25 * GIGABIT, 20e-6),
    "100 Gbit/s InfiniBand, 1 rank per node": (100 * GIGABIT, 2e-6),
    "100 Gbit/s InfiniBand, 8 ranks per node": (100 * GIGABIT / 8, 2e-6),
}
MEMORY = 10e9  # M: bytes per second at which a core adds up received parts
PAPER = (8, 64, 512)
WARM, UPDATES = 2, 4  # updates before the first that counts; at least so many per round
PERMITTED = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none", "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}  # fmt: skip
JOBS = {  # name -> ranks, shards, batches of the size
    "one": (1, 1, 1),
    "strong 2": (2, 2, 1),
    "weak 2": (2, 2, 2),
    "two workers": (1, 2, 1),  # one process, for comparison with "strong 2"
}


# ------------------------------------------------------------------------------------------------ on a rank


def work(name: str, shards: int, batches: int, seconds: float) -> None:
    """Trains on this rank's core for a while; rank 0 prints the median times of an update and of its parts, in ms."""
    from minidit.training.launch import launch

    place = launch()
    if shards == max(1, place.size):  # one core each; workers of one process have all of them
        available = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {available[place.local % len(available)]})
    import numpy as np

    from benchmarks.fixtures import config_of
    from minidit.diffusion.schedule import Schedule
    from minidit.models.dit import DiT
    from minidit.processes.diffusion import Diffusion
    from minidit.processes.train import loop_for
    from minidit.random import Philox
    from minidit.training.loop import LoopConfig
    from minidit.training.ranks import ranks

    size, team = SIZES[name], ranks()
    x_0 = Philox(1).normal((512, size.channels, size.input_size, size.input_size))
    model = DiT(config_of(size), Philox(0))
    config = LoopConfig(steps=10**6, batch_size=size.batch * batches, shards=shards)
    loop = loop_for(model, (x_0, np.arange(512) % size.classes), Diffusion.on_ladder(Schedule.linear()), config)
    spent = {"exchange": 0.0, "update": 0.0}

    def timed(part: str, f: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return f(*args, **kwargs)
            finally:
                spent[part] += time.perf_counter() - began

        return call

    loop.total.swap, loop.total.gather = timed("exchange", loop.total.swap), timed("exchange", loop.total.gather)
    loop.optimiser.step = timed("update", loop.optimiser.step)
    rows: list[dict[str, float]] = []
    last = time.perf_counter()
    for record in loop.run():
        now = time.perf_counter()
        if record["step"] > WARM:
            rows.append({"all": now - last, **spent})
        spent.update(exchange=0.0, update=0.0)
        enough = len(rows) >= UPDATES and sum(r["all"] for r in rows) > seconds
        loop.stop = team.same(enough)
        last = time.perf_counter()
    if team.first:
        medians = {k: 1e3 * statistics.median(r[k] for r in rows) for k in rows[0]}
        print(json.dumps(medians | {"bytes": loop.model.flat.nbytes, "updates": len(rows)}))


# ------------------------------------------------------------------------------------------------ all of them


def measured(job: str, name: str, seconds: float) -> dict[str, float]:
    """The numbers that rank 0 of a job printed."""
    count, shards, batches = JOBS[job]
    command = [sys.executable, "-m", "benchmarks.ranks", "--work", name, str(shards), str(batches), str(seconds)]
    if count > 1:
        command = ["mpiexec", "-n", str(count), *command]
    environment = {**os.environ, **PERMITTED, "OPENBLAS_NUM_THREADS": "1"}
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE.parent)
    if answer.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{answer.stderr}")
    numbers: dict[str, float] = json.loads(answer.stdout)
    return numbers


def exchange(ranks: int, size: float, bandwidth: float, latency: float) -> float:
    """x(R), in seconds."""
    return 2 * (ranks - 1) / ranks * size / bandwidth + 2 * (ranks - 1) * latency + size / MEMORY


def on_paper(one: dict[str, float], batch: int) -> list[dict[str, Any]]:
    """Rows for every network and number of ranks. Strong scaling: 512 batches of the size in all, however many ranks."""
    size, update = one["bytes"], one["update"] / 1e3
    gradient = one["all"] / 1e3 - update
    rows = []
    for network, (bandwidth, latency) in NETWORKS.items():
        for R in PAPER:
            x = exchange(R, size, bandwidth, latency)
            alone, together = 512 * gradient + update, 512 / R * gradient + update + x
            rows.append({
                "network": network, "ranks": R, "exchange_ms": 1e3 * x, "megabytes_sent": 2 * (R - 1) / R * size / 1e6,
                "weak": (gradient + update) / (gradient + update + x), "strong": alone / together, "batch": 512 * batch,
            })  # fmt: skip
    return rows


def report(result: dict[str, Any]) -> None:
    """Prints the tables."""
    for name, size in result["sizes"].items():
        m, batch = size["medians"], SIZES[name].batch
        one = m["one"]
        print(f"\n{name}: {one['bytes'] / 1e6:.1f} MB of gradient, batch {batch}")
        print("| job | ranks | ms per update | exchange | optimiser | speedup or efficiency |\n|---|---|---|---|---|---|")
        for job, (count, _, batches) in JOBS.items():
            ratio = f"{one['all'] / m[job]['all']:.2f}" + (f" of {2 // batches}" if job != "one" else "")
            numbers = " | ".join(f"{m[job][k]:.1f}" for k in ("all", "exchange", "update"))
            print(f"| {job} | {count} | {numbers} | {ratio} |")
        print(f"\non paper: weak with batch {batch} per rank, strong with batch {512 * batch} in all")
        print("| network | ranks | MB sent per rank | exchange, ms | weak: efficiency | strong: speedup |")
        print("|---|---|---|---|---|---|")
        for r in size["paper"]:
            print(f"| {r['network']} | {r['ranks']} | {r['megabytes_sent']:.1f} | {r['exchange_ms']:.1f} | {r['weak']:.2f} | "
                  f"{r['strong']:.0f} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default="tiny,S2")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0, help="of updates per job and round")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "ranks.json")
    parser.add_argument("--work", nargs=4, metavar=("SIZE", "SHARDS", "BATCHES", "SECONDS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work[0], int(args.work[1]), int(args.work[2]), float(args.work[3]))
        return
    result: dict[str, Any] = {"machine": machine(), "sizes": {}}
    for name in args.sizes.split(","):
        rounds: dict[str, list[dict[str, float]]] = {job: [] for job in JOBS}
        for k in range(args.rounds):  # the jobs take turns, and every round begins with another
            order = list(JOBS)[k % len(JOBS) :] + list(JOBS)[: k % len(JOBS)]
            for job in order:
                rounds[job].append(measured(job, name, args.seconds))
                print(f"{name}, {job}: {rounds[job][-1]['all']:.1f} ms, load {load()}", file=sys.stderr)
        medians = {job: {k: statistics.median(r[k] for r in rows) for k in rows[0]} for job, rows in rounds.items()}
        paper = on_paper(medians["one"], SIZES[name].batch)
        result["sizes"][name] = {"medians": medians, "rounds": rounds, "paper": paper}
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    report(result)


if __name__ == "__main__":
    main()
