"""A key server that limits its clients, is not there, or is somebody else; and many who ask it at once."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from evidence_lab import SnpLab, load, vector_evidence

from sealift.errors import HostUnreachable, UnusableInput
from sealift.evidence.fetch import certificates
from sealift.evidence.fetch.cache import Entry
from sealift.evidence.fetch.download import Patience, retry_after_s
from sealift.evidence.fetch.kds import KeyServer, chain_path
from sealift.evidence.formats.endorsement import Endorsement, Kind, read_endorsement
from sealift.evidence.formats.loading import load_certificates
from sealift.evidence.formats.snp_report import sign_snp_report
from sealift.evidence.formats.tcb import Generation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)

QUICK = Patience(request_s=10, busy_s=20, pause_s=0.05)
PORTAL = b"<!DOCTYPE html><html><title>Log in to the network</title></html>"
NOT_FOUND = b"<html><body><h1>404 Not Found</h1></body></html>"


@dataclass
class Said:
    """One answer of the server's. `trickle_s`: between bytes of its body; `endless`: it never stops."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0
    trickle_s: float = 0
    endless: bool = False


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[float, str]] = []
        self.script: list[Said] = []
        self.otherwise = Said(body=b"certificate")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def gaps(self) -> list[float]:
        moments = [moment for moment, _ in self.asked]
        return [after - before for before, after in itertools.pairwise(moments)]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((time.monotonic(), self.path))
        said = self.server.script.pop(0) if self.server.script else self.server.otherwise
        time.sleep(said.delay_s)
        self.send_response(said.status)
        for name, value in said.headers.items():
            self.send_header(name, value)
        if not said.endless:
            self.send_header("Content-Length", str(len(said.body)))
        self.end_headers()
        with suppress(OSError):
            while said.endless:
                self.wfile.write(said.body or bytes(65536))
                time.sleep(said.trickle_s)
            for at in range(len(said.body) if said.trickle_s else 0):
                self.wfile.write(said.body[at : at + 1])
                time.sleep(said.trickle_s)
            if not said.trickle_s:
                self.wfile.write(said.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def endorsed(vectors: Path) -> Endorsement:
    key = vector_evidence(vectors, "milan").key
    assert key is not None
    return read_endorsement(key)


def chain_of(vectors: Path, name: str = "milan") -> bytes:
    return (vectors / f"snp/{name}/ask_ark.pem").read_bytes()


@pytest.mark.parametrize(
    "page", [PORTAL, NOT_FOUND, b"", b"\0" * 100, b"-----BEGIN CERTIFICATE-----\nAAAA\n"], ids=str
)
def test_what_is_no_certificate_is_refused_and_never_kept(
    server: Server, vectors: Path, endorsed: Endorsement, tmp_path: Path, page: bytes
) -> None:
    server.script = [Said(body=page)]
    keys = KeyServer(tmp_path, server.url, patience=QUICK)
    with pytest.raises(HostUnreachable) as raised:
        certificates.fetch_chain(keys, endorsed)
    assert len(str(raised.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())
    # Once the owner has logged in, the next run gets what it asked for.
    server.otherwise = Said(body=chain_of(vectors))
    assert [each.subject_name for each in certificates.fetch_chain(keys, endorsed)] == [
        "SEV-Milan",
        "ARK-Milan",
    ]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_page_of_404_is_not_taken_either(server: Server, endorsed: Endorsement, tmp_path: Path) -> None:
    server.otherwise = Said(404, NOT_FOUND)
    with pytest.raises(HostUnreachable, match="404"):
        certificates.fetch_chain(KeyServer(tmp_path, server.url, patience=QUICK), endorsed)
    assert len(server.asked) == 1
    assert not list(tmp_path.iterdir())


def test_a_page_that_an_earlier_release_kept_counts_as_nothing(
    server: Server, vectors: Path, endorsed: Endorsement, tmp_path: Path
) -> None:
    Entry.of(tmp_path, chain_path(Kind.VCEK, Generation.MILAN)).keep(PORTAL)
    server.otherwise = Said(body=chain_of(vectors))
    with pytest.raises(HostUnreachable, match="cache"):
        certificates.fetch_chain(KeyServer(tmp_path, server.url, offline=True), endorsed)
    keys = KeyServer(tmp_path, server.url, patience=QUICK)
    assert len(certificates.fetch_chain(keys, endorsed)) == 2
    assert len(certificates.fetch_chain(KeyServer(tmp_path, server.url, offline=True), endorsed)) == 2


def test_a_true_certificate_of_something_else_is_not_kept(
    server: Server, vectors: Path, endorsed: Endorsement, tmp_path: Path
) -> None:
    keys = KeyServer(tmp_path, server.url, patience=QUICK)
    server.otherwise = Said(body=chain_of(vectors, "genoa"))
    with pytest.raises(HostUnreachable, match="chain of Milan"):
        certificates.fetch_chain(keys, endorsed)
    report = vector_evidence(vectors, "milan").report
    for body in ((vectors / "snp/genoa/vcek.pem").read_bytes(), chain_of(vectors)):
        server.otherwise = Said(body=body)
        with pytest.raises(HostUnreachable):
            certificates.fetch_key(keys, report)
    server.otherwise = Said(body=(vectors / "snp/crl-milan.pem").read_bytes())
    genoa = vector_evidence(vectors, "genoa").key
    assert genoa is not None
    assert certificates.fetch_crls(keys, read_endorsement(genoa)) == []
    assert not list(tmp_path.iterdir())
    assert len(certificates.fetch_crls(keys, endorsed)) == 1
    server.otherwise = Said(body=(vectors / "snp/milan/vcek.pem").read_bytes())
    assert certificates.fetch_key(keys, report)[0].subject_name == "SEV-VCEK"


def test_a_turin_report_with_its_id_in_64_bytes_asks_for_8_of_them(
    server: Server, snp_lab: SnpLab, tmp_path: Path
) -> None:
    report = sign_snp_report(snp_lab.report(Generation.TURIN), snp_lab.key)
    assert len(report.fields.chip_id) == 64
    server.otherwise = Said(body=snp_lab.certify(snp_lab.endorsement(Generation.TURIN)).der)
    (key,) = certificates.fetch_key(KeyServer(tmp_path, server.url, patience=QUICK), report)
    assert key.subject_name == "SEV-VCEK"
    assert server.asked[0][1].startswith("/vcek/v1/Turin/0102030405060708?fmcSPL=01&blSPL=01")


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_to_wait_is_waited_for(server: Server, tmp_path: Path, status: int) -> None:
    server.script = [Said(status, headers={"Retry-After": "1"}), Said(status)]
    keys = KeyServer(tmp_path, server.url, patience=QUICK)
    assert keys.fetch("vcek/v1/Milan/crl", bytes) == b"certificate"
    assert len(server.asked) == 3
    assert server.gaps[0] >= 1
    assert server.gaps[1] >= 0.04


def test_a_date_to_wait_for_is_waited_for(server: Server, tmp_path: Path) -> None:
    later = datetime.now(UTC) + timedelta(seconds=2.5)
    server.script = [Said(429, headers={"Retry-After": format_datetime(later, usegmt=True)})]
    assert KeyServer(tmp_path, server.url, patience=QUICK).fetch("vcek/v1/Milan/crl", bytes) == b"certificate"
    assert server.gaps[0] >= 1


def test_a_wait_beyond_ones_patience_is_said_and_not_waited_for(server: Server, tmp_path: Path) -> None:
    begun = time.monotonic()
    for asked in ("3600", format_datetime(datetime.now(UTC) + timedelta(days=400), usegmt=True), "9" * 5000):
        server.script = [Said(429, headers={"Retry-After": asked})]
        with pytest.raises(HostUnreachable, match="asks to wait for"):
            KeyServer(tmp_path, server.url, patience=QUICK).fetch("vcek/v1/Milan/crl", bytes)
    assert time.monotonic() - begun < 10
    assert len(server.asked) == 3


def test_pauses_grow_and_have_a_bound(server: Server, tmp_path: Path) -> None:
    server.otherwise = Said(503, headers={"Retry-After": "soon"})
    patience = Patience(request_s=5, busy_s=2, pause_s=0.1)
    begun = time.monotonic()
    with pytest.raises(HostUnreachable, match="503"):
        KeyServer(tmp_path, server.url, patience=patience).fetch("vcek/v1/Milan/crl", bytes)
    assert time.monotonic() - begun < 10
    assert 3 <= len(server.asked) <= 7
    assert server.gaps[-1] > server.gaps[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("12", 12.0),
        (" 12 ", 12.0),
        ("\N{ARABIC-INDIC DIGIT TWO}", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Thu, 99 Foo 1970 00:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -1200", None),
        ("1" * 100, 111111111.0),
    ],
)
def test_what_a_server_says_of_waiting_is_read_or_ignored(text: str | None, seconds: float | None) -> None:
    found = retry_after_s(text)
    if text and "9999" in text:
        assert found is None or found > 1e9
    else:
        assert found == seconds


@pytest.mark.parametrize(
    "said",
    [
        Said(endless=True),
        Said(endless=True, body=b"x", trickle_s=0.05),
        Said(body=b"x" * 1000, trickle_s=0.2),
        Said(delay_s=30),
    ],
    ids=["endless", "endless and slow", "slow", "silent"],
)
def test_an_endless_or_slow_answer_is_given_up(server: Server, tmp_path: Path, said: Said) -> None:
    server.otherwise = said
    patience = Patience(request_s=2, busy_s=2)
    begun = time.monotonic()
    with pytest.raises(HostUnreachable):
        KeyServer(tmp_path, server.url, patience=patience).fetch("vcek/v1/Milan/crl", bytes)
    assert time.monotonic() - begun < 10
    assert not list(tmp_path.iterdir())


def test_what_is_no_http_is_an_error(tmp_path: Path) -> None:
    import socket

    for line in (
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"",
    ):
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def answer(listener: socket.socket = listener, line: bytes = line) -> None:
                peer, _ = listener.accept()
                with peer:
                    peer.recv(4096)
                    peer.sendall(line)

            thread = threading.Thread(target=answer)
            thread.start()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with pytest.raises(HostUnreachable):
                KeyServer(tmp_path, url, patience=QUICK).fetch("vcek/v1/Milan/crl", bytes)
            thread.join()


ASK = """
import sys
from pathlib import Path
from sealift.evidence.fetch.kds import KeyServer
print("ready", flush=True)
sys.stdin.readline()
found = KeyServer(Path(sys.argv[1]), sys.argv[2]).fetch(sys.argv[3], bytes, fresh=sys.argv[4] == "fresh")
sys.stdout.write(found.decode())
"""


@pytest.mark.parametrize("how", ["cached", "fresh"])
def test_runs_at_the_same_time_fetch_once(server: Server, tmp_path: Path, how: str) -> None:
    server.otherwise = Said(body=b"certificate", delay_s=1.5)
    command = [sys.executable, "-c", ASK, str(tmp_path), server.url, "vcek/v1/Milan/crl", how]
    runs = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("go\n")
        run.stdin.flush()
    assert [run.communicate(timeout=40)[0] for run in runs] == ["certificate"] * 3
    assert len(server.asked) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_run_that_was_killed_while_it_asked_holds_nobody_up(server: Server, tmp_path: Path) -> None:
    server.script = [Said(body=b"certificate", delay_s=30)]
    command = [sys.executable, "-c", ASK, str(tmp_path), server.url, "vcek/v1/Milan/crl", "cached"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as killed:
        assert killed.stdin is not None
        killed.stdin.write("go\n")
        killed.stdin.flush()
        while not server.asked:
            time.sleep(0.05)
        killed.kill()
    begun = time.monotonic()
    assert KeyServer(tmp_path, server.url).fetch("vcek/v1/Milan/crl", bytes) == b"certificate"
    assert time.monotonic() - begun < 10
    assert [each.suffix for each in tmp_path.iterdir()] == [""]


def test_one_that_fails_leaves_the_turn_to_the_next(server: Server, tmp_path: Path) -> None:
    server.script = [Said(404, delay_s=1)]
    outcomes: list[object] = []

    def one() -> None:
        try:
            outcomes.append(KeyServer(tmp_path, server.url, patience=QUICK).fetch("cek/id/00", bytes))
        except HostUnreachable as error:
            outcomes.append(error)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(each, HostUnreachable) for each in outcomes) == 1
    assert outcomes.count(b"certificate") == 2
    assert len(server.asked) == 2


def test_a_cache_that_cannot_be_written_is_said_to_be_so(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnusableInput, match="cannot be written"):
        KeyServer(tmp_path / "file/cache", server.url, patience=QUICK).fetch("cek/id/00", bytes)
    assert not server.asked


def test_the_real_chain_goes_round(server: Server, vectors: Path, tmp_path: Path) -> None:
    facts = load(vectors / "snp/expected.json")["ca_chains"]
    for case in facts:
        server.otherwise = Said(body=(vectors / "snp" / case["file"]).read_bytes())
        keys = KeyServer(tmp_path, server.url, patience=QUICK)
        generation = Generation(case["name"])
        read: Callable[[bytes], object] = load_certificates
        assert keys.fetch(chain_path(Kind.VCEK, generation), read)
    assert len(list(tmp_path.iterdir())) == len(facts)
