"""The hash tree is Linux': as its documentation says, and as veritysetup sees it."""

import hashlib
import os
import subprocess

import pytest

from sealift.errors import UnusableInput
from sealift.machine.recipe import RECIPE
from sealift.machine.tree import tree_path
from sealift.machine.verity import BLOCK, SALT, append_hash_tree, parse_verity, read_beside, write_beside


def salted(block):
    return hashlib.sha256(SALT + block).digest()


def padded(*hashes):
    joined = b"".join(hashes)
    return joined + bytes(-len(joined) % BLOCK)


@pytest.fixture
def disk(tmp_path):
    return tmp_path / "disk.ext4"


def test_the_root_hash_is_that_of_the_block_of_hashes(disk):
    blocks = [bytes([number]) * BLOCK for number in range(3)]
    disk.write_bytes(b"".join(blocks))
    verity = append_hash_tree(disk)
    level = padded(*map(salted, blocks))
    assert disk.read_bytes() == b"".join(blocks) + level
    assert (verity.root_hash, verity.data_blocks) == (salted(level), 3)


def test_the_level_next_to_the_root_comes_first(disk):
    content = b"".join(number.to_bytes(2, "big") * (BLOCK // 2) for number in range(130))
    disk.write_bytes(content)
    append_hash_tree(disk)
    behind = disk.read_bytes()[len(content) :]
    assert len(behind) == 3 * BLOCK
    assert behind[:BLOCK] == padded(salted(behind[BLOCK : 2 * BLOCK]), salted(behind[2 * BLOCK :]))


@pytest.mark.parametrize("size", [0, BLOCK, 2 * BLOCK + 1])
def test_what_is_not_made_of_blocks_is_refused(disk, size):
    disk.write_bytes(bytes(size))
    with pytest.raises(UnusableInput, match="whole blocks"):
        append_hash_tree(disk)


def test_it_is_written_and_read_again(disk):
    disk.write_bytes(bytes(2 * BLOCK))
    verity = append_hash_tree(disk)
    write_beside(disk, verity)
    assert read_beside(disk) == (verity, hashlib.sha256(disk.read_bytes()).hexdigest())
    assert parse_verity(str(verity)) == verity


@pytest.mark.parametrize(
    "text", ["", "00,11,2", f"{'0' * 64},{'0' * 64},0", f"{'0' * 64},{'0' * 64},1 panic=0"]
)
def test_what_describes_no_disk_is_refused(text):
    with pytest.raises(UnusableInput):
        parse_verity(text)


@pytest.mark.root
@pytest.mark.oracle
@pytest.mark.parametrize("blocks", [2, 128, 129, 20000])
def test_veritysetup_accepts_it(disk, blocks):
    tree = tree_path(RECIPE)
    if os.geteuid() != 0 or not (tree / "usr/sbin/veritysetup").exists():
        pytest.skip("needs root and the Debian tree")
    disk.write_bytes(os.urandom(BLOCK) * blocks)
    verity = append_hash_tree(disk)
    script = 'mount --bind "$2" "$1/mnt" && tree=$1 && shift 2 && exec chroot "$tree" "$@"'
    words = ["veritysetup", "verify", "--no-superblock", "--data-blocks", str(blocks)]
    words += ["--hash-offset", str(blocks * BLOCK), "--salt", verity.salt.hex()]
    name = f"/mnt/{disk.name}"
    enter = ["unshare", "--mount", "sh", "-c", script, "sh", tree, disk.parent]
    done = subprocess.run(
        [*enter, *words, name, name, verity.root_hash.hex()], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
