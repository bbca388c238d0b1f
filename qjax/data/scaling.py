"""How bytes become the numbers that a network sees: (pixel / 255 - mean) / std of the data set.

A choice of `conf/pixels`: each function takes a data set and returns it with the mean and standard
deviation that the choice means.
"""

from __future__ import annotations

from dataclasses import replace

from qjax.data.dataset import Dataset
from qjax.data.imagefolder import ImageFolder

Images = Dataset | ImageFolder


def standardized(data: Images) -> Images:
    """Each channel with mean 0 and deviation 1 over the train split: the data set as it is."""
    return data


def symmetric(data: Images) -> Images:
    """Pixels on [-1, 1], pixel / 127.5 - 1 in every channel, as WAGE's released code."""
    half = (0.5,) * len(data.mean)
    return replace(data, mean=half, std=half)


def centred(data: Images) -> Images:
    """Pixels on [-1, 127/128], pixel / 128 - 1 in every channel: the byte less 128 is the code."""
    half = (128 / 255,) * len(data.mean)
    return replace(data, mean=half, std=half)
