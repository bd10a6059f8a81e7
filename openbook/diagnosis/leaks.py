"""Does anything of one request appear in another? Invented codes are told in some requests and looked for in all others.

First the questions are asked alone and with their passages. Then, in turn and again in parallel threads: one request is told
a code in a passage and asked for it, others ask the same without that passage, and the questions are asked again. A code
that was told elsewhere, or an answer that is not byte for byte what it was before, is a leak.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from openbook.diagnosis.examining import Bench, ask_alone
from openbook.diagnosis.observations import Said
from openbook.diagnosis.probing import Case, given, made_up, read
from openbook.diagnosis.summary import Share, share
from openbook.inference.frozen import Cancelled
from openbook.records import Hit, Passage, sha256_hex

MOST_CASES = 16  # questions that are asked between the canaries
THREADS = 4
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"


@dataclass(frozen=True, slots=True)
class Canary:
    """A code that no document holds, and the one passage that tells it."""

    code: str
    question: str
    hit: Hit


@dataclass(frozen=True, slots=True)
class Request:
    """`about`: of a question of the user the id, of a canary its code. `told`: the code stands in its passage."""

    kind: Literal["told", "told another", "untold", "alone", "with passages"]
    about: str
    told: bool = False


@dataclass(frozen=True, slots=True)
class Leak:
    """A code that appeared in a request that was not told it, or (`code` empty) an answer that changed."""

    request: Request
    code: str
    answer: str
    before: str = ""


@dataclass(frozen=True, slots=True)
class Leaks:
    """`leaking`: of the requests after the first code was told, those that hold a code of another. `changed`: of the answers
    to the user's questions, those that differ from before. `told`: of the requests that were told a code, those that said
    it; where none does, nothing could be seen.
    """

    leaking: Share
    changed: Share
    closed_book_changed: Share
    told: Share
    failed: int
    found: tuple[Leak, ...]

    @property
    def complete(self) -> bool:
        """Whether every request was answered, so that asking again would show no more."""
        return not self.failed and self.told.of > 0

    def rows(self) -> list[tuple[str, Share]]:
        return [
            ("requests that hold a code of another", self.leaking),
            ("answers that differ from before", self.changed),
            ("closed-book answers that differ from before", self.closed_book_changed),
            ("told a code: says it", self.told),
        ]

    def meaning(self) -> str:
        if not self.leaking.of:
            return "No request was made between the codes, so nothing can be said about leaks."
        if self.leaking.count:
            return f"Requests are not separate: {self.leaking} hold a code that only another request was told."
        text = f"Nothing of one request appeared in another: {self.leaking} hold a code of another"
        if self.changed.count:
            return f"{text}, but {self.changed} answers are not what they were before: the model does not always answer the same."
        if self.changed.of:
            text += ", and all answers that could be compared are byte for byte what they were before."
        else:
            text += ". No answer could be compared with the one before."
        if self.told.count:
            return text
        if self.told.of:
            return f"{text} But the model never said the code that it was told, so little could be seen."
        return f"{text} No request that was told a code was answered, so little could be seen."


def leaks(cases: Sequence[Case], bench: Bench, cancelled: Cancelled) -> Leaks:
    """Raises Stopped."""
    cases = cases[:MOST_CASES]
    ended = threading.Event()

    def given_up() -> bool:
        return ended.is_set() or cancelled()

    canaries = [canary_of(bench.base.id, number) for number in range(len(cases))]
    asked = [_own(case, bench, given_up) for case in cases]
    before = {request: ask() for requests in asked for request, ask in requests}
    turns = [
        [*_of_canary(canary, canaries[number - 1], bench, given_up), *asked[number]]
        for number, canary in enumerate(canaries)
    ]
    after = [(request, ask()) for turn in turns for request, ask in turn]
    after += _in_parallel([request for turn in turns for request in turn], ended)
    after += [(request, ask()) for requests in asked for request, ask in requests]
    return _counted(before, after, [canary.code for canary in canaries])


_Ask = tuple[Request, Callable[[], Said]]


def _in_parallel(requests: Sequence[_Ask], ended: threading.Event) -> list[tuple[Request, Said]]:
    """What was said, in the order of the requests. When one ends by an exception, or Ctrl-C comes, the others are `ended`."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        running = [(request, pool.submit(ask)) for request, ask in requests]
        return [(request, answer.result()) for request, answer in running]
    except BaseException:
        ended.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _own(case: Case, bench: Bench, cancelled: Cancelled) -> list[_Ask]:
    """The user's question, alone and with its passages."""
    question, hits = case.question, given(bench, case.ranked)
    return [
        (Request("alone", question.id), lambda: ask_alone(bench, question.question, cancelled)),
        (Request("with passages", question.id), lambda: read(bench, question.question, hits, cancelled).said),
    ]


def _of_canary(canary: Canary, other: Canary, bench: Bench, cancelled: Cancelled) -> list[_Ask]:
    """Asked for the code where a passage tells it; then alone, and where another passage tells of another."""
    hits = [canary.hit] if other == canary else [other.hit]
    return [
        (
            Request("told", canary.code, told=True),
            lambda: read(bench, canary.question, [canary.hit], cancelled).said,
        ),
        (Request("untold", canary.code), lambda: ask_alone(bench, canary.question, cancelled)),
        (
            Request("told another", other.code, told=True),
            lambda: read(bench, canary.question, hits, cancelled).said,
        ),
    ]


def canary_of(key: str, number: int) -> Canary:
    """The same for the same knowledge base and number, and in no document."""
    digest = int(sha256_hex(f"canary {key} {number}".encode())[:16], 16)
    letters = "".join(_LETTERS[digest // 20**place % 20] for place in range(5))
    code = f"{letters}-{1000 + digest % 9000}"
    text = f"The access code of locker {number + 1} is {code}.\n"
    passage = Passage(f"canary-{number}", "canary.txt", "Lockers", 0, len(text), None, (), text)
    return Canary(code, f"What is the access code of locker {number + 1}?", made_up(passage))


def holds_code(text: str, code: str) -> bool:
    """Whatever the case, and whatever stands between its characters."""
    return _plain(code) in _plain(text)


def _plain(text: str) -> str:
    return re.sub(r"[\W_]", "", text).casefold()


def _counted(before: dict[Request, Said], after: Sequence[tuple[Request, Said]], codes: Sequence[str]) -> Leaks:
    answers = [(request, said) for request, said in after if not said.failure]
    leaking = [(request, said, _strange(request, said.text, codes)) for request, said in answers]
    found = [Leak(request, code, said.text) for request, said, strange in leaking for code in strange]
    again = [(request, said, before[request]) for request, said in answers if request in before]
    again = [(request, now, then) for request, now, then in again if not then.failure]
    changed = [Leak(request, "", now.text, then.text) for request, now, then in again if now.text != then.text]
    alone = [request for request, _, _ in again if request.kind == "alone"]
    told = [(request, said) for request, said in answers if request.kind == "told"]
    return Leaks(
        share(sum(bool(strange) for _, _, strange in leaking), len(answers)),
        share(len(changed), len(again)),
        share(sum(leak.request.kind == "alone" for leak in changed), len(alone)),
        share(sum(holds_code(said.text, request.about) for request, said in told), len(told)),
        len(after) - len(answers) + sum(bool(said.failure) for said in before.values()),
        (*found, *changed),
    )


def _strange(request: Request, text: str, codes: Sequence[str]) -> list[str]:
    """The codes in an answer that its request was not told."""
    return [code for code in codes if holds_code(text, code) and not (request.told and code == request.about)]
