"""onnxruntime's sessions, without JAX: a process of its own starts with them."""

from typing import Any

from qjax.program.extras import require

THREADS = 2


def session(content: bytes, *, optimized: bool, threads: int = THREADS) -> Any:
    """An onnxruntime session on the CPU.

    Args:
        content: of the file.
        optimized: whether nodes may be joined and reordered.
        threads: that compute one node.

    Raises:
        ImportError: onnxruntime is not installed.
        ValueError: onnxruntime does not take the file.
    """
    runtime = require("onnxruntime", "onnxruntime")
    options = runtime.SessionOptions()
    levels = runtime.GraphOptimizationLevel
    level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    options.graph_optimization_level = level
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception classes have no common one of their own
        raise ValueError(f"onnxruntime does not run the file: {str(error)[:500]}") from error
