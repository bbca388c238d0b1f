"""The small networks: shapes, widths, and what their constructors refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qjax.models.lenet import LeNet5
from qjax.models.mobilenet import MobileNet
from qjax.models.resnet import ResNet
from qjax.models.small import SmallCNN
from qjax.tree import walk


def abstract(make) -> nnx.Module:
    """A model without its numbers."""
    return nnx.eval_shape(lambda: make(nnx.Rngs(0)))


def parameters(make) -> int:
    """How many numbers an optimizer moves."""
    leaves = jax.tree.leaves(nnx.state(abstract(make), nnx.Param))
    return sum(int(np.prod(leaf.shape)) for leaf in leaves)


@pytest.mark.parametrize("depth", [8, 20, 32, 56])
def test_residual_networks_have_the_papers_depth(depth: int):
    model = abstract(lambda rngs: ResNet(depth, rngs=rngs))
    blocks = model.blocks  # pyright: ignore[reportAttributeAccessIssue]
    assert 2 * len(blocks) + 2 == depth


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (56, 0.85)])
def test_residual_networks_have_the_papers_size(depth: int, millions: float):
    # He et al., Table 6.
    count = parameters(lambda rngs: ResNet(depth, rngs=rngs))
    assert round(count / 1e6, 2) == millions


def test_lenet_has_the_layers_it_names():
    kernels = 25 * 32 + 25 * 32 * 64 + 7 * 7 * 64 * 512 + 512 * 10
    norms_and_bias = 2 * (32 + 64 + 512) + 10
    made = parameters(lambda rngs: LeNet5(widths=(32, 64, 512), rngs=rngs))
    assert made == kernels + norms_and_bias


@pytest.mark.parametrize(
    ("make", "side", "channels"),
    [
        (lambda r: SmallCNN(width=4, classes=7, rngs=r), 8, 1),
        (lambda r: LeNet5(image=12, widths=(4, 6, 8), classes=7, rngs=r), 12, 1),
        (lambda r: ResNet(8, width=0.25, classes=7, rngs=r), 16, 3),
        (lambda r: MobileNet(width=0.25, classes=7, rngs=r), 16, 3),
    ],
    ids=["small", "lenet5", "resnet8", "mobilenet"],
)
def test_logits_and_layers(make, side: int, channels: int):
    x = jnp.ones((2, side, side, channels))
    assert jax.eval_shape(lambda: make(nnx.Rngs(0))(x)).shape == (2, 7)
    assert {layer.kind for _, layer in walk(abstract(make))} >= {"conv", "act", "dense"}


def test_a_width_multiplies_every_channel():
    thin, wide = (
        abstract(lambda rngs, w=w: ResNet(8, width=w, rngs=rngs)).stem.kernel.shape  # pyright: ignore
        for w in (0.5, 2.0)
    )
    assert (thin[-1], wide[-1]) == (8, 32)


@pytest.mark.parametrize("depth", [2, 9, 18, 0])
def test_other_depths_are_refused(depth: int):
    with pytest.raises(ValueError, match=rf"ResNet\.depth must be 6n \+ 2 .*got {depth}"):
        ResNet(depth, rngs=nnx.Rngs(0))
