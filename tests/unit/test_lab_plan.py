"""What a lab is asked for by version and by name."""

from __future__ import annotations

import pytest

from sealift.errors import UnusableInput
from sealift.inventory import LabFacts
from sealift.lab import lab
from sealift.lab.layout import DESTINATION, GATEWAY, SOURCE
from sealift.lab.plan import dockers_of, kernels_of, recipe_of
from sealift.machine.recipe import RECIPE, recipe


def test_two_hosts_have_what_was_asked_for_each() -> None:
    assert dockers_of("26") == {}
    assert dockers_of("26:28") == {"destination": "28"}
    assert kernels_of("cloud") == {}
    assert kernels_of("6.1:testing") == {"source": "6.1", "destination": "testing"}
    facts = LabFacts(
        kind="vm", docker=dockers_of("26:28"), kernel=kernels_of("6.1:testing"), accelerator="tcg"
    )
    assert recipe_of(facts, SOURCE) == recipe("26", "6.1")
    assert recipe_of(facts, DESTINATION) == recipe("28", "testing")
    assert recipe_of(facts, GATEWAY) == RECIPE
    assert recipe_of(None, SOURCE) == RECIPE


@pytest.mark.parametrize("text", ["5.10", "6.1:5.10", "cloud:generic:6.1", ""])
def test_a_kernel_that_no_lab_has_is_named_with_those_that_there_are(text: str) -> None:
    with pytest.raises(UnusableInput, match="there is no lab with the kernel") as raised:
        kernels_of(text)
    assert "cloud or generic or 6.1 or testing" in str(raised.value)


def test_namespaced_hosts_can_have_no_kernel_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "_may_start", lambda: None)
    with pytest.raises(UnusableInput, match="this machine's kernel"):
        lab.up("netns", say=print, kernel="6.1")
