"""The protocol as a page: `python -m sealift_agent.table >docs/protocol.md`."""

from __future__ import annotations

import re
import sys
from dataclasses import fields, is_dataclass
from typing import Any, get_args

from . import protocol
from .protocol import EVENTS, ORDERS, PHASES, VERSION, Order, Outcome, Role
from .protocol import parts as made_of

HEAD = f"""# Protocol

The controller starts one agent for each role on a host, over SSH, and gives it orders: one JSON object a line, on its
standard input. `{{"number": 1, "order": "pre_dump", "name": "round-1", "port": 40001}}` is one; the answer is
`{{"number": 1, "result": ...}}`, or `{{"number": 1, "error": "one sentence", "step": "the step that failed"}}`. What an
agent says first is `{{"hello": {VERSION}}}`, the version of this protocol: a controller of another version does not go
on with it.

A field that is missing, unknown or of another type makes the order an error before anything is done. So does an order
in a phase that it is not for.

This page is made from `sealift_agent/protocol/` by `python -m sealift_agent.table >docs/protocol.md`.

## Phases of a host's agent

"""
ROLES = {
    Role.FACTS: "Tells what a host and a container are like.",
    Role.SOURCE: "Has the container, and hands it over.",
    Role.DESTINATION: "Gets the container.",
    Role.GATEWAY: "Has the record: whose the addresses are, what was decided, the journal of migrations.",
}
MODULE = re.compile(r"(typing|sealift_agent\.protocol(\.\w+)?)\.")


def page() -> str:
    """The whole page, in Markdown."""
    parts = [HEAD, "| phase | meaning |\n|---|---|\n"]
    parts += [f"| {phase} | {meaning} |\n" for phase, meaning in PHASES.items()]
    for role, what in ROLES.items():
        parts.append(f"\n## Orders to the {role} agent\n\n{what}\n\n")
        parts.append("| order | fields | answer | allowed in | leads to | changes | what it is |\n")
        parts.append("|---|---|---|---|---|---|---|\n")
        parts += [_row(kind) for (whose, _), kind in ORDERS.items() if whose is role]
    parts.append("\n## Events\n\n")
    parts.append('What an agent tells in between: `{"event": name, "at_ns": when, ...}`, ')
    parts.append("by the monotonic clock of its host.\n\n")
    parts.append("| event | fields | what it is |\n|---|---|---|\n")
    parts += [f"| `{name}` | {_fields(kind)} | {_first_paragraph(kind)} |\n" for name, kind in EVENTS.items()]
    parts.append("\n## What orders, answers and events are made of\n\n")
    parts.append("`Json` is a description by Docker, passed on as it came.\n\n")
    parts.append("| name | fields | what it is |\n|---|---|---|\n")
    parts += [
        f"| `{name}` | {_fields(kind)} | {_first_paragraph(kind)} |\n"
        for name, kind in vars(made_of).items()
        if isinstance(kind, type) and is_dataclass(kind)
    ]
    return "".join(parts)


def _fields(made: Any) -> str:
    return ", ".join(f"`{each.name}`: {_type(each.type)}" for each in fields(made)) or "none"


def _row(kind: type[Order[Any]]) -> str:
    carried = _fields(kind)
    allowed = ", ".join(map(str, kind.ALLOWED)) or "any phase"
    leads = "" if kind.LEADS_TO is None else str(kind.LEADS_TO)
    cells = [
        f"`{kind.NAME}`",
        carried,
        _type(kind.ANSWER),
        allowed,
        leads,
        kind.CHANGES,
        _first_paragraph(kind),
    ]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n"


def _first_paragraph(kind: type) -> str:
    return " ".join((kind.__doc__ or "").split("\n\n", 1)[0].split())


def _type(kind: Any) -> str:
    """A type in words of JSON; of a field it is the text that stands in the class."""
    if kind is None:
        return "nothing"
    named = vars(protocol).get(kind) if isinstance(kind, str) else kind
    if named is Outcome:
        return " or ".join(f"`{word.value}`" for word in Outcome)
    name = str(kind) if isinstance(kind, str) or get_args(kind) else kind.__name__
    name = MODULE.sub("", name)
    return f"`{name.replace('dict[str, Any]', 'Json')}`"


if __name__ == "__main__":
    sys.stdout.write(page())
