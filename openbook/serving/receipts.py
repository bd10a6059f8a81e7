"""GET /v1/receipts/{digest} and POST /v1/replay, if a log is kept. A receipt's digest cannot be guessed.

Reading needs access to every document named; replaying, to every passage, through any document.
"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter

from openbook.core.records import Digest, Receipt
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.documents import may_see
from openbook.proofs import receipts
from openbook.proofs.replay import replay
from openbook.serving.errors import ApiError
from openbook.serving.routing import Route, needs
from openbook.serving.schemas import Body, Reply
from openbook.serving.service import Call, CurrentCall

router = APIRouter(route_class=Route)


class ReplayBody(Body):
    id: str


class KeptReceipt(Reply):
    object: Literal["receipt"] = "receipt"
    id: str
    receipt: Receipt


class Replay(Reply):
    """`answer`: null if the text of a passage differs from the receipt's."""

    object: Literal["replay"] = "replay"
    id: str
    identical: bool
    differences: list[str]
    answer: str | None


@router.get("/v1/receipts/{digest}", **needs("read"))
def receipt(call: CurrentCall, digest: str) -> KeptReceipt:
    """The receipt with that digest."""
    found, base = _found(call, digest)
    if not may_see(base, found, call.caller.labels):
        raise _no_such_receipt()
    return KeptReceipt(id=found.digest, receipt=found)


@router.post("/v1/replay", **needs("read"))
def replay_receipt(call: CurrentCall, body: ReplayBody) -> Replay:
    """Answer again, with the receipt's model, if it is served, and the receipt's passages."""
    found, base = _found(call, body.id)
    made_by = (each for each in call.models.values() if each.identity.digest == found.model.digest)
    result = replay(found, next(made_by, call.model), base, call.caller.labels, call.stop)
    call.stop.check()
    if result.gone:  # or hidden from this caller: the sentences name documents
        raise _no_such_receipt()
    differences = list(result.differences)
    return Replay(id=body.id, identical=result.identical, differences=differences, answer=result.answer)


def _found(call: Call, digest: Digest) -> tuple[Receipt, KnowledgeBase | None]:
    """The receipt, and its knowledge base. Raises the same ApiError for missing and hidden receipts."""
    log = call.service.configuration.receipts
    found = receipts.find_receipt(log, digest, call.stop.check) if log else None
    if found is None or not call.caller.labels >= set(found.labels):
        raise _no_such_receipt()
    return found, next((base for base in call.service.bases.values() if base.id == found.knowledge_base), None)


def _no_such_receipt() -> ApiError:
    return ApiError(404, "There is no such receipt.", code="receipt_not_found", param="id")
