"""What is asked of the gateway about a migration, and what it answers, proved by a key that only its parties have.

The controller draws the key and gives it to the gateway and both hosts over its SSH connections, whose host keys are
pinned (an attested host's by its evidence). Whoever else answers, at the gateway's address or in between, can neither
say yes nor no: an answer without its proof counts as none.

A question is `{"ask", "nonce", "proof"}`, an answer `{"answer", "proof"}` with the answer as JSON text. A proof is
HMAC-SHA256 (RFC 2104) over the JSON list of kind, migration, question, nonce and, of an answer, its text.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from typing import TYPE_CHECKING, Any

from . import messages
from .messages import AgentError
from .wire import Link

if TYPE_CHECKING:
    from .protocol import Decider

NONCE_BYTES = 16


class Unproved(AgentError):
    """It came from somebody who does not have the key, or is the answer to something else."""


class Gateway:
    """The gateway's agent, as a host asks it about one migration: over a connection, or over another (`connect`).

    Connected when it is made; OSError if there is nobody.
    """

    def __init__(self, decider: Decider, migration: str, answer_timeout_s: float) -> None:
        self._decider, self._migration = decider, migration
        self._answer_timeout_s = answer_timeout_s
        self._link = Link.connect(decider.address, decider.port, decider.token)

    @property
    def decides_together(self) -> bool:
        """Whether several migrations are decided together: all others wait for each."""
        return self._decider.group

    def ask(self, question: str) -> dict[str, Any]:
        """What it answers. An error in the answer is no answer to the question: see `messages.refusal`."""
        try:
            return ask(self._link, self._decider.key, self._migration, question, self._answer_timeout_s)
        except Unproved:
            raise
        except (AgentError, OSError) as lost:
            raise AgentError(f"the gateway's agent does not answer any more: {lost}") from lost

    def demand(self, question: str) -> dict[str, Any]:
        """Its answer to a question of the freeze. AgentError if it refuses."""
        answer = self.ask(question)
        if (refused := messages.refusal(answer)) is not None:
            raise AgentError(refused, "final dump")
        return answer

    def put(self, question: str) -> None:
        """Put a question whose answer nobody waits for."""
        put(self._link, self._decider.key, self._migration, question)

    def connect(self, timeout_s: float) -> None:
        """Take another connection: this one is lost, or an answer may still come that is to another question."""
        self._link.close()
        where = self._decider
        self._link = Link.connect(where.address, where.port, where.token, timeout=timeout_s)

    def close(self) -> None:
        """Ask no more. A thread that waits for an answer is told."""
        self._link.close()


def ask(link: Link, key: str, migration: str, question: str, timeout: float) -> dict[str, Any]:
    """The answer to a question. AgentError for silence, Unproved for an answer that proves nothing."""
    nonce = put(link, key, migration, question)
    message = link.receive(timeout)
    text, proof = message.get("answer"), message.get("proof")
    if not _is_proof(proof, key, "answer", migration, question, nonce, text):
        raise Unproved("what answers at the gateway's address does not have the key of this migration")
    return messages.parse(str(text))


def put(link: Link, key: str, migration: str, question: str) -> str:
    """Put a question without waiting for its answer. Returns its nonce."""
    nonce = secrets.token_hex(NONCE_BYTES)
    link.send(ask=question, nonce=nonce, proof=_proof(key, "question", migration, question, nonce))
    return nonce


def hear(link: Link, key: str, migration: str) -> tuple[str, str]:
    """The next question and its nonce. Unproved for one of somebody who does not have the key."""
    message = link.receive()
    question, nonce, proof = message.get("ask"), message.get("nonce"), message.get("proof")
    if not _is_proof(proof, key, "question", migration, question, nonce):
        raise Unproved("a question without its proof")
    return str(question), str(nonce)


def answer(link: Link, key: str, migration: str, question: str, nonce: str, said: dict[str, Any]) -> None:
    """Answer a question that was heard."""
    text = json.dumps(said)
    link.send(answer=text, proof=_proof(key, "answer", migration, question, nonce, text))


def _is_proof(proof: object, key: str, *parts: object) -> bool:
    if not isinstance(proof, str) or not all(isinstance(part, str) for part in parts):
        return False
    return hmac.compare_digest(proof.encode(), _proof(key, *map(str, parts)).encode())


def _proof(key: str, *parts: str) -> str:
    return hmac.new(bytes.fromhex(key), json.dumps(parts).encode(), hashlib.sha256).hexdigest()
