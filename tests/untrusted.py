"""The provider of a vm lab, which is not trusted, and its owner, who has it start and end the destination."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sealift.attestation.attest import attest, keystore_of
from sealift.attestation.provision import introduce, provision
from sealift.attestation.record import pinned
from sealift.host import ssh
from sealift.host.agents import Agent
from sealift.lab import lab
from sealift.lab.plan import IMAGE
from sealift.provider.client import ProviderClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hosts import Hosts

    from sealift.inventory import Inventory

HOST = "destination"


@contextmanager
def provider(hosts: Hosts) -> Iterator[ssh.Connection]:
    """The provider as its administrator."""
    with ssh.connected("provider", lab.machine(hosts.inventory, "provider")) as connection:
        yield connection


def pull_plug(hosts: Hosts) -> None:
    """The owner has the provider end the destination's VM, as pulling its plug would."""
    assert hosts.inventory.provider is not None
    with ssh.connected("provider", hosts.inventory.provider) as connection:
        ProviderClient(connection).stop(HOST)


def changed(inventory: Inventory, **fields: Any) -> Inventory:
    """The inventory with other facts about the destination's VM."""
    host = inventory.host(HOST)
    assert host.vm is not None
    entry = host.model_copy(update={"vm": host.vm.model_copy(update=fields), "host_key": None})
    return inventory.model_copy(update={"hosts": {**inventory.hosts, HOST: entry}})


def raise_up(hosts: Hosts, inventory: Inventory) -> None:
    """Attest, provision, wait for Docker; the test goes on with the connection that came of it."""
    record, connection = attest(inventory, HOST)
    known = pinned(inventory)
    provision(known, record, connection, keystore_of(known))
    with Agent(hosts["gateway"], "gateway") as gateway:
        introduce(known, HOST, gateway, [hosts["source"]])
    hosts.connections[HOST].close()
    hosts.connections[HOST] = connection
    hosts.inventory = known


def plant_image(
    machine: ssh.Connection, name: str, manifest: dict[str, Any], altered: str | None = None
) -> None:
    """An image at the provider with that manifest and the honest one's files, one of them with a bit flipped."""
    folder = f"/srv/images/{name}"
    link = "for f in firmware kernel initrd root; do ln -s ../$1/$f $2/$f; done"
    machine.run(["sh", "-c", f"mkdir -p $2 && {link}", "plant", IMAGE, folder])
    if altered is not None:
        flip = (
            "import hashlib,sys; d=bytearray(open(sys.argv[1],'rb').read()); d[len(d)//2]^=1; "
            "open(sys.argv[2],'wb').write(d); print(hashlib.sha256(d).hexdigest())"
        )
        machine.run(["rm", f"{folder}/{altered}"])
        words = ["python3", "-c", flip, f"/srv/images/{IMAGE}/{altered}", f"{folder}/{altered}"]
        digest = machine.run(words).stdout.strip()
        manifest = {**manifest, "sha256": {**manifest["sha256"], altered: digest}}
    machine.put(f"{folder}/manifest.json", json.dumps(manifest).encode())
