from __future__ import annotations

import pytest

from openbook.knowledge.imprint import DocumentHead, Imprint, date_in, imprint, is_named, same_matter
from openbook.records import MetadataValue


def read(path: str, beginning: str = "", title: str = "", **metadata: MetadataValue) -> Imprint:
    kind = path.rpartition(".")[2]
    return imprint(DocumentHead(path, title, tuple(sorted({"type": kind, **metadata}.items())), beginning))


@pytest.mark.parametrize(
    ("beginning", "status"),
    [
        ("> **Archived.** In force from 2 January 2023 to 28 February 2025.", "archived"),
        ("*** OUT OF DATE. Replaced on 1 January 2025 by version 6. ***", "out of date"),
        ("This policy has been replaced by the policy of 2025.", "superseded"),
        ("Please note: this page is no longer maintained.", "no longer maintained"),
        ("**Deprecated** since March 2024.", "deprecated"),
        ("| Status | Superseded by PP-05 |\n|---|---|", "superseded"),
        (":Status: Withdrawn", "withdrawn"),
        ("Status: draft, for the board", "draft"),
        # What could be read in two ways says nothing.
        ("What happens to the files of an archived project.", ""),
        ("This policy replaces the policy of 2023 in full.", ""),
        ("This policy has not been superseded.", ""),
        ("This policy will be replaced on 1 January 2027.", ""),
        ("If this document is archived, tell the office.", ""),
        ("This policy is superseded in part by the rules for sea staff.", ""),
        ("Section 4 of this policy is superseded by PP-05.", ""),
        ("The option `legacy_tls` is deprecated since version 3.2.", ""),
        (".. c:function:: get()\n\n   .. deprecated:: 3.13", ""),
        ("No fixes will be made to the second version, it is\nno longer supported: see the list.", ""),
        ("Status: closed", ""),
    ],
)
def test_the_first_lines_say_how_a_document_ended(beginning: str, status: str) -> None:
    assert read("leave.md", f"# Leave\n\n{beginning}\n").status == status


def test_metadata_wins_over_the_first_lines() -> None:
    one = read("leave.md", "# Leave\n\nVersion: 2\n", version=3, status="Superseded", superseded_by="PP-05")
    assert (one.version, one.status, one.replaced_by) == ((3,), "superseded", "PP-05")


@pytest.mark.parametrize(
    ("path", "title", "name", "version", "years"),
    [
        ("a/leave-policy-2023.md", "", ("leave", "policy"), (), {"2023"}),
        ("a/webhooks-v2.md", "", ("webhooks",), (2,), set()),
        ("docs/version-2.30/agents.mdx", "", ("agents",), (2, 30), set()),
        ("sla-ed4.txt", "", ("sla",), (4,), set()),
        ("fees-2023-24.md", "", ("fees",), (), {"2023"}),
        ("failover_old.md", "", ("failover",), (), set()),
        ("old-town.md", "", ("old", "town"), (), set()),
        ("x.md", "Travel policy, version 5", ("x",), (5,), set()),
    ],
)
def test_names_without_what_tells_editions_apart(
    path: str, title: str, name: tuple[str, ...], version: tuple[int, ...], years: set[str]
) -> None:
    one = read(path, title=title)
    assert (one.name, one.version, set(one.years)) == (name, version, years)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("policies/leave-2023.md", "policies/leave-2025.md", True),
        ("archive/leave-2023.md", "policies/leave.md", True),
        ("docs/v1/limits.md", "docs/v2/limits.md", True),
        ("germany/leave-2023.md", "france/leave-2025.md", False),
        ("reports/annual-report-2023.md", "reports/annual-report-2024.md", False),
        ("board/minutes-2024-03-11.md", "board/minutes-2024-09-16.md", False),
        ("blog/2021-03-02-caches.md", "blog/2024-08-19-caches.md", False),
        ("policies/leave-2023.md", "policies/travel-2025.md", False),
    ],
)
def test_which_documents_can_be_editions_of_one(a: str, b: str, same: bool) -> None:
    assert same_matter(read(a), read(b)) is same
    assert same_matter(read(b), read(a)) is same


def test_a_stated_difference_of_country_makes_two_matters() -> None:
    a, b = read("leave-2023.md", country="Germany"), read("leave-2025.md", "Country: France\n")
    assert not same_matter(a, b)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("314", True), ("PEP 314", True), ("100, 314", True), ("3140", False), ("pep-0314.rst", True),
        ("see pep-0314", True), ("section 314 of the law", False), ("", False),
    ],
)  # fmt: skip
def test_a_number_names_the_document_of_that_number(text: str, named: bool) -> None:
    one = read("pep-0314.rst", title="Metadata for Packages 1.1", pep=314)
    assert is_named(text, one, read("pep-0241.rst", title="Metadata for Packages", pep=241)) is named


def test_a_version_of_the_same_document_is_named_by_its_version_or_year() -> None:
    old = read("archive/leave-2023.md", "# Leave\n\nVersion 4\n", title="Leave (2023)", document="PP-04")
    new = read("policies/leave.md", title="Leave", document="PP-04", version=5)
    assert is_named("PP-04, version 4 of 2 January 2023", old, new)
    assert is_named("the policy of 2023", old, new)
    assert not is_named("PP-04, version 3", old, new)
    assert not is_named("PP-04", old, new)


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("1 March 2025", "2025-03-01"), ("from March 1, 2025 on", "2025-03-01"), ("2025-03-01T10:00", "2025-03-01"),
        ("June 2024", "2024-06"), ("2024", "2024"), ("version 5", ""),
    ],
)  # fmt: skip
def test_dates_in_text(text: str, iso: str) -> None:
    assert date_in(text) == iso
