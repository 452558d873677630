"""Switches for a piece of code: whether the tape records, and whether fast twins may run.

Both are context variables: one value per thread, restored at the end of a `with` block.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from contextvars import ContextVar

from minidit.backend import setting

_recording: ContextVar[bool] = ContextVar("recording", default=True)
_kernels: ContextVar[bool] = ContextVar("kernels", default=os.environ.get("MINIDIT_KERNELS", "on") != "off")


def no_grad() -> AbstractContextManager[None]:
    """`with no_grad():` primitives keep nothing and Tensors remember no history."""
    return setting(_recording, False)


def recording() -> bool:
    """True if an adjoint may be needed later: the only thing that a kernel knows about the tape."""
    return _recording.get()


def plain_text() -> AbstractContextManager[None]:
    """`with plain_text():` every primitive runs its plain text, not its fast twin (for a process: MINIDIT_KERNELS=off)."""
    return setting(_kernels, False)


def kernels_on() -> bool:
    """True if a primitive or a law may choose its fast twin."""
    return _kernels.get()
