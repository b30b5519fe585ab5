"""`sealift provider`: the same orders for the machine's administrator, and the authorized_keys line for an owner."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The provider's side: VMs with evidence. It has no key.")

SettingsOption = Annotated[
    Path | None, typer.Option("--settings", help="TOML. Default: /etc/sealift/provider.toml.")
]
ProcessorOption = Annotated[
    str | None, typer.Option("--processor", help="qemu or emulated; overrides the settings.")
]


@app.command()
def start(settings: SettingsOption = None, processor: ProcessorOption = None) -> None:
    """Start a VM from an image. The order is JSON on standard input, the answer JSON on standard output."""
    _order("start", settings, processor)


@app.command()
def evidence(settings: SettingsOption = None, processor: ProcessorOption = None) -> None:
    """Print evidence about the platform, or about a VM."""
    _order("evidence", settings, processor)


@app.command()
def inject(settings: SettingsOption = None, processor: ProcessorOption = None) -> None:
    """Inject a launch secret into a waiting VM, and let it run."""
    _order("inject", settings, processor)


@app.command()
def resume(settings: SettingsOption = None, processor: ProcessorOption = None) -> None:
    """Let a waiting VM run without a secret."""
    _order("resume", settings, processor)


@app.command()
def stop(settings: SettingsOption = None, processor: ProcessorOption = None) -> None:
    """Stop a VM. Its data disk stays."""
    _order("stop", settings, processor)


@app.command("list")
def list_vms(settings: SettingsOption = None) -> None:
    """Print all VMs as JSON."""
    from sealift.processor.wire import to_line
    from sealift.provider.service import Provider
    from sealift.provider.settings import read_settings

    sys.stdout.write(to_line(Provider(read_settings(settings)).list_vms()).decode())


@app.command()
def serve(settings: SettingsOption = None, processor: ProcessorOption = None) -> None:
    """Execute orders, one JSON object a line, until the input ends."""
    _order("serve", settings, processor)


@app.command()
def authorize(
    public_key: Annotated[Path, typer.Argument(help="The owner's public key, a .pub file.")],
    settings: SettingsOption = None,
) -> None:
    """Print the authorized_keys line for an owner's key. The key can give orders and do nothing else."""
    from sealift.files import read_bounded
    from sealift.provider import gate

    key = read_bounded(public_key, 16 * 1024).decode(errors="replace")
    sys.stdout.write(gate.authorized_line(key, gate.gate_command(settings)) + "\n")


def _order(name: str, settings: Path | None, processor: str | None) -> None:
    from sealift.provider import gate
    from sealift.provider.service import Provider
    from sealift.provider.settings import read_settings

    provider = Provider(read_settings(settings, processor=processor))
    raise SystemExit(gate.answer(provider, name, sys.stdin.buffer, sys.stdout.buffer))
