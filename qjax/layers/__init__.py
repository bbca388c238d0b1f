"""What a quantizable network needs beyond NNX. Models import from here.

Every layer calls its *slots* (`weight`, `input`, `output`) where a tensor may be quantized. Float,
simulated and integer are different bindings of the same slots and layers; a model's own `__call__`
serves all three.
"""

from qjax.layers.act import Act
from qjax.layers.affine_norm import Norm
from qjax.layers.conv import Conv, ConvBN
from qjax.layers.dense import Dense, DenseBN
from qjax.layers.join import Add, Concat, Subsample
from qjax.layers.layer import Value
from qjax.layers.pool import AvgPool, GlobalAvgPool, MaxPool
from qjax.layers.shape import Flatten

__all__ = [
    "Act",
    "Add",
    "AvgPool",
    "Concat",
    "Conv",
    "ConvBN",
    "Dense",
    "DenseBN",
    "Flatten",
    "GlobalAvgPool",
    "MaxPool",
    "Norm",
    "Subsample",
    "Value",
]
