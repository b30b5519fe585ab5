"""The tree is cached by what is in it, not by where it came from or who owns the checkout."""

import dataclasses
import shutil

import pytest

from sealift.errors import PrerequisiteMissing
from sealift.machine import tree as tree_module
from sealift.machine.recipe import (
    KERNELS,
    RECIPE,
    RECIPES,
    files_digest,
    files_dir,
    lower_dirs,
    recipe,
    stage_files,
)
from sealift.machine.tree import build_tree, tree_path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEALIFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "usr/libexec/sealift").mkdir(parents=True)
    (folder / "usr/libexec/sealift/runtime").write_text("#!/bin/sh\n")
    (folder / "etc").mkdir()
    (folder / "etc/daemon.json").write_text("{}")
    return folder


def test_the_digest_changes_with_the_packages_only():
    assert dataclasses.replace(RECIPE).digest == RECIPE.digest
    assert dataclasses.replace(RECIPE, packages=(*RECIPE.packages, "hello")).digest != RECIPE.digest


def test_each_kernel_is_in_one_suite_and_no_two_trees_are_the_same():
    made = {(docker, kernel): recipe(docker, kernel) for docker in RECIPES for kernel in KERNELS}
    assert len({one.digest for one in made.values()}) == len(made)
    for one in made.values():
        named = (*one.packages, *one.testing_packages, *one.older_packages)
        assert sum(name.startswith("linux-image") for name in named) == 1
    assert recipe("26") == RECIPE


def test_a_field_that_nobody_uses_does_not_rename_the_tree():
    assert dataclasses.replace(RECIPE, older_packages=("hello",)).digest != RECIPE.digest
    assert "older_packages" not in {name for name, value in dataclasses.asdict(RECIPE).items() if value != ()}


def test_a_suite_is_only_asked_for_what_is_named(tmp_path):
    for kernel in KERNELS:
        words = tree_module._mmdebstrap(recipe("26", kernel), tmp_path)
        hooks = [word for word in words if f"-t {tree_module.OLDER} install" in word]
        assert len(hooks) == (kernel == "6.1")


def test_our_files_do_not_rename_the_tree(source, tmp_path, cache):
    before = tree_path(RECIPE)
    stage_files(source, cache / "files")
    assert tree_path(RECIPE) == before


def test_files_are_staged_with_the_modes_of_a_host(source, cache):
    (source / "etc/daemon.json").chmod(0o777)
    (source / "usr/libexec/sealift/runtime").chmod(0o600)
    staged = stage_files(source, cache / "files")
    assert (staged / "etc/daemon.json").stat().st_mode & 0o7777 == 0o644
    assert (staged / "usr/libexec/sealift/runtime").stat().st_mode & 0o7777 == 0o755
    assert (staged / "usr/libexec").stat().st_mode & 0o7777 == 0o755


def test_files_are_staged_anew_when_one_changes(source, cache):
    before, digest = stage_files(source, cache / "files"), files_digest(source)
    assert stage_files(source, cache / "files") == before
    (source / "etc/daemon.json").write_text('{"debug": true}')
    assert files_digest(source) != digest
    assert stage_files(source, cache / "files") != before


def test_our_files_lie_above_the_tree(tmp_path):
    files = files_dir()
    assert files.is_dir()
    assert lower_dirs(tmp_path / "tree", files) == f"{files}:{tmp_path}/tree"


def test_a_tree_in_the_cache_is_not_built_again(cache):
    tree_path(RECIPE).mkdir(parents=True)
    assert build_tree(RECIPE, say=pytest.fail) == tree_path(RECIPE)


def test_without_root_it_says_so(monkeypatch):
    monkeypatch.setattr(tree_module.os, "geteuid", lambda: 1000)
    with pytest.raises(PrerequisiteMissing, match="only root can build"):
        build_tree(RECIPE, say=print)


def test_without_mmdebstrap_it_says_so(monkeypatch):
    monkeypatch.setattr(tree_module.os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(PrerequisiteMissing, match="mmdebstrap"):
        build_tree(RECIPE, say=print)


def test_what_a_killed_build_left_is_removed(monkeypatch, cache):
    leftover = cache / "trees" / "0123.building" / "tree"
    leftover.mkdir(parents=True)
    monkeypatch.setattr(tree_module.os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(tree_module, "_bootstrap", lambda recipe, building, say: (building / "tree").mkdir())
    assert build_tree(RECIPE, say=print) == tree_path(RECIPE)
    assert sorted(path.name for path in (cache / "trees").iterdir()) == sorted([RECIPE.digest, "lock"])
