"""Settings: defaults, then `config.toml` in the home folder, then OPENBOOK_* variables, then flags."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, get_origin, get_type_hints
from urllib.parse import unquote, urlsplit

import msgspec

from openbook.core.errors import ConfigError, StorageError, did_you_mean

ENV_PREFIX = "OPENBOOK_"
_NO_SETTINGS = {"home", "imap_password", "sql_password", "web_token"}  # sources read the last three themselves

Strategy: TypeAlias = Literal["auto", "each", "parallel", "checked", "together"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

MEMORY_PER_FILE = 20  # times `max_file_mb`, at least 2,048 MB: the memory limit for parsing one file
_BOUNDS: dict[str, tuple[float, float]] = {  # both inclusive
    "passages": (0, 100),
    "passage_chars": (20, 100_000),
    "context_tokens": (128, 2**24),
    "threads": (0, 1024),
    "max_tokens": (1, 2**20),
    "kv_memory": (0, 2**20),
    "kv_disk": (0, 2**24),
    "max_file_mb": (1, 2**20),
    "read_timeout_s": (0.1, 86_400),
    "supported_from": (0, 1),
    "likely_from": (0, 1),
}


_SECRET = re.compile("pass(?!file)|secret|token|key")  # in the name of a URL's parameter
# Only one `@`, after the password, and only digits as ports: so no part of a password can be elsewhere.
_URL = re.compile(
    r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)(?:(?P<user>[^:/?#@]*)(?::[^/?#@]*)?@)?"
    r"(?P<rest>(?:\[[^\[\]/?#@]*\]|[^\[\]/?#@:]|:\d*(?=[,/?#]|\Z))*(?:/[^?#@]*)?)"
    r"(?:\?(?P<query>[^#@]*))?(?:#[^@]*)?"
)


class DatabaseUrl:
    """The URL of a database. `str` and `repr` show no password.

    Not a dataclass, so that nothing writes out its fields. Raises ConfigError if it is unclear where the password ends:
    a library could print part of it as a host.
    """

    __slots__ = ("url",)

    def __init__(self, url: str) -> None:
        if not (url.isprintable() and _URL.fullmatch(url)):
            raise ConfigError(
                f"{shown_url(url)} is not a URL of a database. Write it like postgresql://user@host/name, and in a user, password "
                "or value write / ? # @ : & % as %2F %3F %23 %40 %3A %26 %25. PGPASSWORD can hold the password instead."
            )
        self.url = url

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DatabaseUrl) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0].lower()

    @property
    def name(self) -> str:
        return urlsplit(self.url).path.rpartition("/")[2]

    def __str__(self) -> str:
        return shown_url(self.url)

    def __repr__(self) -> str:
        return f"DatabaseUrl({str(self)!r})"


_ORIGIN = re.compile(r"https?://[^\s/*?#@,]+")  # as browsers send it; any page ("*") may never use the server
Place: TypeAlias = Path | DatabaseUrl  # of a knowledge base


def shown_url(url: str) -> str:
    """A URL without its credentials; only its scheme if they cannot be told from the rest."""
    found = _URL.fullmatch(url) if url.isprintable() else None
    if found is None:
        return re.split(r"[^\w+.-]", url, maxsplit=1)[0] + "://..."
    query = []
    for part in (found["query"] or "").split("&"):
        name, _, value = part.partition("=")
        inner = unquote(unquote(value))  # also if the URL is encoded twice
        if not re.fullmatch("[a-z_]+", name) or _SECRET.search(name) or ("://" in inner and shown_url(inner) != inner):
            break  # the rest may belong to a secret that contains `&`
        query.append(part)
    user = "" if found["user"] is None else f"{found['user']}@"
    return f"{found['scheme']}{user}{found['rest']}{'?' * bool(query)}{'&'.join(query)}"


@dataclass(frozen=True, slots=True)
class Settings:
    """Each setting is also a key of `config.toml` and, in upper case, `OPENBOOK_<KEY>`."""

    home: Path
    kb: Place | None = None  # default: <home>/kb
    model: str = "qwen2.5-coder-1.5b-instruct"
    fallback_model: str = ""  # a larger model that answers too where the certainty of an answer is low
    embedder: str = "minilm-l6-int8"
    passages: int = 0  # passages given to the model; 0: chosen by the strategy
    strategy: Strategy = "auto"  # how the model reads them; auto: chosen for the model
    passage_chars: int = 450  # longest passage of a new knowledge base
    context_tokens: int = 4096  # upper bound; a model trained on fewer uses fewer
    threads: int = 0  # 0: one for each core this process may use
    max_tokens: int = 400  # longest answer
    kv_memory: int = 256  # MB of model states of passages that a process keeps in memory
    kv_disk: int = 1024  # MB of model states on disk, for all processes; 0: nothing is written
    base_url: str = ""  # an OpenAI-compatible server instead of a local model; OPENAI_API_KEY holds its key
    max_file_mb: int = 100  # larger files are skipped, with a verdict; see also `MEMORY_PER_FILE`
    read_timeout_s: float = 60.0  # longest time to read one file
    aliases: Mapping[str, str] = field(default_factory=dict)  # more names of the served models
    cors_origins: tuple[str, ...] = ()  # of web pages on other sites that may use the server
    ocr: str = (
        ""  # of scanned pages: empty for the best that is installed, Tesseract's languages ("eng+deu"), or "none"
    )

    supported_from: float | None = None  # lowest certainty of a "supported" answer; default: as fitted
    likely_from: float | None = None  # the same of a "likely" one

    @property
    def models_dir(self) -> Path:
        return self.home / "models"

    @property
    def runs_dir(self) -> Path:
        return self.home / "runs"

    @property
    def diagnoses_dir(self) -> Path:
        return self.home / "diagnoses"

    @property
    def derived_dir(self) -> Path:
        return self.home / "derived"

    @property
    def uploads_dir(self) -> Path:
        return self.home / "uploads"

    @property
    def bases_dir(self) -> Path:
        return self.home / "bases"

    @property
    def kb_place(self) -> Place:
        return self.kb if self.kb is not None else self.home / "kb"


def home_dir(environ: Mapping[str, str]) -> Path:
    """`OPENBOOK_HOME`, or the platform's folder for a user's application data."""
    if value := environ.get(ENV_PREFIX + "HOME"):
        return _path(value, source=ENV_PREFIX + "HOME")
    import platformdirs

    return Path(platformdirs.user_data_dir("openbook", appauthor=False))


def load_settings(environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None) -> Settings:
    """Flags with value None count as not given. An unknown key is an error. Raises ConfigError."""
    environ = os.environ if environ is None else environ
    home = home_dir(environ)
    given = _given(home, environ)
    given += [(key, value, "--" + key.replace("_", "-")) for key, value in (flags or {}).items() if value is not None]
    kinds = {key: kind for key, kind in get_type_hints(Settings).items() if key != "home"}
    values: dict[str, Any] = {}
    for key, value, source in given:
        if key not in kinds:
            raise ConfigError(f"{source}: there is no setting {key!r}.{did_you_mean(key, kinds)}")
        if value == "" and source.startswith(ENV_PREFIX):  # counts as unset
            continue
        values[key] = _checked(key, value, kinds[key], source)
    settings = Settings(home, **values)
    if (low := settings.likely_from) and (high := settings.supported_from) is not None and high < low:
        raise ConfigError(f"{home / 'config.toml'}: supported_from ({high:g}) must be at least likely_from ({low:g}).")
    return settings


def setting_sources() -> dict[str, str]:
    """The file or variable that each setting comes from; defaults are left out."""
    return {key: source for key, value, source in _given(home_dir(os.environ), os.environ) if value != ""}


def _given(home: Path, environ: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    """Key, value and source of each setting in the file, then in variables."""
    config_file = home / "config.toml"
    given = [(key, value, str(config_file)) for key, value in _read_toml(config_file).items()]
    return given + [
        (key, text, variable)
        for variable, text in environ.items()
        if variable.startswith(ENV_PREFIX) and (key := variable.removeprefix(ENV_PREFIX).lower()) not in _NO_SETTINGS
    ]


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        if path.is_fifo():  # reading it could wait forever
            raise ConfigError(f"{path} is a named pipe, not a file. Delete it.")
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except NotADirectoryError as error:
        raise ConfigError(f"{path.parent} is a file, not a folder. Set OPENBOOK_HOME to a folder.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}. Correct or delete it.") from error
    except OSError as error:
        raise StorageError(f"Cannot read the settings in {path}: {error.strerror}.") from error


def _checked(key: str, value: object, kind: Any, source: str) -> object:
    if kind == Path | DatabaseUrl | None:
        if not isinstance(value, str | Path | DatabaseUrl) or not str(value):
            raise ConfigError(f"{source}: {key} must be a folder or a URL, not {value!r}.")
        return value if isinstance(value, DatabaseUrl) else parse_place(str(value), source=source)
    try:
        # Variables may give numbers as text, tables and lists as JSON.
        if isinstance(value, str) and key in ("aliases", "cors_origins"):
            found = msgspec.json.decode(value, type=kind)
        else:
            found = msgspec.convert(value, kind, strict=not isinstance(value, str))
    except msgspec.DecodeError as error:
        why = f"there are {', '.join(get_args(kind))}" if get_origin(kind) is Literal else error
        raise ConfigError(f"{source}: {value!r} is not a valid value for {key!r}: {why}.") from error
    if key == "cors_origins" and (odd := next((each for each in found if not _ORIGIN.fullmatch(each)), None)):
        raise ConfigError(f"{source}: {odd!r} in cors_origins is not an origin such as 'https://chat.example.org'.")
    low, high = _BOUNDS.get(key, (0, 0))
    if key in _BOUNDS and found is not None and not low <= found <= high:
        raise ConfigError(f"{source}: {key} must be from {low} to {high:,}, not {found}.")
    return found


def parse_place(text: str, *, source: str) -> Place:
    """A folder, or a URL. Raises ConfigError."""
    is_url = "://" in text or re.match(r"\s*postgres(ql)?:", text)
    return DatabaseUrl(text.strip()) if is_url else _path(text, source=source)


def _path(text: str, *, source: str) -> Path:
    if "\0" in text:
        raise ConfigError(f"{source}: {text!r} is not a path.")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:  # ~name of an unknown user
        raise ConfigError(f"{source}: {text!r} leads to no folder: {error}") from error


def available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
