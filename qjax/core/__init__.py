"""Quantizers, grids, codes, gradients and fixed-point arithmetic; imports nothing of qjax."""
