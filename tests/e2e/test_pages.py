"""What the pages say exists: commands and their options, links, files, tests, make targets."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from fedround_cli.main import app
from tests.e2e.pages import ROOT, steps

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "fedround_examples/banks/README.md")
         ] + sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")

FOLDERS = (
    "fedround", "fedround_cli", "flows", "tasks", "site_workers", "validation", "infra", "fedround_examples", "benchmarks",
    "docs", "tests")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def commands(page: Path) -> tuple[list[list[str]], list[list[str]]]:
    """The `fedround` commands of a page: those in blocks, to be typed as they stand, and those that it only mentions."""
    text = page.read_text()
    lines = "\n".join(BLOCK.findall(text)).replace("\\\n", " ").splitlines()
    typed = [line for line in lines if line.startswith("fedround ")]
    mentioned = [span for span in SPAN.findall(BLOCK.sub("", text)) if span.startswith("fedround ")]
    return [words(line) for line in typed], [words(span) for span in mentioned]


def words(line: str) -> list[str]:
    """A command's arguments: without comments, without what the shell does with its output."""
    bare = re.split(r"\s(?:\||\|\||&|>|2>)", re.sub(r'"\$\([^)]*\)"', "VALUE", line))[0]
    return shlex.split(bare, comments=True)[1:]


@cache
def whole() -> TyperGroup:
    """All commands: to make them costs a moment."""
    return typer.main.get_command(app)


def find(arguments: list[str]) -> tuple[TyperCommand | TyperGroup, list[str]]:
    """The command that the arguments name, and the ones that are left for it."""
    command, left = whole(), list(arguments)
    while isinstance(command, TyperGroup) and left and left[0] in command.commands:
        command = command.commands[left.pop(0)]
    return command, left


@cache
def files_of_the_repository() -> set[str]:
    """Paths of all that lies in our folders."""
    return {path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")}


def is_typed(page: Path) -> bool:
    """Whether a test types the page, and writes its files."""
    return page.name == "tutorial.md" or page.parent.name == "how-to"


@each_page
def test_every_command_in_a_block_can_be_typed_as_it_stands(page: Path):
    """Parsed to its end, and not run: unknown options, missing arguments and wrong types are errors."""
    for arguments in commands(page)[0]:
        command, left = find(arguments)
        assert not isinstance(command, TyperGroup), f"fedround {' '.join(arguments)}: no such command"
        command.make_context("fedround", left)


@each_page
def test_every_command_that_is_mentioned_exists_with_its_options(page: Path):
    for arguments in commands(page)[1]:
        command, left = find(arguments)
        assert not isinstance(command, TyperGroup) or left == [], f"fedround {' '.join(arguments)}: no such command"
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in left if word.startswith("-")} <= known | {"--help"}, arguments


def test_commands_are_found_on_the_front_page():
    """So that a change of the pattern cannot silently check nothing."""
    typed, mentioned = commands(ROOT / "README.md")
    assert len(typed) >= 15
    assert len(mentioned) >= 3


@each_page
def test_every_link_into_the_repository_leads_somewhere(page: Path):
    """But for generated pages (`tests/test_docs_site.py`)."""
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert "://" in target or "reference/" in target or (page.parent / target).exists(), target


@each_page
def test_every_file_that_is_named_is_there(page: Path):
    """Python files by the end of their path (a page may write them itself); others if their first folder is ours."""
    text = page.read_text()
    ours = files_of_the_repository()
    written = {name for step in steps(text) for name in step.files} if is_typed(page) else set()
    for span in SPAN.findall(BLOCK.sub("", text)):
        if re.fullmatch(r"[\w/-]+\.py", span) and span not in written:
            assert any(f"/{path}".endswith(f"/{span}") for path in ours), span
        elif re.fullmatch(r"[\w/.-]+\.\w+", span) and span.split("/")[0] in FOLDERS:
            assert span in ours


@pytest.mark.parametrize(("page", "column"), [("threat-model.md", 4), ("liveness.md", 5), ("law.md", 4)])
def test_every_test_that_a_page_of_promises_names_is_there(page: str, column: int):
    rows = [line.split("|")[column] for line in (ROOT / "docs" / page).read_text().splitlines()
            if line.startswith("| ") and line.count("|") == column + 1]
    named = [(file, name.strip(" …")) for row in rows for file, names in re.findall(r"`([\w/]+\.py)`(?:: ([^;|(]+))?", row)
             for name in (names or "").split(",")]
    assert len(named) >= 15
    for file, name in named:
        tests = re.findall(r"def test_(\w+)", (ROOT / "tests" / file).read_text())
        assert any(name in test for test in tests), f"{file} has no test {name}"


@each_page
def test_every_make_target_is_one(page: Path):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    text = page.read_text()
    asked = re.findall(r"^make ([\w-]+)", "\n".join(BLOCK.findall(text)), re.MULTILINE) + re.findall(r"`make ([\w-]+)", text)
    assert set(asked) <= set(targets)
