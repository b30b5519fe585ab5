"""What every order has: whose it is, what it is called, what is answered, and when it is allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Generic, Optional, TypeVar

from .words import Phase, Role

Answer = TypeVar("Answer")


class Order(Generic[Answer]):
    """An order. Its docstring says what is done and what is answered."""

    ROLE: ClassVar[Role]
    NAME: ClassVar[str]
    ANSWER: ClassVar[Any]
    ALLOWED: ClassVar[tuple[Phase, ...]]
    """In which phases of the agent; empty where the phase does not matter."""
    LEADS_TO: ClassVar[Optional[Phase]]
    """The phase of the agent once this is done."""
    CHANGES: ClassVar[str]


ORDERS: dict[tuple[Role, str], type[Order[Any]]] = {}
"""All of them, by role and name."""

Kind = TypeVar("Kind", bound=type)


def belongs_to(
    role: Role,
    name: str,
    answer: object,
    changes: str = "nothing",
    *,
    allowed: tuple[Phase, ...] = (),
    leads_to: Optional[Phase] = None,
) -> Callable[[Kind], Kind]:
    """Give an order its name and its place."""

    def registered(kind: Kind) -> Kind:
        order: Any = kind
        order.ROLE, order.NAME, order.ANSWER, order.CHANGES = role, name, answer, changes
        order.ALLOWED, order.LEADS_TO = allowed, leads_to
        ORDERS[role, name] = order
        return kind

    return registered
