"""Serving: edges only. HTTP over the synchronous core, closed by default, and no conversation kept between requests.

`app.create_app` takes its collaborators as arguments and gives an ASGI application; `server.serve` runs it. Needs the
extra `serve`; of the rest of the program, only the verbs `serve`, `keys` and `mcp` import it.
"""
