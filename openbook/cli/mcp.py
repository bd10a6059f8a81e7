"""`openbook mcp`: the knowledge base as tools for editors, agents and other programs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

from openbook.cli.scoping import scope_of, scope_options
from openbook.errors import ConfigError


@click.command()
@click.option("--kb", type=click.Path(path_type=Path), help="The knowledge base (default: your own).")
@click.option("--model", help="Name of a stored model.")
@scope_options
@click.option(
    "--http", "port", type=click.IntRange(1, 65535), help="Serve on 127.0.0.1:PORT/mcp instead of standard input."
)
def mcp(
    kb: Path | None, model: str | None, as_of: str | None, where: str, labels: tuple[str, ...], port: int | None
) -> None:
    """Offer the knowledge base to another program over the Model Context Protocol: search, ask, read_document."""
    import functools

    from openbook.answer import Options
    from openbook.cli import display, session
    from openbook.records import Decoding

    if importlib.util.find_spec("mcp") is None:
        raise ConfigError("The Model Context Protocol needs its extra: pip install 'openbook[serve]'")
    from openbook.serving.mcp import make_server

    current = session.settings(kb=kb, model=model)
    base, embedder = session.open_base(current)
    display.must_hold_documents(base, str(current.default_kb))
    scope = scope_of(base, as_of, where, labels)
    # Fetched and verified before the other program waits for an answer; opened when the first is asked for.
    open_model = functools.cache(session.model_opener(current))
    decoding = Decoding(max_tokens=current.max_tokens)
    options = Options(current.passages, session.strategy(current), decoding)
    server = make_server(base, embedder, open_model, scope=scope, options=options)
    if port is None:
        server.run()
        return
    from mcp.server.transport_security import TransportSecuritySettings

    from openbook.serving import server as http
    from openbook.serving.configuration import Bounds

    names = [f"127.0.0.1:{port}", f"localhost:{port}"]
    guard = TransportSecuritySettings(allowed_hosts=names, allowed_origins=[f"http://{name}" for name in names])
    app = server.streamable_http_app(stateless_http=True, transport_security=guard)
    with http.listen("127.0.0.1", port) as door:
        click.echo(f"Listening on http://127.0.0.1:{port}/mcp. Ctrl-C ends.", err=True)
        app.state.bounds = Bounds()
        http.make_server(app).run(sockets=[door])
