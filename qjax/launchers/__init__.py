"""Sweeps: what Hydra's multirun does with many configurations of one command."""
