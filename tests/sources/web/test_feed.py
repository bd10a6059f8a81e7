from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openbook.core.errors import SourceError
from openbook.parsers import parse_bytes
from openbook.sources import registry
from openbook.sources.feed import FeedSource
from openbook.testing.sources import check_source

RSS = {"Content-Type": "application/rss+xml"}


def entry(number: int, text: str = "Some words.", day: int | None = None) -> str:
    date = f"<pubDate>{day or number:02} Mar 2024 10:00:00 +0000</pubDate>"
    link = f"<link>https://blog.example.org/{number}</link><author>Ann Lee</author><category>News</category>"
    return f"<item><title>Post {number} &amp; more</title>{link}<description>&lt;p&gt;{text}&lt;/p&gt;</description>{date}</item>"


def rss(*entries: str) -> str:
    return f'<?xml version="1.0"?><rss version="2.0"><channel><title>Blog</title>{"".join(entries)}</channel></rss>'


def feed(site: Any) -> FeedSource:
    source = registry.open_source(f"feed+{site.url}/feed", {})
    assert isinstance(source, FeedSource)
    return source


def numbers(kept: Any) -> list[int]:
    return sorted(int(name.rpartition("/")[2]) for name in kept.known)


def test_an_entry_is_a_document(site: Any, kept: Any) -> None:
    site.add(
        "/feed",
        rss(entry(1, "Hello &lt;b&gt;there&lt;/b&gt; &lt;script&gt;alert(1)&lt;/script&gt;"), entry(2)),
        headers=RSS,
    )
    kept.take(feed(site))
    item = kept.items["https://blog.example.org/1"]
    about = {"title": "Post 1 & more", "author": "Ann Lee", "url": item.name, "modified": "2024-03-01T10:00:00+00:00"}
    assert item.metadata == {**about, "tags": ["News"]}
    content = parse_bytes(kept.data[item.name], f"x{item.suffix}")
    assert content.title == "Post 1 & more"
    assert content.text == "Post 1 & more\n\nHello there"


def test_atom_entries_without_a_link_of_their_own_are_named_by_id(site: Any, kept: Any) -> None:
    said = (
        '<title>Same</title><content type="text">1 &lt; 2\n  and more</content><updated>2024-03-01T10:00:00Z</updated>'
    )
    one = f"<entry><id>urn:1</id>{said}</entry>"
    two = f"<entry><id>urn:2</id>{said}<link href='https://ann:pw@example.org/x'/></entry>"
    site.add("/feed", f'<feed xmlns="http://www.w3.org/2005/Atom"><title>F</title>{one}{two}{one}</feed>')
    kept.take(feed(site))
    assert set(kept.known) == {f"{site.url}/feed#urn:1", f"{site.url}/feed#urn:2"}
    assert "1 < 2\n  and more" in parse_bytes(kept.data[f"{site.url}/feed#urn:1"], "x.html").text


def test_a_second_run_reads_what_a_killed_one_lacks(site: Any, kept: Any) -> None:
    site.add("/feed", rss(entry(1), entry(2)), headers=RSS, etag='"1"')
    kept.take(feed(site))
    del kept.known["https://blog.example.org/2"]  # as after a killed run
    kept.take(feed(site))
    assert kept.read == ["https://blog.example.org/2"]

    def change() -> str:
        site.add("/feed", rss(entry(1), entry(2, "Other words.")), headers=RSS, etag='"2"')
        return "https://blog.example.org/2"

    check_source(lambda: feed(site), change, lambda: site.add("/feed", status=503))


def test_old_entries_stay_and_withdrawn_ones_go(site: Any, kept: Any) -> None:
    site.add("/feed", rss(*(entry(number) for number in (1, 2, 3, 4))), headers=RSS)
    kept.take(feed(site))
    site.add("/feed", rss(entry(3), entry(5)), headers=RSS)  # 1 and 2 are older than all; 4 was withdrawn
    kept.take(feed(site))
    assert numbers(kept) == [1, 2, 3, 5]
    assert kept.read == ["https://blog.example.org/5"]
    for nothing in (rss(), rss(entry(5)).replace("</channel></rss>", "<item><broken")):
        site.add("/feed", nothing, headers=RSS)
        kept.take(feed(site))
        assert numbers(kept) == [1, 2, 3, 5]


def test_a_body_is_never_taken_for_a_path_and_entities_name_no_files(site: Any, kept: Any, tmp_path: Path) -> None:
    secret = tmp_path / "feed.xml"
    secret.write_text(rss(entry(1, "the secret")))
    site.add("/feed", str(secret), headers=RSS)
    with pytest.raises(SourceError, match="is not a feed"):
        kept.take(feed(site))
    external = f'<!DOCTYPE rss [<!ENTITY x SYSTEM "{secret.as_uri()}">]>'
    site.add("/feed", rss(entry(1, "&x;")).replace("<rss", f"{external}<rss"), headers=RSS)
    kept.take(feed(site))
    assert not [data for data in kept.data.values() if b"secret" in data]
