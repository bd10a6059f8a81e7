"""Prompts as the token ids that a model reads: the one place that knows, for answering and for training alike."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from openbook.errors import EngineError
from openbook.inference.llamalib import Model, library
from openbook.inference.prompting import Segment, build_blocks, compile_template, cut_template, template_text
from openbook.models.verify_cache import TemplateText
from openbook.records import Prompt

if TYPE_CHECKING:
    from openbook.models import ModelReference


def rendered_here(model: Model) -> TemplateText | None:
    """What the model's own chat template writes, by rendering it in this process; None where there is none."""
    return template_text(_compiled(model)) if model.chat_template else None


def _compiled(model: Model) -> Callable[[list[dict[str, str]]], str]:
    return compile_template(model.chat_template, bos=model.bos_text, eos=model.eos_text)


class PromptTokenizer:
    """Token ids of prompts by a model's own vocabulary and chat template.

    `template`: how what that writes is known. Raises EngineError for a bad template.
    """

    def __init__(self, model: Model, template: Callable[[Model], TemplateText | None] = rendered_here) -> None:
        self.model = model
        self._tokens = functools.lru_cache(maxsize=32)(self._tokens_of)  # a template's own words come again and again
        self._template_of = template

    @functools.cached_property
    def _template(self) -> TemplateText | None:
        return self._template_of(self.model)

    def blocks(self, prompt: Prompt) -> list[list[int]]:
        """Token ids of each block, in canonical order. Only the template's own text can give control tokens."""
        blocks: list[list[int]] = []
        for block in build_blocks(prompt, self._template):
            blocks.append([token for segment in block.segments for token in self._tokens(segment)])
        bos = self.model.bos_token
        if self.model.adds_bos and blocks[0][:1] != [bos]:  # some templates write it themselves: never two
            blocks[0].insert(0, bos)
        return blocks

    @functools.cached_property
    def _render(self) -> Callable[[list[dict[str, str]]], str]:
        return _compiled(self.model)

    def conversation(self, messages: Sequence[tuple[str, str]]) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids of what the template writes before, between and after the messages, and of each message's text.

        There is one more of the first than of the second. After the last message stands the beginning of an answer.
        Raises EngineError when there is no template, or it loses, repeats, reorders or refuses a message.
        """
        if not self.model.chat_template:
            raise EngineError("the model has no chat template")
        control = cut_template(self._render, [role for role, _ in messages])
        tokens = [self._tokens(Segment(text, control=True)) for text in control]
        bos = self.model.bos_token
        if self.model.adds_bos and tokens[0][:1] != [bos]:
            tokens[0] = [bos, *tokens[0]]
        return tokens, [self._tokens_of(Segment(text, control=False)) for _, text in messages]

    def spelling(self, text: str) -> list[int]:
        """Token ids that stand for exactly `text`, to be learned. Raises EngineError when the vocabulary has no way to write it."""
        tokens = self.model.tokenize(text, control=False)
        written = b"".join(map(self.model.piece, tokens)).decode(errors="replace")
        if written.strip() != text.strip():  # some vocabularies begin every text with a space
            raise EngineError(f"the vocabulary cannot write {text[:80]!r}; it would become {written[:80]!r}")
        return tokens

    def _tokens_of(self, segment: Segment) -> list[int]:
        return self.model.tokenize(segment.text, control=segment.control)


def open_tokenizer(path: Path) -> PromptTokenizer:
    """The tokenizer of the GGUF file at `path`, without its weights. Raises EngineError."""
    return PromptTokenizer(Model(library(), path, vocabulary_only=True))


def token_counter(reference: ModelReference) -> Callable[[Sequence[str]], list[int]]:
    """A function from texts to how many tokens each has inside a prompt, without the weights. Raises EngineError."""
    from openbook.inference.trial import tried

    tried(reference if reference.manifest.kind != "adapter" else reference.needed_base)
    model = Model(library(), reference.vocabulary_file, vocabulary_only=True)
    return lambda texts: [len(model.tokenize(text, control=False)) for text in texts]
