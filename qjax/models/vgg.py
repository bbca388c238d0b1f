"""VGG-small: the plain convolutional network of the CIFAR-10 rows of quantization papers.

Six 3x3 convolutions in pairs of 128, 256 and 512 channels, a pooling after each pair, then the
classifier: the form of Zhang et al., "LQ-Nets", arXiv 1807.10029, section 4.1, after Simonyan,
Zisserman, arXiv 1409.1556, and Courbariaux et al., arXiv 1511.00363. With a hidden dense layer of
1024 it is the VGG-7 of TWN (arXiv 1605.04711) and WAGE (arXiv 1802.04680).
"""

from __future__ import annotations

from collections.abc import Sequence

from flax import nnx

from qjax.layers import Act, ConvBN, Dense, DenseBN, Flatten, MaxPool, Value


class Pair(nnx.Module):
    """conv - act - conv - act - pool.

    Args:
        in_features, out_features: channels before and after.
        rngs: source of the initial weights.
    """

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        around = ((1, 1), (1, 1))
        self.conv1 = ConvBN(in_features, out_features, 3, 1, around, rngs=rngs)
        self.act1 = Act()
        self.conv2 = ConvBN(out_features, out_features, 3, 1, around, rngs=rngs)
        self.act2 = Act()
        self.pool = MaxPool(2)

    def __call__(self, x: Value) -> Value:
        """(n, h, w, c) to (n, h/2, w/2, o)."""
        return self.pool(self.act2(self.conv2(self.act1(self.conv1(x)))))


class VggSmall(nnx.Module):
    """Three pairs of convolutions and a classifier.

    Args:
        in_features: image channels.
        classes: logits.
        image: side of the square image, a multiple of 8; 32 for CIFAR.
        widths: channels of the three pairs.
        hidden: features of a dense layer before the classifier; 0 for none.
        rngs: source of the initial weights.

    Raises:
        ValueError: a side that three poolings do not divide.
    """

    def __init__(
        self,
        in_features: int = 3,
        classes: int = 10,
        image: int = 32,
        widths: Sequence[int] = (128, 256, 512),
        hidden: int = 0,
        *,
        rngs: nnx.Rngs,
    ):
        if image < 8 or image % 8:
            raise ValueError(f"VggSmall.image must be a multiple of 8, got {image}")
        self.image = image
        before = (in_features, *widths[:-1])
        self.pairs = nnx.List([Pair(i, o, rngs=rngs) for i, o in zip(before, widths, strict=True)])
        self.flatten = Flatten()
        features = (image // 8) ** 2 * widths[-1]
        self.dense = DenseBN(features, hidden, rngs=rngs) if hidden else None
        self.act = Act() if hidden else None
        self.classifier = Dense(hidden or features, classes, rngs=rngs)

    def __call__(self, x: Value) -> Value:
        """(n, h, w, c) images to (n, classes) logits."""
        if x.shape[1:3] != (self.image, self.image):
            raise ValueError(
                f"VggSmall.image is {self.image}, but the images are {x.shape[1]} x {x.shape[2]}; "
                f"set model.image={x.shape[1]}"
            )
        for pair in self.pairs:
            x = pair(x)
        x = self.flatten(x)
        if self.dense is not None and self.act is not None:
            x = self.act(self.dense(x))
        return self.classifier(x)
