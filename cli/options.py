"""Options that several commands have: the inventory, JSON, and those of a migration, made from its model."""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand
from typer.main import get_command

from sealift.errors import UnusableInput

if TYPE_CHECKING:
    from sealift.migration.request import Options

InventoryOption = Annotated[
    Path | None,
    typer.Option("--inventory", help="The inventory. Default: ./sealift.toml, or the running lab's."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, nothing else, on standard output.")]

RETRIES = "retries"


class WithOptions(TyperCommand):
    """A command that has options of a migration besides its own. They are in `options_of` its context.

    They are read from the model when the command is run or its help is shown: `sealift --help` imports no pydantic.
    """

    names: ClassVar[tuple[str, ...]]
    """Which: fields of `sealift.migration.request.Options`, and `retries`."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its own, and before `--inventory` those of a migration."""
        own: list[Any] = super().get_params(ctx)
        place = next(number for number, one in enumerate(own) if one.name == "inventory")
        return [*own[:place], *_parameters(self.names), *own[place:]]

    def invoke(self, ctx: Any) -> Any:
        """Run the command. What was given of a migration's options is its context's object."""
        ctx.obj = {name: ctx.params.pop(name) for name in self.names}
        return super().invoke(ctx)


def options_of(ctx: typer.Context) -> Options:
    """The options that a command was given. UnusableInput names the first that can't be had."""
    return read_options(**{name: value for name, value in ctx.obj.items() if name != RETRIES})


def retries_of(ctx: typer.Context) -> int:
    """How often to try again."""
    number: int = ctx.obj[RETRIES]
    return number


def read_options(**given: Any) -> Options:
    """A migration's options from what a command line has. UnusableInput names what can't be had."""
    from pydantic import ValidationError

    from sealift.migration.request import Options
    from sealift.words import faults

    try:
        return Options.model_validate(given)
    except ValidationError as invalid:
        found = "; ".join(
            f"{flag(where.partition('.')[0])}: {what}" for where, what in faults(Options, invalid)
        )
        raise UnusableInput(
            found, remedy="`sealift migrate --help` shows what each option takes"
        ) from invalid


def flag(name: str) -> str:
    """The option of the command line that has a field's name."""
    return f"--{name.replace('_', '-')}"


@cache
def _parameters(names: tuple[str, ...]) -> list[Any]:
    """Typer's parameters of these options, with the bounds, defaults and descriptions that the model has."""
    from pydantic import TypeAdapter

    from sealift.migration.request import Options, Retries

    schema = Options.model_json_schema()
    known = {
        **{name: _alternatives(one, schema["$defs"]) for name, one in schema["properties"].items()},
        RETRIES: _alternatives({**TypeAdapter(Retries).json_schema(), "default": 0}, {}),
    }

    def command() -> None:
        """Has a signature, which is all that typer reads."""

    command.__signature__ = inspect.Signature([_parameter(name, *known[name]) for name in names])  # type: ignore[attr-defined]
    maker = typer.Typer(add_completion=False)
    maker.command()(command)
    return list(get_command(maker).params)


def _alternatives(
    field: dict[str, Any], definitions: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """A field's JSON schema, and the schemas of its values by their types, but for null."""
    found = [
        definitions[one["$ref"].rpartition("/")[2]] if "$ref" in one else one
        for one in field.get("anyOf", [field])
    ]
    return field, {one["type"]: one for one in found if one["type"] != "null"}


def _parameter(name: str, field: dict[str, Any], kinds: dict[str, dict[str, Any]]) -> inspect.Parameter:
    bounds: dict[str, Any] = {}
    if "array" in kinds:  # the option may be given again; the model reads each
        kind: Any = list[str]
    elif "boolean" in kinds:
        kind = bool
    elif "string" in kinds:  # the model reads words, and amounts such as 100M
        kind = str
    else:
        ((word, one),) = kinds.items()
        kind = {"integer": int, "number": float}[word]
        bounds = {"min": one.get("minimum"), "max": one.get("maximum")}
    given = kind if field["default"] is not None else kind | None
    option = typer.Option(flag(name), help=field["description"], **bounds)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=field["default"], annotation=Annotated[given, option]
    )
