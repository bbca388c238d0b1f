"""What XLA must be told so that integer products are exact on a GPU.

XLA's Triton kernels compute s8 products wrongly: with jaxlib 0.11.2 on an H200, between 45 and
100 % of the accumulators of small networks differed from numpy's wherever XLA's autotuning chose
such a kernel (nearly all did with --xla_gpu_autotune_level=0); without those kernels none did.
Which kernel is chosen varies from run to run, so they are switched off and not merely checked.
"""

import os

FLAG = "--xla_gpu_enable_triton_gemm"


def use_exact_products() -> None:
    """Switch the inexact kernels off through XLA_FLAGS, unless the flag is set already.

    XLA reads the variable when the first device is used; an entry point calls this before.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {FLAG}=false".strip()


def require_exact_products(platform: str) -> None:
    """Return if integer products are exact on a platform.

    Args:
        platform: "cpu", "gpu" or "tpu".

    Raises:
        RuntimeError: on a GPU whose inexact kernels are not switched off.
    """
    if platform == "gpu" and f"{FLAG}=false" not in os.environ.get("XLA_FLAGS", ""):
        raise RuntimeError(
            "XLA's Triton kernels compute int8 products wrongly on GPUs: set the environment "
            f"variable XLA_FLAGS={FLAG}=false before Python starts (qjax's own commands do)"
        )
