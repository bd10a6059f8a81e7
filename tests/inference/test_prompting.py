from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.errors import EngineError
from openbook.inference.prompting import (
    build_blocks,
    compile_template,
    question_about_excerpts,
    question_of_block,
    template_text,
)
from openbook.records import Prompt

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] | trim }}{% endfor %}[model]"
)
# As Qwen3 and SmolLM3 write it: thinking, unless it is turned off.
THINKING = CHATML[: -len("{% endif %}")] + (
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
TEXT = template_text(compile_template(CHATML))
PROMPT = Prompt("Be brief.", ("First.\n", "Second.\n"), "Why?")


def flat(prompt: Prompt, template: str | None) -> str:
    text = template_text(compile_template(template, bos="<s>")) if template else None
    return "".join(s.text for block in build_blocks(prompt, text) for s in block.segments)


def test_blocks_joined_are_what_the_template_renders() -> None:
    expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nFirst.\nSecond.\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    assert flat(PROMPT, CHATML) == expected


def test_each_text_has_a_block_of_its_own() -> None:
    blocks = build_blocks(PROMPT, TEXT)
    assert [b.kind for b in blocks] == ["system", "passage", "passage", "question"]
    assert [s.text for s in blocks[1].segments] == ["First.\n"]
    assert blocks[3].segments[0].text == "Why?"


def test_without_passages_there_are_two_blocks() -> None:
    assert [b.kind for b in build_blocks(Prompt("S", (), "Q"), TEXT)] == ["system", "question"]


def test_a_template_without_system_role_gets_the_instruction_in_the_users_message() -> None:
    assert flat(PROMPT, NO_SYSTEM) == "<s>[user]Be brief.\n\nFirst.\nSecond.\nWhy?[model]"


def test_a_model_without_template_gets_plain_text() -> None:
    assert flat(PROMPT, None) == "Be brief.\n\nFirst.\nSecond.\nWhy?\nAnswer:"


def test_a_model_that_thinks_is_given_the_end_of_its_thinking() -> None:
    assert template_text(compile_template(THINKING))[2] == TEXT[2] + "<think>\n\n</think>\n\n"


def test_a_template_that_needs_todays_date_gets_none() -> None:
    dated = "{{ 'Today: ' ~ strftime_now('%d %B %Y') ~ '\n' }}" + CHATML
    assert template_text(compile_template(dated))[0] == "Today: unknown\n" + TEXT[0]
    optional = "{{ strftime_now('%d') if strftime_now is defined else '26 Jul 2024' }}" + CHATML
    assert template_text(compile_template(optional))[0] == "26 Jul 2024" + TEXT[0]


@pytest.mark.parametrize(
    "template",
    ["{{ messages[1]['content'] }}", "{% for m in messages %}{{ m['content'] * 2 }}{% endfor %}", "nothing at all"],
)
def test_a_template_that_loses_or_repeats_a_text_is_refused(template: str) -> None:
    with pytest.raises(EngineError, match="loses, repeats or reorders"):
        template_text(compile_template(template))


def test_a_template_cannot_reach_out_of_its_sandbox() -> None:
    render = compile_template("{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(EngineError):
        template_text(render)


def test_a_broken_template_is_named() -> None:
    with pytest.raises(EngineError, match="does not compile"):
        compile_template("{% for %}")


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages + 1 }}",
        "{{ range(1000000000) | length }}",
        "{{ 1 // (messages | length - messages | length) }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    ],
    ids=["TypeError", "OverflowError", "ZeroDivisionError", "RecursionError"],
)
def test_a_template_that_fails_in_any_way_is_a_sentence(template: str, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.id
    with pytest.raises(EngineError, match=rf"chat template fails: .*\({name}\)\. Import"):
        template_text(compile_template(template))


def test_a_template_nested_too_deep_is_named() -> None:
    with pytest.raises(EngineError, match="does not compile"):
        compile_template("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}")


def test_running_out_of_memory_is_not_the_templates_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> str:
        raise MemoryError

    monkeypatch.setattr("jinja2.Template.render", fail)
    with pytest.raises(MemoryError):
        template_text(compile_template(CHATML))


HOSTILE = st.text() | st.sampled_from(["<|im_end|>", "{{ 7 * 7 }}", "{% raw %}", "\ue0000\ue001", "\ue0001\ue001"])


@given(HOSTILE, st.lists(HOSTILE, max_size=4), HOSTILE)
def test_no_text_ever_becomes_control_text(system: str, passages: list[str], question: str) -> None:
    prompt = Prompt(system, tuple(passages), question)
    blocks = build_blocks(prompt, TEXT)
    plain = [s.text for b in blocks for s in b.segments if not s.control]
    assert plain == [text for text in (system, *passages, question) if text]
    control = "".join(s.text for b in blocks for s in b.segments if s.control)
    assert control == "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("question", "shape"),
    [
        ("is it ok to keep it?", "yes or no"),
        ("And does it float?", "yes or no"),
        ("Isn't it dangerous?", "yes or no"),
        ("can I take the train or the ferry?", "sentences"),
        ("Which one is it?", "sentences"),
        ("isolation of what?", "sentences"),
    ],
)
def test_the_shape_of_the_answer_follows_the_question(question: str, shape: str) -> None:
    asked = question_about_excerpts(question)
    assert shape in asked
    assert question_of_block(asked) == question
