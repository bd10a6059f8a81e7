"""What answers and purges can show to others, and that it can be found, verified and done again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openbook.cli import context, receipts
from openbook.core.records import Receipt
from openbook.knowledge import KnowledgeBase
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
    out.ok("purge", secret, "--yes", "--proof", proof)
    assert str(tmp_path) not in proof.read_text()
    key = out.json("verify", "--show-key")["public_key"]
    assert key == public_key(own_home)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setenv("OPENBOOK_HOME", str(tmp_path / "elsewhere"))
    golden = out.ok("verify", GOLDEN / "signed-purge-2.json", "--key", GOLDEN_KEY)
    assert golden.index("Does not prove: write-ahead log. ") < golden.index("of the knowledge base 0")
    assert out.json("verify", proof, "--key", key)["verified"] is True
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


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
