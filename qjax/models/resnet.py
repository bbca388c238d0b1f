"""Residual networks for 32x32 images.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition", arXiv 1512.03385, section 4.2:
depth 6n + 2, three stages of n blocks with 16, 32 and 64 channels, shortcuts without parameters
(option A). ResNet-8 has n = 1.
"""

from __future__ import annotations

from flax import nnx

from qjax.layers import Act, Add, ConvBN, Dense, GlobalAvgPool, Subsample, Value


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut: act(conv(act(conv(x))) + x).

    Args:
        in_features, out_features: channels before and after.
        stride: of the first convolution and the shortcut.
        rngs: source of the initial weights.
    """

    def __init__(self, in_features: int, out_features: int, stride: int, *, rngs: nnx.Rngs):
        around = ((1, 1), (1, 1))
        self.conv1 = ConvBN(in_features, out_features, 3, stride, around, rngs=rngs)
        self.act1 = Act()
        self.conv2 = ConvBN(out_features, out_features, 3, 1, around, rngs=rngs)
        changes = stride != 1 or in_features != out_features
        self.shortcut = Subsample(stride, out_features) if changes else None
        self.add = Add()
        self.act2 = Act()

    def __call__(self, x: Value) -> Value:
        """(n, h, w, c) to (n, p, q, o)."""
        y = self.conv2(self.act1(self.conv1(x)))
        return self.act2(self.add(y, x if self.shortcut is None else self.shortcut(x)))


class ResNet(nnx.Module):
    """ResNet of depth 6n + 2 for small images.

    Args:
        depth: 8, 14, 20, 32, 44, 56 or any other 6n + 2.
        in_features: image channels.
        classes: logits.
        width: multiplier of the channels 16-32-64; at least 1/16, rounded to whole channels.
        rngs: source of the initial weights.

    Raises:
        ValueError: when depth is not 6n + 2.
    """

    def __init__(
        self,
        depth: int = 20,
        in_features: int = 3,
        classes: int = 10,
        width: float = 1.0,
        *,
        rngs: nnx.Rngs,
    ):
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(
                f"ResNet.depth must be 6n + 2 (8, 14, 20, 32, 44, 56, ..), got {depth}"
            )
        widths = [max(1, round(channels * width)) for channels in (16, 32, 64)]
        self.stem = ConvBN(in_features, widths[0], 3, 1, ((1, 1), (1, 1)), rngs=rngs)
        self.act = Act()
        blocks, channels = [], widths[0]
        for stage, features in enumerate(widths):
            for index in range((depth - 2) // 6):
                stride = 2 if stage and not index else 1
                blocks.append(BasicBlock(channels, features, stride, rngs=rngs))
                channels = features
        self.blocks = nnx.List(blocks)
        self.mean = GlobalAvgPool()
        self.classifier = Dense(channels, classes, rngs=rngs)

    def __call__(self, x: Value) -> Value:
        """(n, h, w, c) images to (n, classes) logits."""
        x = self.act(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.mean(x))
