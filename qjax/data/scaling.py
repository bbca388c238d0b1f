"""How bytes become the numbers that a network sees: (pixel / 255 - mean) / std of the data set.

A choice of `conf/pixels`: each function takes a data set and returns it with the mean and standard
deviation that the choice means.
"""

from __future__ import annotations

from dataclasses import replace

from qjax.data.dataset import Dataset


def standardized(data: Dataset) -> Dataset:
    """Each channel with mean 0 and deviation 1 over the train split: the data set as it is."""
    return data


def symmetric(data: Dataset) -> Dataset:
    """Pixels on [-1, 1], pixel / 127.5 - 1 in every channel, as WAGE's released code."""
    half = (0.5,) * len(data.mean)
    return replace(data, mean=half, std=half)
