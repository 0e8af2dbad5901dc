"""Command-line options made from a settings class: one for each field, none written twice.

Values stay strings; the settings class converts and checks them, as it does those of the environment.
"""

import inspect
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

Command = TypeVar("Command", bound=Callable[..., None])


def with_options(
    settings: type[BaseSettings], *, panels: tuple[str, str]
) -> Callable[[Command], Command]:
    """A decorator: the command's `**options` become an option for each field of `settings`.

    An option that is not given is None, so that the environment and the default decide.

    Args:
        settings: the class; its fields' docstrings are the options' help.
        panels: headings in the help, of its own fields and of those it inherits; its own come first,
            and those that only change an inherited one come last among them.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        written = settings.__annotations__
        inherited = {
            name for base in settings.__mro__[1:] for name in getattr(base, "__annotations__", {})
        }
        fields = sorted(
            settings.model_fields.items(),
            key=lambda item: (item[0] not in written, item[0] in inherited),
        )
        options = [
            _option(name, field, panels[0] if name in written else panels[1])
            for name, field in fields
        ]
        parameters = [*own, *options]
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
        return command

    return decorate


def _option(name: str, field: FieldInfo, panel: str) -> inspect.Parameter:
    flag = "--" + name.replace("_", "-")
    kind = _without_none(field.annotation)
    # On the command line nobody can write None.
    description = (field.description or "").strip().replace("None is ", "default: ")
    help_ = f"{description} {_default(field)}".replace("[", r"\[")
    value: Any = str
    metavar: str | None = _metavar(kind)
    if kind is bool:
        value, flag, metavar = bool, f"{flag}/--no-{flag[2:]}", None
    elif typing.get_origin(kind) is tuple:
        value, help_, metavar = list[str], help_ + " Repeatable.", "TEXT"
    option = Annotated[
        value | None,
        typer.Option(flag, help=help_, metavar=metavar, show_default=False, rich_help_panel=panel),
    ]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)


def _without_none(annotation: Any) -> Any:
    if typing.get_origin(annotation) is Annotated:
        return _without_none(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        return _without_none(kinds[0])
    return annotation


def _metavar(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "|".join(map(str, typing.get_args(kind)))
    return {int: "INTEGER", float: "NUMBER"}.get(kind, "TEXT")


def _default(field: FieldInfo) -> str:
    default = field.default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if default is None or default == ():
        return ""
    return f"Default: {default}."
