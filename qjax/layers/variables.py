"""State drawers: variable types of our own, so that optimizers and checkpoints select by type.

They derive from `nnx.Variable` and not from `nnx.Param`, since a filter for `Param` would swallow a
subclass.
"""

from __future__ import annotations

from flax import nnx


class Learned(nnx.Variable):
    """A quantizer number that the optimizer moves: a clip, a step."""


class Statistic(nnx.Variable):
    """A quantizer number that the forward pass moves in training: a running range."""


class Traced(nnx.Variable):
    """A quantizer number that nothing moves within a step: bits, decay."""


class Progress(nnx.Variable):
    """Share of the training that is done, in [0, 1]: the training step sets it, methods anneal by
    it.
    """


class Noise(nnx.Variable):
    """Random key of a stochastic quantizer; every training pass splits it."""


class IntegerConstant(nnx.Variable):
    """Integer weights of a converted network."""


KINDS = {"learned": Learned, "statistic": Statistic, "traced": Traced, "progress": Progress}
"""Variable type of each kind of quantizer number."""
