"""`lower`: a network's program as one that a format can hold, its rounding that of the runtime.

The network's program sums in int32 and rounds in an operator of its own, with any policy, any real
scale and offset. A runtime rounds inside each operator, between tensors that have one float32 scale
and zero point each. Lowering puts each sum and its rounding together. The program that comes out is
the one that is written, run by the runtime and compared with it: its codes are the runtime's. The
network's codes it meets but for rounding (`report.py` counts how often).
"""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Array, UInt8

from qjax.core.affine import HostNumber
from qjax.core.host import HostArray
from qjax.program import ops
from qjax.program.base import Operator, Site
from qjax.program.lowering.container import Container
from qjax.program.lowering.draft import Draft, Value, refuse
from qjax.program.lowering.elementwise import curve, largest, total
from qjax.program.lowering.fuse import Grid
from qjax.program.lowering.lander import Lander
from qjax.program.lowering.landing import Landing
from qjax.program.program import Program
from qjax.program.run import run
from qjax.program.tensor import Quantization, Tensor

type Extremes = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""By tensor of a network's program, its least and largest integers, each (c,)."""

_LOGITS = "logits"
_MOVES = (ops.MaxPool, ops.Slice, ops.Pad, ops.Reshape)


@dataclasses.dataclass(frozen=True)
class Lowered:
    """What `lower` returns.

    Attributes:
        program: for the format.
        changed: operators some of whose channels have other weights than the network's, because
            their bias would not fit; by name, how many channels.
        places: for each int8 tensor of the network, the tensor of `program` that has its codes, and
            what was added to them.
    """

    program: Program
    changed: dict[str, int]
    places: dict[str, tuple[str, int]]


def lower(
    program: Program, container: Container, seen: Extremes | None = None, fill: bool = False
) -> Lowered:
    """Bring a network's program into a format's form.

    Args:
        program: what `qjax.export.program_of` wrote.
        container: the format.
        seen: what `observe` saw on real images. Logits of a last layer without an `output`
            quantizer get 8 bits that cover it.
        fill: give 8 bits that cover `seen` also to sums that meet others before they are rounded,
            instead of raising. That is another network than the one that was trained.

    Raises:
        NotExpressible: naming what the format cannot hold, and the formats that can.
        ValueError: `seen` is needed and missing.
    """
    return _Lowering(program, container, seen, fill).lowered()


class _Lowering:
    """One walk over a network's program."""

    def __init__(
        self, program: Program, container: Container, seen: Extremes | None, fill: bool
    ) -> None:
        self.program = program
        self.container = container
        self.seen = seen
        self.fill = fill
        self.draft = Draft(container)
        self.codes: dict[str, Value] = {}
        self.sums: dict[str, tuple[Operator, Site]] = {}
        self.lander = Lander(self.draft, self.codes, self.sums)
        self.logits = self.classes = ""

    def lowered(self) -> Lowered:
        """The result of the walk."""
        for operator in self.program.operators:
            self._operator(operator, self.program.site(operator))
        if not self.classes:
            raise refuse(self.program.outputs[0], "not a network's logits", self.container)
        logits = self._real(self.logits) if self.container.real_logits else self.logits
        program = self.draft.program(self.program.inputs, (logits, self.classes))
        places = {
            name: (value.tensor.name, value.grid.zero - value.zero)
            for name, value in self.codes.items()
        }
        return Lowered(program, self.lander.changed, places)

    def _real(self, codes: str) -> str:
        """Write the logits as float32 numbers."""
        (tensor,) = (tensor for tensor in self.draft.tensors if tensor.name == codes)
        output = Tensor(_LOGITS, tensor.shape, "float32")
        return self.draft.add(ops.Dequantize((codes,), _LOGITS), output).name

    def _operator(self, operator: Operator, site: Site) -> None:
        name = operator.output
        known = [source in self.codes for source in operator.inputs]
        if isinstance(operator, ops.Recentre):
            self.codes[name] = self._pixels(operator, site)
        elif isinstance(operator, ops.Requantize) and operator.scales:
            self._requantize(operator, site)
        elif isinstance(operator, _MOVES) and all(known):
            source = self.codes[operator.inputs[0]]
            self.codes[name] = self.lander.move(operator, source, site.output)
        elif isinstance(operator, ops.Concat) and all(known) and site.output.units.axis is None:
            self.codes[name] = self._concat(operator, site)
        elif isinstance(operator, ops.Maximum) and all(known):
            values = [self.codes[source] for source in operator.inputs]
            self.codes[name] = largest(self.draft, operator, site.output, values)
        elif isinstance(operator, ops.Lookup) and known[0]:
            value = curve(self.draft, operator, name, self.codes[operator.inputs[0]])
            grid = self.draft.place(site.output)
            scale = np.asarray(value.grid.scale / grid.scale)
            landing = Landing(site.output, grid, scale, np.zeros(()))
            self.codes[name] = self.lander.regrid(value, landing)
        elif isinstance(operator, ops.ArgMax):
            self.classes = name
            self.draft.add(ops.ArgMax((self.logits,), name), site.output)
        else:
            # Whether a format can hold it shows where it is rounded.
            self.sums[name] = operator, site

    def _pixels(self, operator: ops.Recentre, site: Site) -> Value:
        """The image as bytes.

        Where one scale and a whole zero point for all channels say what the first requantization
        makes of them, they are the image's; otherwise mean and deviation wait in that one.
        """
        (pixels,) = site.inputs
        step, zero = self._image_units(operator.output)
        units = [Quantization(HostArray(step), HostArray(float(zero + more))) for more in (128, 0)]
        image = Tensor(pixels.name, pixels.shape, "uint8", units[0])
        self.draft.tensors.append(image)
        if self.container.dtype == "uint8":
            return Value(image, zero, 0, 255)
        codes = Tensor(operator.output, pixels.shape, "int8", units[1])
        self.draft.add(ops.Requantize((image.name,), codes.name), codes)
        return Value(codes, zero, -128, 127)

    def _image_units(self, codes: str) -> tuple[float, int]:
        """Scale, and code of real zero among the int8 ones."""
        readers = [op for op in self.program.operators if codes in op.inputs]
        if len(readers) == 1 and isinstance(readers[0], ops.Requantize) and readers[0].scales:
            site = self.program.site(readers[0])
            affine = readers[0].affine(site)
            scale = np.unique(affine.scales[0])
            zero = np.unique((affine.zero_point - affine.offset) / affine.scales[0])
            if scale.size == zero.size == 1 and abs(zero[0] - np.round(zero[0])) < 1e-6:
                if scale[0] > 0 and -128 <= np.round(zero[0]) <= 127:
                    step = float(np.float32(scale[0] * self.draft.place(site.output).scale))
                    return step, int(np.round(zero[0]))
        return float(np.float32(1 / 255)), -128

    def _requantize(self, operator: ops.Requantize, site: Site) -> None:
        affine = operator.affine(site)
        rest = affine.offset - affine.zero_point
        output = site.output
        if output.dtype == "int32":
            self._logits(operator, site, rest)
            return
        grid = self.draft.place(output)
        sources = list(operator.inputs)
        if len(sources) == 1:
            landing = Landing(output, grid, affine.scales[0], rest)
            self.codes[output.name] = self.lander.land(sources[0], landing)
            return
        self.codes[output.name] = self._add(operator, site, grid, rest)

    def _add(self, operator: ops.Requantize, site: Site, grid: Grid, rest: HostNumber) -> Value:
        name = site.output.name
        terms = list(zip(operator.inputs, (s.value for s in operator.scales), strict=True))
        waiting = [source for source, _ in terms if source not in self.codes]
        if len(terms) > 2 or (waiting and not self.fill):
            problem = f"{len(terms)} terms meet before they are rounded"
            raise refuse(name, problem, self.container)
        rest = rest + sum(s * self.codes[n].zero for n, s in terms if n in self.codes)
        if not waiting and (np.abs(rest) > 1e-6).any():
            raise refuse(name, "an addition with an offset", self.container)
        values = []
        for place, (source, scale) in enumerate(terms):
            if source in self.codes:
                values.append((self.codes[source], scale))
                continue
            # The offset of all terms goes with the first that waits.
            part = f"{name}.term{place}"
            value = self._covered(source, part, scale, rest, grid.scale)
            values.append((value, np.float64(value.grid.scale / grid.scale)))
            rest = np.zeros(())
        return total(self.draft, site.output, grid, values)

    def _covered(
        self, source: str, name: str, scale: HostNumber, rest: HostNumber, step: float
    ) -> Value:
        """A sum on 8 bits that cover what was seen of it.

        Args:
            source: the sum.
            name: of its codes.
            scale, rest: `step`s a unit of the sum, and steps.
            step: real units.
        """
        if self.seen is None:
            raise ValueError(
                f"{source!r} has no grid of its own; real images must be seen to give it one"
            )
        ends = [step * (scale * end + rest) for end in self.seen[source]]
        covering, zero = _covering(float(np.min(ends)), float(np.max(ends)))
        ratio = step / covering
        units = Quantization(HostArray(covering), HostArray(float(zero)))
        codes = Tensor(name, self.program[source].shape, "int8", units, -128, 127)
        landing = Landing(codes, self.draft.place(codes), scale * ratio, rest * ratio)
        return self.lander.land(source, landing)

    def _concat(self, operator: ops.Concat, site: Site) -> Value:
        """Codes of one grid, which may have found different places in the format."""
        grid, zero = self.draft.place(site.output), site.output.units.zero_point.value
        landing = Landing(site.output, grid, np.ones(()), -zero)
        values = [
            self.lander.land(source, landing.named(f"{site.output.name}.part{place}", tensor.shape))
            for place, (source, tensor) in enumerate(zip(operator.inputs, site.inputs, strict=True))
        ]
        return self.lander.join(operator, values, site.output)

    def _logits(self, operator: ops.Requantize, site: Site, rest: HostNumber) -> None:
        """8-bit logits: those of the last layer's own quantizer, or a range that was given."""
        if len(operator.inputs) != 1:
            raise refuse(site.output.name, "logits that are a sum of terms", self.container)
        (source,) = operator.inputs
        scale, step = operator.scales[0].value, site.output.units.step
        if source in self.codes:
            value = self.codes[source]
            total = rest + scale * value.zero
            if scale.ndim == 0 and (np.abs(total * step) < 1e-6 * value.grid.scale).all():
                self.logits = value.tensor.name
                return
        name = f"{_LOGITS}.codes" if self.container.real_logits else _LOGITS
        self.logits = self._covered(source, name, scale, rest, step).tensor.name


def _covering(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of int8 codes that cover a range and zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max(high - low, 1e-6) / 255))
    return scale, int(np.clip(np.round(-128 - low / scale), -128, 127))


def observe(program: Program, pixels: UInt8[np.ndarray, "n h w c"]) -> Extremes:
    """The least and largest integers of every tensor over some images, by channel."""

    @jax.jit
    def ends(pixels: Array) -> dict[str, tuple[Array, Array]]:
        values = run(program, pixels, all_tensors=True)
        axes = {name: tuple(range(value.ndim - 1)) for name, value in values.items()}
        return {
            name: (value.min(axes[name]), value.max(axes[name])) for name, value in values.items()
        }

    return {name: (np.asarray(a), np.asarray(b)) for name, (a, b) in ends(pixels).items()}
