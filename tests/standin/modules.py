"""Builds the modules `cupy`, `cupyx`, … from the tables of names: what is not in a table does not exist."""

from __future__ import annotations

import inspect
from functools import partial
from types import ModuleType

import numpy as np
import scipy.special

from standin import cuda, names
from standin.core import (
    BINARY,
    COMPARE,
    UNARY,
    gives_way_to,
    launch,
    ndarray,
    operand,
    poison,
    scatter_add,
    upload,
    wrap,
    wrap_all,
)
from standin.device import COUNTS, forbid_in_capture, forbid_library_in_capture

JOINING = ("concatenate", "stack", "vstack", "hstack", "dstack", "column_stack")
SEQUENCES = (*JOINING, "lexsort")
UFUNCS: dict = {}  # filled below from the tables
FUNCTIONS: dict = {}


def signature(text):
    """The signature that a function has in CuPy; binding to it refuses the keywords that CuPy lacks."""
    return inspect.signature(eval(f"lambda {text}: None"))


def raw(x):
    """The NumPy side of any argument; NumPy arrays are refused, at any depth."""
    if isinstance(x, ndarray):
        return x._a
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {type(x)}")
    return type(x)(map(raw, x)) if type(x) in (list, tuple) else x


def arrays_in(args):
    for x in args:
        if isinstance(x, ndarray):
            yield x
        elif isinstance(x, (list, tuple)):
            yield from arrays_in(x)


def written(out):
    """The NumPy arrays behind `out=`."""
    outs = [x for x in (out if isinstance(out, tuple) else (out,)) if x is not None]
    if not all(isinstance(x, ndarray) for x in outs):
        raise TypeError("return arrays must be of ArrayType")
    return tuple(x._a for x in outs)


class Ufunc:
    """A CuPy ufunc: device arrays and scalars only; out, dtype and casting, no `where`; no methods such as `at` or `reduce`."""

    __module__ = "cupy"

    def __init__(self, f):
        self._f, self.nin, self.nout, self.__name__ = f, f.nin, f.nout, f.__name__

    def __call__(self, *args, out=None, dtype=None, casting="same_kind"):
        if len(args) > self.nin:
            args, out = args[: self.nin], args[self.nin :]
        inputs = [operand(x) for x in args]
        kwargs = {"casting": casting} if dtype is None else {"casting": casting, "dtype": dtype}
        into = written(out)
        if into:
            launch(self._f, *inputs, out=into, into=into, **kwargs)
            return out[0] if isinstance(out, tuple) and len(out) == 1 else out
        return wrap_all(launch(self._f, *inputs, **kwargs))

    def __repr__(self):
        return f"<ufunc '{self.__name__}' of the stand-in>"


def check(name, bound, args, kwargs):
    """Raises TypeError for keywords that CuPy lacks, for lists, and where no argument is on the device; returns `out`."""
    out = bound.bind(*args, **kwargs).arguments.get("out")
    if name not in SEQUENCES and args and isinstance(args[0], list):
        raise TypeError(f"Unsupported type {list}")
    if next(arrays_in((*args, *kwargs.values())), None) is None:
        raise TypeError(f"{name} needs a device array")
    return out


def joined(arrays):
    """What CuPy asks of the device to put arrays side by side: up to eight are copied one by one; the addresses of more small
    ones are sent there first, for one kernel."""
    if len(arrays) <= 8 or sum(operand(a).nbytes for a in arrays) >= len(arrays) << 21:
        COUNTS.launches += len(arrays) - 1
    else:
        forbid_in_capture("a copy from the host")
        COUNTS.uploads += 1


def kernel(name, f, text, before=lambda: None):
    """A function that launches one kernel, after `before()` (which may forbid it during a capture)."""
    bound = signature(text)

    def call(*args, **kwargs):
        out = check(name, bound, args, kwargs)
        before()
        if name in JOINING:
            joined(list(args[0]))
        a, k = raw(args), {n: raw(v) for n, v in kwargs.items()}
        if name in ("sort", "argsort"):
            k["kind"] = "stable"
        if out is not None:
            launch(f, *a, into=written(out), **k)
            return out
        return wrap_all(launch(f, *a, **k))

    call.__name__ = name
    return call


def view(name, f, text):
    """A function that only changes shape and strides; where the layout forces a copy, that is a launch."""
    bound = signature(text)

    def call(*args, **kwargs):
        check(name, bound, args, kwargs)
        sources = list(arrays_in((*args, *kwargs.values())))
        a, k = raw(args), {n: raw(v) for n, v in kwargs.items()}
        result = f(*a, **k)
        results = result if isinstance(result, (list, tuple)) else [result]
        owners = [next((s for s in sources if np.may_share_memory(r, s._a)), None) for r in results]
        if any(o is None and r.size for o, r in zip(owners, results, strict=True)):
            return wrap_all(launch(f, *a, **k))
        views = [wrap(r, None if o is None else o._memory) for r, o in zip(results, owners, strict=True)]
        return type(result)(views) if isinstance(result, (list, tuple)) else views[0]

    call.__name__ = name
    return call


def synchronise():
    forbid_in_capture("a copy to the host")
    COUNTS.syncs += 1


# ---------------------------------------------------------------------------------------- written by hand


def matmul(x1, x2, /, out=None, **kwargs):
    """Batched products of bfloat16 are a TypeError in CuPy 14."""
    for x in (x1, x2):
        if operand(x).dtype.name == "bfloat16" and max(x1.ndim, x2.ndim) > 2:
            raise TypeError("batched matmul does not support bfloat16")
    return LIBRARY_MATMUL(x1, x2, **({} if out is None else {"out": out}), **kwargs)


LIBRARY_MATMUL = kernel("matmul", np.matmul, names.LIBRARY["matmul"], forbid_library_in_capture)


def where(condition, x=None, y=None):
    if x is None and y is None:
        return FUNCTIONS["nonzero"](condition)
    return wrap(launch(np.where, operand(condition), operand(x), operand(y)))


def take(a, indices, axis=None, out=None):
    i = operand(indices if isinstance(indices, (ndarray, int)) else upload(indices, int))
    if out is None:
        return wrap(launch(np.take, a._a, i, axis=axis, mode="wrap"))
    launch(np.take, a._a, i, axis=axis, mode="wrap", out=out._a, into=(out._a,))
    return out


def take_along_axis(a, indices, axis):
    n = a.size if axis is None else a.shape[axis]
    return wrap(launch(lambda x, i: np.take_along_axis(x, (i % n).astype(np.int64), axis), a._a, operand(indices)))


def put_along_axis(arr, indices, values, axis):
    n = arr.size if axis is None else arr.shape[axis]
    put = partial(lambda x, i, v: np.put_along_axis(x, (i % n).astype(np.int64), v, axis), arr._a)
    launch(put, operand(indices), operand(values), into=(arr._a,))


def copyto(dst, src, casting="same_kind", where=None):
    mask = {} if where is None else {"where": operand(where)}
    launch(np.copyto, dst._a, operand(src), casting=casting, into=(dst._a,), **mask)


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    if isinstance(obj, (list, tuple)) and next(arrays_in(obj), None) is not None:
        return wrap(launch(np.array, raw(obj), dtype=dtype))
    if not isinstance(obj, ndarray):
        return upload(obj, dtype, order=order, ndmin=ndmin)
    if not copy and dtype in (None, obj.dtype) and obj.ndim >= ndmin:
        return obj
    return wrap(launch(np.array, obj._a, dtype, order=order, ndmin=ndmin))


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    return array(a, dtype, copy=bool(copy), order=order or "K")


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    return a.get(order=order, out=out) if isinstance(a, ndarray) else np.asarray(a)


def empty(shape, dtype=float, order="C"):
    return wrap(poison(np.empty(shape, dtype, order)))


def empty_like(a, dtype=None, order="K", subok=None, shape=None):
    return wrap(poison(np.empty_like(operand(a), dtype, order, shape=shape)))


def creator(f, text, host_arguments=False):
    """zeros, full, arange, …: a launch that fills new memory. They take no array, but for a 0-d fill value on the device."""
    bound = signature(text)

    def call(*args, **kwargs):
        bound.bind(*args, **kwargs)
        kwargs.pop("subok", None)
        return wrap(launch(f, *raw(args), **{n: raw(v) for n, v in kwargs.items()}))

    return call


LIKE = "dtype=None, order='K', subok=None, shape=None"
CREATORS = {
    "zeros": "shape, dtype=float, order='C'", "ones": "shape, dtype=float",
    "full": "shape, fill_value, dtype=None, order='C'",
    "zeros_like": f"a, {LIKE}", "ones_like": f"a, {LIKE}", "full_like": f"a, fill_value, {LIKE}",
    "arange": "start, stop=None, step=1, dtype=None",
    "linspace": "start, stop, num=50, endpoint=True, retstep=False, dtype=None, axis=0",
    "eye": "N, M=None, k=0, dtype=float, order='C'",
    "identity": "n, dtype=float", "tri": "N, M=None, k=0, dtype=float",
}  # fmt: skip


def get_array_module(*args):
    return MODULES["cupy"] if any(isinstance(x, ndarray) for x in args) else np


def result_type(*args):
    return np.result_type(*(raw(x) for x in args))


# ---------------------------------------------------------------------------------------- methods and operators


def dress_array():
    """Gives ndarray its operators and the methods that are functions of the tables."""

    def forward(f):
        return lambda self, other: NotImplemented if gives_way_to(other) else f(self, other)

    for short, name in BINARY.items():
        f = UFUNCS[name]
        setattr(ndarray, f"__{short}__", forward(f))
        setattr(ndarray, f"__r{short}__", lambda self, other, f=f: f(other, self))
        setattr(ndarray, f"__i{short}__", lambda self, other, f=f: f(self, other, out=self))
    for short, name in COMPARE.items():
        setattr(ndarray, f"__{short}__", forward(UFUNCS[name]))
    for short, name in UNARY.items():
        setattr(ndarray, f"__{short}__", lambda self, f=UFUNCS[name]: f(self))
    for name in names.METHODS:
        setattr(ndarray, name, lambda self, *args, f=FUNCTIONS[name], **kwargs: f(self, *args, **kwargs))
    ndarray.clip = lambda self, min=None, max=None, out=None: FUNCTIONS["clip"](self, min, max, out=out)
    ndarray.conj = lambda self: UFUNCS["conjugate"](self)
    ndarray.reshape = lambda self, *s, order="C": FUNCTIONS["reshape"](self, s[0] if len(s) == 1 else s, order=order)
    ndarray.transpose = lambda self, *axes: FUNCTIONS["transpose"](self, axes[0] if len(axes) == 1 else axes or None)


def module(name, **contents):
    m = ModuleType(name)
    m.__dict__.update(contents, __standin__=True)
    return m


def table(signatures, source, make=kernel, **kwargs):
    return {n: make(n, getattr(source, n), text, **kwargs) for n, text in signatures.items()}


UFUNCS.update({n: Ufunc(getattr(np, n)) for n in names.UFUNCS})
FUNCTIONS.update(table(names.KERNELS, np))
def itself_if_whole(split):
    """CuPy cuts an array into one part by returning the array itself, and not a view of it."""

    def f(ary, indices_or_sections, axis=0):
        parts = split(ary, indices_or_sections, axis=axis)
        return [ary] if len(parts) == 1 else parts

    return f


FUNCTIONS.update(table(names.VIEWS, np, view))
FUNCTIONS.update({n: itself_if_whole(FUNCTIONS[n]) for n in ("split", "array_split")})
FUNCTIONS.update(table(names.LIBRARY, np, before=forbid_library_in_capture))
FUNCTIONS.update(table(names.SYNCHRONISING, np, before=synchronise))
FUNCTIONS.update({n: creator(getattr(np, n), text) for n, text in CREATORS.items()})
FUNCTIONS.update({
    f.__name__: f
    for f in (
        matmul, where, take, take_along_axis, put_along_axis, copyto, array, asarray, asnumpy, empty, empty_like,
        get_array_module, result_type,
    )
})  # fmt: skip
FUNCTIONS.update({alias: FUNCTIONS[n] for alias, n in names.ALIASES.items() if n in FUNCTIONS})
UFUNCS.update({alias: UFUNCS[n] for alias, n in names.ALIASES.items() if n in UFUNCS})
FUNCTIONS.update(ndim=np.ndim, shape=np.shape, size=np.size, shares_memory=lambda a, b: np.shares_memory(raw(a), raw(b)))
dress_array()


def build():
    """Every module of the stand-in, by the name under which it is imported."""
    linalg = module("cupy.linalg", **table(names.LINALG, np.linalg, before=forbid_library_in_capture))
    linalg.norm = kernel("norm", np.linalg.norm, names.NORM)
    linalg.LinAlgError = np.linalg.LinAlgError
    tricks = module("cupy.lib.stride_tricks", **table(names.STRIDE_TRICKS, np.lib.stride_tricks, view))
    lib = module("cupy.lib", stride_tricks=tricks)
    device = module("cupy.cuda", **cuda.CONTENTS)
    host = {n: np.exceptions.AxisError if n == "AxisError" else getattr(np, n) for n in names.ON_THE_HOST}
    cupy = module("cupy", ndarray=ndarray, **UFUNCS, **FUNCTIONS, **host, linalg=linalg, lib=lib, cuda=device)
    cupy.__dict__.update(ufunc=Ufunc, is_available=lambda: True, __version__="14.0.0", **cuda.MEMORY)
    cupy.__launches__ = lambda: COUNTS.launches
    special = module("cupyx.scipy.special", **{n: Ufunc(getattr(scipy.special, n)) for n in names.SPECIAL})
    special.__dict__.update(table(names.SPECIAL_KERNELS, scipy.special))
    within = module("cupyx.scipy", special=special)
    cupyx = module("cupyx", scatter_add=scatter_add, scipy=within, rsqrt=lambda x: UFUNCS["reciprocal"](UFUNCS["sqrt"](x)))
    MODULES.update({m.__name__: m for m in (cupy, linalg, lib, tricks, device, cupyx, within, special)})
    return MODULES


MODULES: dict = {}
