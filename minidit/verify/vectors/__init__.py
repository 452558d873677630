"""Test vectors: written (writing.py), read and checked (suite.py)."""

from minidit.verify.vectors.suite import SHIPPED, VectorsError, check, read
from minidit.verify.vectors.writing import export

__all__ = ["SHIPPED", "VectorsError", "check", "export", "read"]
