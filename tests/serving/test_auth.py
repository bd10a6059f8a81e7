"""Who may do what, under which name, and that labels hold on every route."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest
from starlette.datastructures import Headers

from openbook.core.config import Settings
from openbook.knowledge.versions import tag
from openbook.serving.auth import Authenticator
from openbook.serving.configuration import Configuration
from openbook.serving.errors import ApiError
from openbook.serving.keys import RIGHTS, KeyFile, Right
from tests.serving.conftest import CHAT, QUESTION, SAFE, SECRET, Running, Serve, add_file, code, path_of

OPEN = {("GET", "/"), ("GET", "/web/{name}"), ("GET", "/health"), ("GET", "/ready")}
ABOVE_READ = {
    ("POST", "/v1/documents"): "write",
    ("POST", "/v1/documents/remove"): "write",
    ("POST", "/v1/documents/purge"): "admin",
    ("POST", "/v1/verdicts/remove"): "write",
    ("GET", "/v1/verdicts"): "admin",
    ("GET", "/metrics"): "admin",
}
NAMED = {"{name}": "echo", "{knowledge_base}": "kb", "{digest}": "0" * 64}


def behind_keys(server: Running) -> Iterator[tuple[str, str, Right]]:
    """(method, path, right) of every route that there is but those that are open to all."""
    for described, item in server.app.openapi()["paths"].items():
        path = re.sub(r"\{\w+\}", lambda found: NAMED[found[0]], described)
        for method, operation in item.items():
            assert ("x-right" in operation) == ((method.upper(), described) not in OPEN)
            if "x-right" in operation:
                assert operation["x-right"] == ABOVE_READ.get((method.upper(), described), "read")
                yield method.upper(), path, operation["x-right"]


def test_every_route_demands_its_right_and_its_own_site(serve: Serve, tmp_path: Path) -> None:
    whole = serve(require_key=True, receipts=tmp_path / "log")
    headers = {right: whole.key(right) for right in RIGHTS}
    for method, path, needed in behind_keys(whole):
        assert code(whole.client.request(method, path)) == (401, "missing_api_key"), path
        foreign = whole.client.request(method, path, headers={**headers["admin"], "sec-fetch-site": "cross-site"})
        assert code(foreign) == (403, "foreign_site"), path
        for right in RIGHTS[: RIGHTS.index(needed)]:
            response = whole.client.request(method, path, headers=headers[right])
            assert code(response) == (403, "insufficient_permissions"), (path, right)
        # What a right includes is one rule, tested once below.
        assert whole.client.request(method, path, headers=headers[needed]).status_code not in (401, 403), path
    for right in RIGHTS:  # each includes those before it
        (base,) = whole.get("/v1/models", headers[right]).json()["data"][0]["openbook"]["knowledge_bases"]
        command = f"openbook sync FOLDER --kb {whole.bases['kb'].folder}"
        assert base.get("sync") == (command if right == "admin" else None)
    for site, status in (
        *((each, 403) for each in ("same-site", "", "same-origin, cross-site", "Same-Origin")),
        *((each, 200) for each in ("same-origin", "none")),
    ):
        asked = whole.client.get("/v1/models", headers={**headers["admin"], "sec-fetch-site": site})
        assert asked.status_code == status, site
    assert whole.client.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200  # a link to the page
    twice = [*headers["admin"].items(), ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")]
    assert code(whole.client.get("/v1/models", headers=twice)) == (403, "foreign_site")


WRONG_KEYS = ["Bearer ob-00000000-" + "A" * 43, "Bearer ob-", "Bearer none", "Bearer", "Basic b2I6", "ob-x"]
WRONG_KEYS += ["Bearer " + "ob-" * 5000]


def test_wrong_keys_and_a_damaged_key_file_admit_no_one(keyed: Running, shared: Running) -> None:
    for value in WRONG_KEYS:
        response = keyed.get("/v1/models", {"authorization": value})
        assert code(response) == (401, "invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
    headers = keyed.key("admin")
    keyed.keys.path.write_text('{"format": 1, "keys": [{"id": "private-name"}]}')
    response = keyed.get("/v1/models", headers)
    assert code(response) == (500, "internal_error")
    assert "private-name" not in response.text
    # Without keys, any word is accepted that does not look like one.
    assert shared.get("/v1/models", {"authorization": "Bearer unused"}).status_code == 200
    assert code(shared.get("/v1/models", {"authorization": WRONG_KEYS[0]})) == (401, "invalid_api_key")
    assert code(shared.get("/v1/models", {"x-forwarded-for": "203.0.113.7"})) == (401, "missing_api_key")


PAGE = "https://chat.example.org"


@pytest.mark.parametrize("require_key", [False, True])
def test_only_pages_of_allowed_origins_may_ask(serve: Serve, configuration: Configuration, require_key: bool) -> None:
    server = serve(settings=Settings(configuration.settings.home, cors_origins=(PAGE,)), require_key=require_key)
    wanted = "authorization, x-stainless-os"
    asks = {"access-control-request-method": "POST", "access-control-request-headers": wanted}
    allowed = server.client.options(CHAT, headers={"origin": PAGE, **asks})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, PAGE)
    assert allowed.headers["access-control-allow-headers"] == wanted
    assert "access-control-allow-credentials" not in allowed.headers
    page = {"origin": PAGE, "sec-fetch-site": "cross-site"}
    for key, status in ((server.key(), 200), ({"authorization": "Bearer ob-wrong"}, 401)):  # the page can read why
        answered = server.ask(QUESTION, {**page, **key})
        assert (answered.status_code, answered.headers["access-control-allow-origin"]) == (status, PAGE)
    others = f"https://evil.example.org null {PAGE}.evil.example {PAGE}:8443 http://chat.example.org"
    for other in others.split():
        asked = server.client.options(CHAT, headers={"origin": other, **asks})
        for response in (asked, server.ask(QUESTION, {"origin": other, **server.key()})):
            assert code(response) == (403, "foreign_origin")
            assert "access-control-allow-origin" not in response.headers
    assert code(server.get("/v1/models", {"sec-fetch-site": "cross-site"})) == (403, "foreign_site")


KINDS = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "text/json"]


def test_content_types_that_need_no_preflight_are_refused(shared: Running) -> None:
    for kind in KINDS:
        body = json.dumps({"documents": shared.bases["kb"].documents()}).encode()
        for path in ("/v1/documents/remove", "/v1/documents/purge", "/v1/chat/completions", "/mcp"):
            response = shared.client.post(path, content=body, headers={"content-type": kind})
            assert code(response) == (415, "unsupported_content_type")
        assert len(shared.bases["kb"].documents()) == 3


LOOPBACK, LAN, BOOKS = "127.0.0.1", "0.0.0.0", "books.example"
HOSTS = [  # (the server's host, additional names, the request's host, is it the server's)
    *((LOOPBACK, (), name, True) for name in ("127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:8000")),
    *((LOOPBACK, (), name, False) for name in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "192.0.2.1")),
    *((LOOPBACK, (), name, False) for name in ("[::2]:80", "", "localhost.")),
    (LOOPBACK, (BOOKS,), BOOKS, True),
    (LAN, (), "192.0.2.1:8000", True),
    (LAN, (), BOOKS, False),
    (LAN, (BOOKS,), "Books.example:443", True),
    ("::", (), "[2001:db8::1]:8000", True),
    (BOOKS, (), "books.example:8000", True),
]  # fmt: skip
ORIGINS = ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost.evil.example", ""]


def test_host_and_origin_must_be_the_servers_own(configuration: Configuration) -> None:
    """DNS rebinding and CSRF. A server that other machines can reach demands a key."""
    keys = KeyFile(configuration.settings.home)
    for host, allowed, name, is_own in HOSTS:
        changed = replace(configuration, host=host, allowed_hosts=allowed)
        authenticator, headers = Authenticator(changed, keys), Headers({"host": name})
        for sent in (headers, *(Headers({"host": name, "origin": each}) for each in ORIGINS)):
            if is_own and sent is headers:
                authenticator.check_host_and_origin(sent)
            else:
                with pytest.raises(ApiError):
                    authenticator.check_host_and_origin(sent)
        assert changed.needs_key == (host != LOOPBACK or bool(allowed))
        if changed.needs_key:
            with pytest.raises(ApiError):
                authenticator.caller(headers, "read")


def test_requests_of_foreign_hosts_and_origins_do_nothing(shared: Running) -> None:
    version, files = shared.bases["kb"].version, {"file": ("a.txt", b"The harbour is blue.")}
    for headers, refused in (
        ({"host": "evil.example"}, (421, "unknown_host")),
        ({"origin": "http://evil.example"}, (403, "foreign_origin")),
    ):
        assert code(shared.client.post("/v1/documents", files=files, headers=headers)) == refused
        assert code(shared.client.post("/mcp", json={}, headers=headers)) == refused
        for path in ("/health", "/v1/models", "/nothing"):
            assert code(shared.client.get(path, headers=headers)) == refused
    assert shared.bases["kb"].version == version
    own = shared.client.get("/v1/models", headers={"origin": shared.url})
    asked = shared.client.options("/v1/models", headers={"access-control-request-method": "POST"})
    assert (own.status_code, code(asked), asked.headers["allow"]) == (200, (405, "method_not_allowed"), "GET")
    assert not [name for each in (own, asked) for name in each.headers if name.startswith("access-control")]


Request: TypeAlias = tuple[str, str, dict[str, Any]]  # (method, path, parameters or body)


def about(path: str) -> Iterator[Request]:
    """Every way to ask for one document."""
    for when in ({}, {"as_of": 2}):
        yield "GET", "/v1/documents/text", {"path": path, **when}
        yield "GET", "/v1/documents/page", {"path": path, "page": 1, **when}
        yield "GET", "/v1/documents/marks", {"path": path, "start": 0, "end": 4, **when}
    yield "GET", "/v1/documents/history", {"path": path}
    for before in (1, 2):
        yield "GET", "/v1/documents/difference", {"path": path, "before": before}
    for action in ("remove", "purge"):
        yield "POST", f"/v1/documents/{action}", {"documents": [path]}


def everything(safe: str) -> Iterator[Request]:
    """Every way to learn something of a knowledge base."""
    asked = {"model": "echo", "messages": [{"role": "user", "content": SAFE}]}
    for extra in ({}, {"as_of": 2}, {"as_of": "secret"}, {"where": "type = 'txt'"}):
        for stream in (False, True):
            yield "POST", CHAT, {**asked, "openbook": extra, "stream": stream}
        yield "POST", "/v1/search", {"query": SECRET, "limit": 100, **extra}
        yield "GET", "/v1/documents", extra
        if "where" not in extra:
            yield "GET", "/v1/examples", {"limit": 20, **extra}
    for path in ("/v1/verdicts", "/v1/versions", "/metrics"):
        yield "GET", path, {}
    for before, after in ((0, 2), (1, 2), (2, 0)):
        yield "GET", "/v1/versions/difference", {"before": before, "after": after}
    for path in (safe, "safe.txt"):
        yield from about(path)


def answers(server: Running, headers: dict[str, str], requests: Iterable[Request]) -> list[httpx.Response]:
    return [
        server.get(path, headers, **values)
        if method == "GET"
        else server.client.post(path, json=values, headers=headers)
        for method, path, values in requests
    ]


def test_document_without_its_label_is_nowhere(server: Running) -> None:
    base = server.bases["kb"]
    tag(base, "secret", 2)
    safe = path_of(base, "safe.txt")
    add_file(base, Path(safe), b"%PDF-1.7 nothing")  # it keeps its text, and there is a verdict
    for headers in ({}, server.key("admin", "finance")):
        for response in answers(server, headers, everything(safe)):
            assert "canary" not in response.text, response.url
            if response.status_code == 404:
                assert code(response) == (404, "document_not_found")
            else:
                assert "safe.txt" not in response.text, response.url
    assert safe in base.documents()
    assert [each["documents"] for each in server.get("/v1/versions").json()["data"]] == [2, 2, 0]
    seen = answers(server, server.key("admin", "hr"), everything(safe))
    assert sum("safe.txt" in each.text for each in seen if each.status_code == 200) >= 19
    for action in ("remove", "purge"):
        done = server.client.post(f"/v1/documents/{action}", json={"documents": [str(Path(safe).parent)]})
        assert "safe.txt" not in done.text  # of a folder too, only what the caller sees is meant


def test_hidden_document_is_refused_like_one_that_does_not_exist(shared: Running) -> None:
    safe = path_of(shared.bases["kb"], "safe.txt")
    found = (
        [each.text.replace(path, "PATH") for each in answers(shared, {}, about(path))] for path in (safe, safe + "x")
    )
    assert next(found) == next(found)


def test_callers_without_a_key_have_the_labels_of_the_server(serve: Serve) -> None:
    server = serve(labels=frozenset({"hr"}))
    assert SECRET in server.client.post("/v1/search", json={"query": SECRET}).text
    assert SECRET not in server.client.post("/v1/search", json={"query": "safe"}, headers=server.key()).text
