"""Arrays in and out without copies: NumPy, DLPack, ml_dtypes' bfloat16, and Array for bf16 where NumPy has none."""

from __future__ import annotations

import ctypes as C
from typing import Any, Optional, Tuple

from .._arrays import need_numpy
from .._errors import DtypeError

np = need_numpy()

F32, F64, BF16, F16, I32, I64 = 1, 2, 3, 4, 5, 6
NUMBERS = {  # NumPy dtype's char -> tl_dtype
    "f": F32, "d": F64, "e": F16, "i": I32, "l": I64, "q": I64, "b": 7, "B": 8, "h": 9, "H": 10, "I": 11, "L": 12,
    "?": 13,
}  # fmt: skip
CARRIERS = {F32: np.dtype("f4"), F64: np.dtype("f8"), BF16: np.dtype("u2"), F16: np.dtype("f2"), I32: np.dtype("i4")}
NAMES = {"f32": F32, "f64": F64, "bf16": BF16, "f16": F16, "float32": F32, "float64": F64, "bfloat16": BF16,
         "float16": F16}  # fmt: skip
NAME_OF = {F32: "f32", F64: "f64", BF16: "bf16", F16: "f16", I32: "i32"}

try:
    import ml_dtypes

    _bf16: Optional[Any] = np.dtype(ml_dtypes.bfloat16)
except ImportError:
    _bf16 = None


def dtype_number(dtype: Any) -> int:
    """"bf16", np.float32, ... as the library's number; None: 0."""
    if dtype is None:
        return 0
    if isinstance(dtype, str) and dtype in NAMES:
        return NAMES[dtype]
    if _bf16 is not None and np.dtype(dtype) == _bf16:
        return BF16
    number = NUMBERS.get(np.dtype(dtype).char)
    if number not in CARRIERS:
        raise DtypeError(f"the library computes in f32, f64, bf16 or f16, not {dtype}", code="DTYPE")
    return number


# ---- DLPack -------------------------------------------------------------------------------------------------


class _DLTensor(C.Structure):
    _fields_ = [
        ("data", C.c_void_p),
        ("device_type", C.c_int32),
        ("device_id", C.c_int32),
        ("ndim", C.c_int32),
        ("code", C.c_uint8),
        ("bits", C.c_uint8),
        ("lanes", C.c_uint16),
        ("shape", C.POINTER(C.c_int64)),
        ("strides", C.POINTER(C.c_int64)),
        ("byte_offset", C.c_uint64),
    ]


class _DLManaged(C.Structure):
    pass


_Deleter = C.CFUNCTYPE(None, C.POINTER(_DLManaged))
_DLManaged._fields_ = [("t", _DLTensor), ("manager_ctx", C.c_void_p), ("deleter", _Deleter)]

_get = C.pythonapi.PyCapsule_GetPointer
_get.restype, _get.argtypes = C.c_void_p, [C.py_object, C.c_char_p]
_new = C.pythonapi.PyCapsule_New
_new.restype, _new.argtypes = C.py_object, [C.c_void_p, C.c_char_p, C.c_void_p]
_is = C.pythonapi.PyCapsule_IsValid
_is.restype, _is.argtypes = C.c_int, [C.c_void_p, C.c_char_p]
_get_raw = C.PYFUNCTYPE(C.c_void_p, C.c_void_p, C.c_char_p)(("PyCapsule_GetPointer", C.pythonapi))

_DL = {(2, 32): F32, (2, 64): F64, (2, 16): F16, (4, 16): BF16, (0, 32): I32, (0, 64): I64, (0, 8): 7, (1, 8): 8,
       (6, 8): 13}  # fmt: skip
_DL_CARRIER = {**CARRIERS, I64: np.dtype("i8"), 7: np.dtype("i1"), 8: np.dtype("u1"), 13: np.dtype("?")}


def from_dlpack(x: Any) -> Tuple[Any, int]:
    """(NumPy array over the same memory, number type). The capsule lives as long as the array."""
    device = x.__dlpack_device__()[0]
    if int(device) not in (1, 3):  # CPU, pinned
        raise ValueError("the array lies on another device; the library's operators here take the CPU's memory")
    capsule = x.__dlpack__()
    t = C.cast(_get(capsule, b"dltensor"), C.POINTER(_DLManaged)).contents.t
    number = _DL.get((t.code, t.bits)) if t.lanes == 1 else None
    if number is None:
        raise DtypeError(f"arrays of DLPack type ({t.code}, {t.bits}) are not taken", code="DTYPE")
    carrier = _DL_CARRIER[number]
    shape = tuple(t.shape[i] for i in range(t.ndim))
    if t.strides:
        strides = tuple(t.strides[i] for i in range(t.ndim))
        if any(s < 0 for s in strides):
            raise ValueError("negative strides are not taken")
    else:
        strides, n = [0] * t.ndim, 1
        for i in reversed(range(t.ndim)):
            strides[i], n = n, n * shape[i]
    if 0 in shape:
        return np.empty(shape, carrier), number
    extent = 1 + sum((d - 1) * s for d, s in zip(shape, strides))
    buffer = (C.c_char * (extent * carrier.itemsize)).from_address(t.data + t.byte_offset)
    buffer._owner = (capsule, x)
    flat = np.frombuffer(buffer, carrier)
    return np.lib.stride_tricks.as_strided(flat, shape, [s * carrier.itemsize for s in strides]), number


_exported: dict = {}  # address of a DLManaged -> what it needs alive


@_Deleter
def _delete(managed: Any) -> None:
    _exported.pop(C.addressof(managed.contents), None)


@C.CFUNCTYPE(None, C.c_void_p)
def _forget(capsule: Any) -> None:  # a capsule that nobody consumed
    if _is(capsule, b"dltensor"):
        _exported.pop(_get_raw(capsule, b"dltensor"), None)


def _to_capsule(raw: Any, code: int) -> Any:
    n = raw.ndim
    shape = (C.c_int64 * max(n, 1))(*raw.shape)
    strides = (C.c_int64 * max(n, 1))(*(s // raw.itemsize for s in raw.strides))
    m = _DLManaged()
    m.t = _DLTensor(raw.ctypes.data, 1, 0, n, code, 8 * raw.itemsize, 1, C.cast(shape, C.POINTER(C.c_int64)),
                    C.cast(strides, C.POINTER(C.c_int64)), 0)  # fmt: skip
    m.deleter = _delete
    _exported[C.addressof(m)] = (m, shape, strides, raw)
    return _new(C.addressof(m), b"dltensor", C.cast(_forget, C.c_void_p).value)


class Array:
    """bf16 numbers where NumPy has no such type. ``numpy()`` gives float32; torch.from_dlpack and the like take it
    without copying. Operators take and return it.

    >>> import numpy as np, tilia
    >>> a = tilia.ops.cast(np.ones((2, 3), np.float32), "bf16")
    >>> float(np.asarray(a, dtype=np.float32).sum())
    6.0
    """

    __slots__ = ("_raw",)
    dtype = "bf16"

    def __init__(self, raw: Any) -> None:
        self._raw = raw  # uint16

    @property
    def shape(self) -> Tuple[int, ...]:
        return self._raw.shape

    @property
    def ndim(self) -> int:
        return self._raw.ndim

    @property
    def size(self) -> int:
        return self._raw.size

    def reshape(self, *shape: Any) -> "Array":
        return Array(self._raw.reshape(*shape))

    def numpy(self) -> Any:
        """A float32 copy, exact."""
        return (self._raw.astype(np.uint32) << 16).view(np.float32)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        a = self.numpy()
        return a if dtype is None else a.astype(dtype)

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None) -> Any:
        if copy:
            return _to_capsule(self._raw.copy(), 4)
        return _to_capsule(self._raw, 4)

    def __dlpack_device__(self) -> Tuple[int, int]:
        return (1, 0)

    def __repr__(self) -> str:
        return f"tilia.ops.Array(bf16, {self.shape})"


_from_buffer, _addressof = C.c_char.from_buffer, C.addressof


def address(a: Any) -> int:
    """Where a's first element lies; a third of the time of a.ctypes.data, for arrays that allow it."""
    try:
        return _addressof(_from_buffer(a))
    except (TypeError, ValueError):  # read-only, strided, empty
        return a.ctypes.data


# ---- in and out -----------------------------------------------------------------------------------------------


def take(x: Any) -> Tuple[Any, int]:
    """(carrier, number type): a NumPy array over x's memory; bf16 travels as uint16."""
    if type(x) is np.ndarray:
        number = NUMBERS.get(x.dtype.char)
        if number is not None:
            return x, number
        if _bf16 is not None and x.dtype == _bf16:
            return x.view(np.uint16), BF16
        raise DtypeError(f"arrays of {x.dtype} are not taken", code="DTYPE")
    if isinstance(x, Array):
        return x._raw, BF16
    if isinstance(x, np.ndarray):
        return take(x.view(np.ndarray))
    if hasattr(x, "__dlpack__") and not isinstance(x, np.generic):
        return from_dlpack(x)
    a = np.asarray(x)
    if a.dtype == np.float64 and not hasattr(x, "dtype"):
        a = a.astype(np.float32)  # Python's numbers
    return take(a)


def give(raw: Any, number: int) -> Any:
    """The other way."""
    if number != BF16:
        return raw
    return raw.view(_bf16) if _bf16 is not None else Array(raw)


def take_ids(x: Any) -> Any:
    """Integers as an int32 array."""
    a = take(x)[0] if hasattr(x, "__dlpack__") or isinstance(x, np.ndarray) else np.asarray(x)
    if a.dtype == np.int32:
        return a
    if a.dtype.kind not in "iub" and a.size:
        raise DtypeError(f"these are integers, not {a.dtype}", code="DTYPE")
    return a.astype(np.int32)


def asarray(x: Any) -> Any:
    """x as a NumPy array (zero copy where it can be), or an Array for bf16."""
    raw, number = take(x)
    return Array(raw) if number == BF16 else raw
