"""Serving: edges only. HTTP over the synchronous core, closed by default, and no conversation kept between requests.

`app.create_app` takes its collaborators as arguments and gives an ASGI application; `server.serve` runs it. Needs the
extra `serve`; nothing here is imported by the rest of the program but by the verbs `serve` and `keys`.
"""
