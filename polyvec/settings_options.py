"""Command-line options made from a settings class: one for each field, none written twice.

Values stay strings; the settings class converts and checks them, as it does those of the environment.
"""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

Command = TypeVar("Command", bound=Callable[..., None])


def with_options(
    settings: type[BaseSettings], *, panels: Mapping[type[BaseSettings], str]
) -> Callable[[Command], Command]:
    """A decorator: the command's `**options` become an option for each field of `settings`.

    An option that is not given is None, so that the environment and the default decide.

    Args:
        settings: the class; its fields' docstrings are the options' help.
        panels: headings in the help: a class of `settings`' ancestry, and the heading of the fields that it
            declares or changes; they come in this order, changed ones after new ones.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        places = {name: _place(name, settings, panels) for name in settings.model_fields}
        options = [
            _option(name, settings.model_fields[name], panel)
            for name, (_, _, panel) in sorted(places.items(), key=lambda item: item[1][:2])
        ]
        parameters = [*own, *options]
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
        return command

    return decorate


def _place(
    name: str, settings: type[BaseSettings], panels: Mapping[type[BaseSettings], str]
) -> tuple[int, bool, str]:
    """Where the heading of a field stands among the headings, whether it is a changed field, and the heading."""
    writers = [kind for kind in settings.__mro__ if name in inspect.get_annotations(kind)]
    kind = next(kind for kind in writers if kind in panels)
    return list(panels).index(kind), len(writers) > 1, panels[kind]


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
