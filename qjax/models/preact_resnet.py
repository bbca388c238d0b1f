"""Residual networks for ImageNet in full pre-activation: the form that PACT and LSQ quantize.

He, Zhang, Ren, Sun, "Identity mappings in deep residual networks", arXiv 1603.05027. Each
convolution has normalization and activation *before* it, so every convolution receives quantized
codes, while the residual sum itself has no activation and keeps its precision: in integers it is a
growing sum of pending accumulators that each block's normalization and activation round once.

As in the paper, the first activation stands right behind the stem and before the paths split, so
the first block has none of its own; a last one follows the last addition.
"""

from __future__ import annotations

from flax import nnx

from qjax.layers import Act, Add, Conv, ConvBN, Dense, GlobalAvgPool, MaxPool, Norm, Value
from qjax.models.resnet_imagenet import AROUND, STAGES, check_depth, scaled


class PreBasic(nnx.Module):
    """x + conv(act(bn(conv(act(bn(x)))))), both 3x3.

    The normalization between the convolutions is the first one's own (`ConvBN`).

    Args:
        in_features: channels before.
        features: of the convolutions, and after.
        stride: of the first convolution and the shortcut.
        first: whether x is an activation already (the network's first block).
        rngs: source of the initial weights.
    """

    expansion = 1

    def __init__(
        self, in_features: int, features: int, stride: int, first: bool = False, *, rngs: nnx.Rngs
    ):
        self.norm = None if first else Norm(in_features)
        self.act1 = None if first else Act()
        self.conv1 = ConvBN(in_features, features, 3, stride, AROUND, rngs=rngs)
        self.act2 = Act()
        self.conv2 = Conv(features, features, 3, 1, AROUND, use_bias=False, rngs=rngs)
        changes = stride != 1 or in_features != features
        self.project = _projection(in_features, features, stride, rngs) if changes else None
        self.add = Add()

    def __call__(self, x: Value) -> Value:
        """(n, h, w, c) to (n, p, q, o)."""
        a = x if self.norm is None or self.act1 is None else self.act1(self.norm(x))
        y = self.conv2(self.act2(self.conv1(a)))
        return self.add(y, x if self.project is None else self.project(a))


class PreBottleneck(nnx.Module):
    """1x1 down, 3x3, 1x1 up by four, each behind its activation. Arguments as `PreBasic`; 4 x
    `features` channels leave.
    """

    expansion = 4

    def __init__(
        self, in_features: int, features: int, stride: int, first: bool = False, *, rngs: nnx.Rngs
    ):
        out_features = self.expansion * features
        self.norm = None if first else Norm(in_features)
        self.act1 = None if first else Act()
        self.conv1 = ConvBN(in_features, features, 1, 1, "VALID", rngs=rngs)
        self.act2 = Act()
        self.conv2 = ConvBN(features, features, 3, stride, AROUND, rngs=rngs)
        self.act3 = Act()
        self.conv3 = Conv(features, out_features, 1, 1, "VALID", use_bias=False, rngs=rngs)
        changes = stride != 1 or in_features != out_features
        self.project = _projection(in_features, out_features, stride, rngs) if changes else None
        self.add = Add()

    def __call__(self, x: Value) -> Value:
        """(n, h, w, c) to (n, p, q, o)."""
        a = x if self.norm is None or self.act1 is None else self.act1(self.norm(x))
        y = self.conv3(self.act3(self.conv2(self.act2(self.conv1(a)))))
        return self.add(y, x if self.project is None else self.project(a))


def _projection(in_features: int, out_features: int, stride: int, rngs: nnx.Rngs) -> Conv:
    """The shortcut where the shape changes; it starts behind the block's first activation."""
    return Conv(in_features, out_features, 1, stride, "VALID", use_bias=False, rngs=rngs)


class PreActResNet(nnx.Module):
    """Stem of 7x7 with stride 2 and a 3x3 pooling, four stages, a last normalization, classifier.

    Args:
        depth: 18, 34, 50, 101 or 152.
        in_features: image channels.
        classes: logits.
        width: multiplier of the channels 64-128-256-512.
        rngs: source of the initial weights.

    Raises:
        ValueError: for another depth.
    """

    def __init__(
        self,
        depth: int = 18,
        in_features: int = 3,
        classes: int = 1000,
        width: float = 1.0,
        *,
        rngs: nnx.Rngs,
    ):
        check_depth("PreActResNet", depth)
        block = PreBasic if depth < 50 else PreBottleneck
        widths = scaled(width)
        self.stem = ConvBN(in_features, widths[0], 7, 2, ((3, 3), (3, 3)), rngs=rngs)
        self.act1 = Act()
        self.pool = MaxPool(3, 2, 1)
        blocks, channels = [], widths[0]
        for stage, (count, features) in enumerate(zip(STAGES[depth], widths, strict=True)):
            for index in range(count):
                stride = 2 if stage and not index else 1
                blocks.append(block(channels, features, stride, not blocks, rngs=rngs))
                channels = block.expansion * features
        self.blocks = nnx.List(blocks)
        self.norm = Norm(channels)
        self.act2 = Act()
        self.mean = GlobalAvgPool()
        self.classifier = Dense(channels, classes, rngs=rngs)

    def __call__(self, x: Value) -> Value:
        """(n, h, w, c) images to (n, classes) logits."""
        x = self.pool(self.act1(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.mean(self.act2(self.norm(x))))
