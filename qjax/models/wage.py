"""The networks of WAGE: no bias, no normalization, pooling between convolution and ReLU.

Wu, Li, Chen, Shi, ICLR 2018, arXiv 1802.04680, section 4: 32C5-MP2-64C5-MP2-512FC-10 for MNIST and
2x(128C3)-MP2-2x(256C3)-MP2-2x(512C3)-MP2-1024FC-10 for SVHN and CIFAR-10.
"""

from __future__ import annotations

from collections.abc import Sequence

from flax import nnx

from qjax.layers import Act, Conv, Dense, Flatten, MaxPool, Value


class WageLeNet(nnx.Module):
    """conv 5x5 - pool - relu, twice, then two dense layers.

    Args:
        in_features: image channels.
        classes: logits.
        image: side of the square image; 28 for MNIST.
        widths: channels of the two convolutions and of the hidden dense layer.
        padding: of the convolutions, "SAME" as in the released code (CIFAR-10 only), or "VALID";
            the paper names none for MNIST.
        rngs: source of the initial weights.
    """

    def __init__(
        self,
        in_features: int = 1,
        classes: int = 10,
        image: int = 28,
        widths: Sequence[int] = (32, 64, 512),
        padding: str = "SAME",
        *,
        rngs: nnx.Rngs,
    ):
        first, second, hidden = widths
        border = 4 if padding == "VALID" else 0
        side = ((image - border) // 2 - border) // 2
        if side < 1:
            raise ValueError(f"WageLeNet.image must be at least 16 with VALID, got {image}")
        self.conv1 = Conv(in_features, first, 5, 1, padding, use_bias=False, rngs=rngs)
        self.pool1 = MaxPool(2)
        self.act1 = Act()
        self.conv2 = Conv(first, second, 5, 1, padding, use_bias=False, rngs=rngs)
        self.pool2 = MaxPool(2)
        self.act2 = Act()
        self.flatten = Flatten()
        self.dense1 = Dense(side * side * second, hidden, use_bias=False, rngs=rngs)
        self.act3 = Act()
        self.dense2 = Dense(hidden, classes, use_bias=False, rngs=rngs)

    def __call__(self, x: Value) -> Value:
        """Logits."""
        x = self.act1(self.pool1(self.conv1(x)))
        x = self.act2(self.pool2(self.conv2(x)))
        return self.dense2(self.act3(self.dense1(self.flatten(x))))


class WageVGG(nnx.Module):
    """Three stages of two 3x3 convolutions, then two dense layers.

    Args:
        in_features: image channels.
        classes: logits.
        image: side of the square image, a multiple of 8.
        width: multiplier of all channels, rounded to whole ones.
        rngs: source of the initial weights.
    """

    def __init__(
        self,
        in_features: int = 3,
        classes: int = 10,
        image: int = 32,
        width: float = 1.0,
        *,
        rngs: nnx.Rngs,
    ):
        if image < 8 or image % 8:
            raise ValueError(f"WageVGG.image must be a multiple of 8, got {image}")
        widths = [max(1, round(width * channels)) for channels in (128, 256, 512)]
        convs, channels = [], in_features
        for features in widths:
            for source in (channels, features):
                convs.append(Conv(source, features, 3, 1, "SAME", use_bias=False, rngs=rngs))
            channels = features
        hidden = max(1, round(width * 1024))
        self.convs = nnx.List(convs)
        self.acts = nnx.List([Act() for _ in convs])
        self.pools = nnx.List([MaxPool(2) for _ in widths])
        self.flatten = Flatten()
        self.dense1 = Dense((image // 8) ** 2 * channels, hidden, use_bias=False, rngs=rngs)
        self.act = Act()
        self.dense2 = Dense(hidden, classes, use_bias=False, rngs=rngs)

    def __call__(self, x: Value) -> Value:
        """Logits."""
        for index, (conv, act) in enumerate(zip(self.convs, self.acts, strict=True)):
            x = conv(x)
            x = act(self.pools[index // 2](x) if index % 2 else x)
        return self.dense2(self.act(self.dense1(self.flatten(x))))
