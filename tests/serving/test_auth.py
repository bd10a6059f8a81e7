"""Who may do what, under which name, and that labels hold on every route."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers

from openbook.core.config import Settings
from openbook.knowledge.versions import tag
from openbook.serving.auth import Authenticator
from openbook.serving.configuration import Configuration
from openbook.serving.errors import ApiError
from openbook.serving.keys import RIGHTS, KeyFile
from tests.serving.conftest import CHAT, QUESTION, SAFE, SECRET, Running, Serve, add_file, code, path_of, refusal

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


def behind_keys(server: Running) -> Iterator[tuple[str, str, str]]:
    """(method, path, right) of every route that there is but those that are open to all."""
    for described, item in server.app.openapi()["paths"].items():
        for method, operation in item.items():
            assert ("x-right" in operation) == ((method.upper(), described) not in OPEN)
            if "x-right" in operation:
                path = described
                for part, value in NAMED.items():
                    path = path.replace(part, value)
                assert "{" not in path
                needed = ABOVE_READ.get((method.upper(), described), "read")
                assert operation["x-right"] == needed
                yield method.upper(), path, needed


def test_every_route_demands_its_right_and_its_own_site(serve: Serve, tmp_path: Path) -> None:
    whole = serve(require_key=True, receipts=tmp_path / "log")
    headers = {right: whole.key(right) for right in RIGHTS}
    for method, path, needed in behind_keys(whole):
        assert code(whole.client.request(method, path)) == (401, "missing_api_key"), path
        foreign = whole.client.request(method, path, headers={**headers["admin"], "sec-fetch-site": "cross-site"})
        assert code(foreign) == (403, "foreign_site"), path
        below, enough = RIGHTS[: RIGHTS.index(needed)], RIGHTS[RIGHTS.index(needed) :]
        for right in below:
            response = whole.client.request(method, path, headers=headers[right])
            assert code(response) == (403, "insufficient_permissions"), (path, right)
        # What a right includes is one rule, tested once below.
        assert whole.client.request(method, path, headers=headers[enough[0]]).status_code not in (401, 403), path
    for right in RIGHTS:  # each includes those before it
        (base,) = whole.client.get("/v1/models", headers=headers[right]).json()["data"][0]["openbook"][
            "knowledge_bases"
        ]
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


WRONG_KEYS = [
    "Bearer ob-00000000-" + "A" * 43,
    "Bearer ob-",
    "Bearer none",
    "Bearer",
    "Basic b2I6",
    "ob-x",
    "Bearer " + "ob-" * 5000,
]


def test_wrong_keys_and_a_damaged_key_file_admit_no_one(keyed: Running) -> None:
    for value in WRONG_KEYS:
        response = keyed.client.get("/v1/models", headers={"authorization": value})
        assert code(response) == (401, "invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
    headers = keyed.key("admin")
    keyed.keys.path.write_text('{"format": 1, "keys": [{"id": "private-name"}]}')
    response = keyed.client.get("/v1/models", headers=headers)
    assert code(response) == (500, "internal_error")
    assert "private-name" not in response.text


def test_loopback_accepts_any_word_that_does_not_look_like_a_key(shared: Running) -> None:
    assert shared.client.get("/v1/models", headers={"authorization": "Bearer unused"}).status_code == 200
    wrong = {"authorization": "Bearer ob-00000000-" + "A" * 43}
    assert code(shared.client.get("/v1/models", headers=wrong)) == (401, "invalid_api_key")
    forwarded = shared.client.get("/v1/models", headers={"x-forwarded-for": "203.0.113.7"})
    assert code(forwarded) == (401, "missing_api_key")


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
        for response in (
            server.client.options(CHAT, headers={"origin": other, **asks}),
            server.ask(QUESTION, {"origin": other, **server.key()}),
        ):
            assert refusal(response)[:2] == (403, "foreign_origin")
            assert "access-control-allow-origin" not in response.headers
    assert code(server.client.get("/v1/models", headers={"sec-fetch-site": "cross-site"})) == (403, "foreign_site")


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


def everything(server: Running, headers: dict[str, str]) -> Iterator[httpx.Response]:
    """Every way to learn something of a knowledge base."""
    for extra in ({}, {"as_of": 2}, {"as_of": "secret"}, {"where": "type = 'txt'"}):
        yield server.ask(SAFE, headers, openbook=extra)
        yield server.ask(SAFE, headers, openbook=extra, stream=True)
        body = {"query": SECRET, "limit": 100, **extra}
        yield server.client.post("/v1/search", json=body, headers=headers)
        yield server.client.get("/v1/documents", params=extra, headers=headers)
        if "where" not in extra:
            yield server.client.get("/v1/examples", params={"limit": 20, **extra}, headers=headers)
    yield server.client.get("/v1/verdicts", headers=headers)
    yield server.client.get("/v1/versions", headers=headers)
    for before, after in ((0, 2), (1, 2), (2, 0)):
        yield server.client.get("/v1/versions/difference", params={"before": before, "after": after}, headers=headers)
    safe = path_of(server.bases["kb"], "safe.txt")
    for params in ({}, {"as_of": 2}):
        yield server.client.get("/v1/documents/text", params={"path": safe, **params}, headers=headers)
        yield server.client.get("/v1/documents/page", params={"path": safe, "page": 1, **params}, headers=headers)
        quote: dict[str, Any] = {"path": safe, "start": 0, "end": 4, **params}
        yield server.client.get("/v1/documents/marks", params=quote, headers=headers)
    yield server.client.get("/v1/documents/history", params={"path": safe}, headers=headers)
    yield server.client.get("/v1/documents/difference", params={"path": safe, "before": 1, "after": 2}, headers=headers)
    yield server.client.get("/metrics", headers=headers)
    for path in ("safe.txt", safe):
        for action in ("remove", "purge"):
            yield server.client.post(f"/v1/documents/{action}", json={"documents": [path]}, headers=headers)


def test_document_without_its_label_is_nowhere(server: Running) -> None:
    base = server.bases["kb"]
    tag(base, "secret", 2)
    safe = path_of(base, "safe.txt")
    add_file(base, Path(safe), b"%PDF-1.7 nothing")  # it keeps its text, and there is a verdict
    for headers in ({}, server.key("admin", "finance")):
        for response in everything(server, headers):
            assert "canary" not in response.text, response.url
            if response.status_code == 404:
                assert code(response) == (404, "document_not_found")
            else:
                assert "safe.txt" not in response.text, response.url
    assert safe in server.bases["kb"].documents()
    counts = server.client.get("/v1/versions").json()["data"]
    assert [each["documents"] for each in counts] == [2, 2, 0]
    seen = [response.text for response in everything(server, server.key("admin", "hr")) if response.status_code == 200]
    assert sum("safe.txt" in text for text in seen) >= 19


def test_folder_is_what_the_caller_sees_of_it(server: Running) -> None:
    base = server.bases["kb"]
    safe = path_of(base, "safe.txt")
    for action in ("remove", "purge"):
        done = server.client.post(f"/v1/documents/{action}", json={"documents": [str(Path(safe).parent)]})
        assert "safe.txt" not in done.text
        assert safe in base.documents()
    assert base.documents() == [safe]


def test_hidden_document_is_refused_like_one_that_does_not_exist(shared: Running) -> None:
    safe = path_of(shared.bases["kb"], "safe.txt")

    def refusals(path: str) -> list[str]:
        get = shared.client.get
        found = [
            shared.client.post(f"/v1/documents/{each}", json={"documents": [path]}) for each in ("remove", "purge")
        ]
        either: tuple[dict[str, Any], ...] = ({"path": path}, {"path": path, "as_of": 2})
        for params in either:
            found += [get("/v1/documents/text", params=params), get("/v1/documents/page", params={**params, "page": 1})]
            found += [get("/v1/documents/marks", params={**params, "start": 0, "end": 4})]
        found.append(get("/v1/documents/history", params={"path": path}))
        found += [get("/v1/documents/difference", params={"path": path, "before": each}) for each in (1, 2)]
        return [each.text.replace(path, "PATH") for each in found]

    assert refusals(safe) == refusals(safe + "x")


def test_callers_without_a_key_have_the_labels_of_the_server(serve: Serve) -> None:
    server = serve(labels=frozenset({"hr"}))
    assert SECRET in server.client.post("/v1/search", json={"query": SECRET}).text
    assert SECRET not in server.client.post("/v1/search", json={"query": "safe"}, headers=server.key()).text
