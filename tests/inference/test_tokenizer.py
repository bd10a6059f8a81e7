from __future__ import annotations

from unittest.mock import Mock, call

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.core.errors import EngineError
from openbook.core.records import Prompt
from openbook.inference.tokenizer import PromptTokenizer, build_blocks, compile_template, template_text

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


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            CHATML,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nFirst.\nSecond.\nWhy?<|im_end|>\n<|im_start|>assistant\n",
        ),
        (NO_SYSTEM, "<s>[user]Be brief.\n\nFirst.\nSecond.\nWhy?[model]"),
        (None, "Be brief.\n\nFirst.\nSecond.\nWhy?\nAnswer:"),
    ],
    ids=["chatml", "no system role", "no template"],
)
def test_blocks_joined_are_what_the_template_renders(template: str | None, expected: str) -> None:
    text = template_text(compile_template(template, bos="<s>")) if template else None
    assert "".join(part for block in build_blocks(PROMPT, text) for part, _ in block) == expected


def test_only_template_text_is_tokenised_once_and_kept() -> None:
    model = Mock(chat_template=CHATML, bos_text="", eos_text="", adds_bos=False)
    model.tokenize.return_value = [1]
    tokenizer = PromptTokenizer(model)
    assert tokenizer.blocks(PROMPT) == tokenizer.blocks(PROMPT)
    asked = model.tokenize.call_args_list
    assert [asked.count(call(text, control=True)) for text in TEXT] == [1, 1, 1]
    assert [asked.count(call(text, control=False)) for text in PROMPT.passages] == [2, 2]


def test_a_model_that_thinks_is_given_the_end_of_its_thinking() -> None:
    assert template_text(compile_template(THINKING))[2] == TEXT[2] + "<think>\n\n</think>\n\n"


def test_a_template_that_needs_todays_date_gets_none() -> None:
    dated = "{{ 'Today: ' ~ strftime_now('%d %B %Y') ~ '\n' }}" + CHATML
    assert template_text(compile_template(dated))[0] == "Today: unknown\n" + TEXT[0]
    optional = "{{ strftime_now('%d') if strftime_now is defined else '26 Jul 2024' }}" + CHATML
    assert template_text(compile_template(optional))[0] == "26 Jul 2024" + TEXT[0]


@pytest.mark.parametrize(
    ("template", "match"),
    [
        ("{{ messages[1]['content'] }}", "loses, repeats or reorders"),
        ("{% for m in messages %}{{ m['content'] * 2 }}{% endfor %}", "loses, repeats or reorders"),
        ("nothing at all", "loses, repeats or reorders"),
        ("{{ raise_exception('never') }}", "refuses messages of the roles user: never"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        (CHATML + "x" * 70_000, "more than 65536 characters"),
        ("{% for %}", "does not compile"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "does not compile"),
        ("{{ messages + 1 }}", r"chat template fails: .*\(TypeError\)\. Import"),
        ("{{ range(1000000000) | length }}", r"chat template fails: .*\(OverflowError\)\. Import"),
        ("{{ 1 // (messages | length - messages | length) }}", r"fails: .*\(ZeroDivisionError\)\. Import"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", r"fails: .*\(RecursionError\)\. Import"),
    ],
)
def test_an_unusable_template_is_refused(template: str, match: str) -> None:
    with pytest.raises(EngineError, match=match):
        template_text(compile_template(template))


def test_running_out_of_memory_is_not_the_templates_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> str:
        raise MemoryError

    monkeypatch.setattr("jinja2.Template.render", fail)
    with pytest.raises(MemoryError):
        template_text(compile_template(CHATML))


HOSTILE = st.text() | st.sampled_from(["<|im_end|>", "{{ 7 * 7 }}", "{% raw %}", "\ue0000\ue001", "\ue0001\ue001"])


@given(HOSTILE, st.lists(HOSTILE, max_size=4), HOSTILE)
def test_no_text_ever_becomes_control_text(system: str, passages: list[str], question: str) -> None:
    blocks = build_blocks(Prompt(system, tuple(passages), question), TEXT)
    assert len(blocks) == len(passages) + 2
    assert [text for block in blocks for text, control in block if not control] == [system, *passages, question]
    assert tuple(text for block in blocks for text, control in block if control) == TEXT
