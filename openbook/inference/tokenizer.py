"""From a `Prompt` to token ids, for answering and for training alike.

A model's chat template is rendered once with placeholders for the texts, and split at them. So only the template's own
words may become control tokens; text from documents and users never does. A template is a program that may not end:
unknown ones are rendered only in the model's trial (`trial`).

A prompt is a sequence of blocks: the system block, a block for each passage, the question block. Each is tokenized on its
own, so its tokens are a function of the block alone and its evaluation can be reused.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeAlias

from openbook.core.errors import EngineError
from openbook.core.records import Prompt
from openbook.inference.llamalib import Model
from openbook.models.verify import TemplateText, Trial

MAX_TEMPLATE_TEXT_CHARS = 1 << 16
# Private-use characters delimit placeholders. A template that writes them is refused.
_OPEN, _CLOSE = "\ue000", "\ue001"
_PLACEHOLDER = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")

Render: TypeAlias = Callable[[list[dict[str, str]]], str]
Segment: TypeAlias = tuple[str, bool]
"""(text, control): control text comes from the model's template and may hold control tokens; other text never does."""


def compile_template(source: str, *, bos: str = "", eos: str = "") -> Render:
    """Return the chat template as a sandboxed function of the messages. Raises EngineError.

    Models are asked not to think. `strftime_now` is undefined on purpose: with today's date, a prompt would not be a function of
    the request. A template that requires it writes "unknown".
    """
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = raise_exception
    try:
        template = environment.from_string(source)
    except MemoryError:
        raise
    except Exception as error:  # not only TemplateError: deep nesting fails in Python's own compiler
        raise EngineError(
            f"The model's chat template does not compile: {error}. Import a file with a valid one."
        ) from error

    def render(messages: list[dict[str, str]]) -> str:
        given: dict[str, object] = {"messages": messages, "bos_token": bos, "eos_token": eos}
        given |= {"add_generation_prompt": True, "enable_thinking": False}
        try:
            try:
                return template.render(given)
            except jinja2.UndefinedError as error:
                if "strftime_now" not in str(error):
                    raise
                return template.render(given, strftime_now=lambda _: "unknown")
        except (jinja2.TemplateError, MemoryError):
            raise
        except Exception as error:  # a template is a program, which can fail in any way
            raise EngineError(
                f"The model's chat template fails: {error} ({type(error).__name__}). Import a file with a valid one."
            ) from error

    return render


def cut_template(render: Render, roles: Sequence[str]) -> list[str]:
    """The template's text before, between and after messages of these roles. It does not see their texts.

    Raises EngineError if it loses, repeats, reorders or refuses a message.
    """
    marks = [f"{_OPEN}{i}{_CLOSE}" for i in range(len(roles))]
    messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
    return _cut(render, messages, len(roles))


def _cut(render: Render, messages: list[dict[str, str]], texts: int) -> list[str]:
    import jinja2

    try:
        pieces = _PLACEHOLDER.split(render(messages))  # control, index, control, index, control
    except jinja2.TemplateError as error:
        roles = " and ".join(message["role"] for message in messages)
        raise EngineError(f"The model's chat template refuses messages of the roles {roles}: {error}.") from error
    if pieces[1::2] != [str(i) for i in range(texts)]:
        raise EngineError("The model's chat template loses, repeats or reorders the messages; it cannot be used.")
    return pieces[::2]


def template_text(render: Render) -> TemplateText:
    """The template's text around a system and a user message. Raises EngineError."""
    try:
        before, between, after = cut_template(render, ["system", "user"])
    except EngineError as error:
        import jinja2

        if not isinstance(error.__cause__, jinja2.TemplateError):
            raise
        # Some templates have no system role; the instruction then opens the user's message.
        both = f"{_OPEN}0{_CLOSE}\n\n{_OPEN}1{_CLOSE}"
        before, between, after = _cut(render, [{"role": "user", "content": both}], 2)
    written = before + between + after
    if len(written) > MAX_TEMPLATE_TEXT_CHARS or any("\ud800" <= char <= "\udfff" for char in written):
        raise EngineError(
            f"The model's chat template writes more than {MAX_TEMPLATE_TEXT_CHARS} characters around two messages, or half a character; "
            "it cannot be used."
        )
    return before, between, after


def build_blocks(prompt: Prompt, template: TemplateText | None) -> list[list[Segment]]:
    """The segments of each block in canonical order. Without a template the texts are joined."""
    if template is None:
        return [
            [(prompt.system + "\n\n", False)],
            *([(passage, False)] for passage in prompt.passages),
            [(prompt.question + "\nAnswer:", False)],
        ]
    before, between, after = template
    return [
        [(before, True), (prompt.system, False), (between, True)],
        *([(passage, False)] for passage in prompt.passages),
        [(prompt.question, False), (after, True)],
    ]


def template_of(model: Model) -> TemplateText | None:
    """Render the model's own template in this process."""
    return template_text(_compiled(model)) if model.chat_template else None


def _compiled(model: Model) -> Render:
    return compile_template(model.chat_template, bos=model.bos_text, eos=model.eos_text)


class PromptTokenizer:
    """Tokenizes prompts with a model's vocabulary and chat template, preferably as recorded in `trial`."""

    def __init__(self, model: Model, trial: Trial | None = None) -> None:
        self.model = model
        # Only the template's own words are cached: a purge could not find other text here.
        self._control_tokens = functools.lru_cache(maxsize=32)(functools.partial(model.tokenize, control=True))
        self._trial = trial

    @functools.cached_property
    def _template(self) -> TemplateText | None:
        return self._trial.template if self._trial else template_of(self.model)

    @functools.cached_property
    def _render(self) -> Render:
        return _compiled(self.model)

    def blocks(self, prompt: Prompt) -> list[list[int]]:
        """Token ids of each block, in canonical order. Only the template's own text can give control tokens."""
        return self._begun(
            [
                [
                    token
                    for text, control in block
                    for token in (self._control_tokens(text) if control else self.model.tokenize(text, control=False))
                ]
                for block in build_blocks(prompt, self._template)
            ]
        )

    def conversation(self, messages: Sequence[tuple[str, str]]) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids of the template's text before, between and after the messages, and of each message's text.

        The first list has one entry more, which begins an answer. Raises EngineError as `cut_template`, or without a template.
        """
        if not self.model.chat_template:
            raise EngineError("The model has no chat template.")
        control = cut_template(self._render, [role for role, _ in messages])
        tokens = [list(self._control_tokens(text)) for text in control]
        return self._begun(tokens), [self.model.tokenize(text, control=False) for _, text in messages]

    def spelling(self, text: str) -> list[int]:
        """Token ids that spell exactly `text`, for learning. Raises EngineError if the vocabulary cannot write it."""
        tokens = self.model.tokenize(text, control=False)
        written = b"".join(map(self.model.piece, tokens)).decode(errors="replace")
        if written.strip() != text.strip():  # some vocabularies begin every text with a space
            raise EngineError(f"The vocabulary cannot write {text[:80]!r}; it would become {written[:80]!r}.")
        return tokens

    def _begun(self, blocks: list[list[int]]) -> list[list[int]]:
        """Prepend the vocabulary's begin token, unless the template did."""
        if self.model.adds_bos and blocks[0][:1] != [self.model.bos_token]:
            blocks[0].insert(0, self.model.bos_token)
        return blocks


def open_tokenizer(path: Path) -> PromptTokenizer:
    """Open a GGUF file's tokenizer, without its weights."""
    return PromptTokenizer(Model(path, vocabulary_only=True))
