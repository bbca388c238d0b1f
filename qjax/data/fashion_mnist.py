"""Fashion-MNIST: 60,000 and 10,000 pictures of clothes, 28x28, grey, in the format of MNIST.

Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", arXiv:1708.07747, 2017.
"""

from qjax.data.dataset import NO_AUGMENTATION, Augmentation, Dataset
from qjax.data.fetch import assemble
from qjax.data.idx import IDX_FILES, read_idx_folder
from qjax.data.origins import DebianPackage, Homepage
from qjax.data.source import Pin, Source

SOURCE = Source(
    name="fashion_mnist",
    classes=10,
    homepage="https://github.com/zalandoresearch/fashion-mnist",
    licence="MIT, copyright 2017 Zalando SE",
    files=IDX_FILES,
    pins=(
        Pin(
            (60000, 28, 28, 1),
            "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
        ),
        Pin((60000,), "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7"),
        Pin(
            (10000, 28, 28, 1),
            "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        ),
        Pin((10000,), "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9"),
    ),
    origins=(
        Homepage("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", IDX_FILES),
        DebianPackage(
            name="dataset-fashion-mnist",
            sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
            folder="usr/share/datasets/fashion-mnist",
        ),
    ),
    decode=read_idx_folder,
)


def load(
    root: str | None = None,
    pad: int = 0,
    augmentation: Augmentation = NO_AUGMENTATION,
    train_limit: int | None = None,
    test_limit: int | None = None,
) -> Dataset:
    """Fashion-MNIST from `root`, else from the cache, which is filled first where need be.

    Args:
        root: folder with the four IDX files, plain or compressed; None means the cache.
        pad: black pixels added on each side, 0-256; 2 gives 32x32.
        augmentation: what training may do to an image; nothing by default.
        train_limit: first so many training images only; None keeps all.
        test_limit: first so many test images only; None keeps all.

    Raises:
        FileNotFoundError, ValueError: a file is missing, damaged or not the published one.
        qjax.data.fetch.FetchError: nothing is cached and no origin delivers.
    """
    return assemble(SOURCE, root, augmentation, pad).limit(train_limit, test_limit)
