"""What exists in CuPy 14, as data: names, and the keywords that each function takes. Everything else is an AttributeError."""

def words(text):
    return text.split()


REDUCE = "a, axis=None, dtype=None, out=None, keepdims=False"
EXTREME = "a, axis=None, out=None, keepdims=False"
MOMENT = "a, axis=None, dtype=None, out=None, ddof=0, keepdims=False"
SCAN = "a, axis=None, dtype=None, out=None"
JOIN = "tup, axis=0, out=None, *, dtype=None, casting='same_kind'"
STACK = "tup, *, dtype=None, casting='same_kind'"
CLOSE = "a, b, rtol=1e-5, atol=1e-8, equal_nan=False"

UFUNCS = words("""
add subtract multiply divide true_divide floor_divide remainder mod fmod divmod modf frexp ldexp power float_power
negative positive absolute fabs sign heaviside exp exp2 expm1 log log2 log10 log1p logaddexp logaddexp2
sqrt cbrt square reciprocal
sin cos tan arcsin arccos arctan arctan2 sinh cosh tanh arcsinh arccosh arctanh hypot degrees radians deg2rad rad2deg
maximum minimum fmax fmin floor ceil trunc rint copysign nextafter signbit isfinite isinf isnan
greater greater_equal less less_equal equal not_equal logical_and logical_or logical_xor logical_not
bitwise_and bitwise_or bitwise_xor invert left_shift right_shift bitwise_count gcd lcm conjugate
""")

ALIASES = {  # a second name in CuPy -> the name above or below
    "abs": "absolute", "pow": "power", "bitwise_not": "invert", "bitwise_left_shift": "left_shift", "conj": "conjugate",
    "bitwise_right_shift": "right_shift", "bitwise_invert": "invert", "acos": "arccos", "asin": "arcsin", "atan": "arctan",
    "atan2": "arctan2", "acosh": "arccosh", "asinh": "arcsinh", "atanh": "arctanh", "amax": "max", "amin": "min",
    "around": "round", "concat": "concatenate", "permute_dims": "transpose",
}  # fmt: skip

KERNELS = {  # one launch, a new array
    "sum": REDUCE, "prod": REDUCE, "mean": REDUCE, "var": MOMENT, "std": MOMENT, "nansum": REDUCE, "nanmean": REDUCE,
    "max": EXTREME, "min": EXTREME, "any": EXTREME, "all": EXTREME, "ptp": EXTREME, "nanmax": EXTREME, "nanmin": EXTREME,
    "argmax": "a, axis=None, dtype=None, out=None, keepdims=False",
    "argmin": "a, axis=None, dtype=None, out=None, keepdims=False",
    "count_nonzero": "a, axis=None", "median": "a, axis=None, out=None, overwrite_input=False, keepdims=False",
    "cumsum": SCAN, "cumprod": SCAN, "diff": "a, n=1, axis=-1, prepend=None, append=None",
    "sort": "a, axis=-1, kind=None", "argsort": "a, axis=-1, kind=None", "partition": "a, kth, axis=-1",
    "argpartition": "a, kth, axis=-1", "lexsort": "keys", "searchsorted": "a, v, side='left', sorter=None",
    "clip": "a, a_min, a_max, out=None", "round": "a, decimals=0, out=None", "sinc": "x",
    "nan_to_num": "x, *, nan=0.0, posinf=None, neginf=None",
    "concatenate": JOIN, "stack": JOIN, "vstack": STACK, "hstack": STACK, "dstack": "tup", "column_stack": "tup",
    "append": "arr, values, axis=None", "pad": "array, pad_width, mode='constant', **kwargs", "tile": "A, reps",
    "repeat": "a, repeats, axis=None", "roll": "a, shift, axis=None",
    "tril": "m, k=0", "triu": "m, k=0", "diag": "v, k=0", "diagflat": "v, k=0",
    "trace": "a, offset=0, axis1=0, axis2=1, dtype=None, out=None",
    "isclose": CLOSE, "allclose": CLOSE, "array_equal": "a1, a2, equal_nan=False",
    "cross": "a, b, axisa=-1, axisb=-1, axisc=-1, axis=None",
    "meshgrid": "*xi, **kwargs", "copy": "a, order='K'",
}  # fmt: skip

VIEWS = {  # no launch, unless the layout forces a copy
    "reshape": "a, newshape, order='C', *, copy=None", "ravel": "a, order='C'", "transpose": "a, axes=None",
    "matrix_transpose": "x, /", "swapaxes": "a, axis1, axis2", "moveaxis": "a, source, destination",
    "rollaxis": "a, axis, start=0", "ascontiguousarray": "a, dtype=None", "asfortranarray": "a, dtype=None",
    "expand_dims": "a, axis", "squeeze": "a, axis=None", "broadcast_to": "array, shape", "broadcast_arrays": "*args",
    "split": "ary, indices_or_sections, axis=0", "array_split": "ary, indices_or_sections, axis=0",
    "hsplit": "ary, indices_or_sections", "vsplit": "ary, indices_or_sections",
    "flip": "a, axis=None", "fliplr": "a", "flipud": "a", "rot90": "a, k=1, axes=(0, 1)",
    "diagonal": "a, offset=0, axis1=0, axis2=1", "atleast_1d": "*arys", "atleast_2d": "*arys", "atleast_3d": "*arys",
    "real": "val", "imag": "val",
}  # fmt: skip

STRIDE_TRICKS = {
    "as_strided": "x, shape=None, strides=None",
    "sliding_window_view": "x, window_shape, axis=None, *, subok=False, writeable=False",
}

LIBRARY = {  # cuBLAS and cuSOLVER: not during a capture
    "matmul": "x1, x2, /, out=None, *, dtype=None, casting='same_kind', axes=None, axis=None, keepdims=False, order='K'",
    "dot": "a, b, out=None", "vdot": "a, b", "inner": "a, b", "outer": "a, b, out=None", "kron": "a, b",
    "tensordot": "a, b, axes=2", "einsum": "*operands, **kwargs",
    "cov": "a, y=None, rowvar=True, bias=False, ddof=None, fweights=None, aweights=None, *, dtype=None",
}  # fmt: skip

LINALG = {
    "cholesky": "a", "det": "a", "eigh": "a, UPLO='L'", "eigvalsh": "a, UPLO='L'", "inv": "a", "lstsq": "a, b, rcond='warn'",
    "matrix_power": "M, n", "matrix_rank": "M, tol=None", "pinv": "a, rcond=1e-15", "qr": "a, mode='reduced'", "slogdet": "a",
    "solve": "a, b", "svd": "a, full_matrices=True, compute_uv=True",
}  # fmt: skip
NORM = "x, ord=None, axis=None, keepdims=False"  # reductions only: may be captured

SYNCHRONISING = {  # the size of the result, or a check of the values, needs the host
    "nonzero": "a", "flatnonzero": "a", "argwhere": "a", "extract": "condition, a",
    "compress": "condition, a, axis=None, out=None",
    "unique": "ar, return_index=False, return_inverse=False, return_counts=False, axis=None, *, equal_nan=True",
    "bincount": "x, weights=None, minlength=None", "histogram": "x, bins=10, range=None, density=False, weights=None",
    "quantile": "a, q, axis=None, out=None, overwrite_input=False, method='linear', keepdims=False, *, interpolation=None",
    "percentile": "a, q, axis=None, out=None, overwrite_input=False, method='linear', keepdims=False, *, interpolation=None",
    "average": "a, axis=None, weights=None, returned=False, *, keepdims=False",
}  # fmt: skip

ON_THE_HOST = words("""
pi e inf nan newaxis euler_gamma
bool bool_ int8 int16 int32 int64 intp int_ uint8 uint16 uint32 uint64 uint float16 float32 float64 complex64 complex128
double single
integer floating number generic inexact signedinteger unsignedinteger
dtype finfo iinfo promote_types can_cast issubdtype broadcast_shapes AxisError
""")

SPECIAL = words("erf erfc erfcx erfinv erfcinv expit logit ndtr ndtri log_ndtr gammaln xlogy xlog1py entr rel_entr kl_div")
SPECIAL_KERNELS = {
    "logsumexp": "a, axis=None, b=None, keepdims=False, return_sign=False",
    "softmax": "x, axis=None", "log_softmax": "x, axis=None",
}  # fmt: skip

METHODS = words("""
sum prod mean var std max min any all argmax argmin cumsum cumprod ptp argsort argpartition repeat round trace
ravel swapaxes squeeze diagonal dot take searchsorted nonzero compress
""")
