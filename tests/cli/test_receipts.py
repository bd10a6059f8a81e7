"""What answers and purges can show to others, and that it can be found, verified and done again."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from openbook.cli import context, receipts
from openbook.core.records import Receipt, sha256_hex
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.erasure import _BEYOND_REACH
from openbook.proofs.receipts import parse_receipt
from openbook.proofs.replay import knowledge_base_of
from openbook.proofs.signatures import public_key
from tests.cli.conftest import Out
from tests.conftest import MODEL_HOME, ROOT, base_with
from tests.proofs.test_signatures import GOLDEN, GOLDEN_KEY

SECRET = "The safe of the harbour office opens with the number zeppelin-7341."


@pytest.fixture
def secret(tmp_path: Path, own_home: Path) -> Path:
    """A document of one's own knowledge base."""
    docs = tmp_path / "docs"
    texts = {"secret.txt": SECRET, "bridge.txt": "The bridge is 40 metres long."}
    base_with(docs, texts, place=own_home / "kb").close()
    return docs / "secret.txt"


def test_a_proof_of_a_purge_is_verified_on_another_machine(
    secret: Path, own_home: Path, tmp_path: Path, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = tmp_path / "proof.json"
    assert "Proof: " in out.ok("purge", secret, "--yes", "--proof", proof)
    for word in ("secret", "zeppelin", "harbour", str(tmp_path)):
        assert word not in proof.read_text()
    key = out.json("verify", "--show-key")["public_key"]
    assert key == public_key(own_home)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setenv("OPENBOOK_HOME", str(tmp_path / "elsewhere"))
    stdout = out.ok("verify", proof, "--key", key)
    assert "Verified: signed by the key of fingerprint" in stdout
    assert "purged 1 document (passages: 1)" in stdout
    assert "does NOT" not in stdout
    first, *limits = stdout.splitlines()[: len(_BEYOND_REACH) + 1]
    assert first.startswith("Verified: ")
    assert [each.split(".")[0] for each in limits] == [f"Does not prove: {reason}" for reason in _BEYOND_REACH]
    golden = out.ok("verify", GOLDEN / "signed-purge-2.json", "--key", GOLDEN_KEY)
    assert golden.index("Does not prove: write-ahead log. ") < golden.index("of the knowledge base 0")
    assert out.json("verify", proof, "--key", key)["verified"] is True
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_absence_of_a_text_is_proved(secret: Path, own_home: Path, tmp_path: Path, out: Out) -> None:
    proof, text = tmp_path / "absent.json", "The safe of the harbour office opens with the number"
    for given in (secret, text):
        code, stdout, stderr = out("verify", "--absent", given, "--proof", proof, "--json")
        assert (code, json.loads(stdout)["places"][0]) == (4, str(secret))
        assert stderr.endswith("The text was found. Places: 2.\n")
        assert ("No file has this name" in stderr) == (given == text)
    assert not proof.exists()
    out.refused(2, "at least 16 bytes", "verify", "--absent", "too short")
    secret.write_text("")
    out.refused(2, "the file is empty", "verify", "--absent", secret)
    out.ok("purge", secret, "--yes")
    assert "No trace was found in what was scanned: rows: " in out.ok("verify", "--absent", text, "--proof", proof)
    stdout = out.ok("verify", proof, "--key", public_key(own_home))
    assert f"SHA-256 of the text: {sha256_hex(text.encode())}" in stdout
    assert stdout.index("Does not prove: numbers. ") < stdout.index("looked for a text at 20")
    assert "zeppelin" not in proof.read_text()


def test_unsearched_paths_are_named_and_absence_is_not_proved(
    secret: Path, own_home: Path, tmp_path: Path, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_home / "elsewhere").symlink_to(tmp_path / "docs")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Köln hat eine zweite Brücke.".encode("latin-1"))))
    code, stdout, stderr = out("verify", "--absent", "-", "--proof", tmp_path / "absent.json")
    assert (code, "elsewhere (link): " in stdout) == (4, True)
    assert "This is not proved. Paths that could not be looked at: 1." in stderr
    assert "does NOT prove" in out.ok("verify", tmp_path / "absent.json", "--key", public_key(own_home))


def test_without_the_signers_key_nothing_is_verified(secret: Path, tmp_path: Path, out: Out) -> None:
    proof = tmp_path / "proof.json"
    out("purge", secret, "--yes", "--proof", proof)
    code, stdout, stderr = out("verify", proof)
    assert (code, stdout) == (2, "")
    assert "erified" not in stderr
    assert "the signer is unknown" in stderr
    out.refused(2, "another key", "verify", proof, "--key", "1" * 64)
    proof.write_bytes(proof.read_bytes().replace(b'"files":', b'"files": '))
    out.refused(2, "proof.json: It is not byte for byte", "verify", proof)


def test_remaining_traces_are_named_and_the_purge_is_not_proved(
    secret: Path, own_home: Path, tmp_path: Path, out: Out
) -> None:
    (own_home / "log").mkdir()
    (own_home / "log" / "receipts.jsonl").write_text(json.dumps({"question": "?", "document": str(secret)}))
    proof = tmp_path / "proof.json"
    code, stdout, stderr = out("purge", secret, "--yes", "--proof", proof, "--json")
    value = json.loads(stdout)
    assert (code, value["proved"], "not proved" in stderr) == (4, False, True)
    assert [(each["path"], each["reason"]) for each in value["out_of_reach"]] == [
        (str(own_home / "log" / "receipts.jsonl"), "traces")
    ]
    assert sum(each["files"] for each in value["scanned"]) > 5
    stdout = out.ok("verify", proof, "--key", public_key(own_home))
    assert "Out of reach: 1 (traces)" in stdout
    assert "does NOT prove that nothing is left" in stdout
    (own_home / "notes.txt").write_text("The bridge is 40 metres long.")
    code, stdout, _ = out("purge", "bridge.txt", "--yes")
    assert (code, "Not proved: " in stdout, "Proof: " in stdout) == (4, True, False)
    assert "notes.txt (traces): a trace is in it, from byte 0 on" in " ".join(stdout.split())


@pytest.mark.parametrize("place", ["docs", "docs/secret.txt/proof.json"])
def test_a_proof_that_cannot_be_written_is_refused_before_anything_is_deleted(
    secret: Path, own_home: Path, tmp_path: Path, out: Out, place: str
) -> None:
    assert out("purge", secret, "--yes", "--proof", tmp_path / place)[0] == 5
    base = KnowledgeBase.open(own_home / "kb")
    assert base.text(str(secret)) == SECRET
    base.close()


def test_a_killed_purge_has_no_proof(secret: Path, own_home: Path, tmp_path: Path, out: Out) -> None:
    base = KnowledgeBase.open(own_home / "kb")
    with base.writing(5.0) as connection:
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('purging', '')")
    out.refused(4, "no proof is written", "purge", "gone.txt", "--yes", "--proof", tmp_path / "proof.json")
    assert not (tmp_path / "proof.json").exists()
    with base.writing(5.0) as connection:
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('purging', '')")
    base.close()
    assert out.json("purge", "gone.txt") == {"finished": True}


def test_verify_refuses_with_exit_codes(out: Out) -> None:
    key = "1" * 64
    wrong = (
        (4,),
        (5, "x.json"),
        (3, "no-such-model"),
        (2, "x.json", "--show-key"),
        (2, "--show-key", "--proof", "x"),
        (5, "x.json", "--key", key),
        (2, "x.json", "--key", "no"),
    )
    for code, *arguments in wrong:
        out.refused(code, "Error: ", "verify", *arguments)


@pytest.mark.model
@pytest.mark.usefixtures("reader_reference", "embedder_reference")
def test_an_answer_is_signed_and_replayed(secret: Path, own_home: Path, tmp_path: Path, out: Out) -> None:
    (own_home / "models").symlink_to(MODEL_HOME / "models")
    signed, question = tmp_path / "receipt.json", "How long is the bridge?"
    answer = out.json("ask", question, "--docs", secret.parent, "--sign", signed)
    assert out.json("verify", signed, "--key", public_key(own_home))["content"] == answer["receipt"]
    assert question in out.ok("verify", signed, "--key", public_key(own_home))
    assert out.ok("replay", signed).strip() == f"Identical: {answer['answer']}"


# --- replay -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(fakes: None, own_home: Path, tmp_path: Path) -> KnowledgeBase:
    """A knowledge base that is not one's own, over fakes."""
    for folder in (own_home, tmp_path):
        base = base_with(folder, {"ferry.md": "The ferry to Sandhavn leaves at nine."})
    return base


def asked(out: Out, *arguments: object) -> Receipt:
    stdout = out.ok("ask", "When does the ferry to Sandhavn leave?", "--json", *arguments)
    return parse_receipt(json.dumps(json.loads(stdout)["receipt"]).encode())


def test_replay_finds_the_knowledge_base_that_was_asked(
    elsewhere: KnowledgeBase, own_home: Path, tmp_path: Path, out: Out
) -> None:
    settings = context.read_settings()
    for arguments, place in (
        (["--kb", elsewhere.folder], elsewhere.folder),
        ([], own_home / "kb"),
        (["--docs", tmp_path / "ferry.md"], own_home / "derived" / "docs"),
    ):
        receipt = asked(out, *arguments)
        base = knowledge_base_of(receipt, receipts.candidates(settings, receipt, None))
        assert base is not None
        assert base.id == receipt.knowledge_base
        assert base.folder.is_relative_to(place)
    # One that was moved is found when it was asked again, and else asked for.
    receipt = asked(out, "--kb", elsewhere.folder)
    elsewhere.close()
    moved = elsewhere.folder.rename(tmp_path / "moved")
    assert receipt.knowledge_base not in [base.id for base in receipts.candidates(settings, receipt, None)]
    asked(out, "--kb", moved)
    assert receipts.candidates(settings, receipt, None)[-1].id == receipt.knowledge_base


def test_a_log_is_verified_up_to_a_named_line(elsewhere: KnowledgeBase, tmp_path: Path, out: Out) -> None:
    log = tmp_path / "log"
    asked(out, "--kb", elsewhere.folder, "--log", log)
    head = out.json("verify", log)["head"]
    assert out.json("verify", log, "--head", head) == {"receipts": 1, "head": head}
    out.refused(2, "The log has no line 1111", "verify", log, "--head", "1" * 64)
    for wrong in ("", head[:12], head.upper()):
        out.refused(2, "--head must be the 64 hex digits", "verify", log, "--head", wrong)


def test_a_read_only_home_still_answers(elsewhere: KnowledgeBase, own_home: Path, out: Out) -> None:
    (own_home / "bases").write_text("a file where the folder should be")
    asked(out, "--kb", elsewhere.folder)


@pytest.mark.laws
@pytest.mark.model
@pytest.mark.usefixtures("reader_reference", "embedder_reference")
def test_an_answer_of_a_real_model_is_replayed(tmp_path: Path, out: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBOOK_HOME", str(MODEL_HOME))
    monkeypatch.setenv("OPENBOOK_KV_DISK", "0")
    log, file = tmp_path / "log", tmp_path / "answer.json"
    question = "When does the nightly backup start?"
    text = out.ok("ask", question, "--docs", ROOT / "examples" / "handbook", "--json", "--log", log)
    file.write_text(text)
    assert out("replay", file)[:2] == (0, "Identical: 01:40\n")
    out.ok("verify", log)
    assert out("replay", log)[:2] == (0, "1 of 1 answers are identical.\n")
    receipt = json.loads(text)["receipt"]
    assert receipt["strategy"] == "each"
    file.write_text(json.dumps(receipt | {"answer_digest": "0" * 64}))
    code, text, _ = out("replay", file, "--json")
    assert code == 1
    assert json.loads(text)["differences"] == ["The receipt was altered after it was written.", "The answer differs."]
    file.write_text(json.dumps(receipt | {"model": receipt["model"] | {"digest": "0" * 64}}))
    assert out("replay", file)[0] == 3  # no model has it
