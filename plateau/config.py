"""Typed options: frozen dataclasses from YAML and the command line, and a front door for scripts."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jsonargparse
import yaml

from plateau.io import write_text

T = TypeVar("T")


class UserError(Exception):
    """A mistake that the user can mend: one to three lines that say what, where and what to do."""


class _Parser(jsonargparse.ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        lines = [line.strip() for line in str(message).splitlines() if line.strip()]
        raise UserError(" ".join(lines[:3]) + " (--help lists the options)")


def cli(main: Callable[..., Any], argv: Sequence[str] | None = None) -> None:
    """Run a script's ``main`` from the command line; its signature and docstring are the interface.

    A `UserError` becomes its message on stderr and exit status 1, without a traceback.
    """
    try:
        jsonargparse.auto_cli(main, args=argv, parser_class=_Parser)
    except UserError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")


def resolve(cls: type[T], values: dict[str, Any], overrides: Sequence[str] = ()) -> T:
    """Build the options dataclass ``cls`` from nested values and ``field.name=value`` overrides.

    Raises:
        UserError: an unknown field, or a value of the wrong type.
    """
    parser = _Parser(exit_on_error=False)
    parser.add_class_arguments(cls)
    for override in overrides:
        if "=" not in override:
            raise UserError(f"'{override}' is not of the form field.name=value")
    try:
        parsed = parser.parse_object(values)
        parsed = parser.parse_args([f"--{o}" for o in overrides], namespace=parsed)
    except jsonargparse.ArgumentError as error:
        raise UserError(str(error)) from None
    return cls(**parser.instantiate_classes(parsed).as_dict())


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
