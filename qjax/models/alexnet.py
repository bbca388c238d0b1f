"""AlexNet with batch normalization, as DoReFa-Net and PACT train it.

Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks",
NIPS 2012, in the form of the DoReFa-Net authors' released script (Zhou et al., arXiv 1606.06160;
tensorpack, examples/DoReFa-Net): a first convolution of 12x12 with stride 4 and neither bias nor
normalization, three grouped convolutions, batch normalization everywhere else, no dropout and no
local response normalization.
"""

from __future__ import annotations

from collections.abc import Sequence

from flax import nnx

from qjax.layers import Act, Conv, ConvBN, Dense, DenseBN, Flatten, MaxPool, Value


class AlexNetBN(nnx.Module):
    """Five convolutions, two hidden dense layers, a classifier.

    Args:
        in_features: image channels.
        classes: logits.
        image: side of the square image, at least 44; 224 for ImageNet.
        widths: channels of the five convolutions, even, and of the hidden dense layers.
        rngs: source of the initial weights.

    Raises:
        ValueError: a side too small for the last pooling.

    Differences from the released script: weights start He normal.
    """

    def __init__(
        self,
        in_features: int = 3,
        classes: int = 1000,
        image: int = 224,
        widths: Sequence[int] = (96, 256, 384, 384, 256, 4096),
        *,
        rngs: nnx.Rngs,
    ):
        side = _features_side(image)
        first, second, third, fourth, fifth, hidden = widths
        self.image = image
        self.conv0 = Conv(in_features, first, 12, 4, "VALID", use_bias=False, rngs=rngs)
        self.act0 = Act()
        self.conv1 = ConvBN(first, second, 5, 1, "SAME", 2, rngs=rngs)
        self.pool1 = MaxPool(3, 2, "SAME")
        self.act1 = Act()
        self.conv2 = ConvBN(second, third, 3, 1, "SAME", rngs=rngs)
        self.pool2 = MaxPool(3, 2, "SAME")
        self.act2 = Act()
        self.conv3 = ConvBN(third, fourth, 3, 1, "SAME", 2, rngs=rngs)
        self.act3 = Act()
        self.conv4 = ConvBN(fourth, fifth, 3, 1, "SAME", 2, rngs=rngs)
        self.pool4 = MaxPool(3, 2)
        self.act4 = Act()
        self.flatten = Flatten()
        self.dense0 = DenseBN(side * side * fifth, hidden, rngs=rngs)
        self.act5 = Act()
        self.dense1 = DenseBN(hidden, hidden, rngs=rngs)
        self.act6 = Act()
        self.classifier = Dense(hidden, classes, rngs=rngs)

    def __call__(self, x: Value) -> Value:
        """(n, h, w, c) images to (n, classes) logits."""
        if x.shape[1:3] != (self.image, self.image):
            raise ValueError(
                f"AlexNetBN.image is {self.image}, but the images are {x.shape[1]} x "
                f"{x.shape[2]}; set model.image={x.shape[1]}"
            )
        x = self.act0(self.conv0(x))
        x = self.act1(self.pool1(self.conv1(x)))
        x = self.act2(self.pool2(self.conv2(x)))
        x = self.act3(self.conv3(x))
        x = self.act4(self.pool4(self.conv4(x)))
        x = self.act5(self.dense0(self.flatten(x)))
        x = self.act6(self.dense1(x))
        return self.classifier(x)


def _features_side(image: int) -> int:
    """Side of the last feature map."""
    if image < 44:
        raise ValueError(f"AlexNetBN.image must be at least 44, got {image}")
    side = (image - 12) // 4 + 1
    for _ in range(2):
        side = (side + 1) // 2
    return (side - 3) // 2 + 1
