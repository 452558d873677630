"""Real ranks for the tests: a script under `mpiexec -n N`, with its exit code and what it printed."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent
SECONDS = 120  # a job that takes longer hangs
PERMITTED = {  # to root, and on fewer cores than ranks: Open MPI 4 and 5; others ignore it
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe", "OPENBLAS_NUM_THREADS": "1",
}  # fmt: skip
LAUNCHED = ("OMPI_", "PMI_", "PMIX_", "MPI_LOCAL", "SLURM_")

needs_mpi = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or shutil.which("mpiexec") is None, reason="needs mpi4py and mpiexec"
)


def environment():
    """This process's, as if nobody had launched it."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHED)}
    return {**ours, **PERMITTED, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}


def start(n, *arguments):
    """The mpiexec of n Pythons; n = 1: one Python, without it."""
    command = [sys.executable, *map(str, arguments)]
    if n > 1:
        command = ["mpiexec", "-n", str(n), *command]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())


def end(process):
    """(code, out, err) of a job that must end by itself."""
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()
        pytest.fail(f"it hangs: {process.communicate()}")
    return SimpleNamespace(code=process.returncode, out=out, err=err)


def processes(job):
    """The process ids of a job's ranks: launchers have others between them and their ranks."""
    found, ranks = [job.pid], []
    while found:
        pid = found.pop()
        if pid != job.pid and Path(f"/proc/{pid}/cmdline").read_bytes().startswith(os.fsencode(sys.executable) + b"\0"):
            ranks.append(pid)
        else:
            found += [int(c) for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()]
    return sorted(ranks)


def run(n, *arguments):
    """The same for arguments of n Pythons: `-c CODE`, or `-m minidit …`."""
    return end(start(n, *arguments))


def minidit(n, *words):
    """A command on n ranks."""
    return run(n, "-m", "minidit", *words)
