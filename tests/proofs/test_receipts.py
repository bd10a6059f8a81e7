from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.core.errors import ReceiptError, StorageError
from openbook.core.records import (
    Decoding,
    EmbedderIdentity,
    ModelIdentity,
    PassageReference,
    Receipt,
    canonical_json,
    sha256_hex,
)
from openbook.proofs.receipts import FIRST, LOG_FILE, append_receipt, is_altered, parse_receipt, verify_log

GOLDEN = Path(__file__).parents[1] / "golden"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
MODEL = st.builds(ModelIdentity, TEXT, TEXT, st.sampled_from(["verified", "claimed"]))
RECEIPTS = st.builds(
    Receipt,
    format=st.just(5),
    openbook_version=TEXT,
    model=MODEL,
    numeric_class=TEXT,
    embedder=st.none() | st.builds(EmbedderIdentity, TEXT, TEXT, st.integers(1, 4096)),
    knowledge_base=st.none() | TEXT,
    knowledge_base_version=st.none() | st.integers(0, 10**9),
    question=TEXT,
    question_digest=TEXT,
    strategy=TEXT,
    passages=st.lists(st.builds(PassageReference, TEXT, TEXT, TEXT), max_size=3).map(tuple),
    prompt_digest=TEXT,
    decoding=st.builds(
        Decoding,
        st.floats(0, 5),
        st.floats(0, 1),
        st.integers(0, 2**60),
        st.integers(1, 99),
        st.tuples(TEXT),
        st.booleans(),
        TEXT,
    ),
    answer_digest=TEXT,
    where=TEXT,
    labels=st.lists(TEXT, max_size=2).map(tuple),
    reranker=st.none() | MODEL,
    instruction=TEXT,
    certainty=st.none() | st.floats(0, 1),
    confidence=TEXT,
).map(lambda r: dataclasses.replace(r, question_digest=sha256_hex(r.question.encode())).sealed())


def places(value: object, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Of every value in a JSON document that holds no others."""
    if isinstance(value, dict):
        return [place for key, each in value.items() for place in places(each, (*at, key))]
    if isinstance(value, list):
        return [place for i, each in enumerate(value) for place in places(each, (*at, i))]
    return [at]


@given(RECEIPTS)
def test_receipts_round_trip(receipt: Receipt) -> None:
    assert parse_receipt(canonical_json(dataclasses.asdict(receipt))) == receipt
    assert not is_altered(receipt)


@given(RECEIPTS, st.data())
def test_every_alteration_of_every_field_is_refused_or_detected(receipt: Receipt, data: st.DataObject) -> None:
    value: Any = json.loads(canonical_json(dataclasses.asdict(receipt)))
    place = data.draw(st.sampled_from(places(value)))
    holder: Any = value
    for step in place[:-1]:
        holder = holder[step]
    old = holder[place[-1]]
    other: st.SearchStrategy[Any] = (
        TEXT | st.integers(0, 10**6) | st.none() | st.floats(0, 1) | st.booleans() | st.just([]) | st.just({})
    )
    new = data.draw(other.filter(lambda x: x != old))
    holder[place[-1]] = new
    try:
        found = parse_receipt(json.dumps(value))
    except ReceiptError:
        return
    assert is_altered(found)


def test_the_golden_receipt_opens() -> None:
    receipt = parse_receipt((GOLDEN / "receipt-5.json").read_bytes())
    assert (receipt.question, receipt.passages[0].document) == ("Who opened the bridge?", "/docs/bridge.txt")
    assert not is_altered(receipt)
    assert is_altered(dataclasses.replace(receipt, question="Who closed the bridge?"))


@pytest.mark.parametrize(
    ("version", "said"),
    [(1, "it was made by a development version of OpenBook, so it cannot be replayed"), (99, "a later version")],
)
def test_a_receipt_of_another_format_is_refused_by_name(version: int, said: str) -> None:
    with pytest.raises(ReceiptError, match=rf"has format {version}, not 5: .*{said}"):
        parse_receipt(canonical_json(dataclasses.asdict(dataclasses.replace(receipt_of(0), format=version))))


@pytest.mark.parametrize(("key", "value"), [("where", "\ud800"), ("decoding", {"temperature": math.nan})])
def test_a_receipt_that_json_cannot_hold_is_refused(key: str, value: Any) -> None:
    receipt = json.loads((GOLDEN / "receipt-5.json").read_bytes())
    receipt[key] = {**receipt[key], **value} if isinstance(value, dict) else value
    with pytest.raises(ReceiptError, match="holds what JSON cannot"):
        parse_receipt(json.dumps(receipt))


def test_an_answer_that_is_not_that_of_its_receipt_is_refused() -> None:
    receipt = dataclasses.asdict(receipt_of(0)) | {"answer_digest": sha256_hex(b"28")}
    assert parse_receipt(json.dumps({"answer": "28", "receipt": receipt})).answer_digest == sha256_hex(b"28")
    with pytest.raises(ReceiptError, match="not the one of its receipt"):
        parse_receipt(json.dumps({"answer": "97", "receipt": receipt}))


def receipt_of(number: int) -> Receipt:
    receipt = parse_receipt((GOLDEN / "receipt-5.json").read_bytes())
    question = f"Question {number}?"
    return dataclasses.replace(receipt, question=question, question_digest=sha256_hex(question.encode())).sealed()


def test_a_log_grows_and_verifies_and_its_end_is_found_behind_long_lines(tmp_path: Path) -> None:
    heads = [append_receipt(tmp_path / "log", receipt_of(i)) for i in range(5)]
    for head in heads:
        assert verify_log(tmp_path / "log", head) == (5, heads[-1])
    long = dataclasses.replace(receipt_of(0), where="x" * 300_000).sealed()
    for receipt in (long, long, receipt_of(5)):
        append_receipt(tmp_path / "log", receipt)
    assert verify_log(tmp_path / "log")[0] == 8


@given(st.data())
def test_no_line_can_be_changed_removed_or_inserted(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("log")
    heads = [append_receipt(folder, receipt_of(i)) for i in range(4)]
    path = folder / LOG_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    action = data.draw(st.sampled_from(["flip", "out", "twice", "swap", "cut"]))
    at = data.draw(st.integers(0, 2))
    if action == "flip":
        line = bytearray(lines[at])
        line[data.draw(st.integers(0, len(line) - 1))] ^= 1 << data.draw(st.integers(0, 6))
        lines[at] = bytes(line)
    elif action == "out":
        del lines[at]
    elif action == "twice":
        lines.insert(at, lines[at])
    elif action == "swap":
        lines[at], lines[at + 1] = lines[at + 1], lines[at]
    else:
        lines = lines[: at + 1]  # the chain alone cannot tell; who kept a digest can
    path.write_bytes(b"".join(lines))
    with pytest.raises(ReceiptError):
        verify_log(folder, heads[-1])


def test_an_incomplete_line_is_named_and_the_next_receipt_replaces_it(tmp_path: Path) -> None:
    append_receipt(tmp_path, receipt_of(0))
    with (tmp_path / LOG_FILE).open("ab") as stream:
        stream.write(b'{"format":1,"numb')
    with pytest.raises(ReceiptError, match=r"Line 2 .* ends in the middle"):
        verify_log(tmp_path)
    append_receipt(tmp_path, receipt_of(1))
    with (tmp_path / LOG_FILE).open("ab") as stream:
        stream.write(bytes(100))
    append_receipt(tmp_path, receipt_of(2))
    assert verify_log(tmp_path)[0] == 3


def test_a_line_that_lost_its_line_feed_is_kept(tmp_path: Path) -> None:
    path = tmp_path / LOG_FILE
    path.touch()
    assert verify_log(tmp_path, FIRST) == (0, FIRST)  # any log holds what precedes its first line
    for number in range(2):
        append_receipt(tmp_path, receipt_of(number))
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    append_receipt(tmp_path, receipt_of(2))
    assert verify_log(tmp_path)[0] == 3
    path.write_bytes(path.read_bytes().replace(b'{"format":1', b'{"format":2'))
    with pytest.raises(ReceiptError, match=r"Line 1 of \S+: this version of OpenBook reads format 1, not 2\.$"):
        verify_log(tmp_path)


@pytest.mark.parametrize("text", ["my diary\n", "my diary", '{"mine": "precious"}'])
def test_a_file_that_is_not_a_log_is_not_written_to(text: str, tmp_path: Path) -> None:
    (tmp_path / LOG_FILE).write_text(text)
    with pytest.raises(
        ReceiptError,
        match=re.escape(f"does not end with a line of a log of receipts; see: openbook verify {tmp_path}"),
    ):
        append_receipt(tmp_path, receipt_of(0))
    assert (tmp_path / LOG_FILE).read_text() == text
    with pytest.raises(StorageError, match="Cannot use the log"):
        append_receipt(tmp_path / LOG_FILE, receipt_of(0))
    with pytest.raises(StorageError):
        verify_log(tmp_path / "nowhere")


def test_two_threads_make_one_chain(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda first: _write(str(tmp_path), first), (0, 100)))
    assert verify_log(tmp_path)[0] == 40


def _write(folder: str, first: int) -> None:
    for number in range(first, first + 20):
        append_receipt(Path(folder), receipt_of(number))


@pytest.mark.laws
def test_two_writers_make_one_chain(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write, args=(str(tmp_path), first)) for first in (0, 100)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert verify_log(tmp_path)[0] == 40
