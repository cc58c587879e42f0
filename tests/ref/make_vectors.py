#!/usr/bin/env python3
"""Writes tests/ref/vectors: for each operation a graph in the text form and a safetensors file with the inputs, the weights and the
outputs expected of it, computed here in fp64 from NumPy's own functions and from the documentation of the operations, never from
the library. Run from anywhere, with NumPy alone:

    python3 tests/ref/make_vectors.py

The seed is fixed: the files change only with this script. Every case is one output of its operation's graph. A case that has the
symbolic dimension `s` uses the extent S for it."""

import json
import math
import pathlib
import struct
import warnings
import zlib

import numpy as np

S = 3
NAN, INF = np.nan, np.inf
DTYPES = {"float32": ("f32", "F32"), "float64": ("f64", "F64"), "int64": ("i64", "I64"), "int32": ("i32", "I32"), "uint8": ("u8", "U8"), "int8": ("i8", "I8")}
FOLDER = pathlib.Path(__file__).resolve().parent / "vectors"
np.seterr(all="ignore")
warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing are cases too


class Operation:
    """The graph of one operation: cases are added, then written."""

    def __init__(self, op):
        self.op = op
        self.random = np.random.default_rng(zlib.crc32(op.encode()))
        self.leaves, self.lines, self.outputs, self.tensors = [], [], [], {}

    def values(self, *shape, low=-2.0, high=2.0, special=(), zeros=0.0):
        """fp32 values; `special` numbers are put at random places, a share `zeros` becomes zeros of either sign."""
        x = self.random.uniform(low, high, shape).astype(np.float32)
        if zeros:
            x = np.where(self.random.random(shape) < zeros, np.where(self.random.random(shape) < 0.5, -0.0, 0.0), x).astype(np.float32)
        if special:
            x.reshape(-1)[self.random.choice(x.size, len(special), replace=False)] = special
        return x

    def case(self, name, operands, expected, attrs="", static=(), symbolic=None):
        """operands: fp32 or integer arrays; static: indices of those that are weights; symbolic: {operand: dimensions of extent s}."""
        names = []
        for i, x in enumerate(operands):
            leaf = f"{name}_{i}"
            free = (symbolic or {}).get(i, ())
            dims = ", ".join("s" if d in free else str(n) for d, n in enumerate(x.shape))
            assert all(x.shape[d] == S for d in free)
            kind = f'weight "{leaf}"' if i in static else "input"
            x = np.asarray(x) if np.asarray(x).dtype.kind in "iu" else np.asarray(x, np.float32)
            self.leaves.append(f"%{leaf} = {kind} {DTYPES[x.dtype.name][0]}[{dims}]")
            self.tensors[leaf] = x
            names.append(f"%{leaf}")
        self.lines.append(" ".join(f"%{name} = {self.op} {', '.join(names)} {attrs}".split()))
        self.outputs.append(f"output %{name}")
        self.tensors[name] = np.asarray(expected, np.float64)

    def write(self):
        lines = [f"; NumPy vectors of {self.op}. Written by make_vectors.py.", f"graph {self.op}_vectors", "symbol s", f'weights "{self.op}.safetensors"']
        (FOLDER / f"{self.op}.sft").write_text("\n".join(lines + self.leaves + self.lines + self.outputs) + "\n")
        header, data = {}, b""
        for name, x in self.tensors.items():
            raw = np.ascontiguousarray(x).astype(x.dtype.newbyteorder("<")).tobytes()
            dtype = DTYPES[x.dtype.name][1]
            header[name] = {"dtype": dtype, "shape": list(x.shape), "data_offsets": [len(data), len(data) + len(raw)]}
            data += raw
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        (FOLDER / f"{self.op}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


def wide(*arrays):
    return [np.asarray(x, np.float64) for x in arrays]


# ---- elementwise --------------------------------------------------------------------------------------------------------

EDGES = np.array([0.0, -0.0, 1.0, -1.0, NAN, INF, -INF, 0.5, -0.5, 20.0, -20.0, 80.0, -80.0, 1e-30, -1e-30, 3.0, -6.0], np.float32)


def unary(name, f, low=-6.0, high=6.0):
    o = Operation(name)
    cases = {"scalar": (), "one": (1,), "vector": (17,), "odd": (3, 5, 7), "deep": (2, 1, 3, 1, 2, 5), "empty": (4, 0, 3), "long": (131,)}
    for case, shape in cases.items():
        x = o.values(*shape, low=low, high=high)
        o.case(case, [x], f(*wide(x)))
    o.case("edges", [EDGES], f(*wide(EDGES)))
    x = o.values(S, 9, low=low, high=high)
    o.case("symbolic", [x], f(*wide(x)), symbolic={0: (0,)})
    x = o.values(33, low=low / 1000, high=high / 1000)
    o.case("small", [x], f(*wide(x)))
    x = o.values(33, low=low * 5, high=high * 5)
    o.case("large", [x], f(*wide(x)))
    o.write()


def gelu(x):
    return x / 2 * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2)))


unary("relu", lambda x: np.where(x < 0, 0, x))
unary("gelu", gelu)
unary("gelu_tanh", lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
unary("silu", lambda x: x / (1 + np.exp(-x)))
unary("sigmoid", lambda x: 1 / (1 + np.exp(-x)))
unary("tanh", np.tanh)
unary("exp", np.exp)
unary("sqrt", np.sqrt, low=-1.0)
unary("neg", np.negative)
unary("abs", np.abs)
unary("log", np.log, low=-1.0)
unary("erf", np.vectorize(math.erf, otypes=[float]))
unary("sin", np.sin)
unary("cos", np.cos)


def binary(name, f):
    o = Operation(name)
    cases = {
        "same": ((3, 5), (3, 5)),
        "scalar_right": ((3, 5), ()),
        "scalar_left": ((), (7,)),
        "row": ((4, 9), (9,)),
        "column": ((4, 9), (4, 1)),
        "outer": ((5, 1), (1, 6)),
        "left_smaller": ((9,), (2, 3, 9)),
        "channel": ((2, 3, 4, 5), (3, 1, 1)),
        "both_ways": ((2, 1, 4, 1), (3, 1, 5)),
        "ones": ((1, 1), (1,)),
        "rank_six": ((2, 1, 2, 1, 2, 3), (2, 2, 1, 2, 1, 3)),
        "empty": ((0, 3), (1, 3)),
        "empty_by_one": ((0,), (1,)),
        "long": ((67,), (67,)),
    }
    for case, (a, b) in cases.items():
        x, y = o.values(*a), o.values(*b)
        o.case(case, [x, y], f(*wide(x, y)))
        o.case(case + "_static", [x, y], f(*wide(x, y)), static=(1,))
    x, y = np.repeat(EDGES, EDGES.size), np.tile(EDGES, EDGES.size)
    keep = np.abs(f(*wide(x, y)).astype(np.float32)) < 1e30  # what overflows in fp32 alone is no case of the operation
    keep |= ~np.isfinite(f(*wide(x, y)))
    o.case("edges", [x[keep], y[keep]], f(*wide(x[keep], y[keep])))
    x, y = o.values(S, 4, 5), o.values(S, 1, 5)
    o.case("symbolic", [x, y], f(*wide(x, y)), symbolic={0: (0,), 1: (0,)})
    y = o.values(4, 1)
    o.case("symbolic_static", [x, y], f(*wide(x, y)), static=(1,), symbolic={0: (0,)})
    o.case("static_left", [y, x], f(*wide(y, x)), static=(0,), symbolic={1: (0,)})
    o.write()


binary("add", np.add)
binary("sub", np.subtract)
binary("mul", np.multiply)
binary("div", np.divide)
binary("pow", np.power)
binary("min", np.minimum)
binary("max", np.maximum)
binary("less", lambda x, y: np.less(x, y).astype(float))
binary("equal", lambda x, y: np.equal(x, y).astype(float))
binary("prelu", lambda x, y: np.where(x < 0, x * y, x))


def where_cases():
    o = Operation("where")

    def add(case, c, x, y, static=(), symbolic=None):
        o.case(case, [c, x, y], np.where(c != 0, *wide(x, y)), "", static, symbolic)

    v = o.values
    add("same", v(3, 5, zeros=0.5), v(3, 5), v(3, 5))
    add("scalars", v(4, 9, zeros=0.5), v(), v())
    add("three_ways", v(4, 1, zeros=0.5), v(9), v(2, 1, 1))
    add("static", v(67, zeros=0.5), v(67), v(67), static=(0, 2))
    add("edges", np.array([0.0, -0.0, NAN, INF, -INF, 1e-30], np.float32), v(6), np.array([NAN, INF, 1, 2, NAN, 3], np.float32))
    add("symbolic", v(S, 1, zeros=0.5), v(S, 7), v(7), symbolic={0: (0,), 1: (0,)})
    add("empty", v(0, 3), v(3), v())
    o.write()


where_cases()


# ---- contractions -------------------------------------------------------------------------------------------------------


def weighed(w, x):
    """w * x where w is static: a zero of w is absent."""
    return np.where(w == 0, 0.0, w * x)


def matmul(a, b, transpose_a=False, transpose_b=False, static=()):
    a, b = wide(a, b)
    a = np.swapaxes(a, -1, -2) if transpose_a else a
    b = np.swapaxes(b, -1, -2) if transpose_b else b
    if not static and np.isfinite(a).all() and np.isfinite(b).all():
        return np.matmul(a, b)
    left, right = a[..., :, :, None], b[..., None, :, :]
    product = weighed(right, left) if 1 in static else weighed(left, right) if 0 in static else left * right
    return np.sum(product, axis=-2)


def matmul_cases():
    o = Operation("matmul")

    def add(case, x, y, ta=False, tb=False, static=(), symbolic=None):
        attrs = " ".join(["transpose_a=1"] * ta + ["transpose_b=1"] * tb)
        o.case(case, [x, y], matmul(x, y, ta, tb, static), attrs, static, symbolic)

    for m, k, n in [(1, 1, 1), (2, 3, 4), (5, 17, 9), (1, 33, 7), (7, 33, 1), (16, 16, 16), (3, 70, 67)]:
        for ta in (False, True):
            for tb in (False, True):
                x = o.values(*((k, m) if ta else (m, k)))
                y = o.values(*((n, k) if tb else (k, n)), zeros=0.3)
                suffix = f"{m}_{k}_{n}" + "_ta" * ta + "_tb" * tb
                add("run_" + suffix, x, y, ta, tb)
                if m in (5, 7, 3):
                    add("right_" + suffix, x, y, ta, tb, (1,))
                    add("left_" + suffix, x, y, ta, tb, (0,))
    add("batched", o.values(4, 3, 5), o.values(4, 5, 2))
    add("batched_shared_right", o.values(2, 4, 3, 5), o.values(5, 6, zeros=0.6), static=(1,))
    add("batched_shared_left", o.values(3, 5, zeros=0.6), o.values(2, 4, 5, 6), static=(0,))
    add("batched_broadcast", o.values(2, 1, 3, 5), o.values(4, 5, 2))
    add("batched_both_ways", o.values(2, 1, 3, 5), o.values(1, 4, 5, 2), tb=False)
    add("batched_static", o.values(2, 3, 5), o.values(2, 5, 4, zeros=0.5), static=(1,))
    add("batched_ta_tb", o.values(3, 5, 2), o.values(3, 4, 5), True, True)
    add("rank_six", o.values(1, 2, 1, 2, 3, 4), o.values(2, 1, 2, 1, 4, 2))
    add("symbolic_rows", o.values(S, 19), o.values(19, 8, zeros=0.5), static=(1,), symbolic={0: (0,)})
    add("symbolic_lead", o.values(S, 4, 6), o.values(6, 5, zeros=0.5), static=(1,), symbolic={0: (0,)})
    add("symbolic_inner", o.values(4, S), o.values(S, 5), symbolic={0: (1,), 1: (0,)})
    add("symbolic_columns", o.values(7, 6, zeros=0.5), o.values(6, S), static=(0,), symbolic={1: (1,)})
    add("empty_inner", o.values(3, 0), o.values(0, 4))
    add("empty_inner_static", o.values(3, 0), o.values(0, 4), static=(1,))
    add("empty_rows", o.values(0, 5), o.values(5, 4), static=(1,))
    add("empty_columns", o.values(3, 5), o.values(5, 0), static=(1,))
    add("empty_lead", o.values(0, 2, 3), o.values(3, 4), static=(1,))
    add("all_zero", o.values(3, 8, special=(NAN, INF, -INF)), o.values(8, 5, zeros=1.0), static=(1,))
    add("all_zero_left", o.values(5, 8, zeros=1.0), o.values(8, 3, special=(NAN, INF, -INF)), static=(0,))
    add("all_zero_run", o.values(3, 8, special=(NAN, INF, -INF)), o.values(8, 5, zeros=1.0))
    for ta in (False, True):
        for tb in (False, True):
            x = o.values(*((12, 6) if ta else (6, 12)), special=(NAN, INF, -INF, INF))
            y = o.values(*((9, 12) if tb else (12, 9)), zeros=0.7)
            suffix = "_ta" * ta + "_tb" * tb
            add("absent_right" + suffix, x, y, ta, tb, (1,))
            add("present_right" + suffix, x, y, ta, tb)
            y = o.values(*((9, 12) if tb else (12, 9)), special=(NAN, INF, -INF, INF))
            x = o.values(*((12, 6) if ta else (6, 12)), zeros=0.7)
            add("absent_left" + suffix, x, y, ta, tb, (0,))
            add("present_left" + suffix, x, y, ta, tb)
    add("bad_weight", o.values(4, 6, zeros=0.3), o.values(6, 5, zeros=0.3, special=(NAN, INF)), static=(1,))
    dead = o.values(16, 12)
    dead[3:9] = 0
    dead[:, 4] = 0
    add("dead", o.values(5, 16, special=(NAN, INF)), dead, static=(1,))
    o.write()


def conv2d(x, w, bias=None, stride=(1, 1), pad=(0, 0, 0, 0), dilation=(1, 1), groups=1, static=(1,)):
    x, w = wide(x, w)
    n, c, h, wd = x.shape
    m, per, kh, kw = w.shape
    top, left, bottom, right = pad
    absent_x = 0 in static
    image = np.zeros((n, c, h + top + bottom, wd + left + right))
    inside = np.zeros(image.shape, bool)
    image[:, :, top : top + h, left : left + wd] = x
    inside[:, :, top : top + h, left : left + wd] = True
    oh = (image.shape[2] - (kh - 1) * dilation[0] - 1) // stride[0] + 1
    ow = (image.shape[3] - (kw - 1) * dilation[1] - 1) // stride[1] + 1
    out = np.zeros((n, m, oh, ow))
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dilation[0], i * dilation[0] + (oh - 1) * stride[0] + 1, stride[0])
            columns = slice(j * dilation[1], j * dilation[1] + (ow - 1) * stride[1] + 1, stride[1])
            for o in range(m):
                for q in range(per):
                    channel = o // (m // groups) * per + q
                    patch, there = image[:, channel, rows, columns], inside[:, channel, rows, columns]
                    product = w[o, q, i, j] * patch
                    if 1 in static and w[o, q, i, j] == 0:
                        product = np.zeros_like(patch)
                    if absent_x:
                        product = np.where(there & (patch == 0), 0.0, product)
                    out[:, o] += product
    return out if bias is None else out + wide(bias)[0].reshape(1, -1, 1, 1)


def conv2d_cases():
    o = Operation("conv2d")

    def add(case, x, w, bias=None, static=(1, 2), symbolic=None, **attrs):
        text = " ".join(f"{k}={v if isinstance(v, int) else '[' + ','.join(map(str, v)) + ']'}" for k, v in attrs.items())
        operands = [x, w] + ([bias] if bias is not None else [])
        o.case(case, operands, conv2d(x, w, bias, static=static, **attrs), text, [i for i in static if i < len(operands)], symbolic)

    v = o.values
    add("one_by_one", v(2, 5, 4, 3), v(7, 5, 1, 1, zeros=0.4), v(7))
    add("three", v(1, 3, 6, 7), v(5, 3, 3, 3, zeros=0.4))
    add("three_padded", v(2, 2, 5, 5), v(4, 2, 3, 3, zeros=0.4), v(4), pad=(1, 1, 1, 1))
    add("uneven_pad", v(1, 2, 4, 6), v(3, 2, 3, 2), v(3), pad=(0, 2, 1, 0))
    add("strided", v(2, 3, 9, 8), v(4, 3, 3, 3, zeros=0.4), stride=(2, 3), pad=(1, 1, 1, 1))
    add("dilated", v(1, 2, 9, 10), v(3, 2, 3, 2), dilation=(2, 3), pad=(2, 1, 0, 2))
    add("strided_dilated", v(1, 2, 11, 9), v(3, 2, 2, 3), v(3), stride=(3, 2), dilation=(3, 2), pad=(1, 2, 1, 2))
    add("groups", v(2, 6, 5, 4), v(4, 3, 3, 3, zeros=0.4), v(4), groups=2, pad=(1, 1, 1, 1))
    add("depthwise", v(1, 5, 6, 6), v(5, 1, 3, 3, zeros=0.4), v(5), groups=5, stride=(2, 2), pad=(1, 1, 1, 1))
    add("depthwise_wide", v(1, 3, 5, 5), v(6, 1, 3, 3), groups=3)
    add("whole_image", v(3, 4, 3, 5), v(2, 4, 3, 5, zeros=0.4), v(2))
    add("wide_row", v(1, 1, 2, 131), v(2, 1, 1, 5), pad=(0, 2, 0, 2))
    add("one_pixel", v(1, 1, 1, 1), v(1, 1, 1, 1), v(1))
    add("pad_alone", v(1, 1, 1, 1), v(2, 1, 3, 3), pad=(3, 3, 3, 3))
    add("run_time_weight", v(2, 3, 5, 4), v(4, 3, 2, 2, zeros=0.4), v(4), static=(), pad=(1, 0, 0, 1))
    add("run_time_bias", v(1, 2, 4, 4), v(3, 2, 2, 2), v(3), static=(1,))
    add("static_image", v(1, 2, 4, 4, zeros=0.5), v(3, 2, 2, 2, special=(INF, NAN)), static=(0,), pad=(1, 1, 0, 0))
    add("symbolic", v(S, 2, 5, 5), v(4, 2, 3, 3, zeros=0.4), v(4), symbolic={0: (0,)}, pad=(1, 1, 1, 1))
    add("empty_batch", v(0, 2, 5, 5), v(4, 2, 3, 3), v(4))
    add("no_channels", v(2, 0, 4, 4), v(3, 0, 3, 3), v(3))
    add("no_rows", v(2, 2, 4, 4), v(0, 2, 3, 3))
    add("all_zero", v(1, 2, 4, 4, special=(NAN, INF)), v(3, 2, 3, 3, zeros=1.0), v(3))
    add("absent", v(2, 3, 6, 6, special=(NAN, INF, -INF)), v(4, 3, 3, 3, zeros=0.8), v(4), pad=(1, 1, 1, 1))
    add("present", v(2, 3, 6, 6, special=(NAN, INF, -INF)), v(4, 3, 3, 3, zeros=0.8), v(4), static=(), pad=(1, 1, 1, 1))
    add("bad_weight_padded", v(1, 2, 4, 4), v(3, 2, 3, 3, special=(INF, NAN)), pad=(1, 1, 1, 1))
    add("bad_bias", v(1, 2, 3, 3), v(3, 2, 2, 2), np.array([NAN, INF, 1], np.float32))
    dead = v(6, 4, 3, 3)
    dead[[1, 4]] = 0
    dead[:, 2] = 0
    add("dead", v(1, 4, 5, 5), dead, v(6))
    o.write()


matmul_cases()
conv2d_cases()


# ---- along axes ---------------------------------------------------------------------------------------------------------


def softmax(x, axis):
    (x,) = wide(x)
    if x.size == 0:
        return x
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


def softmax_cases():
    o = Operation("softmax")

    def add(case, x, axis, symbolic=None):
        o.case(case, [x], softmax(x, axis), f"axis={axis}", symbolic=symbolic)

    v = o.values
    add("vector", v(10), 0)
    add("last", v(3, 17), -1)
    add("first", v(17, 3), 0)
    add("middle", v(2, 5, 4), 1)
    add("negative", v(2, 5, 4), -2)
    add("one_entry", v(4, 1), 1)
    add("long", v(2, 131), 1)
    add("huge", v(3, 9, low=-1e4, high=1e4), 1)
    add("empty_rows", v(0, 5), 1)
    add("empty_axis", v(3, 0), 1)
    add("symbolic_rows", v(S, 7), 1, symbolic={0: (0,)})
    add("symbolic_axis", v(2, S), 1, symbolic={0: (1,)})
    edges = np.array([[1, NAN, 2], [INF, 0, 1], [-INF, -INF, -INF], [-INF, 0, 1], [INF, INF, 0], [0, -0.0, 0], [-INF, INF, 0]], np.float32)
    add("edges", edges, 1)
    add("edges_down", np.ascontiguousarray(edges.T), 0)
    o.write()


def norm_cases(name, centred):
    o = Operation(name)

    def add(case, x, axis, n_parts, eps=1e-5, static=(1, 2), symbolic=None):
        n_parts = min(n_parts, 2 if centred else 1)
        parts = [o.values(*x.shape[axis:]) for _ in range(n_parts)]
        axes = tuple(range(axis % x.ndim, x.ndim))
        (y,) = wide(x)
        mean = np.mean(y, axis=axes, keepdims=True) if centred else 0
        y = (y - mean) / np.sqrt(np.mean((y - mean) ** 2, axis=axes, keepdims=True) + eps)
        if n_parts > 0:
            y = y * wide(parts[0])[0]
        if n_parts > 1:
            y = y + wide(parts[1])[0]
        o.case(case, [x] + parts, y, f"axis={axis} eps={eps}", [i for i in static if i <= n_parts], symbolic)

    v = o.values
    add("plain", v(4, 9), -1, 0)
    add("scale", v(4, 9), 1, 1)
    add("whole", v(3, 5, 17), -1, 2)
    add("two_axes", v(3, 4, 5), 1, 2)
    add("all_axes", v(3, 4), 0, 2)
    add("run_time_scale", v(2, 8), 1, 2, static=())
    add("large_eps", v(2, 8), 1, 2, eps=0.5)
    add("shifted", v(3, 33, low=10, high=12), 1, 0)
    add("long", v(2, 131), 1, 2)
    add("one_entry", v(3, 1), 1, 2)
    add("equal", np.full((2, 6), 3, np.float32), 1, 2)
    add("empty_rows", v(0, 5), 1, 2)
    add("empty_axis", v(3, 0), 1, 0)
    add("symbolic", v(S, 11), 1, 2, symbolic={0: (0,)})
    add("edges", np.array([[1, NAN, 2], [INF, 0, 1], [1, 2, 4], [-INF, INF, 0]], np.float32), 1, 2)
    o.write()


def batch_norm_cases():
    o = Operation("batch_norm")

    def add(case, x, eps=1e-5, static=(1, 2, 3, 4), symbolic=None, variance=None):
        c = x.shape[1]
        parts = [o.values(c), o.values(c), o.values(c), o.values(c, low=0.1, high=3) if variance is None else variance]
        y, scale, bias, mean, var = [p.reshape((-1,) + (1,) * (x.ndim - 2)) if i else p for i, p in enumerate(wide(x, *parts))]
        o.case(case, [x] + parts, (y - mean) / np.sqrt(var + eps) * scale + bias, f"eps={eps}", static, symbolic)

    v = o.values
    add("image", v(2, 3, 4, 5))
    add("matrix", v(4, 7))
    add("rank_three", v(2, 3, 5))
    add("run_time", v(2, 3, 2, 2), static=())
    add("large_eps", v(2, 3, 4), eps=0.25)
    add("no_eps", v(2, 3, 4), eps=0.0)
    add("one_channel", v(3, 1, 2, 2))
    add("empty", v(0, 3, 2))
    add("no_pixels", v(2, 3, 0))
    add("symbolic", v(S, 4, 3, 3), symbolic={0: (0,)})
    add("edges", np.array([[NAN, INF, 0], [1, -INF, -0.0]], np.float32))
    add("bad_variance", v(2, 3), variance=np.array([-1, 0, NAN], np.float32))
    o.write()


softmax_cases()
norm_cases("layer_norm", True)
norm_cases("rms_norm", False)
batch_norm_cases()


def reduce(name, f):
    o = Operation(name)

    def add(case, x, axes, keepdims=0, symbolic=None):
        (y,) = wide(x)
        attrs = f"axes=[{','.join(map(str, axes))}]" + " keepdims=1" * keepdims
        o.case(case, [x], f(y, tuple(axes), bool(keepdims)), attrs, symbolic=symbolic)

    v = o.values
    add("vector", v(13), [0])
    add("last", v(3, 17), [-1])
    add("first", v(17, 3), [0])
    add("middle", v(2, 5, 4), [1])
    add("outer", v(2, 5, 4), [0, 2])
    add("unordered", v(2, 5, 4), [-1, 0])
    add("all", v(2, 3, 4), [0, 1, 2])
    add("keep", v(2, 5, 4), [1], 1)
    add("keep_all", v(2, 5), [0, 1], 1)
    add("keep_outer", v(2, 3, 4, 5), [0, 3], 1)
    add("rank_six", v(2, 3, 1, 2, 2, 3), [1, 4])
    add("one_entry", v(4, 1), [1])
    add("long", v(2, 131), [1])
    add("none", v(3, 0), [1])
    add("none_of_all", v(0), [0])
    add("empty_rows", v(0, 4), [1])
    add("symbolic_kept", v(S, 6), [1], symbolic={0: (0,)})
    add("symbolic_reduced", v(S, 6), [0], symbolic={0: (0,)})
    edges = np.array([[1, NAN, 2], [INF, 0, 1], [-INF, -INF, -INF], [-INF, INF, 1], [0, -0.0, 0], [NAN, INF, -1], [-5, -2, -3]], np.float32)
    add("edges", edges, [1])
    add("edges_down", edges, [0])
    o.write()


reduce("reduce_sum", lambda x, axes, keep: np.sum(x, axis=axes, keepdims=keep))
reduce("reduce_mean", lambda x, axes, keep: np.mean(x, axis=axes, keepdims=keep))
reduce("reduce_max", lambda x, axes, keep: np.max(x, axis=axes, keepdims=keep, initial=-INF))


# ---- pooling ------------------------------------------------------------------------------------------------------------


def pool(x, f, kernel, stride=(1, 1), pad=(0, 0, 0, 0), dilation=(1, 1)):
    """f(values inside the image, elements of the window) of every window."""
    (x,) = wide(x)
    n, c, h, w = x.shape
    oh = (h + pad[0] + pad[2] - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    ow = (w + pad[1] + pad[3] - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    out = np.zeros((n, c, oh, ow))
    for i in range(oh):
        for j in range(ow):
            rows = [r for r in (i * stride[0] - pad[0] + k * dilation[0] for k in range(kernel[0])) if 0 <= r < h]
            columns = [r for r in (j * stride[1] - pad[1] + k * dilation[1] for k in range(kernel[1])) if 0 <= r < w]
            window = x[:, :, rows][:, :, :, columns].reshape(n, c, len(rows) * len(columns))
            out[:, :, i, j] = f(window, kernel[0] * kernel[1])
    return out


def pool_cases(name, max_pool):
    o = Operation(name)

    def add(case, x, kernel, symbolic=None, include=0, **attrs):
        text = " ".join(f"{k}=[{','.join(map(str, v))}]" for k, v in dict(kernel=kernel, **attrs).items())
        if include:
            text += " count_include_pad=1"
        if max_pool:
            f = lambda window, area: np.max(window, axis=-1, initial=-INF)
        else:
            f = lambda window, area: np.sum(window, axis=-1) / (area if include else window.shape[-1])
        o.case(case, [x], pool(x, f, kernel, **attrs), text, symbolic=symbolic)

    v = o.values
    add("two", v(2, 3, 6, 8), (2, 2), stride=(2, 2))
    add("three", v(1, 2, 7, 5), (3, 3))
    add("odd_tail", v(1, 2, 7, 9), (2, 2), stride=(2, 2))
    add("padded", v(2, 2, 5, 6), (3, 3), stride=(2, 2), pad=(1, 1, 1, 1))
    add("negative_padded", v(1, 2, 4, 4, low=-3, high=-1), (2, 2), pad=(1, 1, 1, 1))
    add("uneven", v(1, 2, 6, 7), (2, 3), stride=(1, 2), pad=(0, 2, 1, 1))
    add("gaps", v(1, 1, 8, 8), (2, 2), stride=(3, 3))
    add("whole", v(2, 3, 4, 5), (4, 5))
    add("one", v(2, 3, 3, 3), (1, 1), stride=(2, 1))
    add("wide", v(1, 1, 2, 67), (2, 3), pad=(0, 1, 0, 1))
    add("one_pixel", v(1, 2, 1, 1), (3, 3), pad=(1, 1, 1, 1))
    add("empty_batch", v(0, 2, 4, 4), (2, 2))
    add("no_channels", v(2, 0, 4, 4), (2, 2))
    add("symbolic", v(S, 2, 5, 5), (2, 2), symbolic={0: (0,)}, stride=(2, 2))
    add("edges", v(1, 3, 5, 5, special=(NAN, INF, -INF, -0.0)), (2, 2), pad=(1, 1, 0, 0))
    if max_pool:
        add("dilated", v(1, 2, 9, 8), (3, 2), dilation=(2, 3), stride=(1, 2), pad=(2, 1, 1, 1))
        add("padding_alone", v(1, 1, 1, 1), (2, 2), dilation=(4, 4), pad=(2, 2, 2, 2))
        add("lowest", np.full((1, 1, 3, 3), -INF, np.float32), (2, 2), pad=(1, 1, 1, 1))
    else:
        add("include", v(2, 2, 5, 6), (3, 3), include=1, stride=(2, 2), pad=(1, 1, 1, 1))
        add("include_uneven", v(1, 2, 6, 7), (2, 3), include=1, stride=(1, 2), pad=(0, 2, 1, 1))
    o.write()


pool_cases("max_pool", True)
pool_cases("avg_pool", False)


def global_avg_pool_cases():
    o = Operation("global_avg_pool")
    for case, shape in {"plain": (2, 3, 4, 5), "one": (2, 3, 1, 1), "long": (1, 2, 11, 13), "empty": (0, 3, 2, 2), "none": (2, 3, 0, 4), "symbolic": (S, 2, 3, 3)}.items():
        x = o.values(*shape)
        o.case(case, [x], np.mean(wide(x)[0], axis=(2, 3), keepdims=True), symbolic={0: (0,)} if case == "symbolic" else None)
    x = o.values(2, 3, 2, 2, special=(NAN, INF, -INF))
    o.case("edges", [x], np.mean(wide(x)[0], axis=(2, 3), keepdims=True))
    o.write()


global_avg_pool_cases()


# ---- shapes -------------------------------------------------------------------------------------------------------------

MARKS = (NAN, INF, -INF, -0.0)


def reshape_cases():
    o = Operation("reshape")

    def add(case, x, shape, to, symbolic=None):
        o.case(case, [x], wide(x)[0].reshape(to), f"shape=[{','.join(map(str, shape))}]", symbolic=symbolic)

    v = o.values
    add("flat", v(3, 5, special=MARKS), [15], (15,))
    add("rest", v(2, 3, 4), [0, -1], (2, 12))
    add("split", v(6, 4), [2, 3, 4], (2, 3, 4))
    add("scalar", v(1, 1), [], ())
    add("from_scalar", v(), [1, 1], (1, 1))
    add("same", v(3, 4), [0, 0], (3, 4))
    add("rank_six", v(4, 6), [2, 2, 1, 3, 2, 1], (2, 2, 1, 3, 2, 1))
    add("symbolic", v(S, 2, 5), [0, -1], (S, 10), symbolic={0: (0,)})
    add("symbolic_merged", v(S, 2, 5), [-1, 5], (S * 2, 5), symbolic={0: (0,)})
    add("empty", v(0, 4), [4, -1], (4, 0))
    o.write()


def transpose_cases():
    o = Operation("transpose")

    def add(case, x, perm, symbolic=None):
        o.case(case, [x], np.transpose(wide(x)[0], perm), f"perm=[{','.join(map(str, perm))}]", symbolic=symbolic)

    v = o.values
    add("matrix", v(3, 5, special=MARKS), [1, 0])
    add("same", v(3, 5), [0, 1])
    add("image", v(2, 3, 4, 5), [0, 2, 3, 1])
    add("cycle", v(2, 3, 4), [2, 0, 1])
    add("reverse", v(2, 3, 4), [2, 1, 0])
    add("rank_six", v(2, 1, 3, 2, 1, 2), [5, 3, 1, 0, 2, 4])
    add("vector", v(7), [0])
    add("scalar", v(), [])
    add("wide", v(17, 67), [1, 0])
    add("empty", v(2, 0, 3), [2, 1, 0])
    add("symbolic", v(S, 4, 5), [1, 0, 2], symbolic={0: (0,)})
    o.write()


def concat_cases():
    o = Operation("concat")

    def add(case, parts, axis, symbolic=None, static=()):
        o.case(case, parts, np.concatenate(wide(*parts), axis), f"axis={axis}", static, symbolic)

    v = o.values
    add("rows", [v(2, 3, special=MARKS), v(4, 3)], 0)
    add("columns", [v(2, 3), v(2, 5)], 1)
    add("last", [v(2, 3, 4), v(2, 3, 1)], -1)
    add("middle", [v(2, 1, 4), v(2, 3, 4), v(2, 2, 4)], 1)
    add("alone", [v(3, 2)], 0)
    add("vectors", [v(1), v(17), v(3)], 0)
    add("sixteen", [v(2, 1 + i % 3) for i in range(16)], 1)
    add("one_empty", [v(2, 3), v(2, 0), v(2, 1)], 1)
    add("all_empty", [v(0, 3), v(0, 2)], 1)
    add("static", [v(2, 3), v(2, 4)], 1, static=(1,))
    add("symbolic", [v(S, 3), v(S, 4)], 1, symbolic={0: (0,), 1: (0,)})
    add("symbolic_axis", [v(S, 3), v(S, 3)], 0, symbolic={0: (0,), 1: (0,)})
    add("symbolic_and_fixed", [v(S, 3), v(2, 3)], 0, symbolic={0: (0,)})
    o.write()


def slice_cases():
    o = Operation("slice")
    whole = 2**63 - 1

    def add(case, x, starts, ends, steps=None, symbolic=None):
        box = tuple(slice(a, b, c) for a, b, c in zip(starts, ends, steps or [1] * len(starts)))
        attrs = {"starts": starts, "ends": ends} | ({"steps": steps} if steps else {})
        o.case(case, [x], wide(x)[0][box], " ".join(f"{k}=[{','.join(map(str, v))}]" for k, v in attrs.items()), symbolic=symbolic)

    v = o.values
    add("rows", v(7, 3, special=MARKS), [2, 0], [5, 3])
    add("columns", v(3, 9), [0, 4], [3, 9])
    add("box", v(4, 5, 6), [1, 0, 2], [3, 4, 6])
    add("negative", v(6, 5), [-4, -5], [-1, -2])
    add("clipped", v(4, 3), [1, 0], [100, whole])
    add("steps", v(9, 8), [1, 0], [9, 8], [3, 2])
    add("step_past_end", v(5), [1], [5], [10])
    add("before_start", v(5), [-100], [3])
    add("nothing", v(5, 2), [3, 0], [3, 2])
    add("backwards", v(5, 2), [4, 0], [2, 2])
    add("past_end", v(5, 2), [9, 0], [12, 2])
    add("empty", v(0, 4), [0, 1], [0, 3])
    add("rank_six", v(2, 3, 2, 3, 2, 3), [0, 1, 0, 0, 1, 0], [2, 3, 1, 3, 2, 3], [1, 1, 1, 2, 1, 2])
    add("symbolic", v(S, 6), [0, 1], [whole, 5], symbolic={0: (0,)})
    add("symbolic_steps", v(S, 6), [0, 1], [whole, 6], [1, 2], symbolic={0: (0,)})
    add("symbolic_first", v(S, 6), [0, 1], [2, 6], symbolic={0: (0,)})
    add("symbolic_last", v(4, S), [0, -2], [4, whole], symbolic={0: (1,)})
    x = v(7, 5)
    o.case("as_many", [x], x[:S, 1:4], "starts=[2,1] ends=[1,4] symbolic=[0]")
    o.case("as_many_static", [x], x[:S, 1:4], "starts=[0,1] ends=[0,4] symbolic=[0]", static=(0,))
    o.write()


reshape_cases()
transpose_cases()
concat_cases()
slice_cases()


def gather_cases():
    o = Operation("gather")

    def add(case, x, ids, axis, static=(), symbolic=None, dtype=np.int64):
        ids = np.asarray(ids, dtype)
        o.case(case, [x, ids], np.take(wide(x)[0], ids.astype(np.int64), axis, mode="wrap"), f"axis={axis}", static, symbolic)

    v = o.values
    add("rows", v(9, 5, special=MARKS), [3, 0, 8, 3], 0)
    add("static_rows", v(9, 5), [3, 0, 8], 0, static=(0,))
    add("static_ids", v(9, 5), [3, 0, 8], 0, static=(1,))
    add("negative", v(9, 5), [-1, -9, 2], 0)
    add("columns", v(3, 70), np.arange(67)[::-1] % 70, 1)
    add("middle", v(2, 5, 4), [[4, 0, 1], [2, 2, 3]], 1)
    add("last", v(2, 3, 8), [[1], [7]], -1)
    add("scalar", v(6, 3), 4, 0)
    add("i32", v(6, 3), [5, 1], 0, dtype=np.int32)
    add("u8", v(6, 3), [5, 1], 0, dtype=np.uint8)
    add("i8", v(6, 3), [-6, 5], 0, dtype=np.int8)
    add("none", v(6, 3), np.zeros((0,)), 0)
    add("symbolic_ids", v(20, 7), o.random.integers(0, 20, (2, S)), 0, static=(0,), symbolic={1: (1,)})
    add("symbolic_data", v(S, 6), [5, 0], 1, symbolic={0: (0,)})
    o.write()


def cast_cases():
    o = Operation("cast")
    for dtype in (np.int64, np.int32, np.int8, np.uint8):
        low, high = (0, 200) if dtype == np.uint8 else (-100, 100)
        x = o.random.integers(low, high, (3, 37)).astype(dtype)
        o.case(np.dtype(dtype).name, [x], wide(x)[0])
    x = np.array([2**31 - 1, -(2**31), 2**40 + 1, -(2**62), 0], np.int64)
    o.case("large", [x], wide(x)[0])
    x = o.random.integers(0, 9, (S, 5))
    o.case("symbolic", [x], wide(x)[0], symbolic={0: (0,)})
    o.write()


def expand_cases():
    o = Operation("expand")

    def add(case, x, shape, symbolic=None):
        to = [n or x.shape[d] for d, n in enumerate(shape)]
        o.case(case, [x], np.broadcast_to(wide(x)[0], to), f"shape=[{','.join(map(str, shape))}]", symbolic=symbolic)

    v = o.values
    add("rows", v(1, 5, special=MARKS), [3, 0])
    add("columns", v(4, 1), [0, 17])
    add("both", v(1, 3, 1), [2, 3, 5])
    add("same", v(2, 3), [2, 3])
    add("scalar", v(), [])
    add("symbolic", v(S, 1, 2), [0, 4, 0], symbolic={0: (0,)})
    o.write()


def pad_cases():
    o = Operation("pad")

    def add(case, x, before, after, value=0.0, symbolic=None):
        expected = np.pad(wide(x)[0], list(zip(before, after)), constant_values=value)
        text = f"before=[{','.join(map(str, before))}] after=[{','.join(map(str, after))}]" + (f" value={value}" if value else "")
        o.case(case, [x], expected, text, symbolic=symbolic)

    v = o.values
    add("vector", v(5, special=MARKS), [2], [1])
    add("image", v(1, 2, 5, 6), [0, 0, 1, 2], [0, 0, 3, 0], -2.5)
    add("nothing", v(3, 4), [0, 0], [0, 0])
    add("empty", v(0, 3), [1, 1], [1, 0], 0.5)
    add("symbolic", v(S, 3), [1, 0], [2, 20], 1.5, symbolic={0: (0,)})
    o.write()


gather_cases()
cast_cases()
expand_cases()
pad_cases()


def attention(q, k, v, heads=0, kv_heads=0, scale=0.0, causal=0, mask=None, position=None):
    """Of tensors [batch, row, head * feature] or [batch, head, row, feature]. Absent keys take no part, whatever they hold."""
    packed = q.ndim == 3
    q, k, v = wide(q, k, v)
    split = lambda x, n: x.reshape(x.shape[0], x.shape[1], n, -1).transpose(0, 2, 1, 3) if x.ndim == 3 else x
    q, k, v = split(q, heads), split(k, kv_heads or heads), split(v, kv_heads or heads)
    group, before = q.shape[1] // k.shape[1], 0 if position is None else int(np.asarray(position).reshape(-1)[0])
    rows, keys = q.shape[2], k.shape[2]
    out = np.zeros(q.shape[:3] + v.shape[3:])
    mask = np.broadcast_to(0.0 if mask is None else wide(mask)[0], q.shape[:3] + (keys,))
    for b, h, i in np.ndindex(q.shape[:3]):
        seen = min(keys, keys if position is None else before + rows, before + i + 1 if causal else keys)
        s = k[b, h // group, :seen] @ q[b, h, i] * (scale or 1 / math.sqrt(q.shape[3])) + mask[b, h, i, :seen]
        p = np.exp(s - np.max(s, initial=-INF))
        out[b, h, i] = p @ v[b, h // group, :seen] / np.sum(p)
    return out.transpose(0, 2, 1, 3).reshape(out.shape[0], rows, -1) if packed else out


def attention_cases():
    o = Operation("attention")

    def add(case, q, k, v, symbolic=None, mask=None, position=None, **attrs):
        operands = [q, k, v] + ([mask] if mask is not None else []) + ([position] if position is not None else [])
        o.case(case, operands, attention(q, k, v, mask=mask, position=position, **attrs), " ".join(f"{n}={x}" for n, x in attrs.items()), symbolic=symbolic)

    v = o.values
    add("one", v(1, 1, 1, 1), v(1, 1, 1, 1), v(1, 1, 1, 1))
    add("heads", v(2, 3, 5, 8), v(2, 3, 5, 8), v(2, 3, 5, 8))
    add("packed", v(2, 5, 24), v(2, 5, 24), v(2, 5, 24), heads=3)
    add("cross", v(1, 2, 5, 7), v(1, 2, 19, 7), v(1, 2, 19, 3), scale=0.7)
    add("grouped", v(1, 6, 9, 4), v(1, 2, 9, 4), v(1, 2, 9, 4))
    add("grouped_packed", v(2, 17, 24), v(2, 17, 8), v(2, 17, 6), heads=6, kv_heads=2)
    add("causal", v(1, 2, 21, 16), v(1, 2, 21, 16), v(1, 2, 21, 16), causal=1)
    add("causal_wide", v(1, 2, 5, 8), v(1, 2, 9, 8), v(1, 2, 9, 8), causal=1)
    add("long", v(1, 1, 70, 33), v(1, 1, 131, 33), v(1, 1, 131, 18))
    add("steep", v(1, 2, 5, 8, low=-30, high=30), v(1, 2, 40, 8, low=-9, high=9), v(1, 2, 40, 8))
    padding = np.where(np.arange(11) < 7, 0, -1e4).astype(np.float32)
    add("padding", v(1, 2, 11, 8), v(1, 2, 11, 8), v(1, 2, 11, 8), mask=padding.reshape(1, 1, 1, 11))
    add("minus_infinity", v(1, 2, 6, 8), v(1, 2, 11, 8), v(1, 2, 11, 8), mask=np.where(np.arange(11) < 7, 0, -INF).astype(np.float32))
    add("mask", v(2, 2, 6, 8), v(2, 2, 9, 8), v(2, 2, 9, 8), mask=v(2, 1, 6, 9))
    add("nothing_seen", v(1, 1, 3, 4), v(1, 1, 5, 4), v(1, 1, 5, 4), mask=np.full((5,), -INF, np.float32))
    garbage = v(1, 2, 40, 8)
    garbage[:, :, 13:] = NAN
    add("position", v(1, 2, 3, 8), garbage, garbage, position=np.array([10], np.int64))
    add("position_causal", v(1, 2, 3, 8), garbage, garbage, position=np.array(10, np.int32), causal=1)
    add("one_row", v(1, 12, 4 * 3), v(1, 12, 4 * 3), v(1, 12, 4 * 3), heads=3, position=np.array([0], np.int64), causal=1)
    q = v(1, 2, 4, 8)
    q[0, 0, 1, 3], q[0, 1, 2, 0] = NAN, INF
    add("bad_query", q, v(1, 2, 6, 8), v(1, 2, 6, 8))
    values = v(1, 2, 20, 8)
    values[0, 0, 17, 2], values[0, 1, 19, 5] = NAN, INF
    add("bad_values", v(1, 2, 20, 8), v(1, 2, 20, 8), values, causal=1)
    add("symbolic", v(1, S, 12), v(1, S, 12), v(1, S, 12), heads=2, symbolic={0: (1,), 1: (1,), 2: (1,)})
    add("symbolic_step", v(1, S, 8), garbage[:, :1], garbage[:, :1], heads=1, position=np.array([5], np.int64), causal=1, symbolic={0: (1,)})
    o.write()


attention_cases()


def append_cases():
    o = Operation("append")

    def add(case, cache, x, p, axis, symbolic=None):
        expected = wide(cache)[0].copy()
        at = int(np.asarray(p).reshape(-1)[0])
        expected[(slice(None),) * (axis % cache.ndim) + (slice(at, at + x.shape[axis]),)] = wide(x)[0]
        o.case(case, [cache, x, p], expected, f"axis={axis}", symbolic=symbolic)

    v = o.values
    add("rows", v(9, 5, special=MARKS), v(2, 5), np.array([3], np.int64), 0)
    add("end", v(9, 5), v(2, 5), np.array(7, np.int32), 0)
    add("columns", v(3, 40), v(3, 17), np.array([[2]], np.uint8), -1)
    add("heads", v(1, 3, 20, 8), v(1, 3, 1, 8), np.array([0], np.int64), 2)
    add("whole", v(4, 3), v(4, 3), np.array([0], np.int64), 0)
    add("nothing", v(4, 3), v(0, 3), np.array([4], np.int64), 0)
    add("symbolic", v(2, 9, 4), v(2, S, 4), np.array([5], np.int64), 1, symbolic={1: (1,)})
    o.write()


append_cases()


def conv_transpose(x, w, bias=None, stride=(1, 1), pad=(0, 0, 0, 0), dilation=(1, 1), groups=1, output_pad=(0, 0), static=(1,)):
    """Every element of x adds its multiple of w."""
    x, w = wide(x, w)
    n, c, h, wd = x.shape
    per, kh, kw = w.shape[1:]
    full = [(e - 1) * stride[i] + dilation[i] * (k - 1) + 1 + output_pad[i] for i, (e, k) in enumerate([(h, kh), (wd, kw)])]
    out = np.zeros((n, per * groups, *full))
    for q in range(c):
        g = q // (c // groups)
        for m in range(per):
            for i in range(kh):
                for j in range(kw):
                    weight = w[q, m, i, j]
                    rows = slice(i * dilation[0], i * dilation[0] + (h - 1) * stride[0] + 1, stride[0])
                    columns = slice(j * dilation[1], j * dilation[1] + (wd - 1) * stride[1] + 1, stride[1])
                    term = np.zeros_like(x[:, q]) if 1 in static and weight == 0 else weight * x[:, q]
                    out[:, g * per + m, rows, columns] += term
    out = out[:, :, pad[0] : full[0] - pad[2], pad[1] : full[1] - pad[3]]
    return out if bias is None else out + wide(bias)[0].reshape(1, -1, 1, 1)


def conv_transpose_cases():
    o = Operation("conv_transpose")

    def add(case, x, w, bias=None, static=(1, 2), symbolic=None, **attrs):
        text = " ".join(f"{k}={v if isinstance(v, int) else '[' + ','.join(map(str, v)) + ']'}" for k, v in attrs.items())
        operands = [x, w] + ([bias] if bias is not None else [])
        o.case(case, operands, conv_transpose(x, w, bias, static=static, **attrs), text, [i for i in static if i < len(operands)], symbolic)

    v = o.values
    add("one_by_one", v(2, 5, 4, 3), v(5, 7, 1, 1, zeros=0.4), v(7))
    add("doubled", v(1, 3, 4, 5), v(3, 4, 2, 2, zeros=0.4), v(4), stride=(2, 2))
    add("overlapping", v(2, 3, 5, 4), v(3, 2, 3, 3), stride=(2, 2), pad=(1, 1, 1, 1), output_pad=(1, 1))
    add("plain", v(1, 2, 5, 6), v(2, 3, 3, 3), pad=(1, 1, 1, 1))
    add("gaps", v(1, 2, 3, 3), v(2, 2, 2, 2), v(2), stride=(3, 4))
    add("dilated", v(1, 2, 4, 3), v(2, 3, 3, 2), stride=(2, 1), dilation=(3, 2), pad=(1, 0, 2, 1))
    add("groups", v(1, 6, 4, 4), v(6, 2, 3, 3, zeros=0.4), v(6), groups=3, stride=(2, 2))
    add("run_time_weight", v(1, 3, 4, 4), v(3, 2, 3, 3, zeros=0.3), static=(), stride=(2, 2))
    add("run_time_bias", v(1, 3, 4, 4), v(3, 2, 3, 3), v(2), static=(1,), stride=(2, 2))
    add("cut", v(1, 2, 4, 4), v(2, 2, 4, 4), stride=(2, 2), pad=(3, 3, 3, 3))
    add("absent", v(1, 3, 5, 5, special=(NAN, INF, -INF)), v(3, 4, 3, 3, zeros=0.7), stride=(2, 2), pad=(1, 1, 0, 0))
    add("bad_weight", v(1, 2, 4, 4), v(2, 3, 3, 3, special=(INF, NAN)), stride=(2, 2))
    add("empty_batch", v(0, 2, 4, 4), v(2, 3, 2, 2))
    add("symbolic", v(S, 2, 3, 4), v(2, 3, 2, 2, zeros=0.4), v(3), stride=(2, 2), symbolic={0: (0,)})
    o.write()


conv_transpose_cases()
