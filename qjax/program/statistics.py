"""What a program costs."""

from qjax.program.ops import Conv2D, Dense, TransposeConv2D
from qjax.program.program import Program


def multiplications(program: Program) -> int:
    """Multiply-accumulates of weights a sample: taps outside the image are counted too."""
    total = 0
    for operator in program.operators:
        site = program.site(operator)
        if isinstance(operator, Conv2D):
            kh, kw, depth, _ = site.inputs[1].constant.shape
            total += kh * kw * depth * site.output.elements
        elif isinstance(operator, TransposeConv2D):
            kh, kw, _, channels = site.inputs[1].constant.shape
            total += kh * kw * channels * site.inputs[0].elements
        elif isinstance(operator, Dense):
            total += site.inputs[1].constant.shape[0] * site.output.elements
    return total
