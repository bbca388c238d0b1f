"""A small convolutional network for the embedded 8x8 digits: seconds to train, every kind of layer
in it.
"""

from __future__ import annotations

from flax import nnx

from qjax.layers import Act, Add, ConvBN, Dense, GlobalAvgPool, MaxPool, Value


class SmallCNN(nnx.Module):
    """Two convolutions, a pooling, a residual block, a mean and a classifier.

    Args:
        in_features: image channels.
        classes: logits.
        width: channels of the first stage; the second has twice as many.
        rngs: source of the initial weights.
    """

    def __init__(self, in_features: int = 1, classes: int = 10, width: int = 16, *, rngs: nnx.Rngs):
        self.conv1 = ConvBN(in_features, width, 3, rngs=rngs)
        self.act1 = Act()
        self.conv2 = ConvBN(width, 2 * width, 3, rngs=rngs)
        self.pool = MaxPool(2)
        self.act2 = Act()
        self.conv3 = ConvBN(2 * width, 2 * width, 3, rngs=rngs)
        self.add = Add()
        self.act3 = Act()
        self.mean = GlobalAvgPool()
        self.classifier = Dense(2 * width, classes, rngs=rngs)

    def __call__(self, x: Value) -> Value:
        """(n, h, w, c) images to (n, classes) logits."""
        x = self.act1(self.conv1(x))
        x = self.act2(self.pool(self.conv2(x)))
        x = self.act3(self.add(self.conv3(x), x))
        return self.classifier(self.mean(x))
