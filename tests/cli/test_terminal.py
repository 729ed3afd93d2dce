"""Foreign words on the terminal, in the log, in pages and in artifacts: shown letter by letter, and never obeyed."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path

import pytest
from rich.table import Table

from fedround.spoken import one_line, visible
from fedround_cli import campaign
from fedround_cli.output import command, err, out
from fedround_cli.terminal import Terminal, boxed, styled, wheel
from infra.logs import OneLine
from tasks.reporting import render_html, render_markdown
from tasks.reporting.record import RoundRecord, SiteRow
from tests.cli.conftest import Fedround

HOSTILE = [
    "[/x]", "[/]", "[", "]", "\\[", "\\\\[bold", "[bold]x[/bold]", "[link=http://x]y[/link]", "[@click=f('x')]z[/]", "{}",
    "{0}", "%s", ":smile:", "\x1b[2J\x1b[31mred", "\x9b31m", "a\rb", "a\nround 9 committed", "\x07", "\x00", "\u202egnp.exe",
    "a\u2066b", "\u2028x", "\ud800", "\ufeff", "é", "<script>alert(1)</script>", "| a | b |", "`x`", "$(x)", "x" * 3_000]
OBEYED = set("\x1b\x9b\r\x07\x00\x08\u202e\u2066\u2028\ufeff\ud800")


def written(draw) -> str:
    file = io.StringIO()
    console = Terminal()
    console.file = file
    draw(console)
    return file.getvalue()


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_what_somebody_else_wrote_is_shown_and_not_obeyed(text: str):
    table = Table("site", text, title=text, caption=text)
    table.add_row(text, "x")
    shown = [written(lambda at: at.say("[bold]note[/] {}\n{}", text, text)), written(lambda at: at.print(table)),
             written(lambda at: at.print(f"[bold]{text}[/] and {text}")),
             written(lambda at: at.print(boxed(text, title=text))),
             written(lambda at: at.print(wheel(text))), written(lambda at: at.log(text))]
    for one in shown:
        assert not OBEYED & set(one)
    if not OBEYED & set(text) and "\n" not in text and len(text) < 100:
        assert shown[0] == f"note {one_line(text)}\n{one_line(text)}\n"
        assert text in shown[1]


def test_a_sentence_of_one_line_stays_one():
    assert written(lambda at: at.say("[bold red]fedround:[/] {}", "a\nround 9 committed\r\x85\u2029b")).count("\n") == 1


def test_every_style_that_a_command_names_is_one():
    """Any other would be shown as it is written."""
    for source in (path for folder in ("fedround_cli", "fedround_examples") for path in Path(folder).rglob("*.py")):
        for tag in re.findall(r"\[[a-z ]+\](?=[^\n]*\[/\])", source.read_text()):
            assert styled(tag).plain == "", f"{source}: {tag} is no style of fedround_cli.terminal"


def test_styles_nest_and_an_end_too_many_is_nothing():
    text = styled("[bold]a[green]b[/]c[/]d[/]e {}", "[/]")
    assert text.plain == "abcde [/]"
    assert [(span.start, span.end, span.style) for span in text.spans] == [
        (0, 1, "bold"), (1, 2, "bold green"), (2, 3, "bold")]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_log_line_is_one_line(text: str):
    line = OneLine("%(message)s").format(logging.LogRecord("x", logging.INFO, "x", 1, "site %s: %s", (text, text), None))
    assert not (OBEYED | {"\n"}) & set(line)


def hostile_record(text: str) -> RoundRecord:
    return RoundRecord(
        federation="small", run="spring", round=1, model="0" * 64, parent="1" * 64, aggregation="mean", optimizer="fedavg",
        training=text, compression=text, uploaded_bytes=1, privacy="none", quorum=1, seconds=1.0, public=None,
        epsilon_limit=None, reputation=text, note=text, near=(), distances=(), estimated=False,
        sites=(SiteRow(site=text, outcome="refused", note=text, weight=1.0, checks=(text,)),
               SiteRow(site="north", outcome="rejected", note=text, weight=1.0)))


@pytest.mark.parametrize("text", [one for one in HOSTILE if one != "\ud800"], ids=ascii)
def test_pages_artifacts_and_tables_of_a_round_with_hostile_words(text: str):
    record = hostile_record(text)
    page, markdown = render_html([record]), render_markdown([record])
    for drawn in (page, markdown, written(lambda at: at.print(campaign.sites_table(record))),
                  written(lambda at: at.print(campaign.line(record)))):
        assert not OBEYED & set(drawn)
    assert "<script" not in page
    assert "<script" not in markdown.replace("`<script>alert(1)</script>`", "")


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_an_error_with_hostile_words_is_one_sentence(fedround: Fedround, text: str):
    for arguments in (("models", "show", text), ("verify", text, "--as", "nowhere"), ("site", "audit", text),
                      ("federation", "invite", text, "--access-key", "a", "--secret-key", "b"), ("status", "--home", text),
                      ("ask", "--show", "--run", text, "--as", "nowhere"), ("site", "check", text), ("simulate", text)):
        if any("\x00" in one or "\ud800" in one for one in arguments):
            continue        # no shell hands these over
        result = fedround(*arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), (arguments, result.exception)
        assert not OBEYED & set(result.output)
        assert len(result.stderr.strip().splitlines()) <= 1


def test_the_two_consoles_are_of_this_kind():
    assert isinstance(out, Terminal)
    assert isinstance(err, Terminal)
    assert visible("plain") == "plain"
    assert command(lambda: Path("x"))() == Path("x")
