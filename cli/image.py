"""`sealift image`: make the image of a measured VM, print its launch digests, show it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import JsonOption  # noqa: TC001 - typer reads the annotations
from cli.output import say
from sealift.errors import UnusableInput

if TYPE_CHECKING:
    from sealift.evidence.launch.digest import Mode

app = typer.Typer(
    no_args_is_help=True, help="The image that an encrypted VM boots. All its parts are measured."
)

ImageArgument = Annotated[Path, typer.Argument(help="The image's folder.")]

_KEY_FILE_LIMIT = 16 * 1024


@app.command()
def build(
    owner_key: Annotated[
        Path, typer.Option(help="SSH public key of the owner, the only key that can log in.")
    ],
    evidence: Annotated[
        str, typer.Option(help="snp or sev: the kind of evidence that the VM gives.")
    ] = "snp",
    output: Annotated[Path | None, typer.Option(help="A new folder. Default: in the cache.")] = None,
    emulated: Annotated[
        bool, typer.Option("--emulated", help="For VMs without KVM: no mitigations of speculation, faster.")
    ] = False,
) -> None:
    """Build an image and print its folder. The same recipe and key give the same bytes."""
    from sealift.files import read_bounded
    from sealift.machine.image import GuestEvidence, build_image
    from sealift.machine.recipe import RECIPE, files_dir
    from sealift.machine.tree import build_tree

    if evidence not in set(GuestEvidence):
        raise UnusableInput(f"--evidence has no {evidence!r}", remedy="Use snp or sev")
    key = read_bounded(owner_key, _KEY_FILE_LIMIT).decode(errors="replace")
    image = build_image(
        build_tree(RECIPE, say=say),
        files_dir(),
        owner_key=key,
        evidence=GuestEvidence(evidence),
        emulated=emulated,
        into=output,
        say=say,
    )
    sys.stdout.write(f"{image}\n")


@app.command()
def measure(
    image: ImageArgument,
    vcpus: Annotated[int, typer.Option(min=1, max=512, help="Number of virtual processors.")] = 2,
    cpu: Annotated[str, typer.Option(help="QEMU's model of the processors.")] = "EPYC-Milan",
    as_policy: Annotated[
        bool, typer.Option("--policy", help="Print a policy (TOML) that accepts these digests only.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the expected launch digests, by processor generation."""
    import json

    from sealift.evidence.verify.policy import write_policy
    from sealift.machine.expected import expected_digests, expected_policy

    digests = expected_digests(image, vcpus, cpu)
    if as_policy:
        sys.stdout.write(write_policy(expected_policy(digests)))
    elif as_json:
        named = {_name(mode): digest.hex() for mode, digest in digests.items()}
        sys.stdout.write(json.dumps({"vcpus": vcpus, "cpu": cpu, "digests": named}, indent=2) + "\n")
    else:
        for mode, digest in digests.items():
            sys.stdout.write(f"{_name(mode):7} {digest.hex()}\n")


@app.command()
def show(image: ImageArgument, as_json: JsonOption = False) -> None:
    """Print the parts of an image, and check its files. Exit status 1 if one is damaged."""
    import json
    from dataclasses import asdict

    from sealift.machine.image import damaged_files
    from sealift.machine.manifest import read_manifest

    manifest = read_manifest(image)
    damaged = damaged_files(image, manifest)
    if as_json:
        sys.stdout.write(json.dumps(asdict(manifest) | {"damaged": damaged}, indent=2) + "\n")
    else:
        for name, digest in manifest.sha256.items():
            sys.stdout.write(f"{name:9} {manifest.size_bytes[name]:>11} {digest}\n")
        sys.stdout.write(f"{manifest.append}\n")
    for name in damaged:
        say(f"sealift: the {name} of {image} is damaged: build or copy the image again")
    if damaged:
        raise SystemExit(1)


def _name(mode: Mode) -> str:
    from sealift.evidence.launch.digest import Mode

    return {Mode.SEV: "SEV", Mode.SEVES: "SEV-ES", Mode.SNP: "SEV-SNP"}[mode]
