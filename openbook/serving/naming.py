"""What the name of a model in a request asks for: `reader`, `reader:closed-book`, `reader:handbook`, `reader:handbook@3`.

So a client that can choose only a model can also choose a knowledge base and its version.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from openbook.serving.bodies import ScopeOptions
from openbook.serving.refusals import Refusal

CLOSED_BOOK = "closed-book"


@dataclass(frozen=True, slots=True)
class Named:
    """`knowledge_base`: None: the first. `as_of`: a version, time or tag; None: the newest."""

    closed_book: bool = False
    knowledge_base: str | None = None
    as_of: str | None = None

    def scope_options(self, also: ScopeOptions) -> ScopeOptions:
        """Together with what the body chooses. Raises Refusal when the same is chosen in both places."""
        chosen = {"knowledge_base": self.knowledge_base, "as_of": self.as_of}
        for key, value in chosen.items():
            if value is not None and getattr(also, key) is not None:
                message = f"{key} is in the model's name and in openbook.{key}; send it in one place only."
                raise Refusal(400, message, code="invalid_value", param=f"openbook.{key}")
        return also.model_copy(update={key: value for key, value in chosen.items() if value is not None})


def named(model: str, served: str, bases: Collection[str]) -> Named:
    """What `model` asks for of the model `served`, whose name may hold colons itself. Raises Refusal for no such name."""
    if model == served:
        return Named()
    name, colon, rest = model[: len(served)], model[len(served) : len(served) + 1], model[len(served) + 1 :]
    if name == served and colon == ":":
        if rest == CLOSED_BOOK:
            return Named(closed_book=True)
        if rest in bases:
            return Named(knowledge_base=rest)
        base, at, as_of = rest.rpartition("@")
        if at and as_of and base in bases:
            return Named(knowledge_base=base, as_of=as_of)
    there = ", ".join([served, f"{served}:{CLOSED_BOOK}", *(f"{served}:{base}" for base in bases)])
    message = f"The model {model[:100]!r} does not exist. There are: {there}; @VERSION after a knowledge base names a version."
    raise Refusal(404, message, code="model_not_found", param="model")
