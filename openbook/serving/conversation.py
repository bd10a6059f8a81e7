"""From the transcript in a request to the last question, and the turns that it may refer back to.

The whole conversation comes with each request and is forgotten after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openbook.serving.bodies import Message
from openbook.serving.refusals import Refusal

MAX_INSTRUCTION_CHARS = 2_000  # what a small model can follow beside passages, and little of its context


@dataclass(frozen=True, slots=True)
class Asked:
    """`turns`: the user's, before the question. `instruction`: how the caller wants to be answered. `earlier`: the number of earlier turns."""

    question: str
    turns: tuple[str, ...] = ()
    instruction: str = ""
    earlier: int = 0

    def warnings(self, *, closed_book: bool, trained: bool, rewritten: bool = False) -> tuple[str, ...]:
        """What is ignored in the transcript: by a reader `trained` on one instruction, or without passages."""
        found = []
        if self.instruction and trained:
            found.append(
                "The system message is ignored. This model follows only the instruction that it was trained with."
            )
        elif len(self.instruction) > MAX_INSTRUCTION_CHARS:
            found.append(
                f"The system message is ignored. It has {len(self.instruction):,} characters; the limit is "
                f"{MAX_INSTRUCTION_CHARS:,}."
            )
        if closed_book and self.earlier and not rewritten:
            found.append("The earlier turns are ignored. Without passages, the model gets only the last question.")
        return tuple(found)

    def heeded(self, *, trained: bool) -> str:
        """The instruction that the model is given."""
        return "" if trained or len(self.instruction) > MAX_INSTRUCTION_CHARS else self.instruction


def asked(messages: Sequence[Message], param: str = "messages", instructions: str | None = None) -> Asked:
    """The last message is the question; `param` is where they stand, `instructions` a system message beside them.

    Raises Refusal when it is not the user's.
    """
    last = messages[-1]
    if last.role != "user":
        message = f"The last message is the question, so its role must be 'user', not {last.role!r}."
        raise Refusal(400, message, code="invalid_value", param=f"{param}[{len(messages) - 1}].role")
    earlier = [m.text for m in messages[:-1] if m.role == "user" and m.text.strip()]
    told = [instructions or "", *(m.text for m in messages if m.role in ("system", "developer"))]
    instruction = "\n".join(text.replace("\0", " ").strip() for text in told if text.strip())
    before = sum(m.role in ("user", "assistant") and bool(m.text.strip()) for m in messages[:-1])
    return Asked(last.text, tuple(earlier), instruction, before)
