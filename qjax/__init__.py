"""qjax: neural-network quantization in JAX, from the papers to integer-only inference."""
