"""The array of the stand-in, and the one place through which every kernel is launched."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from standin.device import COUNTS, Device, Memory, forbid_in_capture

NOT_IMPLICIT = "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."


def poison(a):
    """Fills memory that nobody has computed yet with values that no test survives."""
    if a.dtype.kind in "fc":
        a.fill(np.nan)
    elif a.dtype.kind in "iu":
        a.fill(np.iinfo(a.dtype).max)
    return a


def launch(f, *args, into=(), **kwargs):
    """One kernel: f on NumPy arrays. `into`: the arrays that f writes in place. Recorded instead of run during a capture."""
    COUNTS.launches += 1
    capture = Device.capture()
    with np.errstate(all="ignore"):  # a device gives no floating-point warnings
        return f(*args, **kwargs) if capture is None else capture.record(f, args, kwargs, into)


def upload(x, dtype=None, **kwargs):
    """A NumPy array, list or scalar of the host as a new device array."""
    forbid_in_capture("a copy from the host")
    COUNTS.uploads += 1
    a = np.array(x, dtype=dtype, **kwargs)
    if a.dtype.kind not in "biufc" and a.dtype.name != "bfloat16":
        raise ValueError(f"Unsupported dtype {a.dtype}")
    return wrap(a)


def wrap(a, memory=None):
    """The device array around NumPy memory; a view shares the `memory` of its parent."""
    x = ndarray.__new__(ndarray)
    x._a = np.asarray(a)
    x._memory = memory or Memory(x._a)
    return x


def wrap_all(result):
    """Device arrays from whatever a NumPy function returns (scalars become 0-d arrays)."""
    if isinstance(result, (list, tuple)):
        return type(result)(map(wrap_all, result)) if type(result) in (list, tuple) else tuple(map(wrap_all, result))
    return wrap(result)


def operand(x):
    """The NumPy side of an operand: device arrays and scalars only."""
    if isinstance(x, ndarray):
        return x._a
    if isinstance(x, (bool, int, float, complex, np.generic)):
        return x
    raise TypeError(f"Unsupported type {type(x)}")


def gives_way_to(other):
    """Whether a binary operator leaves the work to `other` (NEP 13: it has declared `__array_ufunc__ = None`)."""
    return getattr(other, "__array_ufunc__", other) is None


def is_mask(k):
    return isinstance(k, np.ndarray) and k.dtype == bool


def wrapped(a, key):
    """The key with device arrays of integers taken modulo the length of their axis: CuPy wraps without a word."""
    key = key if isinstance(key, tuple) else (key,)
    span = [0 if k is None or k is Ellipsis else k.ndim if is_mask(k) else 1 for k in key]  # how many axes each part takes
    axis, out = 0, []
    for k, n in zip(key, span, strict=True):
        if isinstance(k, np.ndarray) and not is_mask(k):
            k = (k % a.shape[axis]).astype(np.int64)
        axis += a.ndim - sum(span) if k is Ellipsis else n
        out.append(k)
    return tuple(out)


def index(key):
    """(the NumPy side of an index, whether it is advanced). A boolean mask waits for the host: its count is a size."""
    parts, advanced = [], False
    for k in key if isinstance(key, tuple) else (key,):
        if isinstance(k, (list, bool)):
            k = upload(k)
        if isinstance(k, np.ndarray):
            raise TypeError(f"Unsupported type {type(k)}: index a device array with a device array")
        if isinstance(k, ndarray):
            advanced = True
            if k.dtype.kind not in "iub":
                raise IndexError(f"arrays used as indices must be of integer or boolean type. (actual: {k.dtype.type})")
            if k.dtype == bool:
                forbid_in_capture("a boolean mask as an index")
                COUNTS.syncs += 1
            k = k._a
        parts.append(k)
    return tuple(parts), advanced


def put(a, key, value):
    a[wrapped(a, key)] = value


class Flags:
    """The four flags that a device array has."""

    def __init__(self, flags):
        self.c_contiguous, self.f_contiguous, self.owndata = flags.c_contiguous, flags.f_contiguous, flags.owndata
        self.forc = flags.forc


class ndarray:
    """An array on the stand-in device: it holds a NumPy array and never shows it."""

    __module__ = "cupy"
    __array_priority__ = 100
    __hash__ = None

    def __init__(self, shape, dtype=float, memptr=None, strides=None, order="C"):
        if memptr is not None or strides is not None:
            raise NotImplementedError("the stand-in makes no array from a pointer")
        self._a = poison(np.empty(shape, dtype, order))
        self._memory = Memory(self._a)

    # ---- no silent way out

    def __array__(self, dtype=None, copy=None):
        raise TypeError(NOT_IMPLICIT)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        from standin.modules import UFUNCS

        if method != "__call__" or ufunc.__name__ not in UFUNCS:
            return NotImplemented
        return UFUNCS[ufunc.__name__](*inputs, **kwargs)

    def __array_function__(self, function, types, args, kwargs):
        from standin.modules import FUNCTIONS

        if any(t not in (ndarray, np.ndarray) for t in types) or function.__name__ not in FUNCTIONS:
            return NotImplemented
        return FUNCTIONS[function.__name__](*args, **kwargs)

    # ---- what synchronises

    def _synchronised(self):
        forbid_in_capture("a copy to the host")
        COUNTS.syncs += 1
        return self._a

    def get(self, stream=None, order="C", out=None, blocking=True):
        a = self._synchronised()
        if out is None:
            return np.array(a, order=order)
        np.copyto(out, a, casting="no")
        return out

    def item(self, *args):
        return self._synchronised().item(*args)

    def tolist(self):
        return self._synchronised().tolist()

    def tobytes(self, order="C"):
        return self._synchronised().tobytes(order)

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __complex__(self):
        return complex(self.item())

    def __bool__(self):
        return bool(self._synchronised())

    def __repr__(self):
        return f"device {self._synchronised()!r}"

    def __format__(self, text):
        return format(self._synchronised() if self.ndim else self.item(), text)

    def set(self, value, stream=None):
        forbid_in_capture("a copy from the host")
        COUNTS.uploads += 1
        if value.shape != self.shape or value.dtype != self.dtype:
            raise ValueError("shape and dtype must be those of the array")
        self._a[...] = value

    # ---- what is known on the host

    shape = property(lambda self: self._a.shape)
    dtype = property(lambda self: self._a.dtype)
    ndim = property(lambda self: self._a.ndim)
    size = property(lambda self: self._a.size)
    nbytes = property(lambda self: self._a.nbytes)
    itemsize = property(lambda self: self._a.itemsize)
    strides = property(lambda self: self._a.strides)
    flags = property(lambda self: Flags(self._a.flags))
    data = property(lambda self: SimpleNamespace(ptr=self._a.__array_interface__["data"][0], mem=self._memory))

    def __len__(self):
        return len(self._a)

    # ---- views: they share memory and launch nothing

    def _view(self, a):
        return wrap(a, self._memory)

    T = property(lambda self: self._view(self._a.T))
    mT = property(lambda self: self._view(self._a.mT))
    real = property(lambda self: self._view(self._a.real))
    imag = property(lambda self: self._view(self._a.imag))

    def view(self, dtype=None):
        return self._view(self._a.view() if dtype is None else self._a.view(dtype))

    def __iter__(self):
        return (self[i] for i in range(len(self._a)))

    # ---- indexing

    def __getitem__(self, key):
        key, advanced = index(key)
        if not advanced:
            part = self._a[key]
            return self._view(part if isinstance(part, np.ndarray) else self._a[(*key, ...)])  # one entry is a view as well
        return wrap(launch(lambda a, *k: np.array(a[wrapped(a, k)]), self._a, *key))

    def __setitem__(self, key, value):
        if isinstance(value, np.ndarray):
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        key, _ = index(key)
        launch(put, self._a, key, operand(value), into=(self._a,))

    # ---- copies

    def copy(self, order="C"):
        return wrap(launch(np.array, self._a, order=order))

    __copy__ = copy

    def __deepcopy__(self, memo):
        return self.copy()

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        if not copy and self.dtype == np.dtype(dtype):
            return self
        return wrap(launch(self._a.astype, dtype, order=order))

    def flatten(self, order="C"):
        return wrap(launch(self._a.flatten, order))

    def fill(self, value):
        launch(self._a.fill, operand(value), into=(self._a,))

    def sort(self, axis=-1):
        launch(self._a.sort, axis=axis, kind="stable", into=(self._a,))

    def scatter_add(self, key, value):
        scatter_add(self, key, value)

    # ---- operators that are no ufunc

    def __matmul__(self, other):
        from standin.modules import FUNCTIONS

        return NotImplemented if gives_way_to(other) else FUNCTIONS["matmul"](self, other)

    def __rmatmul__(self, other):
        from standin.modules import FUNCTIONS

        return FUNCTIONS["matmul"](other, self)

    def __divmod__(self, other):
        return self // other, self % other


def scatter_add(target, key, value):
    """`cupyx.scatter_add`: repeated indices add up; only for the types that have an atomic addition."""
    if target.dtype.name not in ("int32", "uint32", "uint64", "float16", "float32", "float64"):
        raise TypeError("scatter_add only supports int32, float16, float32, float64, uint32, uint64, as data type")
    launch(add_at, target._a, index(key)[0], operand(value), into=(target._a,))


def add_at(a, key, value):
    np.add.at(a, wrapped(a, key), np.asarray(value).astype(a.dtype))


BINARY = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide", "mod": "remainder",
    "pow": "power", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "lshift": "left_shift",
    "rshift": "right_shift",
}  # fmt: skip
COMPARE = {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal"}
UNARY = {"neg": "negative", "abs": "absolute", "invert": "invert", "pos": "positive"}
