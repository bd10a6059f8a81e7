"""No form of a database's URL shows its password, whatever characters are in it and wherever it stands."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from openbook.cluster.postgres import PostgresStore
from openbook.core.config import DatabaseUrl, parse_place
from openbook.core.errors import OpenBookError
from openbook.knowledge.ingest.discovery import check_exists

WORDS = ("S3cret", "PW99", "hunter2", "wurzel")
MARKS = st.sampled_from(["@", "/", "#", "?", "&", "=", ":", "%", "%2F", "%40", "//", "[", "]"]) | st.text()
PASSWORDS = st.tuples(MARKS, MARKS, MARKS).map(lambda marks: "{}".join(WORDS).format(*marks))
SCHEMES = ("postgresql://", "postgres://", "mysql://", "postgresql:/", " postgresql://", "'postgresql://")
PLACES = [
    "u:{}@host/x",
    ":{}@h1:5432,[::1]:5433?sslmode=require",
    "host/x?pass%77ord={}",
    "u@host/x?passfile=/a&sslpassword={}&sslmode=require",
    "u@host/x?blobs=s3://KEY:{}@bucket/y&passfile=/a",
    "u@host/x?blobs=s3%3A//KEY:{}%40bucket/y&passfile=/a",
    "u@host/x?blobs=s3%253A%252F%252FKEY%253A{}%2540bucket",
]


@given(st.sampled_from(SCHEMES), st.sampled_from(PLACES), PASSWORDS, st.booleans())
def test_no_display_and_no_error_holds_a_word_of_it(scheme: str, place: str, password: str, encoded: bool) -> None:
    url = scheme + place.format(quote(password, safe="") if encoded else password)
    said = []
    with pytest.raises(OpenBookError) as missing:
        check_exists(Path(url))
    try:
        parsed = parse_place(url, source="--kb")
        assert isinstance(parsed, DatabaseUrl)
        said += [str(parsed), repr(parsed)]
        # What libpq takes for the name of something stands in its errors.
        read = conninfo_to_dict(PostgresStore(parsed)._conninfo)
        said += [str(value) for name, value in read.items() if name not in ("password", "sslpassword")]
    except OpenBookError as error:
        said.append(str(error))
    said.append(str(missing.value))
    assert not [(word, each) for word in WORDS for each in said if word in each]


def test_a_url_without_secrets_is_shown_as_it_is() -> None:
    url = "postgresql://u@h1:1,[::1]:2,%2Frun/x?passfile=/a+b%20c&blobs=s3://bucket/y%3Fendpoint%3Dhttp://127.0.0.1:1&user=a%40b"
    assert str(DatabaseUrl(url)) == url
