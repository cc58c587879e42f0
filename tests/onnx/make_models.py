#!/usr/bin/env python3
"""Writes models for the importer's tests: for each operator graphs of random shapes and attributes, and what ONNX Runtime makes of random
inputs. All of them in one safetensors file: "CASE/model" the ONNX file's bytes, "CASE/in:NAME" the inputs, "CASE/out:NAME" the results.
Needs the packages onnx and onnxruntime.

    tests/onnx/make_models.py FILE [--seed N] [--count N] [--only OPERATOR]

The kept vectors are `make_models.py tests/onnx/vectors.safetensors`. An operator of onnx/onnx_operators.def without a case is an error. Of the
models of a case the first is of the oldest operator set that has all it needs, the second of each newer one in turn, the others of any."""

import argparse
import json
import pathlib
import re
import struct
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

SYMBOL = 3  # the extent of a symbolic dimension
OPSETS = range(13, 22)
F32, I64 = np.float32, np.int64
SOURCE = pathlib.Path(__file__).resolve().parents[2]


class Model:
    """A graph under construction. Values are names; every result that is not fp32 is cast on its way out."""

    def __init__(self, rng, opset):
        self.rng, self.opset = rng, opset
        self.nodes, self.initializers, self.inputs, self.feeds, self.outputs, self.count = [], [], [], {}, [], 0

    def name(self, prefix):
        self.count += 1
        return f"{prefix}{self.count}"

    def values(self, *shape, low=-2.0, high=2.0):
        return self.rng.uniform(low, high, shape).astype(F32)

    def input(self, x, symbolic=()):
        """A run-time input; dimensions in `symbolic` have extent SYMBOL and are named."""
        x = np.asarray(x)
        name = self.name("x")
        dims = ["n" if d in symbolic else e for d, e in enumerate(x.shape)]
        assert all(x.shape[d] == SYMBOL for d in symbolic)
        self.inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), dims))
        self.feeds[name] = x
        return name

    def random(self, *shape, symbolic=(), **bounds):
        return self.input(self.values(*shape, **bounds), symbolic)

    def known(self, x, as_node=False):
        """An initialiser or a Constant."""
        x = np.asarray(x)
        name = self.name("w")
        tensor = numpy_helper.from_array(x, name)
        if as_node:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.initializers.append(tensor)
        return name

    def ints(self, *numbers):
        return self.known(np.array(numbers, I64), bool(self.rng.integers(2)))

    def op(self, kind, *operands, results=1, **attributes):
        names = [self.name("v") for _ in range(results)]
        self.nodes.append(helper.make_node(kind, list(operands), names, name=f"/{kind}_{self.count}", **attributes))
        return names[0] if results == 1 else names

    def sometimes(self, since=13, **attributes):
        """Attributes that must change nothing, where the operator set knows them."""
        return attributes if self.opset >= since and self.rng.integers(2) else {}

    def split(self, x, parts, axis):
        """In equal parts, whose number newer operator sets want to be told."""
        return self.op("Split", x, results=parts, axis=axis, **({"num_outputs": parts} if self.opset >= 18 else {}))

    def out(self, *values, cast=False):
        for v in values:
            self.outputs.append(self.op("Cast", v, to=TensorProto.FLOAT) if cast else v)
        return self

    def build(self):
        outputs = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in self.outputs]
        graph = helper.make_graph(self.nodes, "graph", self.inputs, outputs, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)


CASES = {}


def case(*operators, since=13):
    """Cases of operators; since: the first operator set that has what else stands in the model."""

    def add(function):
        for operator in operators:
            CASES.setdefault(operator, []).append((function, since))
        return function

    return add


def opsets_of(operator, since):
    def exists(opset):
        try:
            return not onnx.defs.get_schema(operator, opset).deprecated
        except onnx.defs.SchemaError:
            return False

    return [opset for opset in OPSETS if opset >= since and exists(opset)]


def shape(rng, low=1, high=4, most=7):
    return tuple(int(rng.integers(1, most)) for _ in range(rng.integers(low, high + 1)))


def x_of(m, *extents, **bounds):
    """An input of these extents, or with a symbolic first one."""
    if m.rng.integers(3) == 0:
        return m.random(SYMBOL, *extents[1:], symbolic=(0,), **bounds)
    return m.random(*extents, **bounds)


# ---- elementwise ----------------------------------------------------------------------------------------------------------


@case("Abs", "Exp", "Erf", "Neg", "Relu", "Sigmoid", "Sign", "Softplus", "Softsign", "Tanh", "HardSwish", "Identity", "Elu", "Selu", "Celu", "LeakyRelu", "ThresholdedRelu", "HardSigmoid", "Sin", "Cos")
def unary(m, op):
    attributes = {}
    if op in ("Elu", "Celu", "LeakyRelu", "ThresholdedRelu", "HardSigmoid", "Selu") and m.rng.integers(2):
        attributes["alpha"] = float(m.rng.uniform(0.1, 1.5))
    if op == "Selu" and attributes:
        attributes["gamma"] = float(m.rng.uniform(0.5, 2))
    if op == "HardSigmoid" and attributes:
        attributes["beta"] = float(m.rng.uniform(0, 1))
    return m.out(m.op(op, x_of(m, *shape(m.rng), low=-4, high=4), **attributes))


@case("Mish")
def mish(m, op):
    return m.out(m.op(op, x_of(m, *shape(m.rng), low=-4, high=4)))


@case("Gelu")
def gelu(m, op):
    return m.out(m.op(op, x_of(m, *shape(m.rng)), approximate=str(m.rng.choice(["none", "tanh"]))))


@case("Log", "Sqrt", "Reciprocal")
def positive(m, op):
    return m.out(m.op(op, x_of(m, *shape(m.rng), low=0.1, high=9)))


@case("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "PRelu")
def binary(m, op):
    a = shape(m.rng, 2, 4)
    b = tuple(1 if m.rng.integers(3) == 0 else e for e in a)[int(m.rng.integers(len(a))) :]
    y = m.values(*b, low=0.5, high=2)
    second = m.known(y) if m.rng.integers(2) else m.input(y)
    operands = [x_of(m, *a[:1], *a[1:]) if len(b) < len(a) else m.random(*a), second]
    if op in ("Add", "Sub", "Mul", "Div") and m.rng.integers(2):
        operands.reverse()
        if op == "Div":
            operands[1] = m.random(*a, low=1, high=2)
    if op in ("Max", "Min", "Sum", "Mean"):
        operands += [m.random(1) for _ in range(m.rng.integers(3))]
    return m.out(m.op(op, *operands))


@case("Pow")
def power(m, op):
    number = float(m.rng.choice([1, 2, 3, 0.5, 1.7, -1]))
    base = x_of(m, *shape(m.rng), low=0.2, high=3)
    return m.out(m.op(op, base, m.known(np.array(number, F32)))) if m.rng.integers(2) else m.out(m.op(op, m.random(3, 4, low=0.2), m.random(4)))


@case("Clip")
def clip(m, op):
    low, high = (m.known(np.array(b, F32)) for b in (-0.7, 0.9))
    which = m.rng.integers(4)
    return m.out(m.op(op, x_of(m, *shape(m.rng)), *[[low, high], [low], ["", high], []][which]))


@case("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal")
def compare(m, op):
    x, y = m.rng.integers(-2, 3, (4, 5)).astype(F32), m.rng.integers(-2, 3, (5,)).astype(F32)
    x[0, 0] = np.nan
    return m.out(m.op(op, m.input(x), m.input(y) if m.rng.integers(2) else m.known(y)), cast=True)


@case("And", "Or", "Xor", "Not")
def logic(m, op):
    def mask():
        return m.op("Less", m.random(4, 3), m.known(np.zeros(1, F32)))

    return m.out(m.op(op, *[mask() for _ in range(1 if op == "Not" else 2)]), cast=True)


@case("Where")
def where(m, op):
    test = m.op("Greater", m.random(4, 3), m.random(3))
    if m.rng.integers(3) == 0:
        test = m.known(m.rng.integers(0, 2, (4, 3)).astype(bool))
    return m.out(m.op(op, test, m.random(4, 3), m.known(np.array(-1e9, F32)) if m.rng.integers(2) else m.random(1, 3)))


@case("IsNaN")
def is_nan(m, op):
    x = m.values(4, 5)
    x[m.rng.integers(4)] = np.nan
    return m.out(m.op("Where", m.op(op, m.input(x)), m.known(np.array(7, F32)), m.known(np.array(2, F32))))


@case("Cast")
def cast(m, op):
    flag = m.op(op, m.input(np.array([0, 1.5, -0.0, np.nan, 2], F32)), to=TensorProto.BOOL)
    number = m.op(op, m.known(np.array([1.7, -1.7, 3], F32)), to=TensorProto.INT64)
    half = m.op(op, m.op(op, m.known(np.array([1.7, -1.7, 3], np.float16)), to=TensorProto.FLOAT, **m.sometimes(19, saturate=1)), to=TensorProto.INT32)
    return m.out(flag, number, half, m.op(op, m.input(m.rng.integers(-9, 9, (3, 2)).astype(I64)), to=TensorProto.FLOAT), cast=True)


@case("Cast", since=14)
def positions_to_angles(m, op):
    """Rotary angles from the positions that the host gives: turned round or under other extents, then numbers."""
    at = m.input(m.rng.integers(0, 99, (1, SYMBOL)).astype(I64), symbolic=(1,))
    column = m.op("Unsqueeze", m.op("Transpose", at, perm=[1, 0]), m.ints(0))
    row = m.op("Unsqueeze", at, m.ints(1))
    right = m.op("MatMul", m.random(1, 4, 1), m.op(op, row, to=TensorProto.FLOAT))
    return m.out(right, m.op("MatMul", m.op(op, column, to=TensorProto.FLOAT), m.random(1, 1, 4)))


@case("CastLike")
def cast_like(m, op):
    return m.out(m.op(op, m.op("Less", m.random(3, 4), m.known(np.zeros(1, F32))), m.random(2), **m.sometimes(19, saturate=1)))


@case("Dropout")
def dropout(m, op):
    return m.out(m.op(op, m.random(3, 4), m.known(np.array(0.5, F32)), **m.sometimes(seed=3)))


# ---- known values -----------------------------------------------------------------------------------------------------------


@case("Floor", "Ceil", "Round", "Sin", "Cos")
def folded(m, op):
    return m.out(m.op("Add", m.random(3, 4), m.op(op, m.known(m.values(4) * 3))))


@case("Mod")
def mod(m, op):
    y = m.op(op, m.ints(7, -7, 9, -9), m.ints(3, 3, -4, -4))
    return m.out(y, cast=True).out(m.op("Add", m.random(4), m.op(op, m.known(m.values(4)), m.known(m.values(4, low=0.3, high=0.9)), fmod=1)))


@case("Range")
def arange(m, op):
    ints = m.op(op, m.known(np.array(2, I64)), m.known(np.array(11, I64)), m.known(np.array(3, I64)))
    reals = m.op(op, m.known(np.array(1, F32)), m.known(np.array(-2, F32)), m.known(np.array(-0.7, F32)))
    return m.out(ints, cast=True).out(reals)


@case("Trilu")
def trilu(m, op):
    k = [m.known(np.array(m.rng.integers(-2, 3), I64))] if m.rng.integers(2) else []
    return m.out(m.op("Add", m.op(op, m.known(m.values(2, 4, 5)), *k, upper=int(m.rng.integers(2))), m.random(5)))


@case("Constant")
def constant(m, op):
    y = [m.op(op, value_float=2.5), m.op(op, value_floats=[1.0, 2.0, 3.0]), m.known(m.values(2, 3), True)]
    z = [m.op(op, value_int=4), m.op(op, value_ints=[5, 6])]
    return m.out(*[m.op("Add", m.random(2, 3), v) for v in y]).out(*z, cast=True)


@case("DequantizeLinear")
def dequantize(m, op):
    rows = int(m.rng.integers(1, 6))
    kind = [np.int8, np.uint8][m.rng.integers(2)]
    x = m.rng.integers(0, 120, (4, rows, 3)).astype(kind)
    each = bool(m.rng.integers(2))
    scale = m.known(m.values(rows, low=0.01, high=0.1) if each else np.array(0.05, F32))
    zero = [m.known(m.rng.integers(0, 99, (rows,) if each else ()).astype(kind))] if m.rng.integers(3) else []
    return m.out(m.op("Mul", m.random(1), m.op(op, m.known(x), scale, *zero, axis=1)))


# ---- shapes -----------------------------------------------------------------------------------------------------------------


@case("Shape", "Size")
def shapes(m, op):
    x = m.random(2, 3, 4, 5)
    y = m.op(op, x, **({"start": int(m.rng.integers(-3, 2)), "end": int(m.rng.integers(2, 5))} if op == "Shape" and m.opset >= 15 else {}))
    return m.out(y, cast=True).out(m.op("Relu", x))


@case("Reshape")
def reshape(m, op):
    x = x_of(m, 2, 3, 4)
    wanted = [(0, -1), (0, 12), (-1, 4), (0, 0, 2, 2), (0, 4, 3), (0, 1, 3, 4)][m.rng.integers(6)]
    return m.out(m.op(op, x, m.ints(*wanted)))


@case("Flatten")
def flatten(m, op):
    axis = int(m.rng.integers(-3, 4))
    return m.out(m.op(op, m.random(2, 3, 4), axis=axis))


@case("Squeeze")
def squeeze(m, op):
    x = x_of(m, 2, 1, 3, 1)
    return m.out(m.op(op, x, *[[m.ints(1, -1)], [m.ints(3)], []][m.rng.integers(3)]))


@case("Unsqueeze")
def unsqueeze(m, op):
    return m.out(m.op(op, x_of(m, 2, 3), m.ints(*[(0,), (1, -1), (-2,), (0, 1, 2)][m.rng.integers(4)])))


@case("Transpose")
def transpose(m, op):
    extents = shape(m.rng, 2, 5, 5)
    x = m.known(m.values(*extents)) if m.rng.integers(3) == 0 else x_of(m, *extents)
    y = m.op(op, x, **({"perm": [int(p) for p in m.rng.permutation(len(extents))]} if m.rng.integers(3) else {}))
    return m.out(m.op("Mul", y, m.random(1)))


@case("Concat")
def concat(m, op):
    extents, axis = list(shape(m.rng, 2, 4)), None
    axis = int(m.rng.integers(len(extents)))
    parts = []
    for _ in range(int(m.rng.choice([1, 2, 3, 20]))):
        extents[axis] = int(m.rng.integers(1, 4))
        parts.append(m.random(*extents) if m.rng.integers(3) else m.known(m.values(*extents)))
    return m.out(m.op("Relu", m.op(op, *parts, axis=axis - len(extents) if m.rng.integers(2) else axis)))


@case("Slice")
def slices(m, op):
    known = m.rng.integers(3) == 0
    x = m.known(m.values(5, 6, 7)) if known else m.random(5, 6, 7)
    axes = [int(a) for a in m.rng.permutation(3)[: m.rng.integers(1, 4)]]
    steps = [int(m.rng.choice([1, 2, 3] + ([-1, -2] if known else []))) for _ in axes]
    starts = [int(m.rng.integers(-7, 4)) if s > 0 else int(m.rng.integers(2, 9)) for s in steps]
    ends = [int(m.rng.choice([a + 2 if -5 <= a + 2 else 9, 2**63 - 1])) if s > 0 else int(m.rng.choice([-(2**63) + 1, -9])) for a, s in zip(starts, steps)]
    starts, ends = zip(*[(a, b if b > 5 or s < 0 else b + 4 if a >= 0 else -1) for a, b, s in zip(starts, ends, steps)])
    more = [m.ints(*axes), m.ints(*steps)] if any(s != 1 for s in steps) or m.rng.integers(2) else [m.ints(*axes)]
    return m.out(m.op("Mul", m.op(op, x, m.ints(*starts), m.ints(*ends), *more), m.random(1)))


@case("Split")
def split(m, op):
    x = m.known(m.values(4, 8, 2)) if m.rng.integers(3) == 0 else x_of(m, 4, 8, 2)
    which = m.rng.integers(3)
    if which == 0:
        y = m.op(op, x, m.ints(1, 5, 2), results=3, axis=1)
    else:
        y = m.split(x, 3 if which == 1 and m.opset >= 18 else 2, -2)
    return m.out(*[m.op("Relu", v) for v in y])


@case("Gather")
def gather(m, op):
    axis = int(m.rng.integers(-2, 2))
    which = m.rng.integers(6)
    index = [np.array(1), np.array([0, 2, -1]), np.array([1, 2]), np.array([[0, 1], [2, 0]]), np.array(-1), np.array([[2]])][which].astype(I64)
    x = m.known(m.values(3, 4, 5)) if m.rng.integers(3) == 0 else m.random(3, 4, 5)
    return m.out(m.op("Relu", m.op(op, x, m.known(index), axis=axis)))


@case("Gather")
def embedding(m, op):
    ids = m.rng.integers(-7, 7, (SYMBOL, 4)).astype(I64)
    return m.out(m.op(op, m.known(m.values(7, 5)), m.input(ids, symbolic=(0,)), axis=0))


@case("GatherND")
def gather_rows(m, op):
    """table[ids] as torch.export writes it: ids known, of a run, or as many as the sequence has, which the table outlasts or not."""
    table, which = m.known(m.values(6, 5)) if m.rng.integers(2) else m.random(6, 5), m.rng.integers(3)
    if which == 2:
        x = m.random(2, SYMBOL, 5, symbolic=(1,))
        length = m.op("Squeeze", m.op("Slice", m.op("Shape", x), m.ints(1), m.ints(2)), m.ints(0))
        places = m.op("Range", m.known(np.array(0, I64)), length, m.known(np.array(1, I64)))
        return m.out(m.op("Add", x, m.op(op, table, m.op("Unsqueeze", m.op("Unsqueeze", places, m.ints(0)), m.ints(-1)))))
    ids = m.rng.integers(0, 6, (2, SYMBOL)).astype(I64)
    ids = m.input(ids, symbolic=(1,)) if which else m.known(ids)
    return m.out(m.op("Relu", m.op(op, table, m.op("Unsqueeze", ids, m.ints(-1)), **m.sometimes(batch_dims=0))))


@case("Expand")
def expand(m, op):
    x = m.random(3, 1, 4)
    y = m.op(op, x, m.ints(*[(3, 5, 4), (2, 1, 5, 1), (1, 1, 1), (2, 3, 1, 4)][m.rng.integers(4)]))
    if m.rng.integers(2):
        y = m.op("MatMul", y, m.known(m.values(4, 3)))
    return m.out(m.op("Relu", y))


@case("ConstantOfShape")
def constant_of_shape(m, op):
    x = x_of(m, 3, 4)
    value = {"value": numpy_helper.from_array(np.array([2.5], F32))} if m.rng.integers(2) else {}
    return m.out(m.op("Add", x, m.op(op, m.op("Shape", x), **value)))


@case("Tile")
def tile(m, op):
    return m.out(m.op(op, x_of(m, 3, 2, 1), m.ints(1, *[int(r) for r in m.rng.integers(1, 4, 2)])))


@case("Pad")
def pad(m, op):
    value = [m.known(np.array(1.5, F32))] if m.rng.integers(2) else []
    axes = m.rng.permutation(3)[: m.rng.integers(1, 4)] if m.opset >= 18 and m.rng.integers(2) else range(3)
    pads = m.ints(*m.rng.integers(0, 3, 2 * len(axes)))
    more = [*(value or [""]), m.ints(*axes)] if not isinstance(axes, range) else value
    return m.out(m.op(op, m.random(2, 3, 4), pads, *more, **m.sometimes(mode="constant")))


@case("DepthToSpace")
def depth_to_space(m, op):
    return m.out(m.op(op, x_of(m, 2, 12, 3, 2), blocksize=2, mode=str(m.rng.choice(["DCR", "CRD"]))))


@case("SpaceToDepth")
def space_to_depth(m, op):
    return m.out(m.op(op, x_of(m, 2, 3, 4, 6), blocksize=2))


@case("Resize")
def resize(m, op):
    mode = str(m.rng.choice(["nearest", "linear"]))
    coordinates = str(m.rng.choice(["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"]))
    extents = [int(e) for e in m.rng.integers(2, 7, 2)]
    more = {"nearest_mode": str(m.rng.choice(["floor", "round_prefer_floor", "ceil", "round_prefer_ceil"]))} if mode == "nearest" else {}
    more |= {"mode": mode, "coordinate_transformation_mode": coordinates}
    more |= m.sometimes(exclude_outside=0, extrapolation_value=1.0, cubic_coeff_a=-0.5) | m.sometimes(18, antialias=0, keep_aspect_ratio_policy="stretch")
    all_axes = m.opset < 18 or bool(m.rng.integers(2))
    if not all_axes:
        more["axes"] = [2, -1]
    x = m.random(2, 3, *extents)
    if m.rng.integers(2):
        sizes = m.ints(*[2, 3][: 2 * all_axes], *m.rng.integers(1, 12, 2))
        return m.out(m.op(op, x, "", "", sizes, **more))
    scales = m.known(np.array([*[1, 1][: 2 * all_axes], *m.rng.choice([0.5, 1, 2, 3], 2)], F32))
    return m.out(m.op(op, x, "", scales, **more))


# ---- layers -----------------------------------------------------------------------------------------------------------------


@case("MatMul")
def matmul(m, op):
    which = m.rng.integers(6)
    a, b = [((5, 7), (7, 3)), ((2, 3, 4), (4, 5)), ((2, 1, 3, 4), (3, 4, 2)), ((7,), (7, 3)), ((2, 3, 4), (4,)), ((4,), (4,))][which]
    second = m.values(*b)
    return m.out(m.op(op, x_of(m, *a) if len(a) > 2 and which < 2 else m.random(*a), m.known(second) if m.rng.integers(2) else m.input(second)))


@case("Gemm")
def gemm(m, op):
    ta, tb = int(m.rng.integers(2)), int(m.rng.integers(2))
    a, b = ((6, 4) if ta else (4, 6)), ((5, 6) if tb else (6, 5))
    attributes = {"transA": ta, "transB": tb}
    if m.rng.integers(2):
        attributes |= {"alpha": 0.5, "beta": float(m.rng.choice([0, 0.25]))}
    c = [m.known(m.values(*[(5,), (4, 5), (1, 5), (4, 1), ()][m.rng.integers(5)]))] if m.rng.integers(4) else []
    return m.out(m.op(op, m.random(*a), m.known(m.values(*b)), *c, **attributes))


@case("Einsum")
def einsum(m, op):
    equation, a, b = [("bhid,bhjd->bhij", (2, 3, 4, 5), (2, 3, 6, 5)), ("i , j -> i j", (3,), (4,)), ("ij,jk->ki", (3, 4), (4, 5)), ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)), ("bijk,jkl->bil", (2, 3, 4, 5), (4, 5, 6)), ("ij,ij->i", (3, 4), (3, 4))][m.rng.integers(6)]
    second = m.values(*b)
    return m.out(m.op(op, m.random(*a), m.known(second) if m.rng.integers(2) else m.input(second), equation=equation))


@case("Einsum")
def rotary(m, op):
    """Angles of positions, counted up to the sequence's length."""
    x = m.random(2, SYMBOL, 8, symbolic=(1,))
    length = m.op("Gather", m.op("Shape", x), m.known(np.array(1, I64)), axis=0)
    places = m.op("Cast", m.op("Range", m.known(np.array(0, I64)), length, m.known(np.array(1, I64))), to=TensorProto.FLOAT)
    angles = m.op(op, places, m.known(m.values(4)), equation="i,j->ij")
    both = m.op("Concat", angles, angles, axis=-1)
    a, b = m.split(x, 2, -1)
    turned = m.op("Concat", m.op("Neg", b), a, axis=-1)
    return m.out(m.op("Add", m.op("Mul", x, m.op("Cos", both)), m.op("Mul", turned, m.op("Sin", both))))


@case("Trilu", since=14)
def causal(m, op):
    """A causal mask that is made from the sequence's length."""
    scores = m.random(2, SYMBOL, SYMBOL, symbolic=(1, 2))
    length = m.op("Unsqueeze", m.op("Gather", m.op("Shape", scores), m.known(np.array(1, I64)), axis=0), m.ints(0))
    ones = m.op("ConstantOfShape", m.op("Concat", length, length, axis=0), value=numpy_helper.from_array(np.array([1], F32)))
    mask = m.op("Cast", m.op(op, ones, upper=0), to=TensorProto.BOOL)
    bias = m.op("Where", mask, m.known(np.array(0, F32)), m.known(np.array(-np.inf, F32)))
    return m.out(m.op("Softmax", m.op("Add", scores, bias), axis=-1))


def window(m, space, kernel):
    attributes = {"strides": [int(s) for s in m.rng.integers(1, 3, space)]}
    which = m.rng.integers(4)
    if which < 2:
        attributes["pads"] = [int(m.rng.integers(0, kernel[i % space])) for i in range(2 * space)]
    elif which == 2:
        attributes["auto_pad"] = str(m.rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
        attributes["strides"] = [min(s, k) for s, k in zip(attributes["strides"], kernel)]  # ONNX Runtime refuses what pads below 0
    return attributes


@case("Conv")
def conv(m, op):
    space = int(m.rng.integers(1, 3))
    kernel = [int(k) for k in m.rng.integers(1, 4, space)]
    groups = int(m.rng.choice([1, 2, 4]))
    attributes = window(m, space, kernel) | {"group": groups}
    if "auto_pad" not in attributes and m.rng.integers(3) == 0:
        attributes["dilations"] = [int(d) for d in m.rng.integers(1, 3, space)]
    if m.rng.integers(2):
        attributes["kernel_shape"] = kernel
    weight = m.values(8, 4 // groups, *kernel)
    bias = [m.known(m.values(8))] if m.rng.integers(2) else []
    extents = [int(e) for e in m.rng.integers(6, 10, space)]
    return m.out(m.op(op, x_of(m, 2, 4, *extents), m.known(weight) if m.rng.integers(4) else m.input(weight), *bias, **attributes))


@case("ConvTranspose")
def conv_transpose(m, op):
    space = int(m.rng.integers(1, 3))
    kernel = [int(k) for k in m.rng.integers(1, 4, space)]
    groups = int(m.rng.choice([1, 2]))
    strides = [int(s) for s in m.rng.integers(1, 4, space)]
    attributes = {"strides": strides, "group": groups, "kernel_shape": kernel}
    if m.rng.integers(2):
        attributes["pads"] = [int(m.rng.integers(0, (kernel[i % space] + 1) // 2)) for i in range(2 * space)]
    elif m.rng.integers(2):
        attributes["auto_pad"] = "VALID"
    if m.rng.integers(2):
        attributes["dilations"] = [int(d) for d in m.rng.integers(1, 3, space)]
    if m.rng.integers(2):
        attributes["output_padding"] = [int(m.rng.integers(0, s)) for s in strides]
    bias = [m.known(m.values(3 * groups))] if m.rng.integers(2) else []
    return m.out(m.op(op, x_of(m, 2, 4, *[int(e) for e in m.rng.integers(3, 6, space)]), m.known(m.values(4, 3, *kernel)), *bias, **attributes))


@case("MaxPool", "AveragePool")
def pool(m, op):
    space = int(m.rng.integers(1, 3))
    kernel = [int(k) for k in m.rng.integers(1, 4, space)]
    attributes = window(m, space, kernel) | {"kernel_shape": kernel}
    if op == "AveragePool":
        attributes |= {"count_include_pad": int(m.rng.integers(2))} | m.sometimes(19, dilations=[1] * space)
    elif "auto_pad" not in attributes and m.rng.integers(3) == 0:
        attributes |= {"dilations": [int(d) for d in m.rng.integers(1, 3, space)], "storage_order": 0}
    if not attributes.get("count_include_pad") and "auto_pad" not in attributes:
        attributes["ceil_mode"] = int(m.rng.integers(2))
    return m.out(m.op(op, x_of(m, 2, 3, *[int(e) for e in m.rng.integers(6, 10, space)]), **attributes))


@case("GlobalAveragePool", "GlobalMaxPool")
def global_pool(m, op):
    return m.out(m.op(op, x_of(m, 2, 3, *shape(m.rng, 1, 3))))


@case("BatchNormalization")
def batch_norm(m, op):
    c = int(m.rng.integers(1, 6))
    x = x_of(m, 2, c, *shape(m.rng, 0, 2))
    known = [m.known(m.values(c, low=0.1, high=2)) for _ in range(4)]
    return m.out(m.op(op, x, *known, epsilon=float(m.rng.choice([1e-5, 1e-3])), momentum=0.9, **m.sometimes(14, training_mode=0)))


@case("InstanceNormalization")
def instance_norm(m, op):
    return m.out(m.op(op, x_of(m, 2, 3, *shape(m.rng, 1, 2)), m.known(m.values(3)), m.known(m.values(3)), epsilon=1e-3))


@case("GroupNormalization", since=21)
def group_norm(m, op):
    return m.out(m.op(op, x_of(m, 2, 6, *shape(m.rng, 1, 2)), m.known(m.values(6)), m.known(m.values(6)), num_groups=int(m.rng.choice([1, 2, 3, 6])), epsilon=1e-3, **m.sometimes(stash_type=1)))


@case("LayerNormalization")
def layer_norm(m, op):
    extents = shape(m.rng, 2, 4)
    axis = int(m.rng.integers(-len(extents), len(extents)))
    normal = extents[axis:]
    wide = axis % len(extents) == 0  # a symbolic extent has no scale
    x = m.random(*extents) if wide else x_of(m, *extents)
    bias = [m.known(m.values(*normal))] if m.rng.integers(2) else []
    return m.out(m.op(op, x, m.known(m.values(*normal)), *bias, axis=axis, epsilon=1e-3, **m.sometimes(stash_type=1)))


@case("Softmax", "LogSoftmax")
def softmax(m, op):
    extents = shape(m.rng, 1, 4)
    return m.out(m.op(op, x_of(m, *extents), **({"axis": int(m.rng.integers(-len(extents), len(extents)))} if m.rng.integers(3) else {})))


@case("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp")
def reduce(m, op):
    extents = shape(m.rng, 1, 4)
    axes = [int(a) for a in m.rng.permutation(len(extents))[: m.rng.integers(1, len(extents) + 1)]]
    x, keep, operands = x_of(m, *extents), int(m.rng.integers(2)), op == "ReduceSum" or m.opset >= 18
    which = m.rng.integers(4)
    if which == 0:
        return m.out(m.op(op, x, keepdims=keep))
    if which == 1 and operands:
        noop = int(op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin") and m.rng.integers(2))
        return m.out(m.op(op, x, *[m.ints()][: m.rng.integers(2)], keepdims=keep, noop_with_empty_axes=noop))
    return m.out(m.op(op, x, m.ints(*axes), keepdims=keep) if operands else m.op(op, x, axes=axes, keepdims=keep))


@case("ReduceProd")
def reduce_prod(m, op):
    x = x_of(m, 2, 3, 4)
    extents = m.op("Slice", m.op("Shape", x), m.ints(1), m.ints(9))
    if m.rng.integers(2):
        rest = m.op(op, extents, keepdims=1, **m.sometimes(18, noop_with_empty_axes=0))
    else:
        rest = m.op(op, extents, m.ints(0), keepdims=1) if m.opset >= 18 else m.op(op, extents, axes=[0], keepdims=1)
    return m.out(m.op("Reshape", x, m.op("Concat", m.ints(-1), rest, axis=0)))


# ---- chains as PyTorch's exporter writes them -----------------------------------------------------------------------------------


@case("Shape", since=14)
def split_heads(m, op):
    """view(batch, -1, heads, size) from the operand's own shape, with a symbolic dimension."""
    x = m.random(2, SYMBOL, 12, symbolic=(1,)) if m.rng.integers(2) else m.random(SYMBOL, 4, 12, symbolic=(0,))
    extents = [m.op("Unsqueeze", m.op("Gather", m.op("Shape", x), m.known(np.array(i, I64)), axis=0), m.ints(0)) for i in range(2)]
    y = m.op("Reshape", x, m.op("Concat", *extents, m.ints(3), m.ints(4), axis=0), allowzero=0)
    y = m.op("Transpose", y, perm=[0, 2, 1, 3])
    scale = m.op("Sqrt", m.op("Cast", m.op("Slice", m.op("Shape", y), m.ints(-1), m.ints(2**63 - 1)), to=TensorProto.FLOAT))
    y = m.op("Softmax", m.op("Div", m.op("MatMul", y, m.op("Transpose", y, perm=[0, 1, 3, 2])), scale), axis=-1)
    y = m.op("Transpose", m.op("MatMul", y, m.op("Identity", m.op("Transpose", m.op("Reshape", x, m.op("Concat", *extents, m.ints(3), m.ints(4), axis=0)), perm=[0, 2, 1, 3]))), perm=[0, 2, 1, 3])
    return m.out(m.op("Reshape", y, m.op("Concat", *extents, m.op("Mul", m.ints(3), m.ints(4)), axis=0)))


@case("Where")
def expand_by_where(m, op):
    """expand(-1, n, -1): the exporter replaces -1 by ones in the graph."""
    x = m.random(SYMBOL, 1, 4, symbolic=(0,))
    wanted = m.ints(-1, 5, -1)
    ones = m.op("ConstantOfShape", m.op("Shape", wanted), value=numpy_helper.from_array(np.array([1], I64)))
    filled = m.op("Where", m.op("Equal", wanted, m.op("Mul", ones, m.ints(-1))), ones, wanted)
    return m.out(m.op("Add", m.op("Expand", x, filled), m.random(5, 4)))


@case("Expand")
def attention_mask(m, op):
    """The mask of an encoder: [n, s] of 0 and 1, widened, turned round and scaled, behind scores."""
    mask = m.input(m.rng.integers(0, 2, (2, SYMBOL)).astype(F32), symbolic=(1,))
    scores = m.random(2, 4, SYMBOL, SYMBOL, symbolic=(2, 3))
    length = m.op("Unsqueeze", m.op("Gather", m.op("Shape", mask), m.known(np.array(1, I64))), m.ints(0))
    wide = m.op("Expand", m.op("Unsqueeze", mask, m.ints(1, 2)), m.op("Concat", m.ints(2), m.ints(1), length, length, axis=0))
    turned = m.op("Sub", m.known(np.array(1, F32)), m.op("Cast", wide, to=TensorProto.FLOAT))
    masked = m.op("Where", m.op("Cast", turned, to=TensorProto.BOOL), m.known(np.array(-3.4e38, F32)), turned)
    return m.out(m.op("Softmax", m.op("Add", scores, masked), axis=-1))


def masked_attention(m, mask, guarded=False):
    """Attention of 3 heads over a symbolic sequence; mask(scores, [length as a list]) gives the scores of what a query may see. Guarded: rows
    that see nothing give 0."""
    x = [m.random(2, SYMBOL, 12, symbolic=(1,)) for _ in range(3)]
    q, k, v = (m.op("Transpose", m.op("Reshape", y, m.ints(0, 0, 3, 4)), perm=[0, 2, 3, 1] if i == 1 else [0, 2, 1, 3]) for i, y in enumerate(x))
    length = m.op("Unsqueeze", m.op("Gather", m.op("Shape", x[0]), m.known(np.array(1, I64)), axis=0), m.ints(0))
    scores = mask(m.op("Div", m.op("MatMul", q, k), m.known(np.array(2, F32))), length)
    weights = m.op("Softmax", scores, axis=-1)
    if guarded:
        weights = m.op("Where", m.op("IsNaN", weights), m.known(np.array(0, F32)), weights)
    y = m.op("Transpose", m.op("MatMul", weights, v), perm=[0, 2, 1, 3])
    return m.out(m.op("Reshape", y, m.ints(0, 0, 12)))


@case("MatMul")
def batched_attention(m, op):
    """Two sequences of 64, which fill panels, or of 50, which do not; projections on both sides."""
    rows = int(m.rng.choice([64, 50]))
    x = m.random(2, rows, 8)
    q, k, v = (m.op("Transpose", m.op("Reshape", m.op(op, x, m.known(m.values(8, 8))), m.ints(0, 0, 2, 4)), perm=[0, 2, 3, 1] if i == 1 else [0, 2, 1, 3]) for i in range(3))
    y = m.op("Transpose", m.op(op, m.op("Softmax", m.op("Div", m.op(op, q, k), m.known(np.array(2, F32))), axis=-1), v), perm=[0, 2, 1, 3])
    return m.out(m.op(op, m.op("Reshape", y, m.ints(0, 0, 8)), m.known(m.values(8, 8))))


def hidden(m):
    return m.known(np.array(m.rng.choice([-np.inf, np.finfo(F32).min]), F32))


@case("Where")
def causal_choice(m, op):
    """GPT-2's: a table of what may be seen, cut to the sequence, chooses between scores and a number; or of what may not."""
    seen = bool(m.rng.integers(2))
    table = m.known(np.tril(np.ones((1, 1, 8, 8), bool)) == seen)
    def mask(scores, length):
        own = m.op("Slice", table, m.ints(0, 0), m.op("Concat", length, length, axis=0), m.ints(2, 3))
        return m.op(op, own, scores, hidden(m)) if seen else m.op(op, own, hidden(m), scores)
    return masked_attention(m, mask)


@case("IsNaN", since=14)
def guarded_attention(m, op):
    """As scaled_dot_product_attention is exported with a mask of conditions: a causal one, or what the host says."""
    causal, host = bool(m.rng.integers(2)), m.input(m.rng.integers(0, 2, (1, 1, 1, SYMBOL)).astype(F32), symbolic=(3,))
    def mask(scores, length):
        one = numpy_helper.from_array(np.array([1], F32))
        seen = m.op("Trilu", m.op("ConstantOfShape", m.op("Concat", length, length, axis=0), value=one), upper=0) if causal else host
        bias = m.op("Where", m.op("Cast", seen, to=TensorProto.BOOL), m.known(np.array([0], F32)), m.known(np.array([-np.inf], F32)))
        return m.op("Add", scores, bias)
    return masked_attention(m, mask, guarded=True)


@case("Trilu", since=14)
def causal_sum(m, op):
    """Llama's: a square of a large number below zero, above the diagonal, is added. The diagonal itself may be meant too, or one more."""
    above = int(m.rng.choice([1, 1, 1, 2]))
    def mask(scores, length):
        large = numpy_helper.from_array(np.array([np.finfo(F32).min], F32))
        square = m.op("ConstantOfShape", m.op("Concat", length, length, axis=0), value=large)
        return m.op("Add", scores, m.op("Unsqueeze", m.op(op, square, m.known(np.array(above, I64)), upper=1), m.ints(0, 1)))
    return masked_attention(m, mask)


@case("Range")
def causal_places(m, op):
    """Places compared with places: of a column with those of its row."""
    def mask(scores, length):
        number = m.op("Squeeze", length, m.ints(0))
        places = m.op(op, m.known(np.array(0, I64)), number, m.known(np.array(1, I64)))
        column = m.op("Reshape", places, m.ints(-1, 1)) if m.rng.integers(2) else m.op("Unsqueeze", places, m.ints(1))
        behind = m.op("Cast", m.op("Greater", places, column), to=TensorProto.FLOAT)
        return m.op("Add", scores, m.op("Mul", behind, m.known(np.array(np.finfo(F32).min, F32))))
    return masked_attention(m, mask)


@case("Add")
def causal_and_padded(m, op):
    """Two masks: a table, and what the host says of each sequence."""
    padding = m.input(m.rng.integers(0, 2, (2, SYMBOL)).astype(I64), symbolic=(1,))
    table = m.known(np.triu(np.full((8, 8), m.rng.choice([-np.inf, np.finfo(F32).min]), F32), 1))
    def mask(scores, length):
        gone = m.op("Sub", m.known(np.array(1, F32)), m.op("Cast", m.op("Unsqueeze", padding, m.ints(1, 2)), to=TensorProto.FLOAT))
        padded = m.op("Mul", gone, m.known(np.array(np.finfo(F32).min, F32)))
        own = m.op("Slice", table, m.ints(0, 0), m.op("Concat", length, length, axis=0), m.ints(0, 1))
        return m.op(op, m.op(op, scores, own), padded)
    return masked_attention(m, mask)


def rms_norm(m, x, size):
    """As exporters write it: by the reciprocal of a root, or by the root."""
    power = m.op("Pow", x, m.known(np.array(2, F32))) if m.rng.integers(2) else m.op("Mul", x, x)
    mean = m.op("ReduceMean", power, m.ints(-1), keepdims=1) if m.opset >= 18 else m.op("ReduceMean", power, axes=[-1], keepdims=1)
    root = m.op("Sqrt", m.op("Add", mean, m.known(np.array(1e-5, F32))))
    which = m.rng.integers(3)
    one = m.known(np.array(1, F32))
    y = m.op("Div", x, root) if which == 0 else m.op("Mul", x, m.op("Div", one, root) if which == 1 else m.op("Reciprocal", root))
    return m.op("Mul", m.known(m.values(size, low=0.5)), y)


@case("Reciprocal", since=14)
def llama_layer(m, op):
    """6 heads of 4 that share 2 of keys and values, turned by their places, which the host gives or the sequence counts."""
    size, heads, shared, each, wide = 24, 6, 2, 4, 20
    x, floats = m.random(1, SYMBOL, size, symbolic=(1,)), {"to": TensorProto.FLOAT}
    length = m.op("Slice", m.op("Shape", x), m.ints(1), m.ints(2))
    if m.rng.integers(2):
        places = m.op("Cast", m.input(m.rng.integers(0, 50, (1, SYMBOL)).astype(I64), symbolic=(1,)), **floats)
    else:
        places = m.op("Unsqueeze", m.op("Cast", m.op("Range", m.known(np.array(0, I64)), m.op("Squeeze", length, m.ints(0)), m.known(np.array(1, I64))), **floats), m.ints(0))
    angles = m.op("Transpose", m.op("MatMul", m.known(m.values(1, each // 2, 1)), m.op("Unsqueeze", places, m.ints(1))), perm=[0, 2, 1])
    angles = m.op("Concat", angles, angles, axis=-1)
    cos, sin = (m.op("Unsqueeze", m.op(f, angles), m.ints(1)) for f in ("Cos", "Sin"))

    def linear(y, n, k):
        return m.op("MatMul", y, m.known(m.values(n, k, low=-0.5, high=0.5)))

    def turned(y):
        half = [m.op("Slice", y, m.ints(a), m.ints(b), m.ints(3), m.ints(1)) for a, b in ((each // 2, 2**63 - 1), (0, each // 2))]
        return m.op("Add", m.op("Mul", y, cos), m.op("Mul", m.op("Concat", m.op("Neg", half[0]), half[1], axis=-1), sin))

    y = rms_norm(m, x, size)
    q, k, v = (m.op("Transpose", m.op("Reshape", linear(y, size, n * each), m.ints(0, 0, n, each)), perm=[0, 2, 1, 3]) for n in (heads, shared, shared))
    groups = m.op("Concat", m.ints(1), m.ints(shared), m.ints(heads // shared), length, m.ints(each), axis=0)
    q, k = turned(q), turned(k)
    k, v = (m.op("Reshape", m.op("Expand", m.op("Unsqueeze", t, m.ints(2)), groups), m.ints(1, heads, -1, each)) for t in (k, v))
    if m.rng.integers(2):  # as torch.export exchanges rows and columns
        k = m.op("Reshape", m.op("Transpose", m.op("Reshape", k, m.op("Concat", m.ints(-1), length, m.ints(each), axis=0)), perm=[0, 2, 1]), m.op("Concat", m.ints(1), m.ints(heads), m.ints(each), length, axis=0))
    else:
        k = m.op("Transpose", k, perm=[0, 1, 3, 2])
    root = m.known(np.array([each**-0.25], F32))
    scores = m.op("MatMul", m.op("Mul", q, root), m.op("Mul", k, root))
    one = numpy_helper.from_array(np.array([1], F32))
    seen = m.op("Trilu", m.op("ConstantOfShape", m.op("Concat", length, length, axis=0), value=one), upper=0)
    gone = m.op("Where", m.op("Equal", seen, m.known(np.array(0, F32))), m.known(np.array(np.finfo(F32).min, F32)), m.known(np.array(0, F32)))
    y = m.op("MatMul", m.op("Softmax", m.op("Add", scores, gone), axis=-1), v)
    x = m.op("Add", x, linear(m.op("Reshape", m.op("Transpose", y, perm=[0, 2, 1, 3]), m.ints(0, 0, size)), size, size))
    y = rms_norm(m, x, size)
    gate = linear(y, size, wide)
    y = m.op("Mul", m.op("Mul", gate, m.op("Sigmoid", gate)), linear(y, size, wide))
    return m.out(m.op("Add", x, linear(y, wide, size)))


@case("Slice")
def positions(m, op):
    """Rows of a table, as many as the sequence has."""
    ids = m.input(m.rng.integers(0, 7, (2, SYMBOL)).astype(I64), symbolic=(1,))
    length = m.op("Unsqueeze", m.op("Gather", m.op("Shape", ids), m.known(np.array(1, I64)), axis=0), m.ints(0))
    places = m.op("Slice", m.known(np.arange(16, dtype=I64).reshape(1, 16)), m.ints(0), length, m.ints(1), m.ints(1))
    words = m.op("Gather", m.known(m.values(7, 5)), ids)
    return m.out(m.op("Add", words, m.op("Gather", m.known(m.values(16, 5)), places)))


# ---- files ------------------------------------------------------------------------------------------------------------------


def write_tensors(path, tensors):
    header, data = {}, b""
    for name, x in tensors.items():
        raw = np.ascontiguousarray(x).tobytes()
        header[name] = {"dtype": {"f4": "F32", "i8": "I64", "u1": "U8"}[x.dtype.str[1:]], "shape": list(x.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--only")
    options = parser.parse_args()
    tensors = {}
    table = (SOURCE / "onnx/onnx_operators.def").read_text()
    without = set(re.findall(r"^ONNX_OP\((\w+)", table, re.M)) - CASES.keys()
    if without:
        sys.exit(f"no case for {', '.join(sorted(without))}")
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 4
    quiet.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for number, (operator, functions) in enumerate(sorted(CASES.items())):
        if options.only and operator != options.only:
            continue
        for k, (function, since) in enumerate(functions):
            opsets = opsets_of(operator, since)
            for i in range(options.count):
                rng = np.random.default_rng([options.seed, k, i, *operator.encode()])
                opset = opsets[0] if i == 0 else opsets[-1 - number % len(opsets)] if i == 1 else int(rng.choice(opsets))
                model = function(Model(rng, opset), operator)
                proto = model.build()
                try:
                    session = onnxruntime.InferenceSession(proto.SerializeToString(), quiet, providers=["CPUExecutionProvider"])
                    results = session.run(model.outputs, model.feeds)
                except Exception as error:  # a case that ONNX itself refuses is a mistake of this script
                    sys.exit(f"{operator} {function.__name__} {i}, operator set {opset}: {error}")
                name = f"{operator}_{function.__name__}_{i}" if len(functions) > 1 else f"{operator}_{i}"
                tensors[f"{name}/model"] = np.frombuffer(proto.SerializeToString(), np.uint8)
                tensors |= {f"{name}/in:{n}": x for n, x in model.feeds.items()}
                tensors |= {f"{name}/out:{n}": np.asarray(y, F32) for n, y in zip(model.outputs, results)}
    # The widest types first, so that every tensor is aligned.
    write_tensors(options.file, dict(sorted(tensors.items(), key=lambda item: -item[1].itemsize)))


main()
