"""What compilers made for the tests, kept for every checkout and every process of this user.

A file is named by a hash of all that it was made from: text, flags, compiler and machine. It is written beside its place and
moved there in one stroke, so that processes which make the same file at the same time do not meet.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minidit-tests"
UNUSED = 60 * 86400  # seconds after which a file that nobody asked for is removed


@cache
def version_of(compiler):
    """What the compiler says of itself, and the machine it is on."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    return f"{version}{platform.machine()}"


def kept(suffix, make, *made_from):
    """The file for these texts; `make(path)` writes it if it is not there, or raises."""
    path = FOLDER / (hashlib.sha256("\0".join(made_from).encode()).hexdigest()[:32] + suffix)
    if path.exists():
        os.utime(path)
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=FOLDER, prefix="new-")
    os.close(handle)
    try:
        make(Path(temporary))
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    for old in FOLDER.iterdir():
        with suppress(FileNotFoundError):  # another process moved or removed it
            if time.time() - old.stat().st_mtime > UNUSED:
                old.unlink()
    return path
