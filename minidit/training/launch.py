"""The processes that an MPI launcher started together, read from the environment: nothing is imported, nobody is asked.

    mpiexec -n 4 minidit train …     (Open MPI, MPICH, Intel MPI)        srun -n 4 minidit train …     (Slurm)
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

LAUNCHERS = (  # the variables of Open MPI, of MPICH and Intel MPI (also Slurm's PMI-2), and of a step of Slurm
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"),
)


GRACE, LONG = 1.0, 5.0  # seconds that the other ranks give to rank 0; where MPI cannot start, launchers take longer to end a job


class Launch(NamedTuple):
    """The place of a process: number `me` of `size`, and number `local` on its machine."""

    size: int
    me: int
    local: int


ALONE = Launch(1, 0, 0)


def launch() -> Launch:
    """The place of this process."""
    for names in LAUNCHERS:
        count, me, local = (os.environ.get(name, "") for name in names)
        if count.isdecimal() and me.isdecimal():
            place = Launch(int(count), int(me), int(local) if local.isdecimal() else int(me))
            return place if place.size > 1 else ALONE
    return ALONE


def give_way(seconds: float = GRACE) -> None:
    """Lets rank 0 be the first to show an error and to end the job, for where all ranks fail alike."""
    if launch().me:
        time.sleep(seconds)
