"""Training: state, step, loop, phases, optimizers, checkpoints, and what a person watches."""
