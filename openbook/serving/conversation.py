"""From the transcript in a request to the last question, and the turns that it may refer back to.

The whole conversation comes with each request and is forgotten after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openbook.serving.bodies import Message
from openbook.serving.refusals import Refusal


@dataclass(frozen=True, slots=True)
class Asked:
    """`turns`: of the user, before the question. `notes` say what of the transcript was not used. `earlier`: so many turns came before."""

    question: str
    turns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    earlier: int = 0

    def unused_by(self, *, closed_book: bool, rewritten: bool) -> tuple[str, ...]:
        """The notes of an answer: without passages nothing is searched for, so the turns before serve a rewrite alone."""
        if not closed_book or rewritten or not self.earlier:
            return self.notes
        return (
            *self.notes,
            "The earlier turns were not used: without passages the model is asked the last question alone.",
        )


def asked(messages: Sequence[Message], param: str = "messages", instructions: str | None = None) -> Asked:
    """The last message is the question; `param` is where they stand, `instructions` a system message beside them.

    Raises Refusal when it is not the user's.
    """
    last = messages[-1]
    if last.role != "user":
        message = f"The last message must be of the role 'user', not {last.role!r}: it is the question."
        raise Refusal(400, message, code="invalid_value", param=f"{param}[{len(messages) - 1}].role")
    earlier = [m.text for m in messages[:-1] if m.role == "user" and m.text.strip()]
    told = bool(instructions and instructions.strip()) or any(
        m.role in ("system", "developer") and m.text.strip() for m in messages
    )
    note = "The system message was not used: the model reads passages under the instruction it was made for."
    before = sum(m.role in ("user", "assistant") and bool(m.text.strip()) for m in messages[:-1])
    return Asked(last.text, tuple(earlier), (note,) if told else (), before)
