"""Adding by upload, listing, searching, removing and purging."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers

from openbook.core.records import sha256_hex
from openbook.knowledge.erasure import purge_is_unfinished
from openbook.knowledge.ingest.remedies import remedy
from openbook.models.lineage import Membership
from openbook.parsers import ocr
from openbook.proofs import purge as purge_module
from openbook.proofs.signatures import public_key
from openbook.serving.errors import ApiError
from openbook.serving.routing import parse_form
from openbook.serving.uploads import upload_name_problem
from openbook.testing import HashEmbedder
from tests.cli.conftest import Out
from tests.parsers.samples import ENCRYPTED_PDFS
from tests.parsers.test_ocr import install, says
from tests.serving.conftest import SECRET, Running, Serve, add_file, code, path_of, refusal

TOWER = b"The tower of Lund is 55 metres high. It was built in 1145."


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


def test_an_upload_is_a_document_and_its_file_is_gone(server: Running, own_home: Path) -> None:
    before = server.bases["kb"].version
    tower, broken = upload(server, ("tower.txt", TOWER), ("x.pdf", b"%PDF-1.7 nothing"))
    assert (tower["outcome"], broken["outcome"]) == ("added", "failed")
    assert broken["reason"]
    assert tower["path"] in listed(server)
    assert server.bases["kb"].version == before + 1
    assert "55 metres" in server.ask("How many metres high is the tower of Lund?").json()["openbook"]["answer"]
    assert [path.name for path in (own_home / "uploads").rglob("*") if path.is_file()] == [".lock"]
    assert upload(server, ("tower.txt", TOWER))[0]["outcome"] == "unchanged"
    assert upload(server, ("tower.txt", TOWER + b" It is red."))[0]["outcome"] == "updated"


NO_NAMES = [
    "a/b.txt",
    "a\\b.txt",
    "C:a.txt",
    ".hidden",
    "..",
    "a\x00.txt",
    "a\n.txt",
    "a\u202etxt.exe",
    " a.txt",
    "a.txt.",
]
NO_NAMES += ["/etc/passwd", "x" * 201, "a.txt.meta.toml", ""]


def test_a_name_that_leads_elsewhere_is_refused(server: Running, tmp_path: Path) -> None:
    for name in NO_NAMES:
        assert "not a valid name for an upload" in upload_name_problem(name)
    before = server.bases["kb"].version
    for name in ("../../escape.txt", "..\\escape.txt", str(tmp_path / "escape.txt"), "%2e%2e%2fescape.txt/.."):
        response = server.client.post("/v1/documents", files={"file": (name, TOWER)})
        assert code(response) == (400, "invalid_file_name"), name
    assert not list(tmp_path.rglob("escape.txt"))
    assert server.bases["kb"].version == before


def test_forms_that_are_wrong_are_refused(server: Running) -> None:
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


def test_a_file_can_state_only_labels_that_the_key_holds(server: Running) -> None:
    memo = ("memo.md", b"---\naccess_labels: secret\n---\nThe ferry is cancelled for ever.")
    (verdict,) = upload(server, memo, headers=server.key("write"))
    assert verdict["outcome"] == "failed"
    assert "access labels that you do not hold: secret" in verdict["reason"]
    assert listed(server, server.key("admin", "secret")) == listed(server, server.key("read"))
    (verdict,) = upload(server, memo, headers=server.key("write", "secret"))
    assert verdict["outcome"] == "added"


def test_one_bad_name_keeps_none_of_the_others_out(server: Running) -> None:
    before = server.bases["kb"].version
    names = ["a.txt", "What?.txt", "b.txt", ".hidden", "a.txt", "../c.txt", "d.txt"]
    verdicts = upload(server, *((name, b"Number %d." % i) for i, name in enumerate(names)))
    outcomes = ["added", "failed", "added", "failed", "failed", "failed", "added"]
    assert [each["outcome"] for each in verdicts] == outcomes
    for name, each in zip(names, verdicts, strict=True):
        if each["outcome"] == "added":
            assert Path(each["path"]).name == name
            assert each["path"] in listed(server)
        else:
            assert each["path"] == name
    assert all("not a valid name for an upload" in verdicts[i]["reason"] for i in (1, 3, 5))
    assert "must be unique within one upload" in verdicts[4]["reason"]
    assert server.bases["kb"].version == before + 1
    text = server.client.get("/v1/documents/text", params={"path": verdicts[0]["path"]}).json()["text"]
    assert text == "Number 0."


def test_two_callers_never_meet_under_one_name(server: Running) -> None:
    first, second = server.key("write", "hr"), server.key("write")
    mine = upload(server, ("pay.txt", b"Anna earns 12 crowns."), headers=first, labels="hr")
    theirs = upload(server, ("pay.txt", b"Nobody earns anything."), headers=second)
    assert mine[0]["outcome"] == theirs[0]["outcome"] == "added"
    assert mine[0]["path"] != theirs[0]["path"]
    assert mine[0]["path"] in listed(server, first)
    assert mine[0]["path"] not in listed(server, second)


def test_an_upload_of_the_text_of_a_hidden_document_is_told_as_any_other(server: Running) -> None:
    before = listed(server)
    verdict = upload(server, ("guess.txt", SECRET.encode()))[0]
    assert (verdict["outcome"], verdict["reason"]) == ("added", "")
    assert listed(server) == sorted([*before, verdict["path"]])  # a document of its own, and nothing more of the other


def test_an_upload_of_the_text_of_a_hidden_document_is_as_much_work_as_any_other(serve: Serve) -> None:
    server = serve(embedder=(embedder := HashEmbedder()))

    def work(text: str, *labels: str) -> tuple[int, int]:
        """How many texts are embedded, and how many contents are there afterwards."""
        before = embedder.texts_embedded
        upload(server, ("guess.txt", text.encode()), headers=server.key("write", *labels))
        return embedder.texts_embedded - before, server.bases["kb"].status().texts

    assert [work(SECRET), work("Nobody has ever read this.")] == [(1, 4), (1, 5)]
    assert work(SECRET, "hr") == (0, 5)  # its holder may see the document


def test_a_list_comes_in_pages_that_end_at_the_bound_where_no_limit_is_sent(serve: Serve) -> None:
    server = serve(listed=3)
    upload(server, *((f"{i}.txt", b"Number %d." % i) for i in range(5)))
    whole = [path for path in server.bases["kb"].documents() if not path.endswith("safe.txt")]
    for limit, sizes in (({}, [3, 3, 1]), ({"limit": 2}, [2, 2, 2, 1])):
        pages: list[list[str]] = []
        has_more = True
        while has_more:
            after = {"after": pages[-1][-1]} if pages else {}
            value = server.client.get("/v1/documents", params={**limit, **after}).json()
            pages.append([each["path"] for each in value["data"]])
            has_more = value["has_more"]
        assert [len(page) for page in pages] == sizes
        assert [path for page in pages for path in page] == whole
    assert server.client.get("/v1/versions").status_code == 200  # whose usual limit is above this bound
    assert "'limit' is given more than once" in server.client.get("/v1/documents?limit=1&limit=2").text
    for query in ("limit=0", "limit=x", "limit=-1", "limit=1&limit=2", "nothing=1", "as_of=x", "where=type+%3D"):
        assert server.client.get(f"/v1/documents?{query}").status_code == 400, query


def test_a_list_has_the_details_of_each_document(server: Running) -> None:
    memo = b"---\nstatus: final\nauthors: [Ann, Bo]\nyear: 2026\n---\n# Leave of absence\n\nTwenty days."
    upload(server, ("memo.md", memo), headers=server.key("write", "hr"), labels="hr")
    value = server.client.get("/v1/documents", headers=server.key("read", "hr")).json()
    found = next(each for each in value["data"] if each["path"].endswith("memo.md"))
    created = server.client.get("/v1/versions").json()["data"][0]["created_at"]
    metadata = found.pop("metadata")
    assert (metadata["status"], metadata["year"], metadata["type"]) == ("final", 2026, "md")
    assert metadata["authors"] == ["Ann", "Bo"]
    assert found == {
        "object": "document",
        "path": found["path"],
        "title": "Leave of absence",
        "media_type": "text/markdown",
        "bytes": len(memo),
        "characters": len(server.bases["kb"].text(found["path"]) or ""),
        "pages": None,
        "passages": 1,
        "labels": ["hr"],
        "version": value["version"],
        "created_at": created,
    }
    assert [Path(each).name for each in listed(server, as_of=1)] == ["bridge.txt", "ferry.md"]
    (older, *_) = server.client.get("/v1/documents", params={"as_of": 1}).json()["data"]
    assert (older["version"], older["media_type"], older["labels"]) == (1, "text/plain", [])


def test_a_text_comes_with_its_headings(server: Running) -> None:
    path = next(path for path in listed(server) if path.endswith("ferry.md"))
    params: dict[str, str | int] = {"path": path}
    assert server.client.get("/v1/documents/text", params=params).json()["headings"] == [
        {"start": 0, "level": 1, "title": "Ferry"}
    ]
    assert server.client.get("/v1/documents/text", params={**params, "start": 5}).json()["headings"] == []


def test_examples_are_of_documents_that_the_caller_may_see(server: Running) -> None:
    long = "Twenty days. " * 30
    plan = f"# Plan\n\n{long}\n\n## Closing of the harbour\n\n{long}".encode()
    upload(server, ("plan.md", plan), headers=server.key("write", "hr"), labels="hr")
    value = server.client.get("/v1/examples", headers=server.key("read", "hr")).json()
    assert (value["object"], value["version"], len(value["data"])) == ("list", server.bases["kb"].version, 4)
    assert value["data"][0]["heading"] == "Closing of the harbour"
    assert value["data"][0]["document"].endswith("plan.md")
    value = server.client.get("/v1/examples", params={"as_of": 1, "limit": 1}).json()
    assert [(Path(each["document"]).name, each["heading"]) for each in value["data"]] == [("bridge.txt", "")]
    for query in ("limit=0", "limit=21", "as_of=x", "where=x", "knowledge_base=x"):
        assert server.client.get(f"/v1/examples?{query}").status_code in (400, 404), query


def test_a_search_is_that_of_the_library(server: Running) -> None:
    value = server.client.post("/v1/search", json={"query": "ferry ticket", "limit": 1}).json()
    version, (hit,) = server.bases["kb"].search("ferry ticket", HashEmbedder(), 1)
    assert value["version"] == version
    assert [(each["passage"]["id"], each["similarity"]) for each in value["data"]] == [(hit.passage.id, hit.similarity)]


def test_what_is_wrong_with_a_search_or_texts_to_embed_is_refused(server: Running) -> None:
    wrong: list[tuple[str, dict[str, Any], int]] = [
        ("search", {}, 400),
        ("search", {"query": ""}, 400),
        ("search", {"query": "x", "where": "("}, 400),
        ("search", {"query": "x", "labels": ["hr"]}, 400),
        ("embeddings", {"model": "hash", "input": []}, 400),
        ("embeddings", {"model": "hash", "input": [""]}, 400),
        ("embeddings", {"model": "other", "input": "x"}, 404),
    ]
    for path, body, status in wrong:
        assert server.client.post(f"/v1/{path}", json=body).status_code == status, body
    response = server.client.post("/v1/search", json={"query": "x", "limit": 0})
    message = "Invalid value for 'limit': Input should be greater than or equal to 1, not 0."
    assert response.json()["error"]["message"] == message


@pytest.mark.skipif(os.name == "nt", reason="the fake program is a shell script")
def test_an_upload_is_read_by_ocr_that_was_installed_meanwhile(
    server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = ("scan.png", b"\x89PNG\r\n\x1a\n" + bytes(50))
    (verdict,) = upload(server, scan)
    assert (verdict["outcome"], verdict["reason"]) == ("skipped", "an image: needs OCR")
    monkeypatch.setattr(ocr, "best_engine", lambda: "tesseract eng of which eng")
    install(tmp_path, says([("nine", 90)]), monkeypatch)
    (verdict,) = upload(server, scan)
    assert (verdict["outcome"], verdict["reason"]) == ("added", "")  # a reason could tell of another's document


def test_verdicts_say_what_helps_and_name_no_upload_of_another(server: Running, docs: Path) -> None:
    base = server.bases["kb"]
    add_file(base, docs / "a b.png", b"\x89PNG\r\n\x1a\n" + bytes(50))
    theirs = server.key("write")
    (verdict,) = upload(server, ("layoffs.pdf", ENCRYPTED_PDFS[0]), headers=theirs)
    assert verdict["outcome"] == "failed"
    upload(server, ("own.pdf", ENCRYPTED_PDFS[1]))
    response = server.client.get("/v1/verdicts")
    value = response.json()
    assert (value["object"], value["version"]) == ("list", base.version)
    own, image = sorted(value["data"], key=lambda each: str(Path(each["path"]).name), reverse=True)
    assert image | {"tried_at": ""} == {
        "object": "verdict",
        "path": f"{docs}/a b.png",
        "outcome": "skipped",
        "reason": "an image: needs OCR",
        "tried_at": "",
        "remedy": remedy("an image: needs OCR", f"{docs}/a b.png", base.folder),
    }
    assert image["remedy"].endswith(f"{sys.executable} -m pip install 'openbook[ocr]'.")
    assert own["path"].endswith("/own.pdf")
    assert own["remedy"].endswith("openbook add --kb " + f"{base.folder} COPY.")
    assert code(server.client.get("/v1/verdicts", headers=server.key("write"))) == (403, "insufficient_permissions")
    assert len(server.client.get("/v1/verdicts?limit=1").json()["data"]) == 1
    assert server.client.get("/v1/verdicts?limit=0").status_code == 400


def test_a_caller_forgets_its_own_failed_uploads_and_nothing_else(server: Running, docs: Path) -> None:
    mine, theirs = server.key("admin"), server.key("admin")
    add_file(server.bases["kb"], docs / "a b.png", b"\x89PNG\r\n\x1a\n" + bytes(50))
    paths = [upload(server, ("own.pdf", ENCRYPTED_PDFS[0]), headers=headers)[0]["path"] for headers in (mine, theirs)]
    upload(server, ("own.pdf", b"A text."), headers=server.key("write"))

    def told(headers: dict[str, str]) -> list[str]:
        return [each["path"] for each in server.client.get("/v1/verdicts", headers=headers).json()["data"]]

    def forget(*forgotten: str) -> httpx.Response:
        return server.client.post("/v1/verdicts/remove", json={"paths": forgotten}, headers=mine)

    assert told(mine) == sorted([f"{docs}/a b.png", paths[0]])
    for path in (paths[1], f"{docs}/a b.png", "own.pdf", listed(server)[0]):
        assert refusal(forget(paths[0], path)) == (404, "verdict_not_found", "paths")
    before = listed(server)
    assert [each["outcome"] for each in forget(paths[0]).json()["data"]] == ["removed"]
    assert (told(mine), told(theirs)) == ([f"{docs}/a b.png"], sorted([f"{docs}/a b.png", paths[1]]))
    assert listed(server) == before
    read_only = server.client.post("/v1/verdicts/remove", json={"paths": paths[1:]}, headers=server.key("read"))
    assert code(read_only) == (403, "insufficient_permissions")


def test_a_document_is_named_by_the_end_of_its_path_among_those_that_the_caller_may_see(
    server: Running, tmp_path: Path
) -> None:
    base = server.bases["kb"]
    for folder, labels in (("north", ()), ("south", ("hr",))):
        (tmp_path / folder).mkdir()
        add_file(base, tmp_path / folder / "port.txt", f"The {folder}ern port.", *labels)
    add_file(base, tmp_path / "north" / "crane.txt", "The crane is red.")
    bridge, hr = path_of(base, "bridge.txt"), server.key("admin", "hr")

    def get(name: str, headers: dict[str, str] | None = None, route: str = "text", **more: object) -> httpx.Response:
        params: Any = {"path": name, **more}
        return server.client.get(f"/v1/documents/{route}", params=params, headers=headers)

    routes: dict[str, dict[str, Any]] = {"text": {}, "history": {}, "difference": {"before": 1}}
    for route, more in routes.items():
        assert get("port.txt", route=route, **more).json()["path"] == f"{tmp_path}/north/port.txt"
        assert get("south/port.txt", hr, route, **more).json()["path"] == f"{tmp_path}/south/port.txt"
    for name in ("south/port.txt", f"{tmp_path}/south/port.txt", "safe.txt", f"{tmp_path}/south"):
        refused = get(name)
        assert refusal(refused) == (404, "document_not_found", "path")
        assert "/south" not in refused.text.replace(name, "")
    assert "2 documents end in 'port.txt'" in get("port.txt", hr).text
    assert "Did you mean 'bridge.txt'?" in get("brigde.txt").text
    assert "Did you mean" not in get("save.txt").text  # safe.txt is hidden
    assert "Did you mean 'safe.txt'?" in get("save.txt", hr).text
    assert "is a folder of 2 documents" in get(f"{tmp_path}/north").text

    def change(kind: str, *names: str, headers: dict[str, str] | None = None) -> httpx.Response:
        return server.client.post(f"/v1/documents/{kind}", json={"documents": names}, headers=headers)

    assert refusal(change("remove", "port.txt", headers=hr)) == (404, "document_not_found", "documents")
    assert refusal(change("purge", "safe.txt")) == (404, "document_not_found", "documents")
    removed = change("remove", "port.txt", f"{tmp_path}/north", bridge).json()["data"]
    assert [each["path"] for each in removed] == [f"{tmp_path}/north/port.txt", f"{tmp_path}/north/crane.txt", bridge]
    assert change("purge", "crane.txt").json()["documents"] == [f"{tmp_path}/north/crane.txt"]
    assert {f"{tmp_path}/south/port.txt", path_of(base, "safe.txt")} <= set(listed(server, hr))


def test_removed_is_in_older_versions_and_purged_is_in_none(server: Running, own_home: Path) -> None:
    path = upload(server, ("tower.txt", TOWER))[0]["path"]
    version = server.bases["kb"].version
    response = server.client.post("/v1/documents/remove", json={"documents": [path]})
    assert response.json()["version"] == version + 1
    assert path not in listed(server)
    assert path in listed(server, as_of=version)
    assert server.client.post("/v1/documents/remove", json={"documents": [path]}).status_code == 404
    purged = server.client.post("/v1/documents/purge", json={"documents": [path]}).json()
    assert purged["documents"] == [path]
    assert purged["files_scanned"] > 0
    assert (purged["proved"], purged["out_of_reach"]) == (True, {})
    assert purged["beyond_reach"][1].startswith("backups. Backups and copies ")
    assert path not in listed(server, as_of=version)
    assert server.client.post("/v1/documents/purge", json={"documents": [path]}).status_code == 404


def test_the_proof_of_a_purge_is_a_file_that_verifies(
    server: Running, own_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = upload(server, ("tower.txt", TOWER), headers=server.key("admin", "hr"))[0]["path"]
    response = server.client.post("/v1/documents/purge", json={"documents": [path]}, headers=server.key("admin", "hr"))
    (tmp_path / "proof.json").write_text(response.json()["proof"], encoding="utf-8")
    content = Out(capsys).json("verify", tmp_path / "proof.json", "--key", public_key(own_home))["content"]
    assert (content["deleted"]["documents"], content["texts"]) == (1, [sha256_hex(TOWER)])
    assert content["knowledge_base_version"] == response.json()["version"]
    assert "tower.txt" not in response.json()["proof"]
    path = upload(server, ("tower.txt", TOWER))[0]["path"]
    response = server.client.post("/v1/documents/purge", json={"documents": [path]})
    assert (response.json()["proved"], response.json()["proof"]) == (True, "")  # it would count what is hidden from it


def test_a_purge_that_cannot_be_signed_deletes_nothing(server: Running, own_home: Path) -> None:
    path = upload(server, ("tower.txt", TOWER))[0]["path"]
    public_key(own_home)
    (own_home / "signing" / "ed25519.pem").chmod(0o644)
    assert server.client.post("/v1/documents/purge", json={"documents": [path]}).status_code == 500
    assert path in listed(server)


def test_a_purge_names_no_copy_that_is_not_the_callers_to_see(server: Running) -> None:
    hidden, open_ = server.key("admin", "hr"), server.key("admin")
    theirs = upload(server, ("a.txt", TOWER), headers=hidden)[0]["path"]
    mine = upload(server, ("b.md", TOWER), headers=open_)[0]["path"]
    relabel = upload(server, ("a.txt", TOWER), headers=hidden, labels="hr")
    assert relabel[0]["outcome"] == "updated"
    response = server.client.post("/v1/documents/purge", json={"documents": [mine]}, headers=open_)
    assert code(response) == (409, "text_is_elsewhere")
    assert theirs not in response.text
    assert {mine, theirs} <= set(listed(server, hidden))  # a refused purge has deleted nothing
    response = server.client.post("/v1/documents/purge", json={"documents": [mine], "copies": True}, headers=open_)
    assert response.json()["documents"] == [mine]


def test_a_purge_that_was_killed_is_finished_by_the_next_request(server: Running) -> None:
    path = upload(server, ("tower.txt", TOWER))[0]["path"]
    base = server.bases["kb"]
    with base.writing(5.0) as connection:  # as a purge leaves it that is killed after its transaction
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('purging', '')")
    assert server.client.post("/v1/documents/purge", json={"documents": ["nothing.txt"]}).status_code == 404
    assert not purge_is_unfinished(base)
    assert path in listed(server)


def test_a_purge_names_only_models_that_are_known_to_have_learned_it(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = [Membership("a" * 64, "unknown", None, 3), Membership("b" * 64, "known", 2, 3)]
    monkeypatch.setattr(purge_module, "models_trained_on", lambda *_: carried)
    path = upload(server, ("tower.txt", TOWER))[0]["path"]
    response = server.client.post("/v1/documents/purge", json={"documents": [path]})
    assert response.json()["models_that_learned_it"] == ["known"]
    assert response.json()["models_that_may_have_learned_it"] == ["unknown"]


def test_a_purge_tells_how_many_files_may_hold_traces_and_not_which(server: Running, own_home: Path) -> None:
    path = upload(server, ("tower.txt", TOWER))[0]["path"]
    (own_home / "log").mkdir()
    (own_home / "log" / "notes.txt").write_bytes(TOWER)
    response = server.client.post("/v1/documents/purge", json={"documents": [path]})
    assert (response.json()["proved"], response.json()["out_of_reach"]) == (False, {"traces": 1})
    assert "notes" not in response.text
    assert (own_home / "log" / "notes.txt").exists()


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


@settings(max_examples=30)
@given(forms(), KINDS, st.lists(st.integers(0, 1000), max_size=4))
def test_a_form_is_its_parts_or_is_refused(body: bytes, kind: str, sizes: list[int]) -> None:
    try:
        found = read(body, kind, sizes)
    except ApiError as error:
        assert (error.status_code, error.code) == (400, "invalid_form")  # noqa: PT017
        return
    json.dumps([name for name, _ in found], ensure_ascii=False).encode()
    assert all(content in body for _, content in found if isinstance(content, bytes))


def test_a_form_that_is_cut_off_is_refused() -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhello\r\n--x--'
    for whole in (body, body + b"\r\nafter the end"):
        assert read(whole, "multipart/form-data; boundary=x", [40]) == [("file", b"hello")]
    for length in range(len(body)):
        with pytest.raises(ApiError):
            read(body[:length], "multipart/form-data; boundary=x", [])
