"""ONNX files of quantized operators: written, read, run by onnxruntime."""
