"""An image names what its VM may not be told by its provider, and is the same for the same recipe and key."""

import json
import os
import time

import pytest

from sealift.errors import UnusableInput
from sealift.evidence.launch.digest import Mode
from sealift.evidence.verify.policy import parse_policy, write_policy
from sealift.machine.disk import build_disk
from sealift.machine.expected import expected_digests, expected_policy
from sealift.machine.image import (
    GuestEvidence,
    build_image,
    checked_owner_key,
    damaged_files,
)
from sealift.machine.manifest import FILES, read_manifest
from sealift.machine.recipe import RECIPE, files_dir
from sealift.machine.tree import tree_path
from sealift.provider.image import read_image

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMZJkMMdXXRcLcp/QT4eDIqfUkkZbRAyFb10+RdIkfIA"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPRv6l8VZr363amscn1FHIfDiuD8WzvdiesRotXPKY8E"


@pytest.fixture(scope="module")
def tree():
    tree = tree_path(RECIPE)
    if os.geteuid() != 0 or not tree.is_dir():
        pytest.skip("needs root and the Debian tree: `sealift lab up` builds it")
    build_disk(tree, files_dir())
    return tree


def build(tree, key=KEY, evidence=GuestEvidence.SNP, **more):
    return build_image(tree, files_dir(), owner_key=key, evidence=evidence, **more)


def test_an_owners_key_is_taken_with_its_comment():
    assert checked_owner_key(f"{KEY} someone at home\n") == tuple(KEY.split())


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ssh-ed25519",
        KEY.replace("ssh-ed25519", "ssh-rsa"),
        f"command=reboot {KEY}",
        f"{KEY}\n{OTHER}",
        KEY.replace("AAAAC3", "AAAA C3"),
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        f"ssh-ed25519 {'A' * 68} panic=0",
    ],
)
def test_what_is_no_public_key_is_refused(line):
    with pytest.raises(UnusableInput, match="SSH public key"):
        checked_owner_key(line)


@pytest.mark.root
def test_what_the_provider_may_not_choose_is_on_the_command_line(tree):
    words = read_manifest(build(tree, f"{KEY} comment")).append.split()
    assert f"sealift.owner={KEY.replace(' ', ',')}" in words
    assert "sealift.evidence=snp" in words
    assert sum(word.startswith("sealift.root=") for word in words) == 1
    assert "systemd.import_credentials=no" in words
    assert "mitigations=off" not in words


@pytest.mark.root
def test_the_provider_reads_the_image(tree, tmp_path):
    build(tree, into=tmp_path / "images/sealed")
    image = read_image(tmp_path / "images", "sealed")
    assert image.append == read_manifest(tmp_path / "images/sealed").append


@pytest.mark.alone
@pytest.mark.root
def test_another_owners_image_differs_in_nothing_else_and_is_made_at_once(tree):
    first = build(tree)
    began = time.process_time()
    second = build(tree, OTHER)
    assert time.process_time() - began < 0.5
    one, two = (
        json.loads((first / "manifest.json").read_text()),
        json.loads((second / "manifest.json").read_text()),
    )
    assert one.pop("append") != two.pop("append")
    assert one == two
    assert (first / "root").samefile(second / "root")
    assert build(tree) == first


@pytest.mark.root
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named(tree, tmp_path, name):
    image = build(tree, into=tmp_path / "image")
    assert damaged_files(image, read_manifest(image)) == []
    content = (image / name).read_bytes() if name != "root" else b"short"
    (image / name).unlink()  # a link to the cache's
    (image / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert damaged_files(image, read_manifest(image)) == [name]


@pytest.mark.root
def test_the_policy_names_the_digests_of_the_image(tree):
    digests = expected_digests(build(tree), vcpus=2, cpu="EPYC-Milan")
    policy = parse_policy(write_policy(expected_policy(digests)))
    assert policy.snp.measurements == (digests[Mode.SNP].hex(),)
    assert set(policy.sev.launch_digests) == {digests[Mode.SEV].hex(), digests[Mode.SEVES].hex()}
    assert len(digests[Mode.SNP]) == 48


@pytest.mark.oracle
@pytest.mark.root
def test_sev_snp_measure_predicts_the_same_digests(tree):
    guest = pytest.importorskip("sevsnpmeasure.guest")
    from sevsnpmeasure.sev_mode import SevMode
    from sevsnpmeasure.vcpu_types import CPU_SIGS
    from sevsnpmeasure.vmm_types import VMMType

    image = build(tree)
    append = read_manifest(image).append
    digests = expected_digests(image, vcpus=2, cpu="EPYC-Milan")
    for mode, theirs in ((Mode.SEV, SevMode.SEV), (Mode.SEVES, SevMode.SEV_ES), (Mode.SNP, SevMode.SEV_SNP)):
        paths = [str(image / name) for name in ("firmware", "kernel", "initrd")]
        wanted = guest.calc_launch_digest(
            theirs, 2, CPU_SIGS["EPYC-Milan"], *paths, append, 0x1, vmm_type=VMMType.QEMU
        )
        assert digests[mode] == wanted, mode


def test_a_folder_without_a_manifest_is_no_image(tmp_path):
    with pytest.raises(UnusableInput):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"firmware": "../firmware"}')
    with pytest.raises(UnusableInput, match="Build the image again"):
        read_manifest(tmp_path)


MANIFEST = {
    **{name: name for name in FILES},
    "append": "root=/dev/dm-0 ro",
    "sha256": dict.fromkeys(FILES, "AB" * 32),
    "size_bytes": dict.fromkeys(FILES, 1),
}


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST))
    found = read_manifest(tmp_path)
    assert (found.append, found.size_bytes) == (MANIFEST["append"], MANIFEST["size_bytes"])
    assert found.sha256["root"] == "ab" * 32


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": "../kernel"},
        {"append": ["root=/dev/dm-0"]},
        {"append": "root=/dev/dm-0\0init=/bin/sh"},
        {"sha256": {"kernel": "ab"}},
        {"size_bytes": dict.fromkeys(FILES, float("inf"))},
    ],
    ids=str,
)
def test_a_manifest_that_says_something_else_is_refused(tmp_path, change):
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST | change))
    with pytest.raises(UnusableInput, match="the image 'x' has"):
        read_manifest(tmp_path, "the image 'x'")
