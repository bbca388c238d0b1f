"""An integer network's layers written down as a program, one after the other as they run.

A `Recorder` stands where the layers stand and is shown what each is given, under an abstract trace:
it knows every array by the tensor that holds it, writes the layer's operators, and hands on what
the layer returns. The numbers of every requantization are the network's own (`Affine`), so the
program's codes are the network's, bit for bit. `qjax.export.program_of` drives it.
"""

from functools import partial

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array

from qjax.core.affine import Affine
from qjax.core.codes import Codes, IntegerTerm
from qjax.core.host import HostArray
from qjax.core.requantize import name_of
from qjax.layers import affine_norm, conv, join, pool, shape, softmax, table, transposed
from qjax.layers.linear import IntegerLinear
from qjax.layers.slots import Requantize
from qjax.program import ops
from qjax.program.base import Operator
from qjax.program.program import Program
from qjax.program.tensor import Quantization, Shape, Tensor


class Recorder:
    """Writes operators and tensors while a network is traced.

    Args:
        pixels: abstract uint8 images (1, h, w, c).
        codes: what the network makes of them.
    """

    def __init__(self, pixels: Array, codes: Codes) -> None:
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []
        # The arrays are kept, so that no other can take their identity.
        self._known: dict[int, tuple[Array, str]] = {}
        self.policies: set[str] = set()
        (term,) = codes.terms
        grid = _units(term.scale.value, term.zero_point.value + 128, pixels.ndim)
        self.tensors.append(Tensor("pixels", _batched(pixels.shape), "uint8", grid))
        self._write(ops.Recentre(("pixels",), "codes"), "int8", term, term.ints.shape)
        self._learn(term.ints, "codes")

    def layer(self, path: str, twin: nnx.Module, inputs: tuple[Codes, ...]) -> Codes:
        """Write the operators of one layer; returns what it computes.

        Raises:
            ValueError: a layer that no operator computes, naming it.
        """
        match twin:
            case IntegerLinear():
                return self._linear(path, twin, *inputs)
            case Requantize():
                (x,) = inputs
                return self._requantize(path, twin, x, self._names(x))
            case join.Then():
                if isinstance(twin.entry, Requantize):
                    (x,) = inputs
                    inputs = (self._requantize(f"{path}.input", twin.entry, x, self._names(x)),)
                pending = self._operation(path, twin.operation, inputs)
                if twin.exit is None:
                    return pending
                assert isinstance(twin.exit, Requantize)
                return self._requantize(f"{path}.output", twin.exit, pending, self._names(pending))
            case _:
                return self._operation(path, twin, inputs)

    def logits(self, y: Codes, affine: Affine, step: float) -> None:
        """Write the common grid of the logits, and the class.

        Args:
            y: what the last layer hands on.
            affine: the numbers of that grid, always rounded half to even.
            step: real units of a logit.
        """
        shape = _batched(y.shape)
        grid = Quantization(HostArray(step), HostArray(0.0))
        self.tensors.append(Tensor("logits", shape, "int32", grid, affine.low, affine.high))
        self.operators.append(_requantization(self._names(y), "logits", affine, "q31_even"))
        self.tensors.append(Tensor("class", shape[:-1], "int32"))
        self.operators.append(ops.ArgMax(("logits",), "class"))

    def program(self) -> Program:
        """What was written.

        Raises:
            ValueError: layers of different policies.
        """
        if len(self.policies) > 1:
            raise ValueError(f"a program has one policy, the layers have {sorted(self.policies)}")
        name = next(iter(self.policies), "q31_even")
        ends = ("pixels",), ("logits", "class")
        return Program(*ends, tuple(self.tensors), tuple(self.operators), name)

    def _linear(self, path: str, twin: IntegerLinear, x: Codes) -> Codes:
        y = twin(x)
        if isinstance(twin.entry, Requantize):
            x = self._requantize(f"{path}.input", twin.entry, x, self._names(x))
        (operand,), (source,) = x.terms, self._names(x)
        names = [f"{path}.sum{place}" for place in range(len(twin.weights))]
        for place, name in enumerate(names):
            weight = self._weights(path, twin, place, operand)
            operator = _layer_operator(twin, (source, weight.name), name)
            # The network's sums are of the stored codes: their zero is that of x times the weights.
            scale, (low, high) = twin.scales[place].value, twin.bounds[place]
            effective = _double(twin, place) * (
                weight.constant.astype(np.int64) - weight.units.zero_point.value
            )
            axes = tuple(range(weight.constant.ndim - 1))
            zero = float(operand.zero_point.value) * effective.sum(axes)
            grid = _units(scale, zero, len(y.shape))
            self.tensors.append(Tensor(name, _batched(y.shape), "int32", grid, low, high))
            self.operators.append(operator)
        if twin.exit is None:
            for term, name in zip(y.terms, names, strict=True):
                self._learn(term.ints, name)
            return y
        assert isinstance(twin.exit, Requantize)
        blank = jax.numpy.zeros(y.shape, jax.numpy.int32)
        rows = zip(twin.scales, twin.bounds, strict=True)
        terms = [IntegerTerm(blank, s, HostArray(0.0), low, high) for s, (low, high) in rows]
        pending = Codes(tuple(terms), twin.offset)
        self._landing(f"{path}.output", twin.exit, pending, names, y)
        return y

    def _weights(self, path: str, twin: IntegerLinear, place: int, operand: IntegerTerm) -> Tensor:
        kernel = np.asarray(twin.weights[place][...])
        double, correction = _double(twin, place), twin.corrections[place]
        channels = kernel.shape[-1:]
        zero = np.zeros(channels) if correction is None else correction.value / double
        real = twin.scales[place].value * double / operand.scale.value
        grid = Quantization(
            HostArray(np.broadcast_to(real, channels)),
            HostArray(np.broadcast_to(zero, channels)),
            kernel.ndim - 1,
        )
        name = f"{path}.weight{place}"
        self.tensors.append(Tensor(name, kernel.shape, "int8", grid, data=kernel))
        return self.tensors[-1]

    def _requantize(self, name: str, twin: Requantize, x: Codes, sources: list[str]) -> Codes:
        y = twin(x)
        self._landing(name, twin, x, sources, y)
        return y

    def _landing(self, name: str, twin: Requantize, x: Codes, sources: list[str], y: Codes) -> None:
        policy = name_of(twin.policy)
        self.policies.add(policy)
        (term,) = y.terms
        parts = {name: 1.0}
        if twin.slope != 1:
            parts = {f"{name}.positive": 1.0, f"{name}.negative": twin.slope}
        for part, slope in parts.items():
            affine = twin.affine(x, slope)
            self._write(_requantization(sources, part, affine, ""), "int8", term, y.shape)
        if twin.slope != 1:
            self._write(ops.Maximum(tuple(parts), name), "int8", term, y.shape)
        self._learn(term.ints, name)

    def _operation(self, path: str, twin: nnx.Module, inputs: tuple[Codes, ...]) -> Codes:
        """Layers without weights: they sum, choose, join or move integers."""
        y = twin(*inputs)  # pyright: ignore[reportCallIssue]
        names = [self._names(x) for x in inputs]
        if isinstance(twin, join._Joined | affine_norm._Rescaled):
            return y  # the same integers under other scales
        if isinstance(twin, join._SideBySide):
            axis = len(y.shape) - 1
            self._write_term(path, ops.Concat(tuple(n[0] for n in names), path, axis), y, 0)
            return y
        if isinstance(twin, join._Product):
            self._write_term(path, ops.Mul((names[0][0], names[1][0]), path), y, 0)
            return y
        for place, source in enumerate(names[0]):
            name = path if len(names[0]) == 1 else f"{path}.{place}"
            source = self._under_scale(f"{name}.from", source, inputs[0].terms[place], twin)
            self._write_term(name, self._of_one(twin, source, name, inputs[0], y), y, place)
        return y

    def _of_one(self, twin: nnx.Module, source: str, name: str, x: Codes, y: Codes) -> Operator:
        """The operator of a layer that takes one tensor and does not round."""
        match twin:
            case pool._IntegerMax():
                return ops.MaxPool((source,), name, *_sides(twin), twin.pads)
            case pool._IntegerSum():
                return ops.SumPool((source,), name, *_sides(twin))
            case pool._IntegerMean():
                return ops.Sum((source,), name, (1, 2))
            case shape.IntegerReshape() | shape._IntegerFlatten():
                return ops.Reshape((source,), name)
            case shape.IntegerPad():
                return ops.Pad((source,), name, ((0, 0), *twin.padding, (0, 0)))
            case shape._IntegerSubsample():
                return self._thinned(twin, source, name, x, y)
            case table.IntegerTable():
                codes = np.asarray(twin.table[...])
                self.tensors.append(Tensor(f"{name}.table", (256,), "int8", data=codes))
                return ops.Lookup((source, f"{name}.table"), name, twin.function)
            case softmax.IntegerSoftmax():
                return ops.Softmax((source,), name)
        raise ValueError(f"layer {name!r} ({type(twin).__name__}) is in no program; it stays float")

    def _thinned(self, twin, source: str, name: str, x: Codes, y: Codes) -> Operator:
        step = twin.layer.stride
        between = f"{name}.thin"
        sizes = (None, *(-(-size // step) for size in x.shape[1:3]), x.shape[3])
        given = next(tensor for tensor in self.tensors if tensor.name == source)
        self.tensors.append(
            Tensor(between, sizes, given.dtype, given.quantization, given.low, given.high)
        )
        self.operators.append(ops.Slice((source,), between, (0, 0, 0, 0), (1, step, step, 1)))
        more = y.shape[3] - x.shape[3]
        widths = ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2))
        return ops.Pad((between,), name, widths)

    def _under_scale(self, name: str, source: str, term: IntegerTerm, twin: nnx.Module) -> str:
        """A source whose scales have the signs that a maximum must see."""
        tensor = next(tensor for tensor in self.tensors if tensor.name == source)
        signs = np.sign(term.scale.value), np.sign(tensor.units.scale.value)
        if not isinstance(twin, pool._IntegerMax) or (signs[0] == signs[1]).all():
            return source
        self._write(ops.Reshape((source,), name), tensor.dtype, term, term.ints.shape)
        return name

    def _write_term(self, name: str, operator: Operator, y: Codes, place: int) -> None:
        term = y.terms[place]
        self._write(operator, term.ints.dtype.name, term, y.shape)
        self._learn(term.ints, name)

    def _write(self, operator: Operator, dtype: str, term: IntegerTerm, sizes: tuple) -> None:
        grid = _units(term.scale.value, term.zero_point.value, len(sizes))
        name, ends = operator.output, (term.low, term.high)
        self.tensors.append(Tensor(name, _batched(sizes), dtype, grid, *ends))
        self.operators.append(operator)

    def _learn(self, ints: Array, name: str) -> None:
        self._known[id(ints)] = ints, name

    def _names(self, x: Codes) -> list[str]:
        """The tensors that hold a value's terms.

        Raises:
            ValueError: an array that no layer computed.
        """
        unknown = [term for term in x.terms if id(term.ints) not in self._known]
        if unknown:
            raise ValueError(
                f"an array of shape {unknown[0].ints.shape} was computed between the layers; make "
                "what computes it a layer"
            )
        return [self._known[id(term.ints)][1] for term in x.terms]


def _double(twin: IntegerLinear, place: int) -> int:
    """By how much the sum is that of the stored codes: a kernel of doubled codes needs no more."""
    return 1 if twin.corrections[place] is None else twin.doubles[place]


def _sides(twin) -> tuple[tuple[int, int], tuple[int, int]]:
    """Window and strides of a square pool."""
    return (twin.window, twin.window), (twin.stride, twin.stride)


def _layer_operator(twin: IntegerLinear, inputs: tuple[str, str], name: str) -> Operator:
    product = twin.kernels.product
    if not isinstance(product, partial):
        return ops.Dense(inputs, name)
    if product.func is conv.product:
        strides, pads, groups, dilation = product.args
        return ops.Conv2D(inputs, name, strides, pads, dilation, groups)
    assert product.func is transposed.product
    return ops.TransposeConv2D(inputs, name, *product.args)


def _requantization(sources: list[str], name: str, affine: Affine, rule: str) -> ops.Requantize:
    scales = tuple(HostArray(scale) for scale in affine.scales)
    return ops.Requantize(
        tuple(sources), name, scales, HostArray(affine.offset), affine.zeros, rule
    )


def _units(scale: np.ndarray, zero: np.ndarray, rank: int) -> Quantization:
    scale, zero = np.asarray(scale), np.asarray(zero, np.float64)
    if scale.ndim == 0 and zero.ndim:
        scale = np.broadcast_to(scale, zero.shape)
    axis = rank - 1 if scale.ndim else None
    return Quantization(HostArray(scale), HostArray(zero), axis)


def _batched(sizes: tuple[int, ...]) -> Shape:
    return (None, *sizes[1:])
