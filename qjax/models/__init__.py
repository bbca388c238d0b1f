"""Plain NNX networks; they know nothing of quantization."""
