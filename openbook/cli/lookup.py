"""`openbook ls, find, grep, read`: looking things up without a model."""

from __future__ import annotations

from dataclasses import asdict

import click

from openbook.cli import context, display
from openbook.cli.options import JSON, KB, ScopeOptions, scope_options
from openbook.core.config import Place


@click.command()
@click.argument("path", required=False)
@KB
@scope_options
@JSON
def ls(path: str | None, kb: Place | None, scope: ScopeOptions, as_json: bool) -> None:
    """List the documents: size, pages, time and path.

    PATH is a folder, a document, or a pattern such as '*.pdf' (default: all documents). The time, in UTC, is when the
    knowledge base got this text. Documents that require an access label are listed only with --label.
    """
    from rich.filesize import decimal

    from openbook.knowledge.store.names import resolve

    with context.library(context.read_settings(kb=kb)) as library:
        base, view, paths = library.base, scope.view_of(library), None
        with base.snapshot():
            if path is not None:
                is_pattern = "*" in path or "?" in path
                paths = view.find(path) if is_pattern else resolve(base.documents(view.scope), path)
            found = base.document_info(paths, view.scope).values()
            version = base.kept_version(view.scope.as_of)
    documents = [{**each._asdict(), "metadata": dict(each.metadata)} for each in found]
    lines = []
    for each in found:
        pages = display.count(each.pages, "page") if each.pages else ""
        labels = f"  [{', '.join(each.labels)}]" if each.labels else ""
        about = f"{decimal(each.bytes):>9}  {pages:>9}  {each.created_at[:16]}"
        lines.append(f"{about}  {display.short_path(each.path)}{labels}")
    value = {"knowledge_base": base.id, "version": version, "documents": documents}
    display.show(as_json, value, display.say_in_pager, lines)


@click.command()
@click.argument("name")
@KB
@scope_options
@JSON
def find(name: str, kb: Place | None, scope: ScopeOptions, as_json: bool) -> None:
    """Print the paths of documents that contain NAME.

    NAME may be a pattern such as '*.pdf', for the path or the file name.
    """
    with context.library(context.read_settings(kb=kb)) as library:
        found = scope.view_of(library).find(name)
    display.show(as_json, found, display.say_in_pager, found)


@click.command()
@click.argument("pattern")
@KB
@scope_options
@click.option("-e", "--expression", is_flag=True, help="PATTERN is a regular expression, in the syntax of RE2.")
@click.option("--case", is_flag=True, help="Upper and lower case differ.")
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="How many lines.")
@JSON
def grep(
    pattern: str, kb: Place | None, scope: ScopeOptions, expression: bool, case: bool, limit: int, as_json: bool
) -> None:
    """Show the lines of documents that contain the words PATTERN.

    White space in PATTERN matches any white space, including line ends.
    """
    with context.library(context.read_settings(kb=kb)) as library:
        found = scope.view_of(library).grep(pattern, expression=expression, case=case, limit=limit)
    lines = []
    for each in found.matches:
        page = "" if each.page is None else f" (page {each.page})"
        lines.append(f"{each.document}:{each.number}{page}: {each.line.strip()}")
    display.show(as_json, asdict(found), display.say_in_pager, lines)
    if found.more and not as_json:
        display.note(f"There are more than {limit:,}; see --limit.")


@click.command()
@click.argument("document")
@KB
@scope_options
@click.option("--page", type=click.IntRange(min=1), help="Only this page.")
@click.option("--outline", is_flag=True, help="Only the headings, or the pages of a document without headings.")
@JSON
def read(document: str, kb: Place | None, scope: ScopeOptions, page: int | None, outline: bool, as_json: bool) -> None:
    """Show the text of DOCUMENT as the knowledge base has it."""
    with context.library(context.read_settings(kb=kb)) as library:
        view = scope.view_of(library)
        if outline:
            headings = view.outline(document)
            lines = ["  " * (each.level - 1) + each.title for each in headings]
            display.show(as_json, [asdict(each) for each in headings], lambda: click.echo("\n".join(lines)))
            return
        part = view.read(document, page=page)
    display.show(as_json, asdict(part), lambda: click.echo(part.text))
