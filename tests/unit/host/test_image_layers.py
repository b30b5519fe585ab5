"""The container's image: layers that the destination has are left out of what Docker saves, and the rest arrives."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socketserver
import tarfile
import threading
import tracemalloc
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest

from sealift_agent import docker_api, layers
from sealift_agent.destination.images import receive_image
from sealift_agent.protocol import ImageSent, SendImage
from sealift_agent.source.images import send_image
from sealift_agent.wire import LOOPBACK, AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONG = "a name that is longer than a header of a tar archive has room for " * 4
LARGE_BYTES, SMALL_BYTES = 3_000_000, 60_000


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def saved(*blobs: bytes) -> bytes:
    """What Docker 25 and later save: blobs by digest, and behind them what names them."""
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for folder in ("blobs/", "blobs/sha256/"):
            entry = tarfile.TarInfo(folder)
            entry.type = tarfile.DIRTYPE
            archive.addfile(entry)
        named = {f"blobs/sha256/{digest_of(blob)}": blob for blob in blobs}
        manifest = json.dumps([{"Layers": sorted(named)}]).encode()
        for name, data in [*sorted(named.items()), ("manifest.json", manifest), (LONG, b"")]:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return found.getvalue()


def members(archive: bytes) -> dict[str, bytes | None]:
    """The members of an archive that has its end."""
    assert archive.endswith(bytes(1024))
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {
            each.name: opened.extractfile(each).read() if each.isreg() else None  # type: ignore[union-attr]  # it is regular
            for each in opened
        }


class Daemon(BaseHTTPRequestHandler):
    """A dockerd that saves and loads, and knows images; each test has one of its own."""

    protocol_version = "HTTP/1.1"
    archive = b""
    images: dict[str, list[str] | None]
    info: dict[str, Any]
    loaded: list[bytes]
    answer = b'{"stream":"Loaded image"}'

    def do_GET(self) -> None:
        path = self.path.removeprefix(f"/{docker_api.VERSION}")
        if path == "/images/box:1/get":
            self.say(self.archive)
        elif path == "/info":
            self.say(json.dumps(self.info).encode())
        elif path == "/images/json":
            self.say(json.dumps([{"Id": name} for name in [*self.images, "removed"]]).encode())
        elif (name := path.split("/")[2]) in self.images:
            self.say(json.dumps({"RootFS": {"Type": "layers", "Layers": self.images[name]}}).encode())
        else:
            self.say(b'{"message":"no such image"}', 404)

    def do_POST(self) -> None:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        self.loaded.append(body)
        self.say(self.answer)

    def say(self, data: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def address_string(self) -> str:
        return "local"

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def daemon(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Daemon]]:
    class Own(Daemon): ...

    Own.images, Own.loaded = {}, []
    Own.info = {"Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "extfs"]]}

    monkeypatch.setattr(docker_api, "SOCKET", str(short_path / "docker.sock"))
    with socketserver.ThreadingUnixStreamServer(docker_api.SOCKET, Own) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        yield Own
        server.shutdown()
        serving.join()


def sent(**fields: Any) -> ImageSent:
    return send_image(SendImage("box:1", receive_image(LOOPBACK), **fields))


@pytest.mark.parametrize("bandwidth", [None, 100 << 20])
def test_a_layer_that_is_there_is_not_sent(daemon: type[Daemon], bandwidth: int | None) -> None:
    large, small = os.urandom(LARGE_BYTES), os.urandom(SMALL_BYTES)
    daemon.archive = saved(large, small)
    whole = members(daemon.archive)
    answer = sent(bandwidth=bandwidth, left_out=[f"sha256:{digest_of(large)}"])
    assert answer.refused is None
    assert answer.sent_bytes == len(daemon.loaded[0]) < SMALL_BYTES + 20_000
    del whole[f"blobs/sha256/{digest_of(large)}"]
    assert members(daemon.loaded[0]) == whole


def test_an_image_of_which_nothing_is_there_is_sent_byte_for_byte(daemon: type[Daemon]) -> None:
    daemon.archive = saved(os.urandom(LARGE_BYTES))
    assert sent() == ImageSent(len(daemon.archive))
    assert daemon.loaded == [daemon.archive]


@pytest.mark.parametrize(
    "answer",
    [
        b'{"error":"open /var/lib/docker/tmp/x: no such file"}',
        b'{"stream":"Error unpacking image x: digest"}',
    ],
)
def test_what_docker_does_not_load_is_told_with_its_reason(daemon: type[Daemon], answer: bytes) -> None:
    daemon.archive, daemon.answer = saved(b"a layer"), answer
    refused = sent(left_out=["sha256:" + digest_of(b"a layer")]).refused
    assert refused is not None
    assert answer.decode() in refused


@pytest.mark.parametrize("archive", [saved(bytes(LARGE_BYTES))[:1_000_000], b"this is no archive" * 100])
def test_what_is_no_whole_archive_is_an_error(daemon: type[Daemon], archive: bytes) -> None:
    daemon.archive, daemon.answer = archive, b'{"error":"unexpected EOF"}'
    with pytest.raises(AgentError, match="no whole archive"):
        sent(left_out=["sha256:" + digest_of(b"another")])


class Endless:
    """The archive of an image with a layer of 32 MiB, which nobody has in memory."""

    def __init__(self, size: int) -> None:
        entry = tarfile.TarInfo("blobs/sha256/" + "1" * 64)
        entry.size = size
        self.head, self.left = io.BytesIO(entry.tobuf()), size + 1024

    def read(self, size: int, /) -> bytes:
        if head := self.head.read(size):
            return head
        data = bytes(min(size, self.left))
        self.left -= len(data)
        return data


@pytest.mark.parametrize("left_out", ["1" * 64, "2" * 64], ids=["left-out", "sent"])
def test_what_is_kept_of_an_image_at_a_time_is_bounded(left_out: str) -> None:
    counted: list[int] = []
    tracemalloc.start()
    try:
        layers.send_without([left_out], Endless(32 << 20), lambda data: counted.append(len(data)), 1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(counted) < 1 << 20 if left_out.startswith("1") else sum(counted) > 32 << 20
    assert max(counted) <= 1 << 20
    assert peak < 12 << 20


@pytest.mark.parametrize(
    ("images", "count"),
    [
        ({}, 0),
        ({"scratch": None}, 0),
        ({"same": ["a", "b", "c"]}, 3),
        ({"base": ["a"], "sister": ["a", "b", "x"]}, 2),
        ({"longer": ["a", "b", "c", "d"]}, 3),
        ({"on-another": ["x", "b", "c"]}, 0),
    ],
)
def test_layers_count_as_there_on_the_same_layers_only(
    daemon: type[Daemon], images: dict[str, list[str] | None], count: int
) -> None:
    daemon.images = images
    assert layers.present(["a", "b", "c"]) == count


def test_where_containerd_keeps_the_images_no_layer_counts_as_there(daemon: type[Daemon]) -> None:
    daemon.images = {"same": ["a"]}
    daemon.info = {"Driver": "overlayfs", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}
    assert layers.present(["a"]) == 0


def test_a_layer_is_as_large_as_docker_has_written_down(daemon: type[Daemon], tmp_path: Path) -> None:
    one, two, three = (f"sha256:{digest_of(bytes([number]))}" for number in range(3))
    chain = digest_of(f"{one} {two}".encode())
    for name, size in ((one.removeprefix("sha256:"), "31457280"), (chain, "60000")):
        folder = tmp_path / "image/overlay2/layerdb/sha256" / name
        folder.mkdir(parents=True)
        (folder / "size").write_text(size)
    daemon.info = {"Driver": "overlay2", "DockerRootDir": str(tmp_path)}
    assert layers.sizes([one, two, three]) == [31457280, 60000, 0]
