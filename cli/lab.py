"""`sealift lab`: hosts on this one machine."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from cli.options import JsonOption, read_options
from cli.output import print_json, print_table, say
from sealift.errors import UnusableInput

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(no_args_is_help=True, help="Hosts on this one machine, to try things on.")


@app.command("up")
def lab_up(
    kind: Annotated[str, typer.Option("--kind", help="vm or netns.")] = "vm",
    evidence: Annotated[
        str | None,
        typer.Option(help="snp (the default) or sev: hosts prove what they are. none: they do not."),
    ] = None,
    docker: Annotated[
        str | None,
        typer.Option(
            help="26 or 28, or two: at the source and at the destination, as 26:28. "
            "Default: $SEALIFT_DOCKER, or 26.",
        ),
    ] = None,
    kernel: Annotated[
        str | None,
        typer.Option(
            help="The VMs': cloud (the default), generic, 6.1 or testing, or two, as 6.1:generic. All but cloud have "
            "AppArmor on.",
        ),
    ] = None,
) -> None:
    """Bring a lab up and write its inventory."""
    from sealift.lab import lab
    from sealift.lab.plan import kind_of

    lab.up(
        kind_of(kind),
        say=say,
        evidence=read_options(evidence=evidence).evidence,
        docker=docker,
        kernel=kernel,
    )


@app.command("down")
def lab_down() -> None:
    """End the lab; nothing of it stays, even if it was killed."""
    from sealift.lab import lab

    say("the lab is gone" if lab.down() else "there was no lab")


@app.command("status")
def lab_status(as_json: JsonOption = False) -> None:
    """Show the lab's hosts and whether they answer. Exit status 1 if one does not."""
    from sealift.lab import status

    hosts = status.read()
    if as_json:
        print_json([host.as_dict() for host in hosts])
    else:
        print_table(
            ("host", "address", "answers", "kernel"), [(h.name, h.address, h.answer, h.kernel) for h in hosts]
        )
    if not all(host.up for host in hosts):
        raise SystemExit(1)


@app.command("exec", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def lab_exec(
    host: Annotated[str, typer.Argument(help="source, destination, gateway, provider or client.")],
    command: Annotated[list[str], typer.Argument(help="The command and its arguments, after --.")],
    tty: Annotated[
        bool, typer.Option("-t", "--tty", help="With a terminal, for interactive programs.")
    ] = False,
) -> None:
    """Run a command on a host of the lab; ends with its exit status.

    It reads this command's standard input, and what it prints is printed at once.
    """
    _become_ssh(host, ["-t" if tty else "-T"], [shlex.join(command)])


@app.command("ssh")
def lab_ssh(
    host: Annotated[str, typer.Argument(help="source, destination, gateway, provider or client.")],
) -> None:
    """Log in to a host of the lab with OpenSSH."""
    _become_ssh(host)


def _become_ssh(host: str, options: Sequence[str] = (), command: Sequence[str] = ()) -> NoReturn:
    """Replace this process by OpenSSH, which takes the lab's own host key and no other."""
    from sealift.lab import lab

    entry = lab.machine(lab.running(), host)
    known = lab.lab_dir() / "known_hosts" / host
    known.parent.mkdir(exist_ok=True)
    known.write_text(f"{entry.address} {entry.host_key}\n")
    settings = {
        "IdentitiesOnly": "yes",
        "LogLevel": "ERROR",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(known),
    }
    words = ["ssh", "-i", str(entry.key_file), "-p", str(entry.port), *options]
    words += [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    sys.stdout.flush()
    try:
        os.execvp("ssh", [*words, f"{entry.user}@{entry.address}", *command])  # noqa: S606 - becomes ssh
    except FileNotFoundError as missing:
        raise UnusableInput("ssh is not installed", remedy="`apt-get install openssh-client`") from missing
