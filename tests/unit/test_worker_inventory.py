"""What a Prefect worker takes: inventories of one folder, written by root or its user, and no run without password."""

from __future__ import annotations

import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from sealift import inventory as inventories
from sealift.errors import Refused, UnusableInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INVENTORY = """
[hosts.destination]
address = "192.0.2.2"
host_key = "ssh-ed25519 AAAA"
key_file = "/dev/null"
[gateway]
address = "192.0.2.3"
host_key = "ssh-ed25519 AAAA"
key_file = "/dev/null"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "workers"
    made.mkdir()
    (made / "sealift.toml").write_text(INVENTORY)
    monkeypatch.setenv("SEALIFT_INVENTORIES", str(made))
    monkeypatch.setenv("SEALIFT_RUN", str(tmp_path / "run"))
    monkeypatch.delenv("SEALIFT_INVENTORY", raising=False)
    return made


def test_one_of_the_folder_is_taken_by_name_by_path_and_unnamed(folder: Path) -> None:
    (folder / "other.toml").write_text(INVENTORY)
    assert inventories.find_for_worker() == folder / "sealift.toml"
    assert inventories.find_for_worker(folder / "other.toml") == folder / "other.toml"
    assert inventories.find_for_worker(inventories.Path("other.toml")) == folder / "other.toml"


@pytest.mark.parametrize("way", ["path", "dots", "link", "folder's link", "environment"])
def test_one_from_elsewhere_is_refused(way: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = folder.with_name("sealift.toml")
    elsewhere.write_text(INVENTORY)
    (folder / "link.toml").symlink_to(elsewhere)
    (folder / "linked").symlink_to(elsewhere.parent)
    given = {
        "path": elsewhere,
        "dots": folder / ".." / "sealift.toml",
        "link": folder / "link.toml",
        "folder's link": folder / "linked" / "sealift.toml",
        "environment": None,
    }[way]
    monkeypatch.setenv("SEALIFT_INVENTORY", str(elsewhere))
    with pytest.raises(Refused, match=f"{elsewhere} is not below {folder}"):
        inventories.find_for_worker(given)


def test_the_running_labs_is_taken(folder: Path) -> None:
    lab = inventories.lab_inventory()
    lab.parent.mkdir(parents=True)
    lab.write_text(INVENTORY)
    assert inventories.find_for_worker(lab) == lab


def test_one_that_others_may_have_written_is_refused(folder: Path) -> None:
    below = folder / "below"
    below.mkdir()
    kept = below / "kept.toml"
    kept.write_text(INVENTORY)
    for place in (kept, below, folder):
        mode = place.stat().st_mode & 0o777
        place.chmod(mode | 0o002)
        with pytest.raises(Refused, match="others than root may have written"):
            inventories.find_for_worker(kept)
        place.chmod(mode)
    assert inventories.find_for_worker(kept) == kept
    with pytest.raises(UnusableInput, match="there is no inventory"):
        inventories.find_for_worker(below / "absent.toml")


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's file needs root")
def test_another_users_is_refused(folder: Path) -> None:
    os.chown(folder / "sealift.toml", 65534, 65534)
    with pytest.raises(Refused, match="belongs to user 65534"):
        inventories.find_for_worker()


class Api(BaseHTTPRequestHandler):
    """Answers as an API with a password does, or as one without."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def api(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Api]]:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with HTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{server.server_port}/api"}):
            monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "a run")
            yield Api
        server.shutdown()


def test_a_worker_runs_nothing_for_an_api_that_asks_for_no_password(api: type[Api], folder: Path) -> None:
    from flows.admission import admit

    api.status = 200
    with pytest.raises(Refused, match="asks for no password"):
        admit(None)
    api.status = 401
    assert set(admit(None).hosts) == {"destination"}


def test_evidence_none_needs_the_inventorys_leave(api: type[Api], folder: Path) -> None:
    from flows.admission import admit

    api.status = 401
    admit(None, "destination", "snp")
    with pytest.raises(Refused, match="may not ask for evidence none"):
        admit(None, "destination", "none")
    with (folder / "sealift.toml").open("a") as file:
        file.write('[worker]\nwithout_evidence = ["destination"]\n')
    admit(None, "destination", "none")


def test_at_a_command_line_nothing_of_this_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.admission import admit

    monkeypatch.delenv("PREFECT__FLOW_RUN_ID", raising=False)
    elsewhere = folder.with_name("mine.toml")
    elsewhere.write_text(INVENTORY)
    assert set(admit(elsewhere, "destination", "none").hosts) == {"destination"}


def test_a_run_inside_of_one_that_was_let_in_has_what_that_one_gives_it(
    api: type[Api], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep brings up a lab, and has it migrated by the flow, without evidence where the lab has none."""
    from flows import admission

    api.status = 401
    elsewhere = folder.with_name("mine.toml")
    elsewhere.write_bytes((folder / "sealift.toml").read_bytes())
    running = SimpleNamespace(flow_run=SimpleNamespace(id="inner"))
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "outer")
    monkeypatch.setattr(admission.FlowRunContext, "get", lambda: running)
    assert set(admission.admit(elsewhere, "destination", "none").hosts) == {"destination"}
    running.flow_run.id = "outer"
    with pytest.raises(Refused, match="is not below"):
        admission.admit(elsewhere)
