"""Disk keys in Prefect's blocks keep the same promises as those in a folder."""

from __future__ import annotations

import pytest

from sealift.attestation.keystore import Keystore, draw_key, key_for
from sealift.errors import Refused, UnusableInput
from tasks.keystore import SecretBlocks


def test_keys_in_blocks(prefect_api: str) -> None:
    store: Keystore = SecretBlocks()
    assert (store.names(), store.get("vm")) == ([], None)
    old, new = key_for(store, "vm"), draw_key()
    assert key_for(store, "vm") == old
    assert (store.get("vm"), store.pending("vm"), store.names()) == (None, old, ["vm"])
    store.settle("vm", old)
    store.propose("vm", new)
    assert (store.get("vm"), store.pending("vm")) == (old, new)
    with pytest.raises(Refused, match="rotation of 'vm' was interrupted"):
        store.propose("vm", draw_key())
    store.settle("vm", draw_key())
    assert (store.get("vm"), store.pending("vm")) == (old, new)
    store.settle("vm", new)
    store.settle("vm", old)
    assert (store.get("vm"), store.pending("vm"), store.names()) == (new, None, ["vm"])
    with store.turn("vm"):
        store.propose("vm", old)
    store.wipe("vm")
    assert (store.names(), store.get("vm")) == ([], None)
    with pytest.raises(UnusableInput, match="no key of 'vm'"):
        store.wipe("vm")
