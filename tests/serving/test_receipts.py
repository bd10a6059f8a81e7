"""Receipts and replay: only where a log is kept, and only for who may see what was read."""

from __future__ import annotations

from pathlib import Path

from openbook.knowledge import purge
from openbook.proofs.receipts import LOG_FILE, verify_log
from tests.knowledge.small_bases import reseal
from tests.serving.conftest import BRIDGE, QUESTION, SAFE, Running, add_file, path_of


def asked(server: Running, question: str, headers: dict[str, str] | None = None) -> str:
    digest: str = server.ask(question, headers).json()["openbook"]["receipt"]["digest"]
    return digest


def status(server: Running, digest: str, headers: dict[str, str] | None = None) -> tuple[int, int]:
    receipt = server.client.get(f"/v1/receipts/{digest}", headers=headers)
    replayed = server.client.post("/v1/replay", json={"id": digest}, headers=headers)
    return receipt.status_code, replayed.status_code


def test_where_a_log_is_kept_an_answer_is_replayed_from_its_receipt(
    with_receipts: Running, tmp_path: Path, server: Running
) -> None:
    answer = with_receipts.ask(QUESTION).json()["openbook"]
    digest = answer["receipt"]["digest"]
    assert with_receipts.client.get(f"/v1/receipts/{digest}").json()["receipt"] == answer["receipt"]
    found = {"object": "replay", "id": digest, "identical": True, "differences": [], "answer": answer["answer"]}
    assert with_receipts.client.post("/v1/replay", json={"id": digest}).json() == found
    with_receipts.ask(QUESTION, stream=True)
    assert verify_log(tmp_path / "log")[0] == 2
    assert status(server, asked(server, QUESTION)) == (404, 404)


def test_what_is_no_receipt_or_was_purged_is_not_found(with_receipts: Running) -> None:
    for digest in ("0" * 64, "x", "..", "%2e%2e%2freceipts.jsonl"):
        assert status(with_receipts, digest)[0] == 404
    digest = asked(with_receipts, QUESTION)
    assert status(with_receipts, "0" * 64) == (404, 404)
    base = with_receipts.bases["kb"]
    purge(base, [path_of(base, "bridge.txt")])
    assert status(with_receipts, digest) == (404, 404)


def test_a_line_that_is_half_written_or_altered_is_not_found_and_hides_no_other(
    with_receipts: Running, tmp_path: Path
) -> None:
    digest = asked(with_receipts, QUESTION)
    log = tmp_path / "log" / LOG_FILE
    whole = log.read_bytes()
    other = asked(with_receipts, "When does the ferry to Sandhavn leave?")
    both = log.read_bytes()
    log.write_bytes(both[: (len(whole) + len(both)) // 2])
    assert (status(with_receipts, digest), status(with_receipts, other)) == ((200, 200), (404, 404))
    log.write_bytes(both.replace(b"by the mayor?", b"by the baker?"))
    assert (status(with_receipts, digest), status(with_receipts, other)) == ((404, 404), (200, 200))


def test_a_receipt_is_for_who_may_read_what_it_names(with_receipts: Running, docs: Path) -> None:
    hr = with_receipts.key("read", "hr")
    digest = asked(with_receipts, SAFE, hr)
    assert status(with_receipts, digest, hr) == (200, 200)
    assert status(with_receipts, digest) == (404, 404)
    bridge = asked(with_receipts, QUESTION)
    assert status(with_receipts, bridge) == (200, 200)
    add_file(with_receipts.bases["kb"], docs / "bridge.txt", BRIDGE, "hr")
    assert status(with_receipts, bridge) == (404, 404)


def test_a_copy_that_is_closed_closes_nothing_and_is_not_told_of(with_receipts: Running, docs: Path) -> None:
    add_file(with_receipts.bases["kb"], docs / "a-canary.txt", BRIDGE, "hr")
    digest = asked(with_receipts, QUESTION)
    for headers in ({}, with_receipts.key("read", "finance"), with_receipts.key("read", "hr")):
        replayed = with_receipts.client.post("/v1/replay", json={"id": digest}, headers=headers)
        assert replayed.json()["identical"], replayed.text
        assert "canary" not in replayed.text
        assert "canary" not in with_receipts.client.get(f"/v1/receipts/{digest}", headers=headers).text


def test_an_open_copy_lets_an_answer_be_given_again_but_the_closed_name_is_not_shown(
    with_receipts: Running, docs: Path
) -> None:
    digest = asked(with_receipts, QUESTION)
    add_file(with_receipts.bases["kb"], docs / "open.txt", BRIDGE)
    add_file(with_receipts.bases["kb"], docs / "bridge.txt", BRIDGE, "hr")
    assert status(with_receipts, digest) == (404, 200)
    assert status(with_receipts, digest, with_receipts.key("read", "hr")) == (200, 200)
    replayed = with_receipts.client.post("/v1/replay", json={"id": digest})
    assert replayed.json()["answer"]
    assert "bridge.txt" not in replayed.text


def test_a_passage_of_another_text_is_told(with_receipts: Running) -> None:
    digest = asked(with_receipts, QUESTION)
    base = with_receipts.bases["kb"]
    base.connection.execute("PRAGMA query_only = OFF")
    base.connection.execute("UPDATE contents SET text = replace(text, 'mayor', 'baker')")
    assert with_receipts.client.post("/v1/replay", json={"id": digest}).status_code == 503
    reseal(base.connection)  # as if that had been stored
    replayed = with_receipts.client.post("/v1/replay", json={"id": digest}).json()
    assert replayed["answer"] is None
    assert not replayed["identical"]
    assert all(each.endswith("is not that of the receipt.") for each in replayed["differences"])
