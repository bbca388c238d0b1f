"""Labelled images as NumPy arrays: no JAX, no Hydra, nothing fetched until a loader is called."""
