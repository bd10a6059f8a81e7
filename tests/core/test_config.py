"""Settings come from defaults, `config.toml`, variables and flags, in this order; what is not one is an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openbook.core.config import Settings, load_settings
from openbook.core.errors import ConfigError


def test_each_source_overrides_those_after_it(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        "\ufeffpassages = 2\nthreads = 3\nread_timeout_s = 5\nstrategy = 'each'\nkb = '~/kb'\nlikely_from = 0"
    )
    environ = {"OPENBOOK_HOME": str(tmp_path), "OPENBOOK_THREADS": "4", "OPENBOOK_MAX_TOKENS": "", "OTHER": "x"}
    found = load_settings(environ, {"passages": 1, "model": None})
    assert (found.passages, found.threads, found.read_timeout_s, found.strategy) == (1, 4, 5.0, "each")
    assert (found.max_tokens, found.model, found.kb) == (400, Settings(tmp_path).model, Path("~/kb").expanduser())
    assert found.kb_place == found.kb
    assert (found.supported_from, found.likely_from) == (None, 0.0)
    secrets = dict.fromkeys(("OPENBOOK_IMAP_PASSWORD", "OPENBOOK_SQL_PASSWORD", "OPENBOOK_WEB_TOKEN"), "of a source")
    assert load_settings({"OPENBOOK_HOME": str(tmp_path / "none"), **secrets}).kb_place == tmp_path / "none" / "kb"


@pytest.mark.parametrize(
    ("toml", "variable", "says"),
    [
        ("pasages = 2", "", "there is no setting 'pasages'. Did you mean 'passages'?"),
        ("home = '/x'", "", "there is no setting 'home'"),
        ("passages = true", "", "True is not a valid value for 'passages'"),
        ("passages = 1.5", "", "1.5 is not a valid value for 'passages'"),
        ("passages = 101", "", "passages must be from 0 to 100, not 101"),
        ("read_timeout_s = nan", "", "read_timeout_s must be from 0.1 to 86,400, not nan"),
        ("supported_from = 1.5", "", "supported_from must be from 0 to 1, not 1.5"),
        ("supported_from = 0.5\nlikely_from = 0.6", "", "supported_from (0.5) must be at least likely_from (0.6)"),
        ("model = 3", "", "3 is not a valid value for 'model'"),
        ("kb = 5", "", "kb must be a folder or a URL, not 5"),
        ("kb = ''", "", "kb must be a folder or a URL, not ''"),
        ("strategy = 'all'", "", "'all' is not a valid value for 'strategy': there are auto, "),
        ("passages = ", "", "is not valid TOML"),
        ("cors_origins = ['*']", "", "'*' in cors_origins is not an origin such as 'https://chat.example.org'"),
        ("cors_origins = ['https://x.org/']", "", "'https://x.org/' in cors_origins is not an origin"),
        ("cors_origins = 'https://x.org'", "", "is not a valid value for 'cors_origins'"),
        ("aliases = {x = 1}", "", "is not a valid value for 'aliases'"),
        ("", "many", "OPENBOOK_PASSAGES: 'many' is not a valid value for 'passages'"),
        ("", "-1", "OPENBOOK_PASSAGES: passages must be from 0 to 100, not -1"),
    ],
)
def test_a_wrong_setting_is_named_with_its_source(toml: str, variable: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(toml)
    with pytest.raises(ConfigError) as raised:
        load_settings({"OPENBOOK_HOME": str(tmp_path), "OPENBOOK_PASSAGES": variable})
    assert says in str(raised.value)
    assert str(tmp_path / "config.toml") in str(raised.value) or not toml


def test_a_variable_holds_tables_and_lists_as_json(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[aliases]\n'gpt-4o' = 'default'")
    environ = {"OPENBOOK_HOME": str(tmp_path), "OPENBOOK_CORS_ORIGINS": '["http://localhost:3000"]'}
    found = load_settings(environ)
    assert (found.aliases, found.cors_origins) == ({"gpt-4o": "default"}, ("http://localhost:3000",))
    assert load_settings({**environ, "OPENBOOK_ALIASES": '{"a": "b"}'}).aliases == {"a": "b"}


def test_a_pipe_a_path_with_a_nul_and_a_wrong_flag_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBOOK_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"^--max-tokens: max_tokens must be from 1 to"):
        load_settings(flags={"max_tokens": 0})
    (tmp_path / "config.toml").write_text('kb = "a\\u0000b"')
    with pytest.raises(ConfigError, match=r"'a\\x00b' is not a path"):
        load_settings()
    (tmp_path / "config.toml").unlink()
    os.mkfifo(tmp_path / "config.toml")
    with pytest.raises(ConfigError, match="is a named pipe, not a file"):
        load_settings()
