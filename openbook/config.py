"""Settings: defaults, then `config.toml` in the home folder, then OPENBOOK_* variables, then flags.

An unknown key is an error, so a typing mistake never passes for a setting.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openbook.errors import ConfigError, StorageError, did_you_mean

ENV_PREFIX = "OPENBOOK_"

_BOUNDS = {
    "passages": (0, 100),
    "passage_chars": (20, 100_000),
    "passage_tokens": (0, 100_000),
    "passage_overlap": (0, 50_000),
    "context_tokens": (128, 2**24),
    "threads": (0, 1024),
    "max_tokens": (1, 2**20),
    "max_file_mb": (1, 2**20),
    "read_memory_mb": (64, 2**20),
    "kv_memory": (0, 2**20),
    "kv_disk": (0, 2**24),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting, with its default. Each is also a key of `config.toml` and, in upper case, `OPENBOOK_<KEY>`."""

    home: Path
    kb: Path | None = None  # default: <home>/kb
    model: str = "qwen2.5-coder-1.5b-instruct"
    embedder: str = "minilm-l6-int8"
    passages: int = 0  # passages given to the model; 0: as many as suit the way they are read
    strategy: str = "auto"  # "each", "parallel", "together", or what suits the model
    passage_chars: int = 450  # longest passage of a new knowledge base
    passage_tokens: int = 0  # the same in tokens of the model; 0: counted in characters
    passage_overlap: int = 0  # how much of a passage also ends the one before, in the same unit
    context_tokens: int = 4096  # upper bound; a model trained on fewer uses fewer
    threads: int = 0  # 0: one for each core this process may use
    max_tokens: int = 400  # longest answer
    kv_memory: int = 256  # megabytes of what the model computed of passages that a process keeps in memory
    kv_bits: int = 16  # 8 halves it, and answers come a little slower
    kv_disk: int = 1024  # the same on disk, for all processes; 0: nothing is written
    base_url: str = ""  # an OpenAI-compatible server instead of a local model
    api_key_env: str = "OPENAI_API_KEY"  # the variable that holds its key; the key itself is never stored
    max_file_mb: int = 100  # larger files are skipped, with a verdict
    read_timeout_s: float = 60.0  # longest time to read one file
    read_memory_mb: int = 2048  # most memory to read one file
    ocr: str = ""  # Tesseract's languages for scanned pages, such as "eng+deu"; empty: no OCR
    lock_timeout_s: float = 30.0  # how long a second writer waits

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
    def cache_dir(self) -> Path:
        return self.home / "cache"

    @property
    def states_dir(self) -> Path:
        return self.home / "states"

    @property
    def uploads_dir(self) -> Path:
        return self.home / "uploads"

    @property
    def bases_dir(self) -> Path:
        return self.home / "bases"

    @property
    def default_kb(self) -> Path:
        return self.kb if self.kb is not None else self.home / "kb"


def home_dir(environ: Mapping[str, str]) -> Path:
    """`OPENBOOK_HOME`, or the platform's folder for a user's application data."""
    if value := environ.get(ENV_PREFIX + "HOME"):
        return _path(value, source=ENV_PREFIX + "HOME")
    import platformdirs

    return Path(platformdirs.user_data_dir("openbook", appauthor=False))


def load_settings(environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None) -> Settings:
    """Settings from all sources; `flags` with value None count as not given. Raises ConfigError."""
    environ = os.environ if environ is None else environ
    home = home_dir(environ)
    values: dict[str, Any] = {}
    known = {f.name: f for f in dataclasses.fields(Settings)}

    config_file = home / "config.toml"
    for key, value in _read_toml(config_file).items():
        if key not in known or key == "home":
            raise ConfigError(f"{config_file}: unknown key {key!r}.{did_you_mean(key, known)}")
        values[key] = _convert(key, value, source=str(config_file))
    for variable, text in environ.items():
        if not variable.startswith(ENV_PREFIX) or variable == ENV_PREFIX + "HOME":
            continue
        key = variable[len(ENV_PREFIX) :].lower()
        if key not in known:
            hint = did_you_mean(variable, [ENV_PREFIX + k.upper() for k in known])
            raise ConfigError(f"Unknown environment variable {variable}.{hint} Unset it, or correct its name.")
        if text:
            values[key] = _convert(key, text, source=variable)
    values.update({k: _convert(k, v, source=f"--{k}") for k, v in (flags or {}).items() if v is not None})
    return _checked(Settings(home=home, **values))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except NotADirectoryError as error:
        raise ConfigError(f"{path.parent} is a file, not a folder. Set OPENBOOK_HOME to a folder.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}. Correct or delete it.") from error
    except OSError as error:
        raise StorageError(f"Cannot read the settings in {path}: {error.strerror}.") from error


def _convert(key: str, value: object, *, source: str) -> object:
    kind = {f.name: f.type for f in dataclasses.fields(Settings)}[key]
    try:
        if kind in ("Path", "Path | None"):
            return _path(str(value), source=source)
        if kind == "int":
            return _integer(value)
        if kind == "float":
            return float(str(value))
    except ValueError as error:
        raise ConfigError(f"{source}: {value!r} is not a valid value for {key!r} ({kind}).") from error
    if not isinstance(value, str):
        raise ConfigError(f"{source}: {value!r} is not a valid value for {key!r} (text).")
    return value


def _path(text: str, *, source: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:  # ~name without such a user
        raise ConfigError(f"{source}: {text!r} leads to no folder: {error}") from error


def _integer(value: object) -> int:
    if isinstance(value, bool | float):  # true and 1.5 are no counts
        raise ValueError(value)
    return int(str(value))


def _checked(settings: Settings) -> Settings:
    for key, (low, high) in _BOUNDS.items():
        if not low <= getattr(settings, key) <= high:
            raise ConfigError(f"{key} must be from {low} to {high:,}, not {getattr(settings, key)}.")
    if not 0.1 <= settings.read_timeout_s <= 86_400:
        raise ConfigError(f"read_timeout_s must be from 0.1 to 86,400 seconds, not {settings.read_timeout_s}.")
    if not 0 <= settings.lock_timeout_s < float("inf"):
        raise ConfigError(f"lock_timeout_s must be 0 or more seconds, not {settings.lock_timeout_s}.")
    if settings.kv_bits not in (8, 16):
        raise ConfigError(f"kv_bits must be 8 or 16, not {settings.kv_bits}.")
    return settings


def available_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
