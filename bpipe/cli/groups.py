"""Options that belong together are one value: a command takes groups, typer sees their options."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Collection
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin, get_type_hints

import typer

from bpipe.errors import AddressError

_Value = TypeVar("_Value")
_Command = Callable[..., int]

# The panels of the help, in its order.
DIRECTION: Final = "Direction"
FILES: Final = "Files"
MANY: Final = "Services, and many sessions"
SECRET: Final = "Secret"
CONNECTION: Final = "Connection and outages"
SHOWN: Final = "What is shown"
PANELS: Final = (DIRECTION, FILES, MANY, SECRET, CONNECTION, SHOWN)


def option(
    parse: Callable[[str], _Value], name: str, metavar: str, help: str, *, panel: str, **more: Any
) -> Any:
    """An option whose text is parsed by this function. A ValueError or AddressError is told."""

    def convert(text: str | _Value) -> _Value:
        if type(text) is not str:
            return text  # type: ignore[return-value]  # the default
        try:
            return parse(text)
        except (ValueError, AddressError) as error:
            raise typer.BadParameter(str(error)) from None

    return text(name, metavar=metavar, help=help, panel=panel, parser=convert, **more)


def text(*names: str, help: str, panel: str, **more: Any) -> Any:
    """An option whose value is what is written there, or in the environment."""
    more = {"envvar": variable(names[-1]), "rich_help_panel": panel, **more}
    return typer.Option(*names, help=help, show_default=False, show_envvar=False, **more)


def flag(*names: str, help: str, panel: str, **more: Any) -> Any:
    """An option without a value."""
    return text(*names, help=help, panel=panel, **more)


def variable(name: str) -> str:
    """What the environment calls the option with this long name."""
    return f"BPIPE_{name[2:].upper().replace('-', '_')}"


def grouped(*, without: Collection[str] = ()) -> Callable[[_Command], _Command]:
    """For a command: a parameter whose type is a NamedTuple of options stands for these.

    ``without``: those that this command does not have; the fields keep their defaults. So does an
    option that has only its short name less, as ``-o``. The options are in the order of the panels,
    and in one panel in the order of the groups.
    """

    def decorate(command: _Command) -> _Command:
        parameters, groups = _expand(command, without)

        @functools.wraps(command)
        def expanded(**values: Any) -> int:
            for name, group in groups.items():
                fields = values.keys() & set(group._fields)
                values[name] = group(**{field: values.pop(field) for field in fields})
            return command(**values)

        # What typer looks at.
        expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        expanded.__annotations__ = {each.name: each.annotation for each in parameters}
        return expanded

    return decorate


def _expand(
    command: _Command, without: Collection[str]
) -> tuple[list[inspect.Parameter], dict[str, Any]]:
    """The parameters that typer is to see, and the groups among those of the command."""
    hints = get_type_hints(command, include_extras=True)
    parameters, groups = [], {}
    for name, parameter in inspect.signature(command).parameters.items():
        if hasattr(hints[name], "_fields"):
            groups[name] = hints[name]
            mine = [each for each in _options(hints[name]) if each.name not in without]
            parameters += [_shorn(each, without) for each in mine]
        else:
            parameters.append(_parameter(name, hints[name], parameter.default))
    return sorted(parameters, key=_panel), groups


@functools.cache  # commands share groups
def _options(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [_parameter(name, hints[name], group._field_defaults[name]) for name in group._fields]


def _shorn(parameter: inspect.Parameter, without: Collection[str]) -> inspect.Parameter:
    """The same without the short names that this command does not have."""
    kind, option = get_args(parameter.annotation)
    if option.default not in without:  # the first name: typer looks there for it, too
        return parameter
    option = copy.copy(option)
    option.default, *option.param_decls = option.param_decls
    return parameter.replace(annotation=Annotated[kind, option])


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _panel(parameter: inspect.Parameter) -> int:
    """The place of a parameter's panel; arguments come before all of them."""
    if get_origin(parameter.annotation) is not Annotated:
        return -1
    panel = get_args(parameter.annotation)[1].rich_help_panel
    return PANELS.index(panel) if panel in PANELS else -1
