"""Signed documents: only what the key's holder signed, byte for byte, is verified."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.core.errors import ConfigError, ProofError
from openbook.core.records import BEYOND_REACH, BeyondReach, canonical_json
from openbook.proofs.receipts import parse_receipt
from openbook.proofs.signatures import (
    FORMAT,
    MAX_BYTES,
    AbsenceProof,
    Content,
    DeletedCounts,
    PurgeProof,
    ScannedFiles,
    UnreachedPaths,
    checked_key,
    fingerprint_of,
    public_key,
    sign,
    verify_signed,
)
from tests.conftest import printed
from tests.proofs.test_receipts import RECEIPTS

GOLDEN = Path(__file__).parents[1] / "golden"
GOLDEN_KEY = "cb44f40f6735d0732cd9fba6bf8660e514c25a0c339cef89d6b659ca16737ab6"
RECEIPT_KEY = "5699cd276ddc064612bedc364d1dc4156327ccc13db5973c06a9d29f9b50498f"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
COUNT = st.integers(0, 10**15)
DIGESTS = st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), max_size=3).map(tuple)
SCANNED = st.lists(st.builds(ScannedFiles, TEXT, COUNT, COUNT), max_size=3).map(tuple)
UNREACHED = st.lists(st.builds(UnreachedPaths, TEXT, DIGESTS), max_size=3).map(tuple)
LIMITS = st.lists(st.builds(BeyondReach, st.sampled_from(sorted(BEYOND_REACH)) | TEXT, TEXT), max_size=3).map(tuple)
ABSENCES = st.builds(AbsenceProof, TEXT, TEXT, TEXT, COUNT, TEXT, TEXT, SCANNED, UNREACHED, LIMITS)
PROOFS = st.builds(
    PurgeProof,
    openbook_version=TEXT,
    time=TEXT,
    knowledge_base=TEXT,
    knowledge_base_version=COUNT,
    paths=DIGESTS,
    texts=DIGESTS,
    deleted=st.builds(DeletedCounts, *[COUNT] * 7),
    scanned=SCANNED,
    out_of_reach=UNREACHED,
    models_that_learned_it=DIGESTS,
    store=TEXT,
    beyond_reach=LIMITS,
)
LIMITED = (
    BeyondReach("backups"),
    BeyondReach("write-ahead log", "Here these are segments up to 0000000100000000000000A1."),
)
PROOF = PurgeProof(
    openbook_version="0.1.0",
    time="2026-11-26T22:00:00+00:00",
    knowledge_base="0" * 32,
    knowledge_base_version=7,
    paths=("a" * 64,),
    texts=("b" * 64,),
    deleted=DeletedCounts(1, 2, 3, 4, 5, 6, 7),
    scanned=(ScannedFiles("home", 2, 300),),
    out_of_reach=(UnreachedPaths("weights", ("c" * 64,)),),
    models_that_learned_it=(),
    store="PostgreSQL and object storage",
    beyond_reach=LIMITED,
)
ROWS, IN_USE = (ScannedFiles("rows", 5, 700), ScannedFiles("home", 2, 300)), (UnreachedPaths("in use", ("c" * 64,)),)
LIMIT = (BeyondReach("numbers"),)
ABSENCE = AbsenceProof("0.1.0", "2026-12-01T22:00:00+00:00", "0" * 32, 7, "folder", "b" * 64, ROWS, IN_USE, LIMIT)
RECEIPT = parse_receipt((GOLDEN / "receipt-5.json").read_bytes())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@given(content=PROOFS | ABSENCES | RECEIPTS)
def test_what_was_signed_is_verified(home: Path, content: Content) -> None:
    signed = verify_signed(sign(home, content), public_key(home))
    assert signed.content == content
    assert signed.fingerprint == fingerprint_of(public_key(home))


def check_changes(data: bytes, key: str, places: Iterable[int]) -> None:
    for at in places:
        for new in {data[at] ^ 1, data[at] ^ 0x20, 0x20, 0x30}:  # among them another case of a digit, and a space
            if new != data[at]:
                with pytest.raises(ProofError):
                    verify_signed(data[:at] + bytes([new]) + data[at + 1 :], key)
        for other in (data[:at], data[:at] + data[at + 1 :], data[:at] + b" " + data[at:]):
            with pytest.raises(ProofError):
                verify_signed(other, key)
    with pytest.raises(ProofError):
        verify_signed(data + b"\n", key)


@pytest.mark.parametrize(("content", "with_key"), [(PROOF, True), (RECEIPT, False)])
def test_no_changed_cut_or_added_byte_is_verified(home: Path, content: Content, with_key: bool) -> None:
    data = sign(home, content)
    check_changes(data, public_key(home) if with_key else "", range(0, len(data), 17))


@pytest.mark.laws
@pytest.mark.parametrize(("content", "with_key"), [(PROOF, True), (RECEIPT, False)])
def test_no_byte_can_be_changed_cut_or_added_anywhere(home: Path, content: Content, with_key: bool) -> None:
    data = sign(home, content)
    check_changes(data, public_key(home) if with_key else "", range(len(data)))


def test_another_key_is_refused_and_a_signature_is_of_one_kind(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ProofError, match="another key"):
        verify_signed(sign(tmp_path, PROOF), public_key(home))
    mine, theirs = (json.loads(sign(each, PROOF)) for each in (home, tmp_path))
    for name in ("public_key", "fingerprint", "signature"):
        with pytest.raises(ProofError):
            verify_signed(canonical_json({**mine, name: theirs[name]}) + b"\n", public_key(home))
    with pytest.raises(ProofError, match="altered"):
        verify_signed(canonical_json({**mine, "kind": "receipt"}) + b"\n", public_key(home))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no", "not a JSON"),
        (b"NaN\n", "must be an object"),
        (b'{"a": "\\ud800"}', "lacks the key"),
        (b"{" + b" " * MAX_BYTES, "more than"),
    ],
)
def test_other_files_are_refused_in_a_sentence(data: bytes, said: str) -> None:
    with pytest.raises(ProofError, match=said):
        verify_signed(data, "0" * 64)


def _signed_with(home: Path, **changes: object) -> bytes:
    """Signed by the right key, though `sign` would not write it."""
    from openbook.proofs.signatures import _private_key

    value = {name: each for name, each in json.loads(sign(home, PROOF)).items() if name != "signature"}
    value |= changes
    return canonical_json({**value, "signature": _private_key(home).sign(canonical_json(value)).hex()}) + b"\n"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "openbook signed document 2"}, "reads 'openbook signed document 1'"),
        ({"format": 1}, "It.format must be text"),
        ({"kind": "other"}, "kind 'other'"),
        ({"content": {**dataclasses.asdict(PROOF), "more": 1}}, "unknown key"),
        ({"kind": "receipt"}, "lacks the key"),
        ({"kind": "absence"}, "content"),
        ({"fingerprint": "0" * 64}, "fingerprint"),
    ],
)
def test_unknown_signed_content_is_refused(home: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(ProofError, match=said):
        verify_signed(_signed_with(home, **changes), public_key(home))


def test_a_receipt_that_was_altered_before_is_refused(home: Path) -> None:
    with pytest.raises(ProofError, match="altered"):
        verify_signed(sign(home, dataclasses.replace(RECEIPT, strategy="each ")), public_key(home))


def test_goldens_are_verified_forever() -> None:
    assert verify_signed((GOLDEN / "signed-purge-2.json").read_bytes(), GOLDEN_KEY).content == PROOF
    assert verify_signed((GOLDEN / "signed-absence-1.json").read_bytes(), GOLDEN_KEY).content == ABSENCE
    receipt = (GOLDEN / "signed-receipt-5.json").read_bytes()
    assert verify_signed(receipt, RECEIPT_KEY).content == RECEIPT == parse_receipt(receipt)


def _key_of(home: str, keys: multiprocessing.Queue[str]) -> None:
    keys.put(public_key(Path(home)))


def test_threads_at_once_make_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = {*pool.map(public_key, [tmp_path] * 4)}
    assert found == {public_key(tmp_path)}
    assert sorted(path.name for path in (tmp_path / "signing").iterdir()) == [".lock", "ed25519.pem"]


@pytest.mark.laws
def test_processes_at_once_make_one_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    keys: multiprocessing.Queue[str] = context.Queue()
    processes = [context.Process(target=_key_of, args=(str(tmp_path), keys)) for _ in range(4)]
    for process in processes:
        process.start()
    found = {keys.get() for _ in processes}
    for process in processes:
        process.join()
    assert found == {public_key(tmp_path)}


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o277])
def test_only_its_owner_reads_the_key_and_a_readable_key_signs_nothing(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        public_key(tmp_path)
    finally:
        os.umask(before)
    key = tmp_path / "signing" / "ed25519.pem"
    assert [stat.S_IMODE(each.stat().st_mode) for each in (key.parent, key)] == [0o700, 0o600]
    key.chmod(0o640)
    with pytest.raises(ConfigError, match="Others can read"):
        sign(tmp_path, PROOF)


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_key_is_named_and_never_replaced(tmp_path: Path, content: bytes) -> None:
    public_key(tmp_path)
    path = tmp_path / "signing" / "ed25519.pem"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="holds no key"):
        sign(tmp_path, PROOF)
    assert path.read_bytes() == content


@pytest.mark.parametrize("key", ["01" + "00" * 31, "01" + "00" * 30 + "80", "ec" + "ff" * 30 + "7f"])
def test_a_key_that_needs_no_private_key_verifies_nothing(key: str) -> None:
    """One signature fits all that such a key is said to have signed."""
    value = {"content": dataclasses.asdict(PROOF), "fingerprint": fingerprint_of(key), "format": FORMAT}
    value |= {"kind": "purge", "public_key": key, "signature": "01" + "00" * 63}
    for known in ("", key):
        with pytest.raises(ProofError, match="malformed"):
            verify_signed(canonical_json(value) + b"\n", known)
    with pytest.raises(ConfigError, match="not a public key"):
        checked_key(key)


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "g" * 64, "A" * 64, "../key"])
def test_other_text_is_not_a_key(text: str) -> None:
    with pytest.raises(ConfigError, match="not a public key"):
        checked_key(text)


def test_only_signing_loads_cryptography(tmp_path: Path) -> None:
    code = (
        "import sys, importlib, openbook\n"
        "from openbook.cli import VERBS, run\n"
        "for verb in VERBS.values():\n"
        "    importlib.import_module('openbook.cli.' + verb.partition(':')[0])\n"
        "import openbook.proofs.purge, openbook.proofs.signatures, openbook.answers.ask\n"
        "run(['ask', 'What?', '--kb', sys.argv[1]])\n"
        "run(['purge', 'a.txt', '--kb', sys.argv[1]])\n"
        "print('cryptography' in sys.modules)"
    )
    assert printed(code, tmp_path / "none")[-1] == "False"
