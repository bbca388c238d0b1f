"""A network with every layer that the models of `qjax/models` do without."""

from flax import nnx

from qjax.layers import (
    Act,
    Clip,
    Concat,
    ConvBN,
    ConvTransposeBN,
    Dense,
    GlobalAvgPool,
    LeakyRelu,
    MaxPool,
    Mul,
    Pad,
    Reshape,
    Softmax,
    Sub,
    TableAct,
    Value,
)


class EveryLayer(nnx.Module):
    """Down and up again, a gate, a depthwise convolution over explicit padding, shares of channels.

    Args:
        classes: logits.
        rngs: source of the initial weights.
    """

    def __init__(self, classes: int = 10, *, rngs: nnx.Rngs):
        self.stem = ConvBN(1, 8, 3, dilation=2, rngs=rngs)
        self.leaky = LeakyRelu(0.1)
        self.down = ConvBN(8, 12, 3, 2, rngs=rngs)
        self.act = Act("relu6")
        self.up = ConvTransposeBN(12, 8, 3, 2, rngs=rngs)
        self.sub = Sub()
        self.clip = Clip(-3.0, 4.0)
        self.mean = GlobalAvgPool()
        self.squeezed = Act("identity")
        self.gate = Dense(8, 8, rngs=rngs)
        self.sigmoid = TableAct("sigmoid")
        self.reshape = Reshape((1, 1, 8))
        self.mul = Mul()
        self.gated = Act("relu")
        self.pad = Pad(((1, 0), (2, 0)))
        self.depthwise = ConvBN(8, 16, (2, 3), padding="VALID", groups=8, rngs=rngs)
        self.tanh = TableAct("tanh")
        self.pool = MaxPool(2)
        self.concat = Concat()
        self.softmax = Softmax()
        self.weighted = Mul()
        self.last = GlobalAvgPool()
        self.classifier = Dense(28, classes, rngs=rngs)

    def __call__(self, x: Value) -> Value:
        """(n, h, w, 1) images, h and w even, to (n, classes) logits."""
        x = self.leaky(self.stem(x))
        y = self.act(self.down(x))
        x = self.clip(self.sub(x, self.up(y)))
        gate = self.sigmoid(self.gate(self.squeezed(self.mean(x))))
        x = self.gated(self.mul(x, self.reshape(gate)))
        x = self.pool(self.tanh(self.depthwise(self.pad(x))))
        x = self.concat(x, y)
        return self.classifier(self.last(self.weighted(x, self.softmax(x))))
