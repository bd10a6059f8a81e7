"""Adding by upload, listing, removing and purging."""

from __future__ import annotations

from pathlib import Path

import pytest

from openbook.inference.kv_cache import KVCache
from openbook.knowledge.erasure import interrupted
from openbook.serving.documents import checked_name
from openbook.serving.refusals import Refusal
from tests.serving.conftest import SECRET, Running

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


def test_one_upload_of_many_files_is_one_version(server: Running) -> None:
    before = server.bases["kb"].version
    verdicts = upload(server, *((f"{i}.txt", b"Number %d." % i) for i in range(5)))
    assert [v["outcome"] for v in verdicts] == ["added"] * 5
    assert server.bases["kb"].version == before + 1


@pytest.mark.parametrize(
    "name",
    [
        "../a.txt",
        "/etc/passwd",
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
        "x" * 201,
        "a.txt.meta.toml",
        "",
    ],
)
def test_a_name_that_is_no_plain_name_is_refused(name: str) -> None:
    with pytest.raises(Refusal, match="not a valid name for an upload"):
        checked_name(name)


def test_names_that_lead_elsewhere_are_refused_over_http(server: Running, tmp_path: Path) -> None:
    before = server.bases["kb"].version
    for name in ("../../escape.txt", "..\\escape.txt", str(tmp_path / "escape.txt"), "%2e%2e%2fescape.txt/.."):
        response = server.client.post("/v1/documents", files={"file": (name, TOWER)})
        assert response.status_code == 400, name
        assert response.json()["error"]["code"] == "invalid_file_name"
    assert not list(tmp_path.rglob("escape.txt"))
    assert server.bases["kb"].version == before


def test_forms_that_are_wrong_are_refused(server: Running) -> None:
    one = ("a.txt", TOWER)
    for files, data, wanted in (
        ([("other", one)], {}, "invalid_form"),
        ([("file", one)], {"url": "http://127.0.0.1/"}, "unknown_parameter"),
        ([("file", one)], {"labels": "Not a label"}, "invalid_value"),
        ([("file", one)], {"labels": "finance"}, "label_not_held"),
        ([("file", one)], {"knowledge_base": "other"}, "knowledge_base_not_found"),
        ([("file", (f"{i}.txt", b"x")) for i in range(65)], {}, "invalid_form"),
    ):
        response = server.client.post("/v1/documents", files=files, data=data)
        assert response.json()["error"]["code"] == wanted
        assert response.status_code in (400, 403, 404)
    for body in (b"", b"--x\r\n", b"--x\r\ncontent-disposition: form-data\r\n\r\n\r\n--x--\r\n", b"\xff" * 100):
        response = server.client.post(
            "/v1/documents", content=body, headers={"content-type": "multipart/form-data; boundary=x"}
        )
        assert response.status_code == 400, response.text
    response = server.client.post("/v1/documents", content=b"x", headers={"content-type": "multipart/form-data"})
    assert response.status_code == 400


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


@pytest.mark.parametrize("charset", ["undefined", "punycode", "raw_unicode_escape", "utf-16", "nothing"])
def test_no_charset_makes_the_server_fail(server: Running, charset: str) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="%b"; filename="%b"\r\n\r\nNumber 1.\r\n'
    field = b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    half = b"\\ud800"
    kind = {"content-type": f"multipart/form-data; boundary=x; charset={charset}"}
    for body in (
        part % (b"file", half + b".txt") + part % (b"file", b"a.txt"),
        part % (half, b"a.txt"),
        part % (b"file", b"a.txt") + field % (half, b"x"),
        part % (b"file", b"a.txt") + field % (b"labels", half),
        part % (b"file", b"a.txt") + field % (b"knowledge_base", half),
    ):
        response = server.client.post("/v1/documents", content=body + b"--x--\r\n", headers=kind)
        assert response.status_code in (200, 400, 404), (body, response.text)


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


def test_a_list_comes_in_pages(server: Running) -> None:
    upload(server, *((f"{i}.txt", b"Number %d." % i) for i in range(5)))
    whole = listed(server)
    pages, after = [], None
    while True:
        params = {"limit": 3} | ({"after": after} if after else {})
        value = server.client.get("/v1/documents", params=params).json()
        pages += [each["path"] for each in value["data"]]
        after = pages[-1]
        if not value["has_more"]:
            break
    assert pages == whole
    assert len(whole) == 7
    for query in (
        "limit=0",
        "limit=x",
        "limit=-1",
        "limit=99999",
        "limit=1&limit=2",
        "nothing=1",
        "as_of=x",
        "where=type+%3D",
    ):
        assert server.client.get(f"/v1/documents?{query}").status_code == 400, query


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
    assert path not in listed(server, as_of=version)
    assert server.client.post("/v1/documents/purge", json={"documents": [path]}).status_code == 404


def test_a_purge_deletes_what_models_computed(server: Running, own_home: Path) -> None:
    path = upload(server, ("tower.txt", TOWER))[0]["path"]
    digests = tuple(p.digest for p in server.bases["kb"].passages(path))
    states = KVCache(own_home / "states")
    states.put(b"k" * 32, b"what was computed", digests, states.begin())
    assert states.get(b"k" * 32) is not None
    assert server.client.post("/v1/documents/purge", json={"documents": [path]}).status_code == 200
    states.begin()
    assert states.get(b"k" * 32) is None


def test_a_purge_names_no_copy_that_is_not_the_callers_to_see(server: Running) -> None:
    hidden, open_ = server.key("admin", "hr"), server.key("admin")
    theirs = upload(server, ("a.txt", TOWER), headers=hidden)[0]["path"]
    mine = upload(server, ("b.md", TOWER), headers=open_)[0]["path"]
    relabel = upload(server, ("a.txt", TOWER), headers=hidden, labels="hr")
    assert relabel[0]["outcome"] == "updated"
    response = server.client.post("/v1/documents/purge", json={"documents": [mine]}, headers=open_)
    assert (response.status_code, response.json()["error"]["code"]) == (409, "text_is_elsewhere")
    assert theirs not in response.text
    response = server.client.post("/v1/documents/purge", json={"documents": [mine], "copies": True}, headers=open_)
    assert response.json()["documents"] == [mine]


def test_a_refused_purge_has_deleted_nothing(server: Running, own_home: Path) -> None:
    path = upload(server, ("tower.txt", TOWER))[0]["path"]
    upload(server, ("copy.txt", TOWER))
    states = KVCache(own_home / "states")
    digests = [passage.digest for passage in server.bases["kb"].passages(path)]
    states.put(b"k" * 32, b"what was computed", digests, states.begin())
    shown = own_home / "diagnoses" / "one" / "observations-a.jsonl"
    shown.parent.mkdir(parents=True)
    shown.write_text('{"format":1}\n' + '{"passages":[{"text":"The tower of Lund is 55 metres high."}]}\n')
    response = server.client.post("/v1/documents/purge", json={"documents": [path]})
    assert (response.status_code, response.json()["error"]["code"]) == (409, "text_is_elsewhere")
    states.begin()
    assert states.get(b"k" * 32) is not None
    assert shown.exists()
    assert path in listed(server)
    response = server.client.post("/v1/documents/purge", json={"documents": [path], "copies": True})
    assert response.status_code == 200
    states.begin()
    assert states.get(b"k" * 32) is None
    assert not shown.exists()


def test_a_purge_that_was_killed_is_finished_by_the_next_one(server: Running, own_home: Path) -> None:
    path = upload(server, ("tower.txt", TOWER))[0]["path"]
    base = server.bases["kb"]
    with base.writing(5.0) as connection:  # as a purge leaves it that is killed after its transaction
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('purging', '')")
    assert server.client.post("/v1/documents/purge", json={"documents": ["nothing.txt"]}).status_code == 404
    assert not interrupted(base)
    assert path in listed(server)


def test_a_purge_tells_how_many_files_may_hold_traces_and_not_which(server: Running, own_home: Path) -> None:
    path = upload(server, ("tower.txt", TOWER))[0]["path"]
    (own_home / "log").mkdir()
    (own_home / "log" / "notes.txt").write_bytes(TOWER)
    response = server.client.post("/v1/documents/purge", json={"documents": [path]})
    assert (response.json()["proved"], response.json()["out_of_reach"]) == (False, {"traces": 1})
    assert "notes" not in response.text
    assert (own_home / "log" / "notes.txt").exists()


def test_what_a_killed_server_left_of_an_upload_is_purged(server: Running, own_home: Path) -> None:
    path = upload(server, ("tower.txt", TOWER))[0]["path"]
    left = Path(path).parent / "half.txt"
    left.write_bytes(TOWER)
    purged = server.client.post("/v1/documents/purge", json={"documents": [path]}).json()
    assert purged["proved"]
    assert not left.exists()
