"""The embedded set: 1,797 handwritten digits, 8x8, grey, shipped inside scikit-learn.

Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
1998 (its test part). There is no published split of these, so a fixed one is made here.
"""

import hashlib

import numpy as np

from qjax.data.dataset import NO_AUGMENTATION, Augmentation, Dataset, dataset_of
from qjax.data.source import Arrays, Pin, fingerprint

PINS = (
    Pin(
        (1438, 8, 8, 1),
        "4edea0b9ff8f92a275f3d10b966b0c03eece29386345d0847cb3da9ac4c9af6e",
    ),
    Pin((1438,), "4e3b8241301ad51a3b4b1fa1d175a2ef80170b8fc4161ba7c3c1d5d848ca2bc2"),
    Pin(
        (359, 8, 8, 1),
        "192af01dfaf34f8608739aaf944f985cfbb4f62a195c322cc3635a5ebc55d411",
    ),
    Pin((359,), "1af9611bdefa2c7823e41295b7ec4d289cb610128b5a8f6535624fd51656d271"),
)
_CLASSES = 10


def held_out(labels: np.ndarray) -> np.ndarray:
    """Positions of the test images: a fifth of each class, ascending.

    The fifth is the one whose positions have the largest SHA-256. A hash, not a random generator,
    because no generator's stream is promised to stay the same from release to release.

    Args:
        labels: class of each image, shape (n,).
    """
    chosen = []
    for label in range(_CLASSES):
        members = np.flatnonzero(labels == label).tolist()
        members.sort(key=lambda position: hashlib.sha256(str(position).encode()).digest())
        chosen += members[len(members) - round(len(members) / 5) :]
    return np.array(sorted(chosen))


def load(
    augmentation: Augmentation = NO_AUGMENTATION,
    train_limit: int | None = None,
    test_limit: int | None = None,
) -> Dataset:
    """The digits, pixels 0-16 scaled to 0-255, with a fifth of each class held out.

    Args:
        augmentation: what training may do to an image; nothing by default.
        train_limit: first so many training images only; None keeps all 1,438.
        test_limit: first so many test images only; None keeps all 359.

    Raises:
        ValueError: the installed scikit-learn ships other numbers, or a limit is out of range.
    """
    # Imported here: it takes a second, and only this set needs it.
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.round(pixels * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    test = np.zeros(len(labels), bool)
    test[held_out(labels)] = True
    labels = labels.astype(np.uint8)
    arrays = Arrays(images[~test], labels[~test], images[test], labels[test])
    for field, array, pin in zip(Arrays._fields, arrays, PINS, strict=True):
        if problem := pin.mismatch(array):
            raise ValueError(
                f"scikit-learn's load_digits is not the known one: {field} {problem}. "
                "Install a release of scikit-learn within the range of pyproject.toml"
            )
    return dataset_of(
        arrays,
        name="digits",
        classes=_CLASSES,
        source="scikit-learn load_digits",
        sha256=fingerprint([pin.sha256 for pin in PINS]),
        licence="UCI Machine Learning Repository, CC BY 4.0",
        augmentation=augmentation,
    ).limit(train_limit, test_limit)
