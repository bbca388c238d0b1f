"""LeNet-5 in its modern form: ReLU, maximum pooling, batch normalization after the convolutions.

LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proc.
IEEE 1998. Batch normalization also follows the hidden dense layer, since weight quantizers that
rescale the weights (DoReFa) need it. The widths 16-32-128 train in minutes on a CPU; 32-64-512 are
those of the quantization papers' MNIST networks.
"""

from __future__ import annotations

from collections.abc import Sequence

from flax import nnx

from qjax.layers import Act, ConvBN, Dense, DenseBN, Flatten, MaxPool, Value


class LeNet5(nnx.Module):
    """conv 5x5 - pool - conv 5x5 - pool - dense - dense.

    Args:
        in_features: image channels.
        classes: logits.
        image: side of the square image; 28 for MNIST.
        widths: channels of the two convolutions and of the hidden dense layer.
        function: of the activations, see `qjax.layers.Act`.
        rngs: source of the initial weights.
    """

    def __init__(
        self,
        in_features: int = 1,
        classes: int = 10,
        image: int = 28,
        widths: Sequence[int] = (16, 32, 128),
        function: str = "relu",
        *,
        rngs: nnx.Rngs,
    ):
        first, second, hidden = widths
        side = image // 4
        self.image = image
        self.conv1 = ConvBN(in_features, first, 5, rngs=rngs)
        self.pool1 = MaxPool(2)
        self.act1 = Act(function)
        self.conv2 = ConvBN(first, second, 5, rngs=rngs)
        self.pool2 = MaxPool(2)
        self.act2 = Act(function)
        self.flatten = Flatten()
        self.dense1 = DenseBN(side * side * second, hidden, rngs=rngs)
        self.act3 = Act(function)
        self.dense2 = Dense(hidden, classes, rngs=rngs)

    def __call__(self, x: Value) -> Value:
        """(n, h, w, c) images to (n, classes) logits."""
        if x.shape[1:3] != (self.image, self.image):
            raise ValueError(
                f"LeNet5.image is {self.image}, but the images are {x.shape[1]} x {x.shape[2]}; "
                f"set model.image={x.shape[1]}"
            )
        x = self.act1(self.pool1(self.conv1(x)))
        x = self.act2(self.pool2(self.conv2(x)))
        x = self.act3(self.dense1(self.flatten(x)))
        return self.dense2(x)
