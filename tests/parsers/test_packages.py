from __future__ import annotations

import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.core.errors import UnreadableFile
from openbook.parsers.formats.elements import local
from openbook.parsers.formats.packages import Package, core_properties, package_kind, parse_xml, resolve

from .samples import packed

RELATIONS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="rId1" Type="http://x/officeDocument" Target="{target}"/>'
    '<Relationship Id="rId2" Type="http://x/hyperlink" Target="http://e.org" TargetMode="External"/></Relationships>'
)


def refusal(data: bytes) -> str:
    with pytest.raises(UnreadableFile) as caught:
        Package(data, "a package").xml("a.xml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        ({"_rels/.rels": RELATIONS.format(target="word/document2.xml"), "word/document2.xml": "<x/>"}, ".docx"),
        ({"_rels/.rels": RELATIONS.format(target="/ppt/presentation.xml"), "ppt/presentation.xml": "<x/>"}, ".pptx"),
        ({"xl/workbook.xml": "<x/>"}, ".xlsx"),
        ({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": ""}, ".odt"),
        ({"mimetype": "application/vnd.oasis.opendocument.spreadsheet\n", "content.xml": ""}, ".ods"),
        ({"META-INF/container.xml": "<x/>"}, ".epub"),
        ({"mimetype": "application/zip", "word.txt": "word/document.xml"}, ""),
        ({}, ""),
    ],
)
def test_kinds(members: dict[str, str], kind: str) -> None:
    assert package_kind(packed(members)) == kind


def test_names_ignore_case_and_the_way_of_slashes_and_relations_stay_inside_the_package() -> None:
    members = {"_rels/.rels": RELATIONS.format(target="../../../etc/passwd"), "Word\\Document.XML": "<x/>"}
    package = Package(packed(members), "a package")
    assert local(package.xml("/word/document.xml")) == "x"
    assert {target for _, target in package.relations("").values()} == {"etc/passwd"}
    assert package.main_part("a.xml") == "a.xml"


@given(st.text(max_size=40), st.text(alphabet="./\\%2eab#?", max_size=40))
def test_no_reference_leaves_the_package(folder: str, target: str) -> None:
    part = resolve(folder, target)
    assert not part.startswith("/")
    assert ".." not in part.split("/")


def test_references_resolve_against_their_folder() -> None:
    assert resolve("ppt/slides", "../media/a%20b.png#x") == "ppt/media/a b.png"
    assert resolve("ppt", "/xl/a.xml") == "xl/a.xml"


def changed(data: bytes, *changes: tuple[bytes, int, bytes]) -> bytes:
    """`data` with bytes written over it, so many after a mark."""
    found = bytearray(data)
    for mark, offset, new in changes:
        at = found.rfind(mark) + offset
        found[at : at + len(new)] = new
    return bytes(found)


SMALL = packed({"a.xml": "<x/>"})


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: packed({"a.xml": bytes(30_000_000)}), "unpacks from 0.0 MB to 30.0 MB, like a zip bomb"),
        (lambda: packed({str(i): b"" for i in range(10_001)}), "holds 10001 parts, over the limit of 10000"),
        (
            lambda: changed(SMALL, (b"PK\x05\x06", 12, b"\xff\xff\xff\x7f")),
            "holds too many parts, over the limit of 10000",
        ),
        (lambda: packed({"a.xml": "<x/>"}, zipfile.ZIP_LZMA), "packed in an unusual way"),
        (lambda: changed(SMALL, (b"PK\x03\x04", 6, b"\1"), (b"PK\x01\x02", 8, b"\1")), "encrypted with a password"),
        (lambda: packed({"b.xml": "<x/>"}), "a damaged package"),
        (lambda: packed({"a.xml": "<x>" * 50_000 + "</x>" * 50_000}), "a damaged package"),
        (lambda: b"PK\x03\x04", "not a package"),
    ],
)
def test_bounds(make: Callable[[], bytes], reason: str) -> None:
    assert refusal(make()) == reason


def test_entities_are_refused_and_a_bare_doctype_is_not() -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>'
    assert refusal(packed({"a.xml": bomb})) == "declares XML entities, which no package does"
    assert refusal(packed({"a.xml": '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'}))
    assert parse_xml(b'<!DOCTYPE a PUBLIC "x" "http://e.org/a.dtd"><a>t</a>', "a package").text == "t"


def test_core_properties() -> None:
    def properties(core: str) -> object:
        return core_properties(Package(packed({"docProps/core.xml": core}), "a package"))

    core = (
        '<c:coreProperties xmlns:c="c" xmlns:dc="dc" xmlns:t="t"><dc:title> Winter\nrules </dc:title>'
        "<dc:creator>Ada; Grace</dc:creator><t:created>2020-01-02T03:04:05Z</t:created>"
        "<t:modified>2024-05-06T07:08:09Z</t:modified><dc:language>en-GB</dc:language><c:contentStatus>Draft</c:contentStatus></c:coreProperties>"
    )
    said = (
        ("author", ("Ada", "Grace")),
        ("date", "2024-05-06T07:08:09+00:00"),
        ("language", "en-GB"),
        ("status", "Draft"),
    )
    assert properties(core) == ("Winter rules", said)
    assert properties("<broken") == ("", ())
    made_by = "<description>generated by python-docx</description><creator>python-docx</creator>"
    assert properties(f"<p>{made_by}<modified>2013-12-23T23:15:00Z</modified></p>") == (
        "",
        (),
    )  # its template has no date
