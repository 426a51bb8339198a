"""Integers and floats in and out where NumPy may be missing."""

from __future__ import annotations

import array
import ctypes as C
from typing import Any, Tuple

try:
    import numpy as np
except ImportError:  # text in, text out works without it
    np = None  # type: ignore


def need_numpy() -> Any:
    if np is None:
        raise ImportError("this needs NumPy: pip install tilia[numpy]")
    return np


def ids_in(ids: Any) -> Tuple[Any, int, int]:
    """Anything with integers -> (keep alive, address, count), int32. No copy for contiguous int32 buffers."""
    if np is not None:
        a = np.asarray(ids)
        if a.size and a.dtype.kind not in "iu":
            raise ValueError(f"token ids are integers, not {a.dtype}")
        if a.size and a.dtype != np.int32 and (a.max() > 2**31 - 1 or a.min() < -(2**31)):
            raise ValueError("a token id does not fit 32 bits")
        a = np.ascontiguousarray(a, dtype=np.int32)
        return a, a.ctypes.data, a.size
    flat = array.array("i")

    def add(x: Any) -> None:
        for v in x:
            add(v) if hasattr(v, "__iter__") else flat.append(v)

    add(ids)
    return flat, flat.buffer_info()[0], len(flat)


def ids_out(n: int) -> Tuple[Any, int]:
    """Room for n int32: (array, address)."""
    if np is not None:
        a = np.empty(n, np.int32)
        return a, a.ctypes.data
    b = array.array("i", bytes(4 * n))
    return b, b.buffer_info()[0]


def floats_copy(address: int, n: int) -> Any:
    """A copy of n f32 as a NumPy array, or array.array without NumPy."""
    raw = C.string_at(address, 4 * n)
    return np.frombuffer(raw, np.float32).copy() if np is not None else array.array("f", raw)
