"""A volume with content is taken only by the container that left it, and given back as it was."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from sealift_agent import docker_api, volume_marks
from sealift_agent.wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Host:
    """A host's volumes as Docker's local driver keeps them, and their marks. `on` makes it the one that is asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.users: list[str] = []

    def on(self) -> None:
        self.monkeypatch.setattr(volume_marks, "MARKS", self.folder / "marks")
        self.monkeypatch.setattr(docker_api, "call", self.call)

    def call(self, _: str, path: str) -> Any:
        if path.startswith("/containers/"):
            return self.users
        place = self.folder / path.rpartition("/")[2] / "_data"
        if not place.exists():
            raise docker_api.NotThere(path)
        return {"Name": place.parent.name, "Driver": "local", "Options": None, "Mountpoint": str(place)}

    def make(self, name: str = "kept") -> Path:
        place = self.folder / name / "_data"
        place.mkdir(parents=True)
        return place


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Host]:
    return lambda name: Host(tmp_path / name, monkeypatch)


def move(migration: str, here: Host, there: Host, *created: str) -> None:
    here.on()
    lineages = volume_marks.keep(migration, ["kept"])
    there.on()
    volume_marks.take(migration, lineages, created)
    (there.folder / "kept/_data/file").write_text(migration)
    volume_marks.arrive(migration)
    here.on()
    volume_marks.leave(migration)
    time.sleep(0.02)  # a kernel tick: what is written later has a later time


def test_a_container_comes_home_by_other_hosts(host: Callable[[str], Host]) -> None:
    one, two, three = host("one"), host("two"), host("three")
    (one.make() / "file").write_text("first")
    two.make()
    move("1", one, two, "kept")
    three.make()
    move("2", two, three, "kept")
    move("3", three, one)
    move("4", one, two)


@pytest.mark.parametrize("whose", ["unknown", "changed", "made anew", "at work"])
def test_what_it_has_not_left_is_not_taken(host: Callable[[str], Host], whose: str) -> None:
    one, two = host("one"), host("two")
    (place := one.make() / "file").write_text("first")
    two.make()
    if whose == "unknown":
        (two.folder / "kept/_data/file").write_text("theirs")
        with pytest.raises(AgentError, match="has content that this container has not left"):
            move("1", one, two)
        return
    move("1", one, two, "kept")
    if whose == "changed":
        place.write_text("theirs")
    elif whose == "made anew":
        (one.folder / "kept").rename(one.folder / "old")
        (one.make() / "file").write_text("theirs")
    else:
        one.on()
        volume_marks.keep("2", ["kept"])
    with pytest.raises(AgentError, match="has content that this container has not left"):
        move("3", two, one)


def test_what_is_given_back_is_as_it_was(host: Callable[[str], Host]) -> None:
    one, two = host("one"), host("two")
    (one.make() / "file").write_text("first")
    place = two.make()
    place.chmod(0o750)
    one.on()
    lineages = volume_marks.keep("1", ["kept"])
    two.on()
    volume_marks.take("1", lineages, [])
    (place / "folder").mkdir()
    (place / "folder/file").touch()
    (place / "link").symlink_to("/")
    place.chmod(0o777)
    volume_marks.give_back("1")
    assert list(place.iterdir()) == []
    assert place.stat().st_mode & 0o7777 == 0o750
    assert list((two.folder / "marks").iterdir()) == []
    move("2", one, two)
    two.on()
    lineages = volume_marks.keep("3", ["kept"])
    one.on()
    volume_marks.take("3", lineages, [])
    (one.folder / "kept/_data/file").write_text("half of it")
    volume_marks.give_back("3")
    time.sleep(0.02)
    move("4", two, one)


def test_a_volume_that_somebody_uses_by_now_is_not_emptied(host: Callable[[str], Host]) -> None:
    one, two = host("one"), host("two")
    (one.make() / "file").write_text("first")
    place = two.make()
    one.on()
    lineages = volume_marks.keep("1", ["kept"])
    two.on()
    volume_marks.take("1", lineages, [])
    (place / "file").touch()
    two.users = ["somebody"]
    volume_marks.give_back("1")
    assert [entry.name for entry in place.iterdir()] == ["file"]
