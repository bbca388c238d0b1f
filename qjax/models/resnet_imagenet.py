"""Residual networks for ImageNet: ResNet-18, 34, 50, 101 and 152, activation after addition.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition", arXiv 1512.03385, Table 1,
with projection shortcuts where the shape changes (option B). In the bottleneck the stride sits in
the 3x3 convolution, as in the authors' later code and in most published accuracies ("v1.5"); the
paper has it in the first 1x1.
"""

from __future__ import annotations

from flax import nnx

from qjax.layers import Act, Add, ConvBN, Dense, GlobalAvgPool, MaxPool, Value

STAGES = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Blocks in each stage by depth; from 50 on they are bottlenecks."""

WIDTHS = (64, 128, 256, 512)
AROUND = ((1, 1), (1, 1))


def check_depth(owner: str, depth: int) -> None:
    """Raise unless the paper's table has this depth."""
    if depth not in STAGES:
        raise ValueError(f"{owner}.depth must be one of {sorted(STAGES)}, got {depth}")


def scaled(width: float) -> list[int]:
    """Channels of the four stages times `width`, at least 1 each."""
    return [max(1, round(channels * width)) for channels in WIDTHS]


class BasicBlock(nnx.Module):
    """act(conv(act(conv(x))) + shortcut(x)), both 3x3.

    Args:
        in_features: channels before.
        features: of the convolutions, and after.
        stride: of the first convolution and the shortcut.
        rngs: source of the initial weights.
    """

    expansion = 1

    def __init__(self, in_features: int, features: int, stride: int, *, rngs: nnx.Rngs):
        self.conv1 = ConvBN(in_features, features, 3, stride, AROUND, rngs=rngs)
        self.act1 = Act()
        self.conv2 = ConvBN(features, features, 3, 1, AROUND, rngs=rngs)
        changes = stride != 1 or in_features != features
        self.project = (
            ConvBN(in_features, features, 1, stride, "VALID", rngs=rngs) if changes else None
        )
        self.add = Add()
        self.act2 = Act()

    def __call__(self, x: Value) -> Value:
        """(n, h, w, c) to (n, p, q, o)."""
        y = self.conv2(self.act1(self.conv1(x)))
        return self.act2(self.add(y, x if self.project is None else self.project(x)))


class Bottleneck(nnx.Module):
    """1x1 down, 3x3, 1x1 up by four, plus the shortcut. Arguments as `BasicBlock`; 4 x `features`
    channels leave.
    """

    expansion = 4

    def __init__(self, in_features: int, features: int, stride: int, *, rngs: nnx.Rngs):
        out_features = self.expansion * features
        self.conv1 = ConvBN(in_features, features, 1, 1, "VALID", rngs=rngs)
        self.act1 = Act()
        self.conv2 = ConvBN(features, features, 3, stride, AROUND, rngs=rngs)
        self.act2 = Act()
        self.conv3 = ConvBN(features, out_features, 1, 1, "VALID", rngs=rngs)
        changes = stride != 1 or in_features != out_features
        self.project = (
            ConvBN(in_features, out_features, 1, stride, "VALID", rngs=rngs) if changes else None
        )
        self.add = Add()
        self.act3 = Act()

    def __call__(self, x: Value) -> Value:
        """(n, h, w, c) to (n, p, q, o)."""
        y = self.conv3(self.act2(self.conv2(self.act1(self.conv1(x)))))
        return self.act3(self.add(y, x if self.project is None else self.project(x)))


class ImageNetResNet(nnx.Module):
    """Stem of 7x7 with stride 2 and a 3x3 pooling, four stages, mean, classifier.

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
        check_depth("ImageNetResNet", depth)
        block = BasicBlock if depth < 50 else Bottleneck
        widths = scaled(width)
        self.stem = ConvBN(in_features, widths[0], 7, 2, ((3, 3), (3, 3)), rngs=rngs)
        self.act = Act()
        self.pool = MaxPool(3, 2, 1)
        blocks, channels = [], widths[0]
        for stage, (count, features) in enumerate(zip(STAGES[depth], widths, strict=True)):
            for index in range(count):
                blocks.append(block(channels, features, 2 if stage and not index else 1, rngs=rngs))
                channels = block.expansion * features
        self.blocks = nnx.List(blocks)
        self.mean = GlobalAvgPool()
        self.classifier = Dense(channels, classes, rngs=rngs)

    def __call__(self, x: Value) -> Value:
        """(n, h, w, c) images to (n, classes) logits."""
        x = self.pool(self.act(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.mean(x))
