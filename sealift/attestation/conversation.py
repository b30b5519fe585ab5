"""SEV-SNP: a host is attested over the same connection that is used afterwards.

The owner generates a nonce, connects, accepts any SSH host key for this one question, and gets a report over both
nonces and both public keys. If the policy accepts the report, and the report binds the SSH host key of this connection,
the connection may be used for commands, files and keys.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sealift.attestation.record import Record
from sealift.errors import CommandFailed, EvidenceRejected, HostUnreachable, UnusableInput
from sealift.evidence.fetch.cache import default_folder
from sealift.evidence.fetch.certificates import complete
from sealift.evidence.fetch.kds import KeyServer
from sealift.evidence.formats.report_data import NONCE_BYTES, Binding
from sealift.evidence.formats.snp_report import parse_snp_report
from sealift.evidence.verify.freshness import Nonce, nonce_reasons
from sealift.evidence.verify.snp import SnpEvidence, verify_snp
from sealift.evidence.verify.verdict import Reason
from sealift.host import ssh
from sealift.host.stranger import Stranger, meet
from sealift.processor.certificates import snp_evidence
from sealift_guest.guest import PORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sealift.attestation.demand import Demand
    from sealift.evidence.verify.verdict import Verdict
    from sealift.host.ssh import Connection
    from sealift.inventory import Host

ANSWER_TIMEOUT_S = 30
_KEY_LIMIT = 1024


@dataclass(frozen=True)
class Answer:
    """A host's answer. Nothing in it is trusted before the verdict."""

    report: bytes
    certificate_table: bytes
    guest_nonce: bytes
    ssh_host_key: str
    wireguard_key: str
    answered_by: str
    boot_id: str


def ask(stranger: Stranger, name: str, owner_nonce: bytes) -> Answer:
    """Ask for evidence. EvidenceRejected for an answer that is not valid, HostUnreachable for no answer."""
    question = {"order": "attest", "owner_nonce": base64.b64encode(owner_nonce).decode()}
    line = stranger.ask(PORT, json.dumps(question).encode(), timeout_s=ANSWER_TIMEOUT_S)
    try:
        said = result(line, name)
        return Answer(
            report=base64.b64decode(said["report"], validate=True),
            certificate_table=base64.b64decode(said["certificate_table"], validate=True),
            guest_nonce=base64.b64decode(said["guest_nonce"], validate=True),
            ssh_host_key=_short(said["ssh_host_key"]),
            wireguard_key=_short(said["wireguard_key"]),
            answered_by=_short(said["answered_by"]),
            boot_id=_short(said["boot_id"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as nonsense:
        raise rejected(
            name, [Reason("answer", "its answer to the request for evidence is not valid")]
        ) from nonsense
    except CommandFailed as failed:
        raise rejected(name, [Reason("answer", failed.message)]) from failed


def result(line: bytes, name: str) -> dict[str, Any]:
    """The result in a guest's answer. If it reports an error, CommandFailed with its sentence and its disk's status."""
    message = json.loads(line)
    if "error" in message:
        status = message.get("status")
        raise CommandFailed(
            str(message["error"])[:500], status=status if isinstance(status, int) else None, host=name
        )
    carried: dict[str, Any] = message["result"]
    return carried


def attest_snp(
    name: str, host: Host, demand: Demand, *, others: Sequence[Record] = (), patience_s: float = 0
) -> tuple[Record, Connection]:
    """Ask for evidence, verify it, pin the keys. `others`: records of other hosts, which must have other keys.

    EvidenceRejected has every reason, and the connection is closed. HostUnreachable if the host does not answer for
    `patience_s`, or if certificates are missing and the key server cannot be reached.
    """
    stranger, asked = _meet_and_ask(name, host, patience_s)
    try:
        record = judge(
            name,
            demand,
            asked.nonce,
            asked.answer,
            shown_key=stranger.shown_key,
            others=others,
            waited=asked.waited,
        )
        return record, stranger.accept(record.ssh_host_key)
    except BaseException:
        stranger.close()
        raise


@dataclass(frozen=True)
class _Asked:
    """The nonce of a question, the answer, and the time between them."""

    nonce: bytes
    answer: Answer
    waited: timedelta


def _meet_and_ask(name: str, host: Host, patience_s: float) -> tuple[Stranger, _Asked]:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            stranger = meet(name, host, patience_s=deadline - time.monotonic())
            try:
                nonce, begun = secrets.token_bytes(NONCE_BYTES), time.monotonic()
                answer = ask(stranger, name, nonce)
                return stranger, _Asked(nonce, answer, timedelta(seconds=time.monotonic() - begun))
            except BaseException:
                stranger.close()
                raise
        except HostUnreachable as silent:
            # SSH answers a moment earlier than the guest's program.
            if ssh.is_final(silent) or time.monotonic() >= deadline:
                raise
            time.sleep(0.1)


def judge(
    name: str,
    demand: Demand,
    owner_nonce: bytes,
    answer: Answer,
    *,
    shown_key: str,
    others: Iterable[Record] = (),
    waited: timedelta = timedelta(0),
) -> Record:
    """Verify an answer and make a record of it. `shown_key`: the SSH host key of the connection.

    `waited`: the time from the generation of the nonce to the answer. EvidenceRejected has every reason.
    """
    now = datetime.now(UTC)
    try:
        binding = Binding(
            owner_nonce, answer.guest_nonce, answer.ssh_host_key.encode(), answer.wireguard_key.encode()
        )
        evidence = _evidence(answer, demand)
        verdict = verify_snp(evidence, demand.policy, at=now, report_data=binding.digest())
    except UnusableInput as unreadable:
        raise rejected(name, [Reason("evidence", unreadable.message)]) from unreadable
    verdict = verdict.also(late(demand, owner_nonce, waited, now))
    verdict = verdict.also(tuple(_identity(name, answer, shown_key, others)))
    if not verdict.accepted:
        raise rejected(name, verdict.reasons, verdict)
    report = evidence.report.fields
    return Record(
        host=name,
        kind="snp",
        verified_at=now,
        policy_sha256=demand.policy_sha256,
        ssh_host_key=answer.ssh_host_key,
        wireguard_key=answer.wireguard_key,
        measurement=report.measurement.hex(),
        generation=verdict.generation,
        root_sha256=verdict.root_sha256,
        emulated=verdict.emulated,
        answered_by=answer.answered_by,
        chip_id=report.chip_id.hex(),
        boot_id=answer.boot_id,
        encrypted_disk=demand.encrypted_disk,
        checks=len(verdict.checked) + 1,
        unchecked=list(verdict.unchecked),
    )


def late(demand: Demand, nonce: bytes, waited: timedelta, now: datetime) -> tuple[Reason, ...]:
    """Why an answer over this nonce is too old: the policy's limit is `nonce_lifetime_s`."""
    lifetime = timedelta(seconds=demand.policy.nonce_lifetime_s)
    return nonce_reasons(Nonce(nonce, now - waited), at=now, lifetime=lifetime, used=())


def rejected(name: str, reasons: Iterable[Reason], verdict: Verdict | None = None) -> EvidenceRejected:
    """The error for evidence that is not accepted, with every reason and the verdict."""
    listed = tuple(f"{reason.check}: {reason.detail}" for reason in reasons)
    return EvidenceRejected(
        f"it did not prove what it is ({'; '.join(listed)})",
        reasons=listed,
        verdict=verdict.to_json() if verdict else None,
        host=name,
        remedy="Nothing was sent to it. If the machine was changed on purpose, change the policy",
    )


def _identity(name: str, answer: Answer, shown_key: str, others: Iterable[Record]) -> list[Reason]:
    reasons = []
    if shown_key != answer.ssh_host_key:
        detail = (
            "the SSH host key of the connection is not the one in the signed report: there is a man in the middle, "
            "or another machine answers at this address"
        )
        reasons.append(Reason("ssh_host_key", detail))
    for other in others:
        if other.host != name and other.ssh_host_key == answer.ssh_host_key:
            detail = f"it has the keys of {other.host}: both addresses belong to one machine"
            reasons.append(Reason("other_host", detail))
    return reasons


def _evidence(answer: Answer, demand: Demand) -> SnpEvidence:
    """The answer's report with the certificates in the answer, else with those from AMD's key server."""
    try:
        return snp_evidence(answer.report, answer.certificate_table)
    except UnusableInput:
        if answer.certificate_table:
            raise
    report = parse_snp_report(answer.report)
    found = complete(KeyServer(cache=default_folder()), report, crl_wanted=demand.policy.snp.require_crl)
    return SnpEvidence(report, found.key, found.chain, found.crls)


def _short(text: object) -> str:
    if not isinstance(text, str) or len(text) > _KEY_LIMIT or not text.isprintable():
        message = "a field is not a short printable text"
        raise ValueError(message)
    return text
