"""Typed options: frozen dataclasses from YAML and the command line, and the door of scripts."""

import argparse
import dataclasses
import errno
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import docstring_parser
import jsonargparse
import yaml

from plateau.errors import UserError as UserError
from plateau.io import write_text
from plateau.terminal import printable, printable_output
from plateau.text import read_text

T = TypeVar("T")


class _Parser(jsonargparse.ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        lines = [line.strip() for line in str(message).splitlines() if line.strip()]
        raise UserError(_in_words(" ".join(lines[:3])))


# What jsonargparse calls a type, and what people call it.
_TYPES = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "text",
    "<class 'tuple'>": "a list, as in [1, 2]",
    "<class 'dict'>": "a section with fields",
}


def _in_words(message: str) -> str:
    """What jsonargparse says of a value, in the form of all other messages about options."""
    if found := re.match(r'Parser key "(\S+)": Unable to load config \W(.*?)\W - ', message):
        return f"{found[1]} is {found[2] or 'empty'}; it must be a section with fields"
    if found := re.match(r"unrecognized arguments: --(.*?)=", message):
        return f"there is no field '{found[1]}'; the experiment's config.yaml lists all"
    found = re.match(r'Parser key "(\S+)": Expected an? (.+?)\. Got value: ?(.*)', message)
    if not found:
        return message
    name, kind, value = found.groups()
    if choices := re.fullmatch(r"typing\.Literal\[(.*)\]", kind):
        kind = f"one of {choices[1]}".replace("'", "")
    return f"{name} is {value or 'empty'}; it must be {_TYPES.get(kind, kind)}"


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage; options cannot be abbreviated."""

    def __init__(self, **keywords: Any):
        super().__init__(allow_abbrev=False, **keywords)

    def error(self, message: str) -> NoReturn:
        """Leave with exit status 2."""
        self.exit(2, f"{self.prog}: {message}; --help shows the options\n")


def cli(main: Callable[..., Any], argv: Sequence[str] | None = None) -> None:
    """Run a script's ``main`` from the command line; its signature and docstring are the interface.

    See `add_arguments`. Mistakes of the user: see `user_errors`.
    """
    parser = Parser(description=docstring_parser.parse(main.__doc__ or "").description)
    add_arguments(parser, main)
    with user_errors():
        main(**vars(parser.parse_args(argv)))


def add_arguments(
    parser: argparse.ArgumentParser, function: Callable[..., Any], only_given: bool = False
) -> None:
    """Give the parser an argument for each parameter of a function, or field of a dataclass.

    Parameters without default are positional (``list[…]``: one or more). The others are options
    ``--some-name``; switches, ``--some-name`` and ``--no-some-name``, where they are bool; choices
    where they are ``Literal``.

    Args:
        only_given: options that the command line does not have are absent from the result.
    """
    documented = docstring_parser.parse(function.__doc__ or "").params
    helps = {p.arg_name: (p.description or "").replace("%", "%%") for p in documented}
    for name, annotation in get_type_hints(function).items():
        if name == "return":
            continue
        default = inspect.signature(function).parameters[name].default
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        keywords: dict[str, Any] = {"help": helps.get(name)}
        if default is inspect.Parameter.empty:
            nargs = "+" if get_origin(annotation) is list else None
            parser.add_argument(name, nargs=nargs, type=(kinds or [annotation])[0], **keywords)
            continue
        keywords["default"] = argparse.SUPPRESS if only_given else default
        if annotation is bool:
            switch = argparse.BooleanOptionalAction
            parser.add_argument(_flag(name), action=switch, **keywords)
        elif get_origin(annotation) is Literal:
            parser.add_argument(_flag(name), choices=kinds, **keywords)
        else:
            parser.add_argument(_flag(name), type=(kinds or [annotation])[0], **keywords)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a `UserError` into its message on stderr and exit status 1, without a traceback.

    A disk that is full, or a quota, can be met wherever something is written. What is printed has
    no control characters of data; see `plateau.terminal`.
    """
    try:
        with printable_output():
            yield
    except UserError as error:
        sys.exit(printable(f"{Path(sys.argv[0]).name}: {error}"))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        file = error.filename2 or error.filename or "a file that was written"
        sys.exit(printable(f"{Path(sys.argv[0]).name}: {file}: {error.strerror}"))


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
        if _has_alias(override.partition("=")[2]):
            raise UserError(f"{override[:100]}: {_ALIAS}")
    try:
        parsed = parser.parse_object(_sections(cls, values))
        parsed = parser.parse_args([f"--{o}" for o in overrides], namespace=parsed)
    except jsonargparse.ArgumentError as error:
        raise UserError(str(error)) from None
    return cls(**parser.instantiate(parsed).as_dict())


def _sections(cls: type, values: Any, name: str = "") -> dict[str, Any]:
    """The values, seen to be mappings wherever ``cls`` has options; empty sections left out."""
    if not isinstance(values, dict):
        raise UserError(
            f"{name or 'what is given'} is {values!r}; it must be a section with fields"
        )
    if "class_path" in values:  # jsonargparse would import the module that it names
        raise UserError(f"{name or 'what is given'} has no field class_path")
    found = {}
    for key, value in values.items():
        kind = get_type_hints(cls).get(key)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            if value is None:  # all of its lines are comments
                continue
            if not dataclasses.is_dataclass(value):
                value = _sections(kind, value, f"{name}.{key}".lstrip("."))
        found[key] = value
    return found


def missing_sections(cls: type, values: Any, name: str = "") -> list[str]:
    """Sections of the options ``cls`` that values, as of `read_yaml`, lack or have empty."""
    if not isinstance(values, dict):
        return [name or "all sections"]
    missing = []
    for field, kind in get_type_hints(cls).items():
        full = f"{name}.{field}".lstrip(".")
        if dataclasses.is_dataclass(kind):
            missing += missing_sections(kind, values.get(field), full)
        elif get_origin(kind) is dict and field not in values:
            missing.append(full)
    return missing


# A few lines of them can stand for more values than any memory holds.
_ALIAS = "an alias (*name) of YAML; write the value itself, or put it in quotes"


def _has_alias(text: str) -> bool:
    try:
        return any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text))
    except yaml.YAMLError:  # text of another kind
        return False


class _UniqueKeys(yaml.SafeLoader):
    """YAML of plain data without aliases, in which no field is there twice: one would be lost."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            raise UserError(f"line {self.peek_event().start_mark.line + 1}: {_ALIAS}")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise UserError(f"line {key.start_mark.line + 1}: '{key.value}' is there twice")
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        if self.flow_level == 50:  # PyYAML takes time that grows with the square
            raise UserError(f"line {self.line + 1}: brackets within brackets, 50 deep")
        super().fetch_flow_collection_start(token)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, AttributeError, TypeError):  # as of 2020-13-45, or !!int x
            kind = node.tag.rpartition(":")[2]
            raise UserError(f"line {node.start_mark.line + 1}: this is no {kind}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The sections of a YAML file; none where it is empty.

    Raises:
        UserError: no such file, or not YAML with sections, each field once.
    """
    text = read_text(path)
    try:
        values = yaml.load(text, _UniqueKeys)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{path}: sections within sections, too many for a configuration") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if values is not None and not isinstance(values, dict):
        raise UserError(
            f"{path}: {type(values).__name__} at the top; it must be sections with fields"
        )
    return values or {}


def load(cls: type[T], path: Path, section: str | None = None, overrides: Sequence[str] = ()) -> T:
    """Read options of type ``cls`` from a YAML file, or from one top-level section of it.

    Raises:
        UserError: no such file, not YAML, or fields that ``cls`` does not have.
    """
    values = read_yaml(path)
    try:
        if section is not None:
            values = values.get(section)
            values = {} if values is None else _sections(cls, values, section)
        return resolve(cls, values, overrides)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def save(options: Any, path: Path) -> None:
    """Write an options dataclass as YAML, every field with its value."""
    text = yaml.safe_dump(dataclasses.asdict(options), sort_keys=False, allow_unicode=True)
    write_text(path, text)
