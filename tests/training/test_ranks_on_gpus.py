"""Ranks with a GPU each, on the stand-in and an imitation of NCCL: recorded updates, one sum, and samples that are shared."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import standin
from several import needs_mpi, run
from support import agree

from minidit.kernels.nccl import Nccl

CUPY = standin.install()
REAL = not getattr(CUPY, "__standin__", False)
pytestmark = pytest.mark.skipif(REAL or standin.raw.compiler() is None, reason="the stand-in, and g++ to run kernels on the CPU")

WORK = """
import json, sys
import numpy as np
import standin
standin.install()
from standin.cublas import imitated_cublas
from standin.nccl import NcclCommunicator, imitated_nccl
from dataclasses import replace
from small import DIT, awake, pictures
from support import host
from minidit.autograd import plain_text
from minidit.diffusion.schedule import Schedule
from minidit.processes.diffusion import Diffusion
from minidit.processes.sample import sample
from minidit.processes.train import loop_for
from minidit.training.loop import LoopConfig
from minidit.training.ranks import ranks
R, PATH = ranks(), Schedule.linear(30)
CONFIG = LoopConfig(steps=5, batch_size=6, lr=1e-2, clip=0.5, weight_decay=0.1, ema=0.9, eps=1e-3)
def trained(**changes):
    model = awake(DIT, device="cuda")
    calls, loop = [], loop_for(model, pictures(), Diffusion.on_ladder(PATH), replace(CONFIG, **changes))
    records = []
    for r in loop.run():
        records.append([float(host(r[k])) for k in ("loss", "grad_norm")])
        calls.append(NcclCommunicator.calls)
    theta = [host(a).tolist() for a in (model.flat, *loop.optimiser.state_dict().values())]
    x = host(sample(model, PATH, np.arange(5) % 3, steps=3, guidance=2.0)).tolist()
    return {"records": records, "theta": theta, "x": x, "calls": calls}
with standin.kernels(), imitated_cublas(), imitated_nccl():
    mine = {"recorded": trained(), "eager": trained(graph=False)}
    with plain_text():
        mine["plain"] = trained()
everybody = [mine] if R.alone else R.comm.gather(mine)
if R.first:
    print(json.dumps(everybody))
"""


@needs_mpi
def test_gpus_train_together_recorded_and_eager_and_agree_with_one_to_rounding():
    one, two, three = (run(n, "-c", WORK) for n in (1, 2, 3))
    for job in (one, two, three):
        assert job.code == 0, job.err
        assert job.err.count("not recorded") == job.err.count("not recorded as a CUDA graph: the kernels are switched off")
    (alone,) = json.loads(one.out)
    assert alone["recorded"]["calls"] == [0] * 5
    for job in (two, three):
        everybody = json.loads(job.out)
        for mine in everybody:
            for key in ("records", "theta", "x"):
                assert mine["recorded"][key] == mine["eager"][key] == everybody[0]["recorded"][key], key
                for a, b, c in zip(mine["recorded"][key], mine["plain"][key], alone["recorded"][key], strict=True):
                    agree(np.array(a), np.array(c), bound=1e-4)
                    agree(np.array(b), np.array(c), bound=1e-4)
            calls = np.diff(mine["recorded"]["calls"])
            assert list(calls[1:]) == [3, 3, 3]  # numbers, parts of the gradient, the whole of it


def test_without_nccl_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(CUPY.cuda, "nccl", SimpleNamespace(available=False))
    with pytest.raises(ValueError, match="several GPUs need NCCL"):
        Nccl(2, 0, lambda thing: thing)
