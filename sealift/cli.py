"""`sealift`: the command line. Each command imports what it needs, so that `--help` answers at once."""

from __future__ import annotations

import os
import re
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from benchmarks.cli import app as bench_app
from sealift import scheduler
from sealift.attestation.cli import attest_command, keys_app
from sealift.errors import SealiftError, UnusableInput
from sealift.evidence.cli.app import app as evidence_app
from sealift.machine.cli import app as image_app
from sealift.options import InventoryOption, JsonOption  # noqa: TC001 - typer reads the annotations
from sealift.plain_text import json_text, one_line, printable
from sealift.provider.cli import app as provider_app

if TYPE_CHECKING:
    from types import TracebackType

    from benchmarks.workloads.client import Findings
    from sealift.model import Report, Strategy

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,  # they may hold keys
    help="Live migration of running Docker containers into attested, encrypted virtual machines.",
)
lab_app = typer.Typer(no_args_is_help=True, help="Hosts on this one machine, to try things on.")
network_app = typer.Typer(no_args_is_help=True, help="Which host has which workload's address.")
host_app = typer.Typer(no_args_is_help=True, help="Docker hosts.")
app.add_typer(lab_app, name="lab")
app.add_typer(network_app, name="network")
app.add_typer(host_app, name="host")
app.command("attest")(attest_command)
app.add_typer(keys_app, name="keys")
app.add_typer(evidence_app, name="evidence")
app.add_typer(image_app, name="image")
app.add_typer(provider_app, name="provider")
app.add_typer(bench_app, name="bench")


ContainerArgument = Annotated[str, typer.Argument(help="Name or id of a running container.")]
SourceOption = Annotated[str, typer.Option("--from", help="The host that it runs on.")]
DestinationOption = Annotated[str, typer.Option("--to", help="The host that it is to run on.")]
BandwidthOption = Annotated[
    str | None, typer.Option(help="What may be sent while the container runs, in bytes a second: 100M, 1G.")
]
EvidenceOption = Annotated[
    str | None,
    typer.Option(
        help="What the destination must prove: snp, sev or none. Default: what the inventory says; "
        "none only if it is asked for here."
    ),
]


def main() -> None:
    """Run the command line. Errors of Sealift's own become one sentence and their exit status."""
    # As Ctrl-C: what was started is ended, what was taken is put back.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.excepthook = say_unexpected
    status = _run()
    scheduler.leave(status)
    raise SystemExit(status)


def _run() -> int:
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except SealiftError as error:
        sys.stderr.write(f"sealift: {printable(str(error))}\n")
        return error.exit_status
    except KeyboardInterrupt:
        sys.stderr.write("sealift: interrupted\n")
        return 130
    return 0


def say_unexpected(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    """Print a traceback. What it quotes may come from anywhere."""
    sys.stderr.write(printable("".join(traceback.format_exception(kind, error, trace))))


def _say(text: str) -> None:
    sys.stderr.write(f"{printable(text)}\n")


@app.command()
def migrate(
    source: SourceOption,
    destination: DestinationOption,
    containers: Annotated[
        list[str] | None,
        typer.Argument(
            help="Name or id of a running container. Several freeze and move together, or not at all."
        ),
    ] = None,
    project: Annotated[
        str | None, typer.Option(help="All running containers of a Docker Compose project, together.")
    ] = None,
    strategy: Annotated[
        str, typer.Option(help="auto, pre-copy, post-copy or stop-and-copy: how memory gets across.")
    ] = "auto",
    max_rounds: Annotated[
        int, typer.Option(min=1, max=30, help="Most pre-dump rounds, but for one while hosts arm.")
    ] = 5,
    max_downtime: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="Longest freeze, in seconds: refused if more is predicted of all strategies."
        ),
    ] = None,
    bandwidth: BandwidthOption = None,
    throttle: Annotated[
        bool,
        typer.Option(
            "--throttle", help="Slow a writer down that gets memory dirty faster than the link carries it."
        ),
    ] = False,
    compress: Annotated[
        bool,
        typer.Option(
            "--compress", help="Compress pages on their way (zstd): for links slower than a CPU compresses."
        ),
    ] = False,
    streams: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=16,
            help="Connections that pages go over. Default: several if the way is long and one is slow.",
        ),
    ] = None,
    retries: Annotated[
        int, typer.Option(min=0, max=10, help="How often to try again after a cutover that was rolled back.")
    ] = 0,
    evidence: EvidenceOption = None,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Migrate a running container, or several together, live."""
    from sealift import inventory as inventories

    if not containers and project is None:
        raise UnusableInput(
            "no container is named", remedy="Name one, or several, or a Compose project by --project"
        )
    named = list(containers or [])
    known = inventories.load(inventory)
    for host in (source, destination):
        known.host(host)  # a slip of the pen is answered before Prefect is loaded
    limits = (max_rounds, _evidence(evidence), max_downtime, _bytes(bandwidth))
    asked = (*limits, throttle, compress, streams, retries)
    scheduler.set_up()
    from flows.ending import run
    from flows.ephemeral import demand_password
    from sealift.migration import progress
    from sealift.migration.display import Display

    demand_password()
    chosen = _strategy(strategy)
    together = project is not None or len(named) > 1
    with progress.listening(Display(sys.stderr, named=together)):
        if together:
            from flows.migrate_group import migrate_group

            reports: list[Report] = run(
                migrate_group, source, destination, named, project, inventory, chosen, *asked
            )
        else:
            from flows.migrate import migrate as flow

            reports = [run(flow, named[0], source, destination, inventory, chosen, *asked)]
    if together and as_json:
        _print_json([report.model_dump(mode="json") for report in reports])
        return
    for report in reports:
        _print_report(report, as_json=as_json)


@app.command()
def check(
    container: ContainerArgument,
    source: SourceOption,
    destination: DestinationOption,
    bandwidth: BandwidthOption = None,
    evidence: EvidenceOption = None,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a container can be migrated, resource by resource, and change nothing. Exit status 1 if it can't."""
    from sealift import inventory as inventories
    from sealift.migration.check import check as look
    from sealift.migration.display import estimate_lines
    from sealift.migration.request import Request

    request = Request(
        container, source, destination, evidence=_evidence(evidence), bandwidth=_bytes(bandwidth)
    )
    checked = look(inventories.load(inventory), request)
    if as_json:
        _print_json(checked.as_dict())
    else:
        _table(
            ("resource", "host", "verdict", "found", "remedy"), [found.words() for found in checked.findings]
        )
        sys.stdout.write(printable("\n".join(["", *estimate_lines(checked.estimate), ""])))
    if not checked.movable:
        raise SystemExit(1)


@app.command()
def recover(
    migration: Annotated[
        str | None, typer.Argument(help="One migration by its id. Default: all that nobody is at.")
    ] = None,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """End migrations that were left unfinished: by the gateway's record, each has one outcome, and both hosts are told.

    Exit status 1 if a host could not be told; run it again then.
    """
    from dataclasses import asdict

    from sealift import inventory as inventories
    from sealift.migration import recovery

    ended = recovery.recover(inventories.load(inventory), migration)
    if as_json:
        _print_json([{**asdict(one), "owner": one.owner} for one in ended])
    else:
        sys.stdout.write("".join(f"{one.sentence()}\n" for one in ended) or "nothing was left unfinished\n")
    if any(one.left for one in ended):
        raise SystemExit(1)


@app.command()
def demo(
    kind: Annotated[str, typer.Option("--lab", help="vm or netns.")] = "vm",
    memory_mb: Annotated[int, typer.Option(min=1, help="How much Redis holds.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Bring a lab up, migrate a Redis under a client's hands, check, take the lab down."""
    scheduler.set_up()
    from benchmarks.demo import run_demo
    from flows.ephemeral import demand_password
    from sealift.lab.plan import kind_of
    from sealift.migration import progress
    from sealift.migration.display import Display

    demand_password()
    with progress.listening(Display(sys.stderr)):
        result = run_demo(kind_of(kind), memory_mb, say=_say)
    _print_report(result.report, as_json=as_json, client=result.client)
    if not result.client.intact:
        raise SystemExit(1)


@lab_app.command("up")
def lab_up(
    kind: Annotated[str, typer.Option("--kind", help="vm or netns.")] = "vm",
    evidence: Annotated[
        str | None,
        typer.Option(help="snp (the default) or sev: hosts prove what they are. none: they do not."),
    ] = None,
) -> None:
    """Bring a lab up and write its inventory."""
    from sealift.lab import lab
    from sealift.lab.plan import kind_of

    lab.up(kind_of(kind), say=_say, evidence=_evidence(evidence))


@lab_app.command("down")
def lab_down() -> None:
    """End the lab; nothing of it stays, even if it was killed."""
    from sealift.lab import lab

    _say("the lab is gone" if lab.down() else "there was no lab")


@lab_app.command("status")
def lab_status(as_json: JsonOption = False) -> None:
    """Show the lab's hosts and whether they answer. Exit status 1 if one does not."""
    from sealift.lab import status

    hosts = status.look()
    if as_json:
        _print_json([host.as_dict() for host in hosts])
    else:
        _table(
            ("host", "address", "answers", "kernel"), [(h.name, h.address, h.answer, h.kernel) for h in hosts]
        )
    if not all(host.up for host in hosts):
        raise SystemExit(1)


@lab_app.command("exec", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def lab_exec(
    host: Annotated[str, typer.Argument(help="source, destination, gateway, provider or client.")],
    command: Annotated[list[str], typer.Argument(help="The command and its arguments, after --.")],
) -> None:
    """Run a command on a host of the lab; ends with its exit status."""
    from sealift.host import ssh
    from sealift.lab import lab

    with ssh.connected(host, lab.machine(lab.running(), host)) as connection:
        done = connection.run(command, check=False, timeout_s=3600)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    raise SystemExit(done.status)


@lab_app.command("ssh")
def lab_ssh(
    host: Annotated[str, typer.Argument(help="source, destination, gateway, provider or client.")],
) -> None:
    """Log in to a host of the lab with OpenSSH."""
    from sealift.lab import lab

    entry = lab.machine(lab.running(), host)
    known = lab.lab_dir() / "known_hosts"
    known.write_text(f"{entry.address} {entry.host_key}\n")
    options = [
        "-i",
        str(entry.key_file),
        "-o",
        f"UserKnownHostsFile={known}",
        "-o",
        "StrictHostKeyChecking=yes",
    ]
    try:
        os.execvp("ssh", ["ssh", *options, "-p", str(entry.port), f"{entry.user}@{entry.address}"])  # noqa: S606 - becomes ssh
    except FileNotFoundError as missing:
        raise UnusableInput("ssh is not installed", remedy="`apt-get install openssh-client`") from missing


@network_app.command("assign")
def network_assign(
    address: Annotated[str, typer.Argument(help="A workload's address.")],
    host: Annotated[str, typer.Argument(help="The Docker host that has it.")],
    inventory: InventoryOption = None,
) -> None:
    """Make the gateway send a workload's packets to a host. Migrations do it by themselves."""
    from sealift import inventory as inventories
    from sealift.attestation.record import pinned
    from sealift.network import gateway

    gateway.assign(pinned(inventories.load(inventory)), address, host)


@network_app.command("release")
def network_release(
    address: Annotated[str, typer.Argument(help="A workload's address.")], inventory: InventoryOption = None
) -> None:
    """Take an address back."""
    from sealift import inventory as inventories
    from sealift.network import gateway

    gateway.release(inventories.load(inventory), address)


@network_app.command("show")
def network_show(inventory: InventoryOption = None, as_json: JsonOption = False) -> None:
    """Show which host has which address, as the gateway has it on record."""
    from sealift import inventory as inventories
    from sealift.network import gateway

    routes = gateway.routes(inventories.load(inventory))
    if as_json:
        _print_json(routes)
    else:
        _table(("address", "host"), [(address, route["host"]) for address, route in sorted(routes.items())])


@host_app.command("prepare")
def host_prepare(
    name: Annotated[str, typer.Argument(help="A Docker host of the inventory, or `gateway`.")],
    inventory: InventoryOption = None,
) -> None:
    """Give a Docker host what it needs to take part: runtime wrapper, CRIU's settings, the networks and their rules."""
    from sealift import inventory as inventories
    from sealift.attestation.record import pinned
    from sealift.host import prepare, ssh

    known = pinned(inventories.load(inventory))
    if name == "gateway":
        with ssh.connected(name, known.gateway) as connection:
            changed = prepare.gateway(connection)
    else:
        with ssh.connected(name, known.host(name)) as connection:
            changed = prepare.files(connection)
            prepare.docker_network(connection, known.network)
    _say("\n".join(changed) if changed else f"{name} has everything already")


def _evidence(text: str | None) -> Literal["snp", "sev", "none"] | None:
    if text is None:
        return None
    known: tuple[Literal["snp", "sev", "none"], ...] = ("snp", "sev", "none")
    for each in known:
        if text == each:
            return each
    raise UnusableInput(f"--evidence has no {text!r}", remedy="Take snp, sev or none")


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)(?:B(?:/s)?)?", text)
    amount = int(float(found[1]) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[found[2]]) if found else 0
    if not amount:
        raise UnusableInput(f"{text!r} is no amount of bytes", remedy="Write it as 500k, 100M or 1G")
    return amount


def _strategy(text: str) -> Strategy:
    from sealift.model import Strategy

    try:
        return Strategy(text)
    except ValueError:
        known = ", ".join(Strategy)
        raise UnusableInput(f"--strategy has no {text!r}", remedy=f"Take one of: {known}") from None


def _print_report(report: Report, *, as_json: bool, client: Findings | None = None) -> None:
    from sealift.migration import display

    if as_json:
        made = report.model_dump(mode="json")
        if client is not None:
            made["client"] = client.as_dict()
        _print_json(made)
    else:
        display.print_report(report, client)


def _print_json(value: object) -> None:
    sys.stdout.write(json_text(value) + "\n")


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*heads, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))  # a string would be markup
    Console().print(table)


if __name__ == "__main__":
    main()
