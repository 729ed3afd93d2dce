"""The documentation's site: every link leads somewhere, every page is listed, and the reference has all there is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from docs_site import links, reference
from docs_site.models import reachable, titles

ROOT = Path(__file__).parents[1]
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    return reference.pages()


def test_every_link_leads_to_a_page_and_to_a_heading_of_it(generated: dict[str, str]):
    pages = links.texts(generated)
    assert list(links.problems(pages)) == []
    broken = pages | {"index.md": "[a](nowhere.md) [b](tutorial.md#nowhere) [c](tutorial.md#1-rows)"}
    assert [problem.split("]")[0] for problem in links.problems(broken)] == ["index.md: [a", "index.md: [b"]


def test_every_page_is_listed_and_every_page_that_is_listed_is_there(generated: dict[str, str]):
    listed = list(links.listed(CONFIG["nav"]))
    decisions = {name for name in links.texts(generated) if name.startswith("adr/0")}       # listed by the hook
    assert sorted(listed) == sorted(links.texts(generated).keys() - decisions)
    index = (ROOT / "docs/adr/README.md").read_text()
    assert [name for name in decisions if f"({name.removeprefix('adr/')})" not in index] == []


def test_every_command_and_option_is_in_the_reference(generated: dict[str, str]):
    page = generated["reference/cli.md"]
    commands = dict(reference.commands())
    assert len(commands) > 50
    sections = {part.partition("\n")[0].strip(): part for part in page.replace("\n### ", "\n## ").split("\n## ")[1:]}
    assert sections.keys() == commands.keys() - {"fedround"}
    for name, section in sections.items():
        for parameter in commands[name].params:
            names = [f"`{option}`" for option in parameter.opts if option.startswith("--") and option != "--help"]
            assert [option for option in names if option not in section] == [], name


@pytest.mark.parametrize(("page", "models"), [
    ("reference/files.md", [model for model, _ in reference.FILES.values()]),
    ("reference/wire.md", list(reference.SIGNED.values()))], ids=["files", "wire"])
def test_every_key_of_every_file_and_document_is_in_the_reference(generated: dict[str, str], page: str, models: list):
    parts = generated[page].replace("\n## ", "\n### ").split("\n### ")
    sections = {part.partition(" {")[0].strip(): part for part in parts[1:] if " { #" in part.partition("\n")[0]}
    called = titles(reachable(*models))
    assert sections.keys() == set(called.values())
    for model, title in called.items():
        rows = [line for line in sections[title].splitlines() if line.startswith("| `")]
        assert [row.split("`")[1] for row in rows] == list(model.model_fields), model


def test_what_the_code_says_of_a_key_is_told(generated: dict[str, str]):
    """Below the field, in the class's words, and from a class before it."""
    files, wire = generated["reference/files.md"], generated["reference/wire.md"]
    assert "| `memory_budget_mb` | whole number, at least 8, at most 65536 | `128` |" in files
    assert '"dp_ftrl" is for sites that cannot sample' in files.partition("| `mechanism` |")[2].partition("\n")[0]
    assert "| `round` | whole number, at least 0, at most 99999 | needed | The round that the question makes." in wire
    assert "| `sites` | list (1 to 1000) of [SiteEntry](#siteentry) | needed |" in files


def test_the_site_is_built_without_a_network(tmp_path: Path):
    """mkdocs itself is content, strictly; no page asks another server for anything."""
    built = subprocess.run([sys.executable, "-m", "mkdocs", "build", "-q", "-d", str(tmp_path)], cwd=ROOT, text=True,
                           capture_output=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 70
    for page in pages:
        text = page.read_text()
        assert 'src="http' not in text, page
        assert 'rel="stylesheet" href="http' not in text, page
    assert "fedround site rotate" in (tmp_path / "reference/cli.html").read_text()
    found = json.loads((tmp_path / "search/search_index.json").read_text())["docs"]
    assert any("recordprivacy" in entry["location"] for entry in found)
