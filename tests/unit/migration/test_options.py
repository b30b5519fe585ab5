"""A migration's options: command line, forms and documents name the same ones, with the same bounds and defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import is_valid_schema, validate
from pydantic import TypeAdapter, ValidationError
from typer.main import get_command
from typer.testing import CliRunner

from cli.main import app
from cli.options import flag, read_options
from flows.migrate import migrate
from flows.migrate_group import migrate_group
from sealift.errors import UnusableInput
from sealift.migration.request import Options, Retries
from sealift.model import Strategy

ROOT = Path(__file__).parents[3]
MODEL = Options.model_json_schema()["properties"]
RETRIES = TypeAdapter(Retries).json_schema()
OWN = {
    "containers",
    "container",
    "source",
    "destination",
    "project",
    "inventory",
    "as_json",
    "help",
    "everything",
}
"""What a command takes besides."""


def command_line(name: str) -> dict[str, Any]:
    """The options of a command that are a migration's."""
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    context = command.make_context(name, [], resilient_parsing=True)
    return {one.name: one for one in command.get_params(context) if one.name not in OWN}


def bounds(field: dict[str, Any]) -> tuple[float | None, float | None]:
    """The least and the most of a number."""
    number = next(
        (one for one in field.get("anyOf", [field]) if one.get("type") in {"integer", "number"}), {}
    )
    return number.get("minimum"), number.get("maximum")


def test_the_command_line_has_each_field_with_its_bounds_default_and_description() -> None:
    found = command_line("migrate")
    assert found.keys() == MODEL.keys() | {"retries"}
    for name, field in {**MODEL, "retries": {**RETRIES, "default": 0}}.items():
        option = found[name]
        assert option.opts == [f"--{name.replace('_', '-')}"]
        assert option.default == field["default"]
        assert option.help == field["description"]


@pytest.mark.parametrize("name", [*MODEL, "retries"])
def test_the_command_line_keeps_to_a_numbers_bounds(name: str, tmp_path: Path) -> None:
    def status(value: float) -> int:
        words = [
            "migrate",
            "redis",
            "--from",
            "source",
            "--to",
            "destination",
            flag(name),
            f"{value:.4f}".rstrip("0").rstrip("."),
        ]
        return CliRunner().invoke(app, [*words, "--inventory", str(tmp_path / "none")]).exit_code

    least, most = bounds(RETRIES if name == "retries" else MODEL[name])
    for bound, beyond in ((least, -1), (most, 1)):
        if bound is not None:
            assert status(bound) == 1, "there is no inventory"
            assert status(bound + beyond) == (1 if name == "bandwidth" else 2)


def test_a_check_has_those_that_it_depends_on() -> None:
    assert command_line("check").keys() == {"bandwidth", "bind", "binds_as_they_are", "evidence"}


def test_the_command_lines_defaults_are_the_models() -> None:
    given = {name: option.default for name, option in command_line("migrate").items() if name != "retries"}
    assert read_options(**given) == Options()


@pytest.mark.parametrize("flow", [migrate, migrate_group])
def test_a_flows_form_has_them_too(flow: Any) -> None:
    schema = parameter_schema(flow).model_dump()
    assert schema["definitions"]["Options"]["properties"].keys() == MODEL.keys()
    for name, field in MODEL.items():
        shown = schema["definitions"]["Options"]["properties"][name]
        assert (shown["default"], shown["description"]) == (field["default"], field["description"])
        assert bounds(shown) == bounds(field)
    assert bounds(schema["properties"]["retries"]) == bounds(RETRIES)
    assert schema["properties"]["retries"]["default"] == 0


HOSTS = {"container": "redis", "source": "source", "destination": "destination"}


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({}, Options()),
        ({"options": {}}, Options()),
        (
            {"options": {"strategy": "post-copy", "evidence": "none", "bandwidth": "1.5M", "streams": 2}},
            Options(strategy=Strategy.POST_COPY, evidence="none", bandwidth=1_500_000, streams=2),
        ),
    ],
)
def test_parameters_of_a_deployment_are_read(given: dict[str, Any], made: Options) -> None:
    schema = parameter_schema(migrate).model_dump()
    assert is_valid_schema(schema) is None
    assert not validate({**HOSTS, **given}, schema)
    assert migrate.validate_parameters({**HOSTS, **given}).get("options", Options()) == made


@pytest.mark.parametrize(
    "wrong",
    [
        {"strategy": "fast"},
        {"max_rounds": 31},
        {"max_downtime": 0},
        {"bandwidth": 0},
        {"bandwidth": "lots"},
        {"streams": 17},
        {"throttel": True},
    ],
)
def test_what_can_not_be_had_is_refused_by_form_model_and_command_line(wrong: dict[str, Any]) -> None:
    assert validate({**HOSTS, "options": wrong}, parameter_schema(migrate).model_dump())
    with pytest.raises(ValidationError):
        Options(**wrong)
    with pytest.raises(UnusableInput) as raised:
        read_options(**wrong)
    (name,) = wrong
    assert flag(name) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_the_users_page_has_a_row_for_each_with_its_bounds_and_default() -> None:
    page = (ROOT / "docs" / "user.md").read_text()
    rows = {
        name: cells
        for cells in re.findall(r"^\| (`--.*?) \| (.*) \| (.*?) \|$", page, re.MULTILINE)
        for name in re.findall(r"--[a-z-]+", cells[0])
    }
    listed = set(rows) - {"--from", "--to", "--project", "--inventory", "--json"}
    assert listed == {flag(name) for name in MODEL} | {"--retries"}
    for name, field in {**MODEL, "retries": {**RETRIES, "default": 0}}.items():
        _, meaning, default = rows[flag(name)]
        if field["default"] == []:
            assert default == "none"
        elif field["default"] is not None and field["default"] is not False:
            assert default.strip("`") == str(field["default"])
        least, most = bounds(field)
        if most is not None:
            assert f"({least} to {most})" in meaning
    for strategy in Strategy:
        assert f"`{strategy}`" in rows["--strategy"][1]
