"""How a lowered program's codes compare with those of the network it came from."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, UInt8

from qjax.program.lowering.lower import Lowered
from qjax.program.program import Program
from qjax.program.run import run, step


@dataclasses.dataclass(frozen=True)
class Deviation:
    """Codes of a network and of its lowered program, and their classes end to end.

    Attributes:
        codes: how many were compared.
        alone: how many differ where every operator is fed the network's own codes.
        differing: how many differ end to end, where an early difference spreads.
        largest: largest difference of an operator fed the network's own codes.
        network, program: classes of each image, end to end.
    """

    codes: int
    alone: int
    differing: int
    largest: int
    network: np.ndarray
    program: np.ndarray

    def __str__(self) -> str:
        alone, spread = (100 * n / max(self.codes, 1) for n in (self.alone, self.differing))
        return (
            f"{alone:.3g} % of {self.codes:,} codes differ from the network's, by {self.largest} "
            f"at most (end to end {spread:.3g} %); "
            f"{int(np.sum(self.network == self.program))} of {len(self.network)} images have its "
            "class"
        )


def deviation(
    original: Program, lowered: Lowered, pixels: UInt8[np.ndarray, "n h w c"]
) -> Deviation:
    """Run both programs and compare every tensor they share."""
    places: dict[str, tuple[str, int]] = {}
    for name, (place, shift) in lowered.places.items():
        # Of tensors that became one, the last is on that one's grid.
        places[place] = name, shift

    def both(pixels: Array) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
        found = run(original, pixels, all_tensors=True)
        made = run(lowered.program, pixels, all_tensors=True)
        return found, made, _alone(lowered.program, places, found, pixels)

    found, made, alone = jax.jit(both)(pixels)
    codes = largest = 0
    different = {"alone": 0, "made": 0}
    for place, (name, shift) in places.items():
        if place in alone:
            ours = np.asarray(found[name], np.int32) + shift
            for kind, values in (("alone", alone), ("made", made)):
                difference = np.abs(ours - np.asarray(values[place], np.int32))
                different[kind] += int(np.count_nonzero(difference))
                if kind == "alone":
                    largest = max(largest, int(difference.max(initial=0)))
            codes += ours.size
    classes = (found[original.outputs[1]], made[lowered.program.outputs[1]])
    ours, theirs = (np.asarray(values) for values in classes)
    return Deviation(codes, different["alone"], different["made"], largest, ours, theirs)


def _alone(
    program: Program, places: dict[str, tuple[str, int]], found: dict[str, Array], pixels: Array
) -> dict[str, Array]:
    """What each operator computes from the network's own codes."""
    values, computed = {program.inputs[0]: pixels}, {}
    for operator in program.operators:
        output = operator.output
        values[output] = step(program, operator, values)
        if output in places:
            computed[output] = values[output]
            name, shift = places[output]
            given = found[name].astype(np.int32) + shift
            values[output] = given.astype(values[output].dtype)
    return computed
