"""Text of others made harmless: hosts that prove nothing, containers, daemons and providers choose what is in it.

A terminal obeys escape sequences, and shows text in another order or not at all where it is told to. A page obeys
Markdown and HTML. What passes here is only read.
"""

from __future__ import annotations

import json
import re

LINES = "\n\t"
"""What a text of several lines may hold besides what can be printed."""

SPECIAL = re.compile(r"([\\`*_\[\]<>|~$&])")
"""What begins markup within a line of Markdown, HTML and the end of a table's cell included (CommonMark 2.4)."""


def printable(text: str, *, keep: str = LINES) -> str:
    r"""The text with each character that cannot be printed as `\x1b`, `\u202e` or `\U000e0041`.

    These are controls (C0, DEL, C1), surrogates without a partner, what changes the direction of writing, what cannot
    be seen, and line ends other than those in `keep`. Doing it twice changes nothing.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in keep or _is_space(each) else _escape(each) for each in text
    )


def one_line(text: str) -> str:
    """The same for what is to stay on one line: nothing in it can look like the next one."""
    return printable(text, keep="")


def in_markdown(text: str) -> str:
    """One line that a page shows as it is: no markup, no picture, no link that says another address than its own."""
    return SPECIAL.sub(r"\\\1", one_line(text))


def json_text(value: object) -> str:
    """JSON to be printed: ASCII without controls, whatever is in it."""
    return json.dumps(value, indent=2).replace("\x7f", "\\u007f")


def _is_space(each: str) -> bool:
    return each.isspace() and each > "\x9f" and each not in "\u2028\u2029"


def _escape(each: str) -> str:
    number = ord(each)
    return (
        f"\\x{number:02x}"
        if number < 0x100
        else f"\\u{number:04x}"
        if number < 0x10000
        else f"\\U{number:08x}"
    )
