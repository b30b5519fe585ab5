"""An agent's side of the controller's orders: who carries out which, in which phase, and what is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from . import codec, messages
from .messages import AgentError, printable
from .protocol import ORDERS, VERSION, Order, Phase, Role
from .wire import SILENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from .wire import Controller

    Kind = TypeVar("Kind", bound=Order[Any])


class Orders:
    """What one agent does for its controller. Every order of its role has one who carries it out."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.phase = Phase.NEW
        self._handlers: dict[type[Order[Any]], Callable[[Any], Any]] = {}

    def on(self, kind: type[Kind], handler: Callable[[Kind], Any]) -> None:
        """Have this order carried out by `handler`, which returns what is answered."""
        self._handlers[kind] = handler

    def serve(self, controller: Controller, gone: Callable[[], object]) -> None:
        """Carry out the controller's orders, one after the other, until it is gone; then call `gone`."""
        missing = {kind for (role, _), kind in ORDERS.items() if role == self.role} - self._handlers.keys()
        assert not missing, missing  # noqa: S101 - nobody carries them out
        controller.tell(hello=VERSION)
        for message in controller.orders(SILENCE_S):
            number = message.get("number")
            try:
                name, number, fields = messages.order(message)
                controller.tell(number=number, result=self.carry_out(name, fields))
            except Exception as failure:  # noqa: BLE001 - whatever it is, the controller must hear of it
                step = getattr(failure, "step", None)
                kind = "" if isinstance(failure, AgentError) else f"{type(failure).__name__}: "
                controller.tell(number=number, error=printable(f"{kind}{failure}"), step=step)
        gone()

    def carry_out(self, name: str, fields: dict[str, Any]) -> Any:
        """One order. Returns the answer as what JSON has. AgentError for one that is none, or not for this phase."""
        kind = ORDERS.get((self.role, name))
        if kind is None:
            raise AgentError(f"there is no order {printable(name[:40])!r}")
        order = codec.decode(kind, fields, f"the order {name!r}")
        if kind.ALLOWED and self.phase not in kind.ALLOWED:
            allowed = " or ".join(repr(phase.value) for phase in kind.ALLOWED)
            raise AgentError(
                f"the order {name!r} comes in the phase {self.phase.value!r}: it is for {allowed} only"
            )
        if kind.LEADS_TO is Phase.CUTOVER:
            self.phase = Phase.CUTOVER  # whatever comes of it, there is no way back
        answer = codec.encode(self._handlers[kind](order))
        codec.decode(kind.ANSWER, answer, f"the answer to {name!r}")
        self.phase = kind.LEADS_TO or self.phase
        return answer
