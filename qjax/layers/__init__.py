"""What a quantizable network needs beyond NNX. Models import from here.

Every layer calls its *slots* (`weight`, `input`, `output`) where a tensor may be quantized. Float,
simulated and integer are different bindings of the same slots and layers; a model's own `__call__`
serves all three.
"""

from qjax.layers.act import Act, Clip, LeakyRelu
from qjax.layers.affine_norm import Norm
from qjax.layers.conv import Conv, ConvBN
from qjax.layers.dense import Dense, DenseBN
from qjax.layers.join import Add, Concat, Mul, Sub
from qjax.layers.layer import Value
from qjax.layers.pool import AvgPool, GlobalAvgPool, MaxPool
from qjax.layers.shape import Flatten, Pad, Reshape, Subsample
from qjax.layers.softmax import Softmax
from qjax.layers.table import TableAct
from qjax.layers.transposed import ConvTranspose, ConvTransposeBN

__all__ = [
    "Act",
    "Add",
    "AvgPool",
    "Clip",
    "Concat",
    "Conv",
    "ConvBN",
    "ConvTranspose",
    "ConvTransposeBN",
    "Dense",
    "DenseBN",
    "Flatten",
    "GlobalAvgPool",
    "LeakyRelu",
    "MaxPool",
    "Mul",
    "Norm",
    "Pad",
    "Reshape",
    "Softmax",
    "Sub",
    "Subsample",
    "TableAct",
    "Value",
]
