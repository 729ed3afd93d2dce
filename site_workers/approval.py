"""Approving a recipe or a contract: what the operator sees first, and what a "yes" writes down.

A file is read, never run, until its digest stands in policy.toml. That line is the approval. The copy in approved/ is what
runs or judges. Its bytes are compared with the line whenever the site opens it.
"""

from __future__ import annotations

import ast
import io
import tokenize
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from re import fullmatch
from typing import Any, Literal

import tomlkit
from tomlkit.items import Array

from fedround.errors import ContractError, SetupError
from fedround.files import make_folders, read_named, write_whole
from fedround.signing import digest
from infra.settings import SiteSettings, load_toml
from infra.toml import document_of
from site_workers import audit
from site_workers.policy import SitePolicy
from validation.contract import read_contract

MIN_PREFIX = 16
"""Hexadecimal digits that name a file. To make a second file whose digest begins with the same ones takes 2^64 tries."""

_RUNS_MORE = frozenset({"__import__", "eval", "exec", "compile", "importlib", "runpy", "ctypes", "subprocess", "socket"})
_KINDS: dict[str, Literal["recipe", "contract"]] = {".py": "recipe", ".json": "contract"}


@dataclass(frozen=True)
class Candidate:
    """A file that an operator may approve, and what the site found out about it."""

    kind: Literal["recipe", "contract"]
    name: str
    body: bytes
    digest: str
    imports: tuple[str, ...] = ()
    """Modules that a recipe names; nothing was imported to find out."""
    beware: tuple[str, ...] = ()
    """Names in the recipe that let code do more than its imports show."""
    warnings: tuple[str, ...] = ()
    """The contract's checks that only warn."""

    def said(self, now: datetime) -> str:
        """The comment beside its digest in policy.toml."""
        return f"'{self.name}', approved {now:%Y-%m-%d}"


@dataclass(frozen=True)
class ApprovedLine:
    """One line of policy.toml."""

    kind: Literal["recipe", "contract"]
    digest: str
    current: bool
    """Whether it is the digest of the file that the site uses."""


def read_candidate(path: Path) -> Candidate:
    """Examine a file that somebody proposes. Raises SetupError if it cannot be read, ContractError as `examine` does."""
    try:
        body = read_named(path)
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror}; give the path of a recipe (.py) or a contract (.json)"
                         ) from None
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise ContractError(f"{path}: expected a recipe (.py) or a data contract (.json)")
    return examine(kind, body, str(path))


def examine(kind: Literal["recipe", "contract"], body: bytes, source: str) -> Candidate:
    """Examine these bytes before an approval. Nothing of them runs.

    source: where they come from, for the message.
    Raises ContractError for what no operator should approve: text that a screen shows otherwise than it runs, a recipe that
    is not Python, a file that is not a data contract.
    """
    text = _readable(body, source)
    if kind == "contract":
        contract = read_contract(body, source)
        return Candidate(kind, contract.name, body, contract.digest, warnings=contract.warnings)
    return _recipe(text, body, source)


def matches(sha256: str, prefix: str) -> bool:
    """Whether `prefix` names the digest; spaces do not count. Raises ContractError if it is too short to name one."""
    wanted = "".join(prefix.split()).lower()
    if len(wanted) < MIN_PREFIX:
        raise ContractError(f"a digest is named by at least {MIN_PREFIX} hexadecimal digits, got {len(wanted)}")
    return sha256.startswith(wanted)


def approve(folder: Path, settings: SiteSettings, candidate: Candidate, now: datetime) -> None:
    """Make the file the site's current recipe or contract, and write its digest into policy.toml, whose comments stay.

    The file that it replaces is kept in approved/earlier/. A call that was killed at any point can be repeated: the end is
    the same.
    """
    audit.record(folder, audit.Approved(utc=audit.utc(now), kind=candidate.kind, file=candidate.digest))
    policy = load_toml(SitePolicy, folder / "policy.toml")
    if candidate.digest not in (policy.recipes if candidate.kind == "recipe" else policy.contracts):
        document, listed = _listed(folder, candidate.kind)
        listed.multiline(True)
        listed.add_line(candidate.digest, comment=candidate.said(now))
        if not str(listed.as_string()).rstrip("]").endswith("\n"):
            listed.add_line(indent="")
        _save(folder, document)
    place = folder / _place(settings, candidate.kind)
    if place.exists() and (earlier := place.read_bytes()) != candidate.body:
        _write(place.parent / "earlier" / f"{digest(earlier)[:MIN_PREFIX]}{place.suffix}", earlier)
    _write(place, candidate.body)


def withdraw(folder: Path, prefix: str, now: datetime) -> ApprovedLine:
    """Take the one approval out that `prefix` names. Raises ContractError if it names none, or more than one."""
    found = [one for one in approvals(folder) if matches(one.digest, prefix)]
    if len(found) != 1:
        raise ContractError(f"'{prefix}' names {len(found) or 'no'} approved files: see 'fedround site approve --list'")
    audit.record(folder, audit.Withdrawn(utc=audit.utc(now), kind=found[0].kind, file=found[0].digest))
    document, listed = _listed(folder, found[0].kind)
    listed.remove(found[0].digest)
    _save(folder, document)
    return found[0]


def approvals(folder: Path) -> list[ApprovedLine]:
    """Every approval in policy.toml."""
    settings, policy = load_toml(SiteSettings, folder / "site.toml"), load_toml(SitePolicy, folder / "policy.toml")
    result = []
    approved: dict[Literal["recipe", "contract"], tuple[str, ...]] = {"recipe": policy.recipes, "contract": policy.contracts}
    for kind, digests in approved.items():
        place = folder / _place(settings, kind)
        current = digest(place.read_bytes()) if place.exists() else None
        result += [ApprovedLine(kind, one, one == current) for one in digests]
    return result


def _place(settings: SiteSettings, kind: str) -> str:
    return settings.recipe if kind == "recipe" else settings.contract


def _readable(body: bytes, source: str) -> str:
    """The text, if a screen shows all of it as it is ("Trojan Source", CVE-2021-42574; terminal escapes)."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise ContractError(f"{source}: not UTF-8 text") from None
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        for character in line:
            if character != "\t" and unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Co", "Cn"):
                raise ContractError(f"{source} line {number}: holds the character U+{ord(character):04X}, which a screen "
                                    "shows elsewhere or not at all: what you read is not what runs. Ask its author why")
    return text


def _recipe(text: str, body: bytes, source: str) -> Candidate:
    _check_encoding(body, source)
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise ContractError(f"{source} line {getattr(error, 'lineno', 0)}: not Python") from None
    except (RecursionError, MemoryError):       # of the parser: 100,000 signs in a row, say
        raise ContractError(f"{source}: nested too deeply for Python to read it") from None
    _check_names(text, source)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    imports = tuple(sorted(set(_imports(tree))))
    roots = {module.partition(".")[0] for module in imports}
    return Candidate("recipe", _name(tree), body, digest(body), imports, tuple(sorted(_RUNS_MORE & (names | roots))))


def _check_encoding(body: bytes, source: str) -> None:
    """A "coding:" comment asks Python to read other characters than a screen shows: in UTF-7 a comment can hold code."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(body).readline)
    except SyntaxError:
        encoding = "unknown"
    if encoding != "utf-8":
        raise ContractError(f"{source}: declares the encoding {encoding}, but what you read is UTF-8. Ask its author why")


def _check_names(text: str, source: str) -> None:
    """Refuse names with letters of other alphabets: one can look like another name with Latin letters (CVE-2021-42694)."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME and not token.string.isascii():
            odd = next(one for one in token.string if not one.isascii())
            raise ContractError(f"{source} line {token.start[0]}: holds a name with the character U+{ord(odd):04X}, which "
                                "can look like another one: names have ASCII letters. Ask its author why")


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def _name(tree: ast.Module) -> str:
    """The name that the recipe gives itself, as far as it can be found without running the recipe."""
    for node in tree.body:
        if (isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
                and any(isinstance(target, ast.Name) and target.id == "NAME" for target in node.targets)):
            return node.value.value if fullmatch(r"[a-z0-9-]{1,40}", node.value.value) else "unnamed"
    return "unnamed"


def _listed(folder: Path, kind: str) -> tuple[tomlkit.TOMLDocument, Array]:
    path = folder / "policy.toml"
    load_toml(SitePolicy, path)         # says what is wrong with it
    document = document_of(path)
    listed: Any = document[f"{kind}s"]
    return document, listed


def _save(folder: Path, document: tomlkit.TOMLDocument) -> None:
    _write(folder / "policy.toml", tomlkit.dumps(document).encode())


def _write(path: Path, body: bytes) -> None:
    """Write the file whole or not at all, and durably."""
    make_folders(path.parent, mode=0o700)
    write_whole(path, body, durable=True)
