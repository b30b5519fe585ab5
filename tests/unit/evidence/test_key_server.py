"""Addresses of AMD's key server, and the cache in front of it, against a server on the loopback."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

import pytest

from sealift.errors import HostUnreachable, UnusableInput
from sealift.evidence.fetch.cache import SIZE_LIMIT
from sealift.evidence.fetch.download import Patience
from sealift.evidence.fetch.kds import KeyServer, cek_path, chain_path, crl_path, vcek_path
from sealift.evidence.formats.endorsement import Kind
from sealift.evidence.formats.tcb import Generation, Tcb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHIP = bytes(range(64))
SHORT = Patience(request_s=5, busy_s=0.3, pause_s=0.05)


class Handler(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []
    answer: ClassVar[bytes] = b"certificate"
    status: ClassVar[int] = 200

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.asked.clear()
    Handler.answer, Handler.status = b"certificate", 200
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_addresses_are_those_of_the_specification() -> None:
    tcb = Tcb(boot_loader=4, tee=0, snp=24, microcode=219)
    assert vcek_path(Generation.MILAN, CHIP, tcb) == (
        f"vcek/v1/Milan/{CHIP.hex()}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"
    )
    turin = Tcb(fmc=1, boot_loader=2, tee=0, snp=4, microcode=80)
    expected = "vcek/v1/Turin/0001020304050607?fmcSPL=01&blSPL=02&teeSPL=00&snpSPL=04&ucodeSPL=80"
    assert vcek_path(Generation.TURIN, CHIP, turin) == expected
    assert vcek_path(Generation.TURIN, CHIP[:8], turin) == expected
    assert chain_path(Kind.VCEK, Generation.GENOA) == "vcek/v1/Genoa/cert_chain"
    assert chain_path(Kind.VLEK, Generation.MILAN) == "vlek/v1/Milan/cert_chain"
    assert crl_path(Kind.VCEK, Generation.TURIN) == "vcek/v1/Turin/crl"
    assert cek_path(CHIP) == f"cek/id/{CHIP.hex()}"


def test_a_masked_chip_has_no_address() -> None:
    with pytest.raises(UnusableInput, match="id"):
        vcek_path(Generation.MILAN, bytes(64), Tcb())


def test_what_was_fetched_once_comes_from_the_cache(server: str, tmp_path: Path) -> None:
    keys = KeyServer(cache=tmp_path / "cache", host=server)
    path = chain_path(Kind.VCEK, Generation.MILAN)
    assert keys.fetch(path, bytes) == b"certificate"
    assert keys.fetch(path, bytes) == b"certificate"
    assert Handler.asked == [f"/{path}"]
    offline = KeyServer(cache=tmp_path / "cache", host="http://127.0.0.1:9", offline=True)
    assert offline.fetch(path, bytes) == b"certificate"


def test_a_crl_is_fetched_afresh(server: str, tmp_path: Path) -> None:
    keys = KeyServer(cache=tmp_path, host=server)
    path = crl_path(Kind.VCEK, Generation.MILAN)
    keys.fetch(path, bytes, fresh=True)
    Handler.answer = b"newer"
    assert keys.fetch(path, bytes, fresh=True) == b"newer"
    assert len(Handler.asked) == 2
    assert keys.fetch(path, bytes) == b"newer"


def test_each_address_has_a_file_of_its_own(server: str, tmp_path: Path) -> None:
    keys = KeyServer(cache=tmp_path, host=server)
    for level in range(4):
        Handler.answer = b"%d" % level
        keys.fetch(vcek_path(Generation.MILAN, CHIP, Tcb(snp=level)), bytes)
    assert len(list(tmp_path.iterdir())) == 4
    assert keys.fetch(vcek_path(Generation.MILAN, CHIP, Tcb(snp=2)), bytes) == b"2"


def test_a_server_that_refuses_or_is_gone_is_unreachable(server: str, tmp_path: Path) -> None:
    Handler.status = 429
    with pytest.raises(HostUnreachable, match="429"):
        KeyServer(tmp_path, server, patience=SHORT).fetch("vcek/v1/Milan/crl", bytes)
    assert not list(tmp_path.iterdir())
    with pytest.raises(HostUnreachable, match="does not answer"):
        KeyServer(host="http://127.0.0.1:9", patience=Patience(request_s=2)).fetch("vcek/v1/Milan/crl", bytes)
    with pytest.raises(HostUnreachable, match="cache"):
        KeyServer(cache=tmp_path, offline=True).fetch("vcek/v1/Milan/crl", bytes)


def test_an_answer_larger_than_any_certificate_is_not_taken(server: str, tmp_path: Path) -> None:
    Handler.answer = bytes(SIZE_LIMIT + 10)
    with pytest.raises(HostUnreachable, match="size"):
        KeyServer(cache=tmp_path, host=server).fetch("vcek/v1/Milan/crl", bytes)
    assert not list(tmp_path.iterdir())


def test_a_file_address_is_not_fetched() -> None:
    with pytest.raises(UnusableInput, match="http"):
        KeyServer(host="file:///etc").fetch("passwd", bytes)
