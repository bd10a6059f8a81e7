"""Who asks, and under which name: keys and rights, the Host and Origin headers."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.datastructures import Headers

from openbook.knowledge.scope import Scope
from openbook.serving.configuration import Configuration, is_loopback
from openbook.serving.keys import RIGHTS, KeyFile, Right, looks_like_key
from openbook.serving.refusals import Refusal

ANONYMOUS = "local"  # the id of callers without a key
# Not every proxy adds one of these, and a port forward adds nothing: a help, not a promise.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


@dataclass(frozen=True, slots=True)
class Caller:
    """`id`: of the key. `labels`: all that any search, list or count for this caller may see."""

    id: str
    right: Right
    labels: frozenset[str]

    def scope(self, as_of: int | None = None, where: str = "") -> Scope:
        return Scope(as_of, where, self.labels)

    def may(self, right: Right) -> bool:
        return RIGHTS.index(self.right) >= RIGHTS.index(right)


@dataclass(frozen=True, slots=True)
class Doorkeeper:
    configuration: Configuration
    keys: KeyFile

    def check_names(self, headers: Headers) -> None:
        """Raises Refusal for a name that is not this server's (DNS rebinding), or a page of another origin (CSRF)."""
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self._is_ours(host):
            message = (
                f"This server does not answer under the name {host[:100]!r}. Allow it with: openbook serve --allow-host"
            )
            raise Refusal(421, message, code="unknown_host")
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            message = "Pages of other origins may not use this server."
            raise Refusal(403, message, code="foreign_origin")

    def _is_ours(self, host: str) -> bool:
        name = _name_of(host)
        own = {self.configuration.host.lower(), *(each.lower() for each in self.configuration.allowed_hosts)}
        if is_loopback(self.configuration.host):
            own |= {"localhost", "127.0.0.1", "::1"}
        elif name == "localhost" or _is_address(name):
            return True  # no foreign page can make its own name lead to a bare address
        return name in own

    def caller(self, headers: Headers, right: Right) -> Caller:
        """The caller of a request. Raises Refusal if the key is missing or wrong, its right is too low, or another site asks."""
        _check_site(headers)
        token = _token(headers)
        if token is not None and looks_like_key(token):
            key = self.keys.find(token)
            if key is None:
                raise Refusal(401, "Incorrect API key provided.", code="invalid_api_key")
            if self.keys.days_left(key) == 0:
                message = (
                    f"This API key expired on {key.expires_at}. Ask whoever runs the server for a new secret: openbook "
                    f"keys rotate {key.id}"
                )
                raise Refusal(401, message, code="expired_api_key")
            caller = Caller(key.id, key.right, frozenset(key.labels))
        elif self.configuration.needs_key:
            message = "An API key is needed: Authorization: Bearer ob-... Make one with: openbook keys new"
            raise Refusal(401, message, code="missing_api_key" if token is None else "invalid_api_key")
        elif any(name in headers for name in _FORWARDED):
            message = "This request came through a proxy, so it needs an API key. Make one with: openbook keys new"
            raise Refusal(401, message, code="missing_api_key")
        else:
            # On this machine only. Clients that insist on some key send any word; it means nothing.
            caller = Caller(ANONYMOUS, "admin", self.configuration.labels)
        if not caller.may(right):
            message = f"This key has the right {caller.right!r}, but the request needs {right!r}."
            raise Refusal(403, message, code="insufficient_permissions")
        return caller


def _check_site(headers: Headers) -> None:
    """Browsers name the site that asks, even where they send no Origin, as for a picture. Other programs do not.

    Raises Refusal.
    """
    if not set(headers.getlist("sec-fetch-site")) <= {"same-origin", "none"}:
        message = "Pages of other sites may not use this server."
        raise Refusal(403, message, code="foreign_site")


def _token(headers: Headers) -> str | None:
    values = headers.getlist("authorization")
    if not values:
        return None
    scheme, _, token = values[0].partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer":
        raise Refusal(401, "Send the API key as: Authorization: Bearer ob-...", code="invalid_api_key")
    return token.strip()


def _name_of(host: str) -> str:
    """A Host header without its port, and without the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_content_type(headers: Headers, wanted: Iterable[str]) -> None:
    """Raises Refusal for a type not in `wanted`. A page of another origin cannot send those, or the Origin check stops it."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in wanted:
        message = f"The content type must be {' or '.join(wanted)}, not {kind[:100]!r}."
        raise Refusal(415, message, code="unsupported_content_type")
