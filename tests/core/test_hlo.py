"""Kernels read from compiled programs, and from the text of platforms that are not here."""

import jax
import jax.numpy as jnp
from jax import lax

from qjax.core import hlo

CODES = jnp.zeros((16, 64), jnp.int8)


def compiled(run, *inputs: jax.Array) -> str:
    return jax.jit(run).lower(*inputs).compile().as_text() or ""


def integer_dot(x: jax.Array, y: jax.Array) -> jax.Array:
    return lax.dot(x, y, preferred_element_type=jnp.int32)


def test_library_and_loop_and_float_are_told_apart() -> None:
    assert hlo.paths(compiled(integer_dot, CODES, CODES.T)) == "s8 library"
    assert hlo.paths(compiled(integer_dot, CODES[0], CODES.T)) == "s32 loop"
    real = CODES.astype(jnp.float32)
    assert hlo.paths(compiled(jnp.matmul, real, real.T)) == "f32 library"
    assert hlo.paths(compiled(jnp.add, CODES, CODES)) == "elementwise"


def test_products_carry_the_layer_they_were_traced_in() -> None:
    def run(x: jax.Array) -> jax.Array:
        with jax.named_scope("stem"):
            y = integer_dot(x, x.T)
        with jax.named_scope("head"):
            return integer_dot((y & 127).astype(jnp.int8), x)

    found = hlo.products(compiled(run, CODES))
    assert [p.operation for p in found] == ["dot", "dot"]
    assert sorted(p.layer.split("/")[1] for p in found) == ["head", "stem"]


def test_calls_of_gpu_libraries() -> None:
    text = """HloModule jit_f

ENTRY %main (x: s8[16,64], y: s8[64,16]) -> s32[16,16] {
  %x = s8[16,64]{1,0} parameter(0)
  %y = s8[64,16]{1,0} parameter(1)
  %gemm = (s32[16,16]{1,0}, s8[4194304]{0}) custom-call(%x, %y), custom_call_target="__cublas$lt$matmul", metadata={op_name="jit(f)/dot_general"}
  %sort = s8[16,64]{1,0} custom-call(%x), custom_call_target="__cub$DeviceRadixSort"
  ROOT %out = s32[16,16]{1,0} get-tuple-element(%gemm), index=0
}
"""  # noqa: E501
    assert hlo.products(text) == [
        hlo.Product("__cublas$lt$matmul", "s8", "__cublas$lt$matmul", "jit(f)/dot_general")
    ]


def test_operands_printed_with_their_types() -> None:
    text = """ENTRY %main (x: s8[2,3]) -> s32[2,2] {
  %x = s8[2,3]{1,0} parameter(0)
  ROOT %dot.1 = s32[2,2]{1,0} dot(s8[2,3]{1,0} %x, s8[2,3]{1,0} %x), lhs_contracting_dims={1}
}
"""
    assert [(p.operand, p.path) for p in hlo.products(text)] == [("s8", "s8 loop")]
