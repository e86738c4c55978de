"""docs/messages.md lists the messages that name a command, and a test that it helps."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "docs" / "messages.md"
# What a person is told to type.
COMMAND = re.compile(
    r"\./run\.sh|\./path\.sh|(python|bash|sh) (local|utils)/|local/\w+\.sh|--fix\b|--allow-pipes"
    r"|\bpip (un)?install|apt-get|\bexport [A-Z]|\bunset [A-Z]|\biconv\b|\brm -"
)
# Code that runs commands, or only writes about them; what was made.
NO_MESSAGES = {"bench", "tests", "data", "exp"}


def python_messages(path: Path) -> list[tuple[int, str]]:
    """Line and text of the strings with commands, but docstrings; ``{}`` for what is put in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in docstrings or id(node) in inside:
            continue
        if isinstance(node, ast.JoinedStr):
            text = "".join(
                part.value if isinstance(part, ast.Constant) else "{}" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        # Flags and single words are parts of messages.
        if COMMAND.search(text) and len(text.split()) > 1 and not text.startswith("--"):
            found.append((node.lineno, " ".join(text.split())))
    return found


def shell_messages(path: Path) -> list[tuple[int, str]]:
    """Line and text of what a shell script says about commands; ``{}`` for variables."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        said = re.search(r"\b(?:echo|say|fail)\b\s+([\"'])(.*?)(?<!\\)\1", line)
        if said and COMMAND.search(said[2]):
            found.append((number, re.sub(r"\$(\{[^}]*\}|\(\w[^)]*\)|\w+)", "{}", said[2])))
    return found


@cache
def messages() -> list[tuple[str, str]]:
    """Place and text of all messages that name a command."""
    found = []
    # Environments and what was trained have more files than all the rest.
    tops = [top for top in ROOT.iterdir() if top.name not in NO_MESSAGES]
    tops = [top for top in tops if not top.name.startswith(".")]
    for path in sorted(path for top in tops for path in (top, *top.rglob("*"))):
        name = path.relative_to(ROOT)
        if any(part.startswith(".") for part in name.parts):
            continue
        if path.suffix == ".py":
            found += [(f"{name}:{line}", text) for line, text in python_messages(path)]
        elif path.suffix == ".sh":
            found += [(f"{name}:{line}", text) for line, text in shell_messages(path)]
    return found


def rows() -> list[tuple[str, str, str]]:
    """Message, command and test of each row of the table."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    cells = [
        [cell.strip() for cell in line.split(" | ")] for line in lines if line.startswith("| ")
    ]
    return [
        (row[0].removeprefix("| ").strip("`"), row[1], row[2].removesuffix("|").strip().strip("`"))
        for row in cells[1:]
    ]


@pytest.mark.parametrize(("place", "text"), messages())
def test_every_message_that_names_a_command_is_in_the_table(place, text):
    assert any(message in text for message, *_ in rows()), f"{place}: not in {TABLE.name}: {text}"


@pytest.mark.parametrize(("message", "command", "test"), rows())
def test_every_row_has_a_message_and_a_test_that_its_command_helps(message, command, test):
    assert any(message in text for _, text in messages()), f"nothing says: {message}"
    assert command
    if re.match(r"not tried\b.*: \w", test):
        return
    file, _, function = test.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
