"""What mkdocs does for us besides: pages that are generated or lie outside docs/, links between all of them, decisions."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs_site.links import OUTSIDE, ROOT, mended, slug
from docs_site.reference import pages


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Headings are named as where the repository is shown; every decision is listed."""
    config.mdx_configs["toc"]["slugify"] = slug
    for section in config.nav or ():
        for part in section.get("About", ()):
            if "Decisions" in part:
                part["Decisions"] += [f"adr/{path.name}" for path in sorted((ROOT / "docs/adr").glob("0*.md"))]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what does not lie in docs/."""
    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    for path, name in OUTSIDE.items():
        files.append(File.generated(config, name, content=(ROOT / path).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Mend the links of a page."""
    return mended(markdown, page.file.src_uri)
