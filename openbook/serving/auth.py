"""API keys and their rights; checks of the Host and Origin headers."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.datastructures import Headers

from openbook.knowledge.index.scope import Scope
from openbook.serving.configuration import Configuration, address, is_loopback
from openbook.serving.errors import ApiError
from openbook.serving.keys import RIGHTS, KeyFile, Right

LOCAL = "local"  # the id of all callers without a key
# Only an aid: not every proxy sets one of these, and a port forward sets none.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


@dataclass(frozen=True, slots=True)
class Caller:
    """A key's holder. Searches, lists and counts cover only documents with its `labels`."""

    id: str
    right: Right
    labels: frozenset[str]

    def scope(self, as_of: int | None = None, where: str = "") -> Scope:
        return Scope(as_of, where, self.labels)


@dataclass(frozen=True, slots=True)
class Authenticator:
    configuration: Configuration
    keys: KeyFile

    def check_host_and_origin(self, headers: Headers) -> None:
        """Raise ApiError for a foreign Host (DNS rebinding) or Origin (CSRF)."""
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self._is_own_host(host):
            message = f"This server does not answer under the name {host[:100]!r}. Allow it with: openbook serve --allow-host NAME"
            raise ApiError(421, message, code="unknown_host")
        origin = headers.get("origin")
        allowed = (f"http://{host}", f"https://{host}", *self.configuration.settings.cors_origins)
        if origin is not None and origin not in allowed:
            raise ApiError(403, "Pages of other origins may not use this server.", code="foreign_origin")

    def _is_own_host(self, host: str) -> bool:
        name = (host[1:].partition("]") if host.startswith("[") else host.partition(":"))[0].lower()
        own = {each.lower() for each in (self.configuration.host, *self.configuration.allowed_hosts)}
        if is_loopback(self.configuration.host):
            own |= {"localhost", "127.0.0.1", "::1"}
        elif name == "localhost" or address(name):
            return True  # DNS rebinding needs a name; a bare address cannot be rebound
        return name in own

    def caller(self, headers: Headers, right: Right) -> Caller:
        """The caller. Raises ApiError when it is unknown or lacks that right."""
        # Browsers send this header even where they send no Origin, as for an image. Other programs do not send it.
        # An Origin that was sent has been checked.
        is_allowed_page = headers.get("origin") in self.configuration.settings.cors_origins
        if not (is_allowed_page or set(headers.getlist("sec-fetch-site")) <= {"same-origin", "none"}):
            raise ApiError(403, "Pages of other sites may not use this server.", code="foreign_site")
        caller = self._caller(headers)
        if RIGHTS.index(caller.right) < RIGHTS.index(right):
            message = f"This key has the right {caller.right!r}, but the request needs {right!r}."
            raise ApiError(403, message, code="insufficient_permissions")
        return caller

    def _caller(self, headers: Headers) -> Caller:
        token = _token(headers)
        if token is not None and token.startswith("ob-"):
            key = self.keys.find(token)
            if key is None:
                raise ApiError(401, "Incorrect API key provided.", code="invalid_api_key")
            if self.keys.days_left(key) == 0:
                message = (
                    f"This API key expired on {key.expires_at}. Ask whoever runs the server for a new secret: openbook "
                    f"keys rotate {key.id}"
                )
                raise ApiError(401, message, code="expired_api_key")
            return Caller(key.id, key.right, frozenset(key.labels))
        if self.configuration.needs_key:
            message = "An API key is needed: Authorization: Bearer ob-... Make one with: openbook keys new NAME"
            raise ApiError(401, message, code="missing_api_key" if token is None else "invalid_api_key")
        if any(name in headers for name in _FORWARDED):
            message = "This request came through a proxy, so it needs an API key. Make one with: openbook keys new NAME"
            raise ApiError(401, message, code="missing_api_key")
        # Loopback only. Clients that require some key may send any word; it is ignored.
        return Caller(LOCAL, "admin", self.configuration.labels)


def _token(headers: Headers) -> str | None:
    values = headers.getlist("authorization")
    if not values:
        return None
    scheme, _, token = values[0].partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer":
        raise ApiError(401, "Send the API key as: Authorization: Bearer ob-...", code="invalid_api_key")
    return token.strip()
