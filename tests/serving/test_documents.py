"""Documents over HTTP: uploads, lists, texts, versions, searches, removals and purges. What they do is tested below."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import AsyncGenerator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from openbook.knowledge import Scope, remove
from openbook.knowledge.documents import document_history
from openbook.knowledge.erasure import purge_is_unfinished
from openbook.knowledge.ingest.remedies import remedy
from openbook.models.lineage import Membership
from openbook.parsers import ocr
from openbook.proofs import purge as purge_module
from openbook.proofs.signatures import PurgeProof, public_key, verify_signed
from openbook.serving.errors import ApiError
from openbook.serving.routing import parse_form
from openbook.serving.uploads import upload_name_problem
from openbook.testing import HashEmbedder
from tests.parsers.samples import ENCRYPTED_PDFS
from tests.parsers.test_ocr import install, says
from tests.serving.conftest import SAFE, SECRET, Running, Serve, add_file, code, path_of, refusal

TOWER = b"The tower of Lund is 55 metres high. It was built in 1145."
IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(50)


def upload(
    server: Running, *files: tuple[str, bytes], headers: dict[str, str] | None = None, **data: object
) -> list[dict[str, str]]:
    parts = [("file", file) for file in files]
    response = server.client.post("/v1/documents", files=parts, data=data, headers=headers)
    assert response.status_code == 200, response.text
    verdicts: list[dict[str, str]] = response.json()["data"]
    return verdicts


def listed(server: Running, headers: dict[str, str] | None = None, **params: object) -> list[str]:
    response = server.client.get("/v1/documents", headers=headers, params=params)  # type: ignore[arg-type]  # texts and numbers
    assert response.status_code == 200, response.text
    return [each["path"] for each in response.json()["data"]]


def purge(server: Running, *names: str, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    return server.client.post("/v1/documents/purge", json={"documents": names, **more}, headers=headers)


# --- uploads ----------------------------------------------------------------------------------------------------------


def test_upload_becomes_a_document_and_its_file_is_deleted(server: Running, own_home: Path) -> None:
    before = server.bases["kb"].version
    tower, broken = upload(server, ("tower.txt", TOWER), ("x.pdf", b"%PDF-1.7 nothing"))
    assert (tower["outcome"], broken["outcome"], bool(broken["reason"])) == ("added", "failed", True)
    assert (server.bases["kb"].version, tower["path"] in listed(server)) == (before + 1, True)
    assert [path.name for path in (own_home / "uploads").rglob("*") if path.is_file()] == [".lock"]
    assert upload(server, ("tower.txt", TOWER))[0]["outcome"] == "unchanged"
    assert upload(server, ("tower.txt", TOWER + b" It is red."))[0]["outcome"] == "updated"


BAD_NAMES = ["a/b.txt", "a\\b.txt", "C:a.txt", ".hidden", "..", "a\x00.txt", "a\n.txt", "a\u202etxt.exe", " a.txt"]
BAD_NAMES += ["a.txt.", "/etc/passwd", "x" * 201, "a.txt.meta.toml", ""]


def test_bad_file_names_are_refused_and_block_no_other_file(server: Running, tmp_path: Path) -> None:
    for name in BAD_NAMES:
        assert "not a valid name for an upload" in upload_name_problem(name)
    before = server.bases["kb"].version
    for name in ("../../escape.txt", "..\\escape.txt", str(tmp_path / "escape.txt"), "%2e%2e%2fescape.txt/.."):
        assert code(server.client.post("/v1/documents", files={"file": (name, TOWER)})) == (400, "invalid_file_name")
    assert not list(tmp_path.rglob("escape.txt"))
    assert server.bases["kb"].version == before
    names = ["a.txt", "What?.txt", "b.txt", ".hidden", "a.txt", "../c.txt", "d.txt"]
    verdicts = upload(server, *((name, b"Number %d." % i) for i, name in enumerate(names)))
    assert [i for i, each in enumerate(verdicts) if each["outcome"] == "added"] == [0, 2, 6]
    assert [each["path"] for each in verdicts if each["outcome"] == "failed"] == [names[i] for i in (1, 3, 4, 5)]
    assert "must be unique within one upload" in verdicts[4]["reason"]
    assert server.bases["kb"].version == before + 1
    assert server.bases["kb"].text(verdicts[0]["path"]) == "Number 0."


def test_invalid_forms_are_refused(server: Running) -> None:
    one = ("a.txt", TOWER)
    for files, data, wanted in (
        ([("other", one)], {}, "missing_required_parameter"),
        ([("file", one), ("other", one)], {}, "unknown_parameter"),
        ([("file", one)], {"url": "http://127.0.0.1/"}, "unknown_parameter"),
        ([("file", one)], {"labels": "Not a label"}, "invalid_value"),
        ([("file", one)], {"labels": "finance"}, "label_not_held"),
        ([("file", one)], {"knowledge_base": "other"}, "knowledge_base_not_found"),
        ([("file", (f"{i}.txt", b"x")) for i in range(65)], {}, "invalid_form"),
        ([("file", one)], {"knowledge_base": ["other", "kb"]}, "invalid_form"),
    ):
        response = server.client.post("/v1/documents", files=files, data=data)
        assert response.json()["error"]["code"] == wanted
        assert response.status_code in (400, 403, 404)


def test_uploads_of_two_callers_never_meet(serve: Serve) -> None:
    """Neither by name, nor by text, nor by a label that one of them does not hold."""
    server = serve(embedder=(embedder := HashEmbedder()))
    hr, other = server.key("write", "hr"), server.key("write")
    mine = upload(server, ("pay.txt", b"Anna earns 12 crowns."), headers=hr, labels="hr")[0]
    theirs = upload(server, ("pay.txt", b"Nobody earns anything."), headers=other)[0]
    assert mine["outcome"] == theirs["outcome"] == "added"
    assert mine["path"] != theirs["path"]
    assert mine["path"] in set(listed(server, hr)) - set(listed(server, other))
    memo = ("memo.md", b"---\naccess_labels: secret\n---\nThe ferry is cancelled for ever.")
    verdict = upload(server, memo, headers=other)[0]
    assert verdict["outcome"] == "failed"
    assert "access labels that you do not hold: secret" in verdict["reason"]
    assert upload(server, memo, headers=server.key("write", "secret"))[0]["outcome"] == "added"
    for headers, embedded in ((other, 1), (hr, 0)):  # only for who may see the document is its text a known one
        before = embedder.texts_embedded
        verdict = upload(server, ("guess.txt", SECRET.encode()), headers=headers)[0]
        assert (verdict["outcome"], verdict["reason"]) == ("added", "")
        assert embedder.texts_embedded - before == embedded


@pytest.mark.skipif(os.name == "nt", reason="the fake program is a shell script")
def test_upload_is_read_by_ocr_installed_meanwhile(
    server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert upload(server, ("scan.png", IMAGE))[0]["reason"] == "an image: needs OCR"
    monkeypatch.setattr(ocr, "best_engine", lambda: "tesseract eng of which eng")
    install(tmp_path, says([("nine", 90)]), monkeypatch)
    (verdict,) = upload(server, ("scan.png", IMAGE))
    assert (verdict["outcome"], verdict["reason"]) == ("added", "")  # a reason could tell of another's document


def test_verdicts_say_what_helps_and_each_caller_sees_and_forgets_its_own(server: Running, docs: Path) -> None:
    base, mine, theirs = server.bases["kb"], server.key("admin"), server.key("admin")
    image = str(add_file(base, docs / "a b.png", IMAGE))
    paths = [upload(server, ("own.pdf", ENCRYPTED_PDFS[0]), headers=headers)[0]["path"] for headers in (mine, theirs)]
    value = server.get("/v1/verdicts", mine).json()
    assert (value["object"], value["version"]) == ("list", base.version)
    by_path = {each["path"]: each for each in value["data"]}
    assert set(by_path) == {image, paths[0]}
    assert by_path[paths[0]]["remedy"].endswith(f"openbook add --kb {base.folder} COPY.")
    assert by_path[image].pop("tried_at")
    needs = "an image: needs OCR"
    told = {"path": image, "outcome": "skipped", "reason": needs, "remedy": remedy(needs, image, base.folder)}
    assert by_path[image] == told
    assert len(server.get("/v1/verdicts", limit=1).json()["data"]) == 1

    def forget(*forgotten: str) -> httpx.Response:
        return server.client.post("/v1/verdicts/remove", json={"paths": forgotten}, headers=mine)

    before = listed(server)
    for path in (paths[1], image, "own.pdf", before[0]):
        assert refusal(forget(paths[0], path)) == (404, "verdict_not_found", "paths")
    assert forget(paths[0]).json()["data"] == [{"path": paths[0], "outcome": "removed", "reason": ""}]
    for headers, left in ((mine, [image]), (theirs, [image, paths[1]])):
        assert [each["path"] for each in server.get("/v1/verdicts", headers).json()["data"]] == sorted(left)
    assert listed(server) == before


# --- lists, texts and searches ----------------------------------------------------------------------------------------


def test_list_comes_in_pages_up_to_the_bound(serve: Serve) -> None:
    server = serve(listed=3)
    upload(server, *((f"{i}.txt", b"Number %d." % i) for i in range(5)))
    whole, found = [path for path in server.bases["kb"].documents() if not path.endswith("safe.txt")], list[str]()
    for size, has_more in ((3, True), (3, True), (1, False)):
        value = server.get("/v1/documents", **({"after": found[-1]} if found else {})).json()
        assert (len(value["data"]), value["has_more"]) == (size, has_more)
        found += [each["path"] for each in value["data"]]
    assert found == whole
    assert listed(server, limit=2) == whole[:2]
    assert server.get("/v1/versions").status_code == 200  # whose usual limit is above this bound
    assert "'limit' is given more than once" in server.client.get("/v1/documents?limit=1&limit=2").text


def test_list_and_text_have_the_details_of_a_document(server: Running) -> None:
    memo, hr = (
        b"---\nyear: 2026\nurl: https://x.example\n---\n# Leave of absence\n\nTwenty days.",
        server.key("write", "hr"),
    )
    upload(server, ("memo.md", memo), headers=hr, labels="hr")
    value, base = server.get("/v1/documents", hr).json(), server.bases["kb"]
    found = next(each for each in value["data"] if each["path"].endswith("memo.md"))
    info = base.document_info([found["path"]], Scope(labels=frozenset({"hr"})))[found["path"]]
    assert found == json.loads(json.dumps({"object": "document", **info._asdict(), "metadata": dict(info.metadata)}))
    assert [Path(each).name for each in listed(server, as_of=1)] == ["bridge.txt", "ferry.md"]
    read = server.get("/v1/documents/text", hr, path="memo.md").json()
    heading = {"start": 0, "level": 1, "title": "Leave of absence"}
    assert (read["text"], read["origin"]) == (base.text(found["path"]), "https://x.example")
    assert read["headings"] == [heading]
    assert server.get("/v1/documents/text", hr, path="memo.md", start=3).json()["headings"] == []
    examples = server.get("/v1/examples", as_of=1, limit=1).json()
    assert (examples["object"], examples["version"]) == ("list", 1)
    assert [(Path(each["document"]).name, each["heading"]) for each in examples["data"]] == [("bridge.txt", "")]


def test_search_is_that_of_the_library(shared: Running) -> None:
    value = shared.client.post("/v1/search", json={"query": "ferry ticket", "limit": 1}).json()
    version, (hit,) = shared.bases["kb"].search("ferry ticket", HashEmbedder(), 1)
    assert (value["version"], value["data"]) == (version, [json.loads(json.dumps(asdict(hit)))])
    response = shared.client.post("/v1/search", json={"query": "x", "limit": 0})
    message = "Invalid value for 'limit': Input should be greater than or equal to 1, not 0."
    assert response.json()["error"]["message"] == message


def test_document_is_named_by_the_end_of_its_path_among_those_that_the_caller_may_see(
    server: Running, tmp_path: Path
) -> None:
    base, hr = server.bases["kb"], server.key("admin", "hr")
    for folder, labels in (("north", ()), ("south", ("hr",))):
        (tmp_path / folder).mkdir()
        add_file(base, tmp_path / folder / "port.txt", f"The {folder}ern port.", *labels)
    north, south = f"{tmp_path}/north", f"{tmp_path}/south"
    for route, more in (("text", {}), ("history", {}), ("difference", {"before": 1})):
        for name, headers, path in (("port.txt", None, north), ("south/port.txt", hr, south)):
            found = server.get(f"/v1/documents/{route}", headers, path=name, **more).json()
            assert found["path"] == f"{path}/port.txt"
        for name in ("south/port.txt", f"{south}/port.txt", "safe.txt", south):
            refused = server.get(f"/v1/documents/{route}", path=name, **more)
            assert refusal(refused) == (404, "document_not_found", "path")
            assert "/south" not in refused.text.replace(name, "")
    assert "2 documents end in 'port.txt'" in server.get("/v1/documents/text", hr, path="port.txt").text
    for headers, is_told in ((None, False), (hr, True)):  # safe.txt is hidden
        said = server.get("/v1/documents/text", headers, path="save.txt").text
        assert ("Did you mean 'safe.txt'?" in said) is is_told
    refused = server.client.post("/v1/documents/remove", json={"documents": ["port.txt", north]}, headers=hr)
    assert refusal(refused) == refusal(purge(server, "safe.txt")) == (404, "document_not_found", "documents")
    removed = server.client.post("/v1/documents/remove", json={"documents": ["port.txt", north]}).json()["data"]
    assert [each["path"] for each in removed] == [f"{north}/port.txt"]
    assert purge(server, "port.txt").json()["documents"] == [f"{north}/port.txt"]
    assert {f"{south}/port.txt", path_of(base, "safe.txt")} <= set(listed(server, hr))


WRONG: list[tuple[str, dict[str, Any] | None, int]] = [
    *((f"documents?{query}", None, 400) for query in ("limit=0", "limit=x", "limit=-1", "x=1", "as_of=x", "where=type+%3D")),
    *((f"examples?{query}", None, 400) for query in ("limit=0", "limit=21", "as_of=x", "where=x")),
    ("examples?knowledge_base=x", None, 404),
    ("verdicts?limit=0", None, 400),
    *((f"documents/difference?{query}", None, 400) for query in ("", "path=x", "path=&before=1")),
    *((f"documents/difference?path=ferry.md&before={query}", None, 400) for query in ("x", "1&after=77", "1&limit=3")),
    ("documents/difference?path=ferry.mdx&before=1", None, 404),
    ("documents/difference?path=ferry.md&before=1&knowledge_base=other", None, 404),
    *((f"documents/history?{query}", None, 400) for query in ("", "path=", "path=ferry.md&as_of=1")),
    ("documents/history?path=x", None, 404),
    *(("search", body, 400) for body in ({}, {"query": ""}, {"query": "x", "where": "("}, {"query": "x", "labels": ["hr"]})),
    *(("embeddings", {"model": "hash", "input": texts}, 400) for texts in ([], [""])),
    ("embeddings", {"model": "other", "input": "x"}, 404),
]  # fmt: skip


def test_invalid_parameters_are_refused(shared: Running) -> None:
    for path, body, status in WRONG:
        response = shared.client.request("POST" if body is not None else "GET", f"/v1/{path}", json=body)
        assert response.status_code == status, (path, body)


# --- versions ---------------------------------------------------------------------------------------------------------


def test_versions_of_a_document_are_listed_and_compared(serve: Serve, docs: Path) -> None:
    server, path = serve(text_chars=200), docs / "ferry.md"
    base = server.bases["kb"]
    add_file(base, path, path.read_text().replace("nine", "ten"))
    remove(base, [ferry := path_of(base, "ferry.md")])
    add_file(base, path, "# Ferry\n\nIt is closed." + " " * 10 + "word " * 100)
    value = server.get("/v1/documents/history", path=ferry).json()
    assert (value["object"], value["path"]) == ("list", ferry)
    assert value["data"] == [asdict(each) for each in document_history(base, ferry, frozenset())]
    value = server.get("/v1/documents/difference", path=ferry, before=1, after=3).json()
    assert (value["object"], value["path"], value["before"], value["after"]) == ("document.difference", ferry, 1, 3)
    assert [each["text"] for each in value["pieces"] if each["kind"] != "same"] == ["nine", "ten"]
    added, rest = server.get("/v1/documents/difference", path=ferry, before=4).json()["pieces"]
    assert (added["chars"], rest["kind"], rest["text"]) == (200, "skipped", "")  # cut at the bound of a text
    safe = path_of(base, "safe.txt")
    add_file(base, docs / "safe.txt", SAFE, "finance")  # the same path, with another label
    for labels, status in ((("hr",), 404), (("hr", "finance"), 200)):
        assert server.get("/v1/documents/history", server.key("read", *labels), path=safe).status_code == status


# --- removing and purging ---------------------------------------------------------------------------------------------


def test_removed_is_in_older_versions_and_purged_is_in_none(server: Running) -> None:
    path, base = upload(server, ("tower.txt", TOWER))[0]["path"], server.bases["kb"]
    version = base.version
    assert server.client.post("/v1/documents/remove", json={"documents": [path]}).json()["version"] == version + 1
    assert (path in listed(server), path in listed(server, as_of=version)) == (False, True)
    assert server.client.post("/v1/documents/remove", json={"documents": [path]}).status_code == 404
    with base.writing(5.0) as connection:  # as a purge leaves it that is killed after its transaction
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('purging', '')")
    assert purge(server, "nothing.txt").status_code == 404
    assert not purge_is_unfinished(base)
    purged = purge(server, path).json()
    assert (purged["documents"], purged["proved"], purged["out_of_reach"]) == ([path], True, {})
    assert (purged["files_scanned"] > 0, purged["beyond_reach"][1][:8]) == (True, "backups.")
    assert purged["proof"] == ""  # for a key that lacks a label of some document: it would count what is hidden
    assert path not in listed(server, as_of=version)


def test_proof_of_a_purge_verifies_and_traces_are_counted_without_names(
    server: Running, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = [Membership("a" * 64, "unknown", None, 3), Membership("b" * 64, "known", 2, 3)]
    monkeypatch.setattr(purge_module, "models_trained_on", lambda *_: carried)
    (own_home / "log").mkdir(parents=True)
    (own_home / "log" / "notes.txt").write_bytes(TOWER)
    hr = server.key("admin", "hr")
    path = upload(server, ("tower.txt", TOWER), headers=hr)[0]["path"]
    value = purge(server, path, headers=hr).json()
    content = verify_signed(value["proof"].encode(), public_key(own_home)).content
    assert isinstance(content, PurgeProof)
    assert (content.deleted.documents, content.knowledge_base_version) == (1, value["version"])
    assert (value["models_that_learned_it"], value["models_that_may_have_learned_it"]) == (["known"], ["unknown"])
    assert (value["proved"], value["out_of_reach"], "notes" in str(value)) == (False, {"traces": 1}, False)


def test_purge_that_is_refused_deletes_nothing_and_names_no_hidden_copy(server: Running, own_home: Path) -> None:
    hidden, open_ = server.key("admin", "hr"), server.key("admin")
    theirs = upload(server, ("a.txt", TOWER), headers=hidden, labels="hr")[0]["path"]
    mine = upload(server, ("b.md", TOWER), headers=open_)[0]["path"]
    refused = purge(server, mine, headers=open_)
    assert code(refused) == (409, "text_is_elsewhere")
    assert theirs not in refused.text
    public_key(own_home)
    key = own_home / "signing" / "ed25519.pem"
    key.chmod(0o644)  # a key that others can read signs nothing
    assert purge(server, mine, headers=open_, copies=True).status_code == 500
    assert {mine, theirs} <= set(listed(server, hidden))
    key.chmod(0o600)
    assert purge(server, mine, headers=open_, copies=True).json()["documents"] == [mine]


# --- hostile forms ----------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["file", "files", "labels", "knowledge_base", "", "é", 'a"b'])
FILE_NAMES = st.none() | st.sampled_from(["a.txt", "../a.txt", "", ".hidden", "\\ud800.txt"]) | st.text(max_size=6)
HEADERS = st.sampled_from(
    ["", "Content-Type: text/plain; charset=nothing", "Content-Transfer-Encoding: base64", "X", ":"]
)


@st.composite
def parts(draw: st.DrawFn) -> bytes:
    name, file_name = draw(NAMES), draw(FILE_NAMES)
    said = f'Content-Disposition: form-data; name="{name}"' + ("" if file_name is None else f'; filename="{file_name}"')
    head = "\r\n".join(each for each in (said, draw(HEADERS)) if each)
    return head.encode("utf-8", "replace") + b"\r\n\r\n" + draw(st.binary(max_size=20))


@st.composite
def forms(draw: st.DrawFn) -> bytes:
    """A form with some of its bytes changed, left out or put in, and cut off somewhere."""
    body = b"".join(b"--x\r\n" + each + b"\r\n" for each in draw(st.lists(parts(), max_size=4))) + b"--x--\r\n"
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=3)) + body[at + draw(st.integers(0, 3)) :]
    return body[: draw(st.integers(len(body) // 2, len(body)))]


PARAMETERS = ["; boundary=x" + more for more in ("", "; charset=utf-16", "; charset=nothing", "; charset=punycode")]
KINDS = st.sampled_from(
    ["multipart/form-data" + each for each in (*PARAMETERS, "", "; boundary=", "; boundary=\u00e9")]
)


def read(body: bytes, kind: str, sizes: list[int]) -> list[tuple[str, str | bytes]]:
    """The parts of a form that comes in pieces."""
    cuts = [0, *sorted(size % (len(body) + 1) for size in sizes), len(body)]

    async def pieces() -> AsyncGenerator[bytes, None]:
        for a, b in itertools.pairwise(cuts):
            yield body[a:b]

    async def main() -> list[tuple[str, str | bytes]]:
        form = await parse_form(Headers({"content-type": kind}), pieces(), most_files=3)
        found = [(name, each if isinstance(each, str) else await each.read()) for name, each in form.multi_items()]
        await form.close()
        return found

    return asyncio.run(main())


@given(forms(), KINDS, st.lists(st.integers(0, 1000), max_size=4))
def test_form_is_its_parts_or_is_refused(body: bytes, kind: str, sizes: list[int]) -> None:
    try:
        found = read(body, kind, sizes)
    except ApiError as error:
        assert (error.status_code, error.code) == (400, "invalid_form")  # noqa: PT017
        return
    json.dumps([name for name, _ in found], ensure_ascii=False).encode()
    assert all(content in body for _, content in found if isinstance(content, bytes))


def test_truncated_form_is_refused() -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhello\r\n--x--'
    for whole in (body, body + b"\r\nafter the end"):
        assert read(whole, "multipart/form-data; boundary=x", [40]) == [("file", b"hello")]
    for length in range(len(body)):
        with pytest.raises(ApiError):
            read(body[:length], "multipart/form-data; boundary=x", [])
