"""From a `Prompt` and a model's chat template to blocks of segments, in the canonical order of evaluation.

The template is rendered once, with placeholders where the texts belong, and cut at the placeholders. So the template's
own words, and only they, may become control tokens; text from documents and users is tokenised as plain text, whatever
it holds. A template is a program that need not end: those of models that the package does not know are rendered in the
process of a model's trial (`trial`), and what they wrote there is kept. Each block is tokenised on its own: a block's tokens are a function of the block alone, which is what makes
its evaluation worth remembering.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn, TypeAlias

from openbook.errors import EngineError
from openbook.models.verify_cache import TemplateText
from openbook.records import Prompt

MAX_TEMPLATE_TEXT_CHARS = 1 << 16
# Private-use characters delimit placeholders; a template that holds them is refused.
_OPEN, _CLOSE = "\ue000", "\ue001"
LOOK_AGAIN = "Do the excerpts above say that this answer is right? Answer yes or no."
# Of five wordings the one that a model of half a billion parameters answers best and shortest (docs/log.md).
_SENTENCES = "Answer in one to three sentences, from the excerpts above: "
# Asked for the answer first, small models say yes.
_YES_OR_NO = "Say in one or two sentences what the excerpts above state about this question, and then whether the answer is yes or no: "
_ASKS_YES_OR_NO = re.compile(
    r"(?:(?:so|and|but|then)\W+)?(?:is|are|am|was|were|can|could|do|does|did|should|shall|will|would|may|must|has|have|had)"
    r"(?:n['\u2019]?t)?\b(?!.*\bor\b)",
    re.IGNORECASE | re.DOTALL,
)
_PLACEHOLDER = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")

BlockKind: TypeAlias = Literal["system", "passage", "question"]


@dataclass(frozen=True, slots=True)
class Segment:
    """`control` text comes from the model's template and may hold control tokens; other text never does."""

    text: str
    control: bool


@dataclass(frozen=True, slots=True)
class Block:
    kind: BlockKind
    segments: tuple[Segment, ...]


def passage_block(place: str, text: str) -> str:
    """A passage as models read it, in answering and in training alike; `place` says where it stands, or is empty."""
    return f"Passage ({place}):\n{text.strip()}\n\n" if place else f"Passage:\n{text.strip()}\n\n"


def excerpt_block(number: int, place: str, text: str) -> str:
    """One of several excerpts as models read them that were not trained to: its number can be named in the answer."""
    return f"[{number}] {place}".rstrip() + f"\n{text.strip()}\n\n"


def question_about_excerpts(question: str) -> str:
    """The question behind numbered excerpts, with the shape of its answer."""
    shape = _YES_OR_NO if _ASKS_YES_OR_NO.match(question.strip()) else _SENTENCES
    return f"{shape}{question.strip()}"


def look_again(question: str, answer: str) -> str:
    """Behind the excerpts: whether an answer is right."""
    return f"Question: {question.strip()}\nProposed answer: {answer.strip()}\n{LOOK_AGAIN}"


def question_of_block(block: str) -> str:
    """The question itself in a `question_block` or in one about excerpts."""
    return block.removeprefix(_SENTENCES).removeprefix(_YES_OR_NO).removeprefix("Question: ")


def text_of_block(block: str) -> str:
    """The passage's own text in a `passage_block`."""
    return block.partition("\n")[2].strip()


def question_block(question: str) -> str:
    return f"Question: {question.strip()}"


def compile_template(source: str, *, bos: str = "", eos: str = "") -> Callable[[list[dict[str, str]]], str]:
    """The model's own chat template as a function of the messages, in a sandbox.

    A model that thinks before it answers is asked not to (`enable_thinking`, which the others' templates do not know).
    `strftime_now` stays undefined on purpose: a prompt that held today's date would not be a function of the request. A
    template that cannot do without writes "unknown" for the date.
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


def template_text(render: Callable[[list[dict[str, str]]], str]) -> TemplateText:
    """What the template writes around a system message and a user's. Raises EngineError where it can write no prompt.

    The texts of a prompt are never shown to it, so it cannot write other words for them.
    """
    import jinja2

    system, user = (f"{_OPEN}{i}{_CLOSE}" for i in range(2))
    try:
        try:
            rendered = render([{"role": "system", "content": system}, {"role": "user", "content": user}])
        except jinja2.TemplateError:
            # Some templates know no system role; the instruction then opens the user's message.
            rendered = render([{"role": "user", "content": system + "\n\n" + user}])
    except jinja2.TemplateError as error:
        raise EngineError(f"The model's chat template refuses a system and a user message: {error}.") from error
    pieces = _PLACEHOLDER.split(rendered)  # control, index, control, index, control
    if pieces[1::2] != ["0", "1"]:
        raise EngineError("The model's chat template loses, repeats or reorders the messages; it cannot be used.")
    before, between, after = pieces[::2]
    if len(before) + len(between) + len(after) > MAX_TEMPLATE_TEXT_CHARS:
        raise EngineError(
            f"The model's chat template writes more than {MAX_TEMPLATE_TEXT_CHARS} characters around two messages; it cannot be used."
        )
    return before, between, after


def build_blocks(prompt: Prompt, template: TemplateText | None) -> tuple[Block, ...]:
    """Blocks in canonical order: one system block, one for each passage, one question block.

    Without a template the texts simply follow each other.
    """
    if template is None:
        return _plain_blocks(prompt)
    before, between, after = (Segment(text, control=True) for text in template)
    system, *passages, question = (
        Segment(text, control=False) for text in (prompt.system, *prompt.passages, prompt.question)
    )
    return (
        Block("system", _kept([before, system, between])),
        *(Block("passage", _kept([passage])) for passage in passages),
        Block("question", _kept([question, after])),
    )


def cut_template(render: Callable[[list[dict[str, str]]], str], roles: Sequence[str]) -> list[str]:
    """What the template writes before, between and after messages of these roles. Raises EngineError."""
    import jinja2

    marks = [f"{_OPEN}{i}{_CLOSE}" for i in range(len(roles))]
    messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
    try:
        pieces = _PLACEHOLDER.split(render(messages))
    except jinja2.TemplateError as error:
        raise EngineError(f"the template refuses the roles {', '.join(roles)}: {error}") from error
    if [int(index) for index in pieces[1::2]] != list(range(len(roles))):
        raise EngineError("the template loses, repeats or reorders messages")
    return pieces[::2]


def _plain_blocks(prompt: Prompt) -> tuple[Block, ...]:
    blocks = [Block("system", _kept([Segment(prompt.system + "\n\n", control=False)]))]
    blocks += [Block("passage", _kept([Segment(text, control=False)])) for text in prompt.passages]
    blocks.append(Block("question", _kept([Segment(prompt.question + "\nAnswer:", control=False)])))
    return tuple(blocks)


def _kept(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    return tuple(s for s in segments if s.text)
