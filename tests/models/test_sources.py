from __future__ import annotations

import gzip
import hashlib
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.errors import PullError, StorageError
from openbook.models import CATALOGUE, sources
from openbook.models.sources import (
    Expected,
    HubSource,
    PackageSource,
    WheelPartsSource,
    WheelSource,
    copy_expected,
    fetch_package,
    file_sizes,
    folder_bytes,
    parse_source,
)
from openbook.records import sha256_hex

PARTS = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,8}\Z")
PATHS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)


@given(
    st.one_of(
        st.builds(WheelSource, PARTS, PARTS, PATHS),
        st.builds(
            WheelPartsSource, PARTS, st.integers(1, 999), PARTS, PATHS.map(lambda path: f"{path}{{n}}/{{nn}}.bin")
        ),
        st.builds(HubSource, PARTS.flatmap(lambda a: PARTS.map(lambda b: f"{a}/{b}")), PATHS, st.none() | PARTS),
    )
)
def test_round_trip(source: WheelSource | WheelPartsSource | HubSource) -> None:
    assert parse_source(str(source)) == source


def test_parses_each_kind() -> None:
    assert parse_source("wheel://a-b==1.0/x/y.gguf") == WheelSource("a-b", "1.0", "x/y.gguf")
    assert parse_source("wheels://a-part{1..22}==1.0/a{n}/p{nn}.bin") == WheelPartsSource(
        "a-part", 22, "1.0", "a{n}/p{nn}.bin"
    )
    assert parse_source("hf://o/r/sub/f.gguf@v1") == HubSource("o/r", "sub/f.gguf", "v1")
    assert parse_source("hf://o/r/f.gguf") == HubSource("o/r", "f.gguf")
    assert parse_source("package://data/x.gz") == PackageSource("data/x.gz")


def test_parts_are_numbered() -> None:
    parts = WheelPartsSource("a-part", 12, "1.0", "a{n}/p{nn}.bin").parts
    assert parts[0] == WheelSource("a-part1", "1.0", "a1/p01.bin")
    assert parts[11] == WheelSource("a-part12", "1.0", "a12/p12.bin")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "model.gguf",
        "hf://owner/file.gguf",
        "hf://o/r/../../x.gguf",
        "hf://o/r//x.gguf",
        "hf://o/r/x.gguf@-flag",
        "hf://-o/r/x.gguf",
        "wheel://--index-url==1/x",
        "wheel://a==1/../x",
        "wheel://a>=1/x",
        "wheels://a==1/x",
        "wheels://a{1..0}==1/x",
        "wheels://a{2..3}==1/x",
        "wheels://a{1..1000}==1/x",
        "wheels://a{1..2}==1/../x",
        "package://data/../x.gz",
        "package:///etc/x.gz",
        "hf://o/r/a\\b.gguf",
        "hf://o/r/a\nb.gguf",
    ],
)
def test_what_is_no_source_is_refused(text: str) -> None:
    with pytest.raises(PullError, match="not a source OpenBook knows"):
        parse_source(text)


def test_every_source_in_the_catalogue_parses() -> None:
    for entry in CATALOGUE.values():
        for file in entry.files:
            assert [str(parse_source(source)) for source in file.sources] == list(file.sources)


def expected(data: bytes) -> Expected:
    return Expected(sha256_hex(data), len(data))


def test_copies_what_is_expected_and_nothing_else(tmp_path: Path) -> None:
    copy_expected(io.BytesIO(b"abc"), tmp_path / "a", expected(b"abc"), "it")
    assert (tmp_path / "a").read_bytes() == b"abc"
    with pytest.raises(PullError) as raised:
        copy_expected(io.BytesIO(b"abd"), tmp_path / "b", expected(b"abc"), "it")
    assert sha256_hex(b"abc") in str(raised.value)
    assert sha256_hex(b"abd") in str(raised.value)
    with pytest.raises(PullError, match="not the file that the catalogue names"):
        copy_expected(io.BytesIO(b"ab"), tmp_path / "c", expected(b"abc"), "it")
    with pytest.raises(StorageError):
        copy_expected(io.BytesIO(b"abc"), tmp_path / "a", expected(b"abc"), "it")


def test_more_than_expected_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PIECE_BYTES", 4)
    with pytest.raises(PullError, match="more than the 3 bytes"):
        copy_expected(io.BytesIO(b"abcd" * 1000), tmp_path / "a", expected(b"abc"), "it")
    assert (tmp_path / "a").stat().st_size == 0


def test_the_shipped_tokenizer_is_the_file_that_the_catalogue_names(tmp_path: Path) -> None:
    file = next(f for f in CATALOGUE["minilm-l6-int8"].files if f.target == "tokenizer.json")
    source = parse_source(file.sources[0])
    assert isinstance(source, PackageSource)
    fetch_package(source, tmp_path / "t", Expected(file.sha256, file.bytes))
    data = (tmp_path / "t").read_bytes()
    assert hashlib.sha256(data).hexdigest() == file.sha256
    shipped = (Path(sources.__file__).parent / source.path).read_bytes()
    assert shipped[4:8] == bytes(4), "no time stamp: the same file compresses to the same bytes"
    assert gzip.decompress(shipped) == data


def test_a_shipped_file_that_is_missing_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(PullError, match="Install OpenBook again"):
        fetch_package(PackageSource("data/absent.gz"), tmp_path / "t", expected(b""))
    with pytest.raises(PullError, match="more than the 5 bytes"):
        fetch_package(PackageSource("data/minilm-tokenizer.json.gz"), tmp_path / "t", Expected("0" * 64, 5))


def test_folder_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"xx")
    (tmp_path / "c").write_bytes(b"x")
    assert folder_bytes(tmp_path) == 3
    assert sorted(file_sizes(tmp_path)) == [1, 2]
    assert folder_bytes(tmp_path / "absent") == 0
