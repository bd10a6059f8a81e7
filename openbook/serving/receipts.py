"""GET /v1/receipts/{id} and POST /v1/replay: only where the server keeps a log of receipts.

A receipt is found by its digest, which whoever got the answer has and nobody can guess.
"""

from __future__ import annotations

import re
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse

from openbook.errors import KnowledgeError
from openbook.knowledge import KnowledgeBase
from openbook.receipts import LOG_FILE, receipts_in
from openbook.records import Digest, Receipt
from openbook.replay import Replayed, replay
from openbook.serving.access import Caller
from openbook.serving.bodies import ReplayBody, parsed
from openbook.serving.refusals import Refusal
from openbook.serving.running import Stop
from openbook.serving.service import Service


async def receipt(service: Service, request: Request, caller: Caller) -> JSONResponse:
    digest = request.path_params["id"]
    found = await service.read(request.receive, lambda stop: _found(service, caller, digest, stop))
    return JSONResponse({"object": "receipt", "id": found.digest, "receipt": asdict(found)})


async def replay_receipt(service: Service, request: Request, caller: Caller) -> JSONResponse:
    """Answers again, with the model of this server and the passages of the receipt."""
    body = parsed(ReplayBody, await request.body())

    def work(stop: Stop) -> Replayed:
        found = _found(service, caller, body.id, stop)
        return replay(found, service.model, _base_of(service, found))

    result = await service.read(request.receive, work)
    value = {"identical": result.identical, "differences": result.differences, "answer": result.answer}
    return JSONResponse({"object": "replay", "id": body.id, **value})


def _found(service: Service, caller: Caller, digest: Digest, stop: Stop) -> Receipt:
    """Raises Refusal, the same whether there is none or it is not the caller's to see."""
    folder = service.configuration.receipts
    missing = Refusal(404, "There is no such receipt.", code="receipt_not_found", param="id")
    if folder is None or not re.fullmatch(r"[0-9a-f]{64}", digest) or not (folder / LOG_FILE).exists():
        raise missing
    for each in receipts_in(folder):
        if stop():
            stop.check()
        if each.digest == digest:
            if _may_see(service, caller, each):
                return each
            break
    raise missing


def _may_see(service: Service, caller: Caller, found: Receipt) -> bool:
    """Whether the caller holds what the asker held, and may see, as things are now, every document that was read."""
    if not caller.labels >= set(found.labels):
        return False
    if not found.passages:
        return True
    base = _base_of(service, found)
    if base is None:
        return False
    try:
        seen = set(base.documents(caller.scope(found.knowledge_base_version)))
    except KnowledgeError:  # that version is not kept any more
        seen = set(base.documents(caller.scope()))
    return all(passage.document in seen for passage in found.passages)


def _base_of(service: Service, found: Receipt) -> KnowledgeBase | None:
    return next((base for base in service.bases.values() if base.id == found.knowledge_base), None)
