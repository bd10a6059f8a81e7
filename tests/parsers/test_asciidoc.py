from __future__ import annotations

from openbook.parsers.asciidoc import read_asciidoc

MANUAL = """// a comment
= Ferry Manual
Ada Lovelace <ada@example.com>
v1.2, 2024-03-01: Spring
:toc:
:keywords: sea, north
:lang: en

An abstract.

== Fares

Nine euros.

----
== no heading in a listing
----

=== Discounts

[NOTE]
====
== no heading in an example
====

Two-line title
--------------

```sh
== no
```

|===
|a |b
|===

==not a heading
== Last ==
"""


def test_headings_attributes_and_text() -> None:
    content = read_asciidoc(MANUAL.encode(), "manual.adoc")
    assert content.text == MANUAL
    assert content.title == "Ferry Manual"
    assert [(mark.level, mark.title) for mark in content.headings] == [
        (1, "Ferry Manual"),
        (2, "Fares"),
        (3, "Discounts"),
        (2, "Two-line title"),
        (2, "Last"),
    ]
    assert all(mark.title in MANUAL[mark.start :].split("\n")[0] for mark in content.headings)
    assert dict(content.metadata) == {
        "author": "Ada Lovelace <ada@example.com>",
        "date": "2024-03-01",
        "revision": "1.2",
        "toc": True,
        "keywords": "sea, north",
        "lang": "en",
        "language": "en",
    }
    assert content.source_chars == len(MANUAL)


def test_attributes_before_the_title_and_none_in_the_body() -> None:
    text = ":type: procedure\n:!toc:\n\nText.\n\n:later: no\n"
    assert dict(read_asciidoc(text.encode(), "a.adoc").metadata) == {"type": "procedure", "toc": False}


def test_a_signature_of_this_suffix_has_no_headings() -> None:
    content = read_asciidoc(b"-----BEGIN PGP SIGNATURE-----\n\n= abc\n", "a.asc")
    assert (content.media_type, content.headings) == ("text/plain", ())


def test_an_open_block_and_long_lines_take_linear_time() -> None:
    for text in ("----\n" + "== a\n" * 200_000, "= " * 1_000_000, "a" * 2_000_000 + "\n====", "a\n=\n" * 200_000):
        read_asciidoc(text.encode(), "a.adoc")
