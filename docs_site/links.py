"""Pages, and the links between them: where the site has a file of the repository, and which links lead nowhere.

A link to a file of the repository that is no page (code, the licence) becomes plain words: a site has pages only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "README.md": "project/readme.md", "CHANGELOG.md": "project/changelog.md", "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    **{path.relative_to(ROOT).as_posix(): f"examples/{path.parent.name}.md"
       for path in sorted((ROOT / "fedround_examples").glob("*/README.md"))},
}
"""Pages that do not lie in docs/: their paths in the repository, and where the site has them."""

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s\[\]{}]+)\)")
_BLOCK = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} +(.+?)(?: *\{ *#([\w-]+) *\})? *$", re.MULTILINE)
slug = slugify(case="lower")


def mended(text: str, page: str) -> str:
    """A page's text with links that lead to pages of the site. page: its name there."""
    here = PurePosixPath(next((path for path, name in OUTSIDE.items() if name == page), f"docs/{page}")).parent

    def link(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        path, mark, anchor = target.partition("#")
        if not path or ":" in path:
            return found[0]
        wanted = _page_of(os.path.normpath(here / path))
        if wanted is None:
            return words
        return f"{picture}[{words}]({os.path.relpath(wanted, PurePosixPath(page).parent)}{mark}{anchor})"

    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in _BLOCK.split(text))


def _page_of(path: str) -> str | None:
    if path in OUTSIDE:
        return OUTSIDE[path]
    if not path.startswith("docs/"):
        return None
    return path.removeprefix("docs/") + ("" if PurePosixPath(path).suffix else "/README.md")


def _prose(text: str) -> str:
    return "".join(part for part in _BLOCK.split(text) if not part.startswith("```"))


def texts(generated: Mapping[str, str]) -> dict[str, str]:
    """Every page of the site by its name there, its links mended. generated: pages that are no files."""
    own = {path.relative_to(ROOT / "docs").as_posix(): path.read_text() for path in (ROOT / "docs").rglob("*.md")}
    outside = {name: (ROOT / path).read_text() for path, name in OUTSIDE.items()}
    return {name: mended(text, name) for name, text in {**own, **outside, **generated}.items()}


def problems(pages: Mapping[str, str]) -> Iterator[str]:
    """Links of the pages that lead nowhere."""
    places = {name: anchors(text) for name, text in pages.items()}
    for name, text in pages.items():
        for _, words, target in _LINK.findall(_prose(text)):
            path, _, anchor = target.partition("#")
            if ":" in path:
                continue
            page = os.path.normpath(PurePosixPath(name).parent / path) if path else name
            if page not in pages and not (ROOT / "docs" / page).is_file():
                yield f"{name}: [{words}]({target}): there is no page {page}"
            elif anchor and anchor not in places.get(page, ()):
                yield f"{name}: [{words}]({target}): {page} has no heading for it"


def anchors(text: str) -> set[str]:
    """The headings of a page, as links name them in the site and where the repository is shown."""
    return {name or slug(_LINK.sub(r"\2", heading).replace("`", ""), "-") for heading, name in _HEADING.findall(_prose(text))}


def listed(nav: object) -> Iterator[str]:
    """The pages that a list of the site's pages names."""
    if isinstance(nav, str):
        yield nav
    for part in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from listed(part)
