"""Shows an integer network's file: operators, shapes, scales, bits, bytes.

    python -m qjax.inspect NET.qjax        a program that qjax saved
    python -m qjax.inspect NET.tflite      a full-integer TFLite file
    python -m qjax.inspect NET.onnx        an ONNX file of QLinear operators

The listing names tensors by the line that computes them. Below it stand the multiply-accumulates a
sample takes, the constants by width, and the bytes they take packed, beside those of the file.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from qjax.program.load import load
from qjax.program.onnx.read import read_onnx
from qjax.program.packing import packed_size, packing_of
from qjax.program.program import Program
from qjax.program.statistics import multiplications
from qjax.program.tflite import read_tflite


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns 0, or 2 for a wrong argument or a file that cannot be read."""
    if len(arguments) != 1 or set(arguments) & {"-h", "--help"}:
        sys.stdout.write(__doc__ or "")
        return 0 if set(arguments) & {"-h", "--help"} else 2
    path = Path(arguments[0])
    try:
        program = read(path)
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    print(program)
    print()
    print("\n".join(totals(program, path.stat().st_size)))
    return 0


def read(path: Path) -> Program:
    """A program from any file that holds one, told by its ending.

    Raises:
        ValueError, FileNotFoundError, ImportError: as the reader of that format.
    """
    readers = {".qjax": load, ".tflite": read_tflite, ".onnx": read_onnx}
    if path.suffix not in readers:
        raise ValueError(f"a program's file must end in {', '.join(readers)}, got {path.name!r}")
    return readers[path.suffix](path)


def totals(program: Program, file_bytes: int) -> list[str]:
    """What a program amounts to, a line each."""
    constants = [tensor for tensor in program.tensors if tensor.data is not None]
    widths: Counter[int] = Counter()
    for tensor in constants:
        widths[packing_of(tensor.constant).bits] += tensor.elements
    packed = sum(packed_size(elements, bits) for bits, elements in widths.items())
    counts = ", ".join(f"{n:,} of {bits} bits" for bits, n in sorted(widths.items()))
    return [
        f"multiply-accumulates  {multiplications(program):,} a sample",
        f"constants             {counts}",
        f"bytes                 {packed:,} packed, {file_bytes:,} in the file",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
