"""From what CRIU, runc, containerd and Docker say to what an operator can do. The messages are theirs."""

from __future__ import annotations

import pytest
from parties_at_hand import Three

from sealift.errors import CommandFailed, MigrationFailed
from sealift.migration.causes import CAUSES, explain
from sealift.migration.cutover import Cutover
from sealift.model import Step
from sealift_agent.protocol import Began, Go, Happened, Outcome, Settled

SAID = {
    "Docker refuses POST /containers/699bc16/start: failed to create task for container: error reading from "
    "server: EOF: unavailable": "containerd",
    "Docker does not answer on /run/docker.sock: [Errno 111] Connection refused": "systemctl status docker",
    "Can't write image: No space left on device": "df -h",
    "(criu/page-xfer.c:191): page-xfer: Can't write pages to socket: Broken pipe": "df -h /run/sealift/dumps",
    "Can't mmap 0x7f0000000000: Cannot allocate memory": "free -m",
    "inet: Can't bind inet socket (id 12): Address already in use": "ss -tulpn",
    "File srv/data/log has bad size 17 (expect 19)": "sealift check",
    "CRIU has stood still for 20 s while it restored the container": "Migrate again",
    "apparmor parsing failed 1": "dmesg | grep apparmor",
}


@pytest.mark.parametrize(("message", "remedy"), SAID.items())
def test_a_known_message_has_a_cause_and_a_remedy_and_is_still_there(message: str, remedy: str) -> None:
    said, todo = explain(message, "destination", "Try.")
    assert said.endswith(f"({message})")
    assert remedy in todo or remedy in said
    assert not todo.endswith(".")


def test_every_cause_has_a_message_that_leads_to_it() -> None:
    first = {next(cause for cause in CAUSES if cause.said.search(message)).means for message in SAID}
    assert first == {cause.means for cause in CAUSES}


def test_an_unknown_message_leads_to_the_hosts_own_logs() -> None:
    assert explain("it fell over", "destination", "Try again.") == (
        "it fell over",
        "Try again. `journalctl -u docker -u containerd` on destination may tell more",
    )


def test_a_roll_back_says_the_cause_the_message_and_the_remedy() -> None:
    three = Three()
    cutover = Cutover(three.request, three.parties, three.journal, three.ready)

    def fail(_: Go) -> None:
        for event in (Began(), Settled(Outcome.ROLLED_BACK)):
            cutover.hear(Happened(0, event))
        raise CommandFailed("Can't write image: No space left on device", host="source", step=Step.TRANSFER)

    three.source.answer(Go, fail)
    cutover.begin()
    cutover.wait(Step.TRANSFER)
    with pytest.raises(MigrationFailed) as raised:
        cutover.record(Step.TRANSFER)
    text = str(raised.value)
    assert text.index("a file system there is full") < text.index("No space left on device")
    assert "rolled back and the container goes on at source" in text
    assert "`df -h`" in text
    assert "Put the cause right" not in text
