"""GET /v1/receipts/{id} and POST /v1/replay: only where the server keeps a log of receipts.

A receipt is found by its digest, which comes with the answer and cannot be guessed. It is shown to callers who may see
every document that it names, and answered again for callers who may read every passage, through any document.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse

from openbook.errors import KnowledgeError
from openbook.knowledge import KnowledgeBase
from openbook.records import Digest, Receipt
from openbook.replay import ReplayResult, passage_of, replay
from openbook.serving.access import Caller
from openbook.serving.bodies import ReplayBody, parsed
from openbook.serving.lookup import ReceiptLookup
from openbook.serving.refusals import Refusal
from openbook.serving.running import Stop
from openbook.serving.service import Service
from openbook.serving.stopping import go_on


async def receipt(service: Service, request: Request, caller: Caller) -> JSONResponse:
    """The receipt of that digest."""
    digest, lookup = request.path_params["id"], request.app.state.receipts
    found = await service.read(request.receive, lambda stop: _found(service, lookup, caller, digest, stop, _may_see))
    return JSONResponse({"object": "receipt", "id": found.digest, "receipt": asdict(found)})


async def replay_receipt(service: Service, request: Request, caller: Caller) -> JSONResponse:
    """Answers again, with the model of this server and the passages of the receipt."""
    body, lookup = parsed(ReplayBody, await request.body()), request.app.state.receipts

    def work(stop: Stop) -> ReplayResult:
        found = _found(service, lookup, caller, body.id, stop, _may_read)
        go_on(stop)
        result = replay(found, service.model, _base_of(service, found), caller.labels, stop)
        go_on(stop)
        if result.gone:  # closed or purged since it was looked for; the sentence names documents
            raise _no_such_receipt()
        return result

    result = await service.read(request.receive, work)
    value = {"identical": result.identical, "differences": result.differences, "answer": result.answer}
    return JSONResponse({"object": "replay", "id": body.id, **value})


def _found(
    service: Service,
    lookup: ReceiptLookup,
    caller: Caller,
    digest: Digest,
    stop: Stop,
    may: Callable[[KnowledgeBase, Caller, Receipt], bool],
) -> Receipt:
    """Raises the same Refusal for a missing receipt and for one that the caller may not see."""
    found = lookup.find(digest, lambda: go_on(stop))
    if found is None or not _is_open(service, caller, found, may):
        raise _no_such_receipt()
    return found


def _no_such_receipt() -> Refusal:
    return Refusal(404, "There is no such receipt.", code="receipt_not_found", param="id")


def _is_open(
    service: Service, caller: Caller, found: Receipt, may: Callable[[KnowledgeBase, Caller, Receipt], bool]
) -> bool:
    """Whether the caller holds what the asker held and, as things are now, `may`."""
    if not caller.labels >= set(found.labels):
        return False
    if not found.passages:
        return True
    base = _base_of(service, found)
    return base is not None and may(base, caller, found)


def _may_see(base: KnowledgeBase, caller: Caller, found: Receipt) -> bool:
    """Every document that the receipt names."""
    try:
        seen = set(base.documents(caller.scope(found.knowledge_base_version)))
    except KnowledgeError:  # that version is not kept any more
        seen = set(base.documents(caller.scope()))
    return all(passage.document in seen for passage in found.passages)


def _may_read(base: KnowledgeBase, caller: Caller, found: Receipt) -> bool:
    """Every passage that was read, through some document."""
    version = found.knowledge_base_version
    return all(passage_of(base, each, version, caller.labels) is not None for each in found.passages)


def _base_of(service: Service, found: Receipt) -> KnowledgeBase | None:
    return next((base for base in service.bases.values() if base.id == found.knowledge_base), None)
