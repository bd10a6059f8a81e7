"""How large the passages of a knowledge base are: chosen when it is made, recorded in it, the same ever after."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from openbook.errors import ConfigError, KnowledgeBaseInvalid
from openbook.knowledge.splitting import SPLITTER_VERSION, TokenCounter, split
from openbook.records import Content, Digest, PassageSpan

PASSAGE_CHARS = 450  # about 110 tokens; a small reader answers better from little text (docs/log.md)


@dataclass(frozen=True, slots=True)
class Sizing:
    """At most `size` characters or tokens a passage, of which up to `overlap` also end the passage before.

    Tokens are those of the reader whose model digest is `tokenizer`, named `reader`.
    """

    unit: Literal["characters", "tokens"] = "characters"
    size: int = PASSAGE_CHARS
    overlap: int = 0
    tokenizer: Digest = ""
    reader: str = ""

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.overlap <= self.size // 2:
            raise ConfigError(
                f"Passages of {self.size} {self.unit} with an overlap of {self.overlap} make no sense: "
                "the size must be at least 1 and the overlap at most half of it."
            )

    @property
    def code(self) -> str:
        """What a content depends on besides its bytes and the reader."""
        plain = f"splitter {SPLITTER_VERSION} {self.size}"
        more = [f"{self.unit} {self.tokenizer}"] if self.unit == "tokens" else []
        more += [f"overlap {self.overlap}"] if self.overlap else []
        return " ".join([plain, *more])

    def split(self, content: Content, count: TokenCounter | None) -> list[PassageSpan]:
        """The passages of `content`; `count` counts tokens as the reader does. Raises ConfigError when it is missing."""
        if self.unit == "characters":
            return split(content, passage_chars=self.size, overlap_chars=self.overlap)
        if count is None:
            raise ConfigError(
                f"This knowledge base counts passages in tokens of {self.reader!r}; that model is needed to add to it."
            )
        return split(content, passage_tokens=self.size, overlap_tokens=self.overlap, count=count)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Sizing:
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise KnowledgeBaseInvalid(f"The knowledge base is damaged: its passage size is {text[:80]!r}.") from error
