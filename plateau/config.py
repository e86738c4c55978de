"""Typed options: frozen dataclasses from YAML and the command line, and the door of scripts."""

import argparse
import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import docstring_parser
import jsonargparse
import yaml

from plateau.io import write_text

T = TypeVar("T")


class UserError(Exception):
    """A mistake that the user can mend: one to three lines that say what, where and what to do."""


class _Parser(jsonargparse.ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        lines = [line.strip() for line in str(message).splitlines() if line.strip()]
        raise UserError(" ".join(lines[:3]))


def cli(main: Callable[..., Any], argv: Sequence[str] | None = None) -> None:
    """Run a script's ``main`` from the command line; its signature and docstring are the interface.

    Parameters without default are positional (``list[…]``: one or more), the others are options
    ``--some-name``, switches where they are bool. Mistakes of the user: see `user_errors`.
    """
    documented = docstring_parser.parse(main.__doc__ or "")
    parser = argparse.ArgumentParser(description=documented.description)
    helps = {p.arg_name: (p.description or "").replace("%", "%%") for p in documented.params}
    for name, annotation in get_type_hints(main).items():
        if name == "return":
            continue
        default = inspect.signature(main).parameters[name].default
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        keywords: dict[str, Any] = {"help": helps.get(name), "type": (kinds or [annotation])[0]}
        if default is inspect.Parameter.empty:
            nargs = "+" if get_origin(annotation) is list else None
            parser.add_argument(name, nargs=nargs, **keywords)
        elif annotation is bool:
            parser.add_argument(_flag(name), action="store_true", help=helps.get(name))
        else:
            parser.add_argument(_flag(name), default=default, **keywords)
    with user_errors():
        main(**vars(parser.parse_args(argv)))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a `UserError` into its message on stderr and exit status 1, without a traceback."""
    try:
        yield
    except UserError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")


def resolve(cls: type[T], values: dict[str, Any], overrides: Sequence[str] = ()) -> T:
    """Build the options dataclass ``cls`` from nested values and ``field.name=value`` overrides.

    Raises:
        UserError: an unknown field, or a value of the wrong type.
    """
    parser = _Parser(exit_on_error=False, allow_abbrev=False)
    parser.add_class_arguments(cls)
    for override in overrides:
        if "=" not in override:
            raise UserError(f"'{override}' is not of the form field.name=value")
    try:
        parsed = parser.parse_object(values)
        parsed = parser.parse_args([f"--{o}" for o in overrides], namespace=parsed)
    except jsonargparse.ArgumentError as error:
        raise UserError(str(error)) from None
    return cls(**parser.instantiate(parsed).as_dict())


def load(cls: type[T], path: Path, section: str | None = None, overrides: Sequence[str] = ()) -> T:
    """Read options of type ``cls`` from a YAML file, or from one top-level section of it.

    Raises:
        UserError: no such file, not YAML, or fields that ``cls`` does not have.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if section is not None:
        values = values.get(section) or {}
    try:
        return resolve(cls, values, overrides)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def save(options: Any, path: Path) -> None:
    """Write an options dataclass as YAML, every field with its value."""
    text = yaml.safe_dump(dataclasses.asdict(options), sort_keys=False, allow_unicode=True)
    write_text(path, text)
