"""A container's port in the bridge: which veth pair is a namespace's, and that it goes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sealift_agent import docker_api
from sealift_agent.destination import afterwards
from sealift_agent.network import bridge_port

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")]

HERE, OTHER = f"slt{os.getpid()}a"[-15:], f"slt{os.getpid()}b"[-15:]


def there(port: str) -> bool:
    return Path("/sys/class/net", port).exists()


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace with one end of a veth pair; another pair has both its ends here."""
    with subprocess.Popen(["unshare", "--net", "sleep", "60"]) as process:
        namespace = f"/proc/{process.pid}/ns/net"
        try:
            while Path(namespace).readlink() == Path("/proc/self/ns/net").readlink():
                pass
            pairs = (
                [HERE, "type", "veth", "peer", "name", "eth0", "netns", str(process.pid)],
                [OTHER, "type", "veth"],
            )
            for words in pairs:
                if subprocess.run(["ip", "link", "add", *words], check=False, capture_output=True).returncode:
                    pytest.skip("this kernel has no veth pairs")
            yield namespace
        finally:
            for port in (HERE, OTHER):
                bridge_port.delete(port)
            process.kill()


def test_only_the_pair_that_leads_into_the_namespace_is_found_and_deleted(namespace: str) -> None:
    assert bridge_port.outer_ends(namespace) == [HERE]
    bridge_port.delete(HERE)
    assert not there(HERE)
    assert there(OTHER)
    assert bridge_port.outer_ends(namespace) == []
    bridge_port.delete(HERE)


@pytest.mark.usefixtures("namespace")
def test_whoever_removes_a_copy_deletes_its_pair_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also recovery, which knows only the id: Docker, asked to remove the container, may have forgotten its network."""
    container = "c0b1e5" * 10
    monkeypatch.setattr(afterwards, "RESTORES", tmp_path)
    monkeypatch.setattr(docker_api, "call", lambda *_, **__: None)
    (tmp_path / container).mkdir()
    (tmp_path / container / afterwards.PORT).write_text(HERE)
    afterwards.remove_copy(container, {})
    assert not there(HERE)
    assert there(OTHER)
    assert not (tmp_path / container).exists()
    afterwards.remove_copy(container, {})  # of one that was never started nothing is there
