"""`sealift`: all commands, and how the command line ends."""

from __future__ import annotations

import signal
import sys
import traceback
from typing import TYPE_CHECKING

import typer

from cli import attestation, benchmarks, demo, hosts, image, lab, migrate, provider
from flows import scheduler
from sealift.errors import SealiftError
from sealift.evidence.cli.app import app as evidence_app
from sealift.plain_text import printable

if TYPE_CHECKING:
    from types import TracebackType

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: what draws frames is not even imported
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,  # they may hold keys
    help="Live migration of running Docker containers into attested, encrypted virtual machines.",
)
app.command(cls=migrate.MigrateCommand)(migrate.migrate)
app.command(cls=migrate.CheckCommand)(migrate.check)
app.command()(migrate.recover)
app.command()(demo.demo)
app.command("attest")(attestation.attest_command)
app.add_typer(lab.app, name="lab")
app.add_typer(hosts.network_app, name="network")
app.add_typer(hosts.host_app, name="host")
app.add_typer(attestation.keys_app, name="keys")
app.add_typer(evidence_app, name="evidence")
app.add_typer(image.app, name="image")
app.add_typer(provider.app, name="provider")
app.add_typer(benchmarks.app, name="bench")


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
