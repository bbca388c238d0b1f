"""Integer arrays in as few bits as their values need.

An array whose values are low + step * k with k from 0 to 2**bits - 1 is stored as the k, `bits`
bits each, least significant bit first, one after the other without gaps, the last byte filled with
zeros. The step matters where codes were doubled: -15, -13 ... 15 takes 4 bits, -1 and 1 take one.
"""

from typing import NamedTuple

import numpy as np

MAX_BITS = 32
# Elements unpacked at a time, whole bytes for any width: intermediate bits take 64 times the space.
_BLOCK = 2**16


class Packing(NamedTuple):
    """How an array was packed: value = low + step * k, k of `bits` bits."""

    low: int
    step: int
    bits: int


def packing_of(values: np.ndarray) -> Packing:
    """The narrowest packing of an integer array with at least one element.

    >>> packing_of(np.array([-15, 3, 15]))
    Packing(low=-15, step=6, bits=3)
    """
    wide = values.astype(np.int64)
    low = int(wide.min())
    step = int(np.gcd.reduce(wide.ravel() - low)) or 1
    return Packing(low, step, max(1, ((int(wide.max()) - low) // step).bit_length()))


def packed_size(elements: int, bits: int) -> int:
    """Bytes that so many elements take."""
    return (elements * bits + 7) // 8


def pack(values: np.ndarray, packing: Packing) -> bytes:
    """The bytes of an array, in C order.

    >>> pack(np.array([1, -1, -1, 1]), Packing(-1, 2, 1)).hex()
    '09'
    """
    steps = ((values.astype(np.int64) - packing.low) // packing.step).ravel()
    if packing.bits in (8, 16, 32):
        return steps.astype(f"<u{packing.bits // 8}").tobytes()
    parts = []
    for start in range(0, steps.size, _BLOCK):
        bits = (steps[start : start + _BLOCK, None] >> np.arange(packing.bits)) & 1
        parts.append(np.packbits(bits.astype(np.uint8), bitorder="little").tobytes())
    return b"".join(parts)


def unpack(content: bytes, elements: int, packing: Packing) -> np.ndarray:
    """The values back, (elements,), in the narrowest integer type that holds them.

    Raises:
        ValueError: too few or too many bytes, or values that leave 32 bits.

    >>> unpack(bytes.fromhex("09"), 4, Packing(-1, 2, 1)).tolist()
    [1, -1, -1, 1]
    """
    low, step, bits = packing
    if not (1 <= bits <= MAX_BITS and 1 <= step <= 2**32 and -(2**31) <= low < 2**31):
        raise ValueError(f"low {low}, step {step} and {bits} bits are no packing of int32 values")
    top = low + step * (2**bits - 1)
    if len(content) != packed_size(elements, bits):
        raise ValueError(
            f"{elements} values of {bits} bits take {packed_size(elements, bits)} bytes, got "
            f"{len(content)}"
        )
    values = np.empty(elements, np.result_type(np.min_scalar_type(low), np.min_scalar_type(top)))
    for start in range(0, elements, _BLOCK):
        stop = min(start + _BLOCK, elements)
        part = content[start * bits // 8 : packed_size(stop, bits)]
        steps = _steps(part, stop - start, bits)
        if (steps > (2**31 - 1 - low) // step).any():
            raise ValueError(f"an array of {bits} bits holds values above 2**31 - 1")
        values[start:stop] = low + step * steps
    return values


def _steps(content: bytes, elements: int, bits: int) -> np.ndarray:
    """The k of some elements, int64."""
    if bits in (8, 16, 32):
        return np.frombuffer(content, f"<u{bits // 8}").astype(np.int64)
    flat = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
    table = flat[: elements * bits].reshape(elements, bits)
    return table.astype(np.int64) @ (1 << np.arange(bits, dtype=np.int64))
