"""Augmentation on the device: random shifts and mirrors, inside the compiled step."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, UInt8


@dataclasses.dataclass(frozen=True)
class Augment:
    """Pad, crop at random, mirror at random: the standard augmentation of CIFAR-10.

    Attributes:
        pad: pixels on each side, black as in the papers' code (0 before normalization); 0 for none.
        flip: mirror half of the images left to right.
    """

    pad: int = 0
    flip: bool = False

    def __call__(
        self, images: UInt8[Array, "n h w c"], key: PRNGKeyArray
    ) -> UInt8[Array, "n h w c"]:
        """Augmented images of the same shape."""
        n, h, w, _ = images.shape
        shift_key, flip_key = jax.random.split(key)
        if self.pad:
            around = ((0, 0), (self.pad, self.pad), (self.pad, self.pad), (0, 0))
            padded = jnp.pad(images, around)
            shifts = jax.random.randint(shift_key, (n, 2), 0, 2 * self.pad + 1)
            rows = shifts[:, :1] + jnp.arange(h)[None, :]
            columns = shifts[:, 1:] + jnp.arange(w)[None, :]
            if self.flip:
                mirrored = jax.random.bernoulli(flip_key, 0.5, (n, 1))
                columns = jnp.where(mirrored, columns[:, ::-1], columns)
            # One gather does both: rows and columns of each image by its own indices.
            return padded[jnp.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
        if self.flip:
            mirrored = jax.random.bernoulli(flip_key, 0.5, (n, 1, 1, 1))
            return jnp.where(mirrored, images[:, :, ::-1], images)
        return images
