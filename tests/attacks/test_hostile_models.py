"""Model files that were made to end whoever opens them: no import and no server ends, and none takes much memory."""

from __future__ import annotations

import resource
from contextlib import closing
from pathlib import Path

import pytest

from openbook.core.errors import EngineError, InvalidModelFile, ModelError
from openbook.core.records import Decoding
from openbook.inference import load_model, prompt_counter, trial
from openbook.inference.trial import check_usable
from openbook.models import ModelStore, import_gguf
from openbook.models.describe import check_importable
from openbook.models.gguf import ValueType
from tests.conformance.models import PROMPT
from tests.models.gguf_files import TOKENS, Array, llama
from tests.models.mutations import TEMPLATES, mutated

WITH_A_PROCESS = 4  # of the changed files, how many are loaded in a test; benchmarks/hostile_models.py loads all


def test_a_changed_file_is_refused_with_a_sentence_or_answers(store: ModelStore, tmp_path: Path) -> None:
    path, loaded, said = tmp_path / "model.gguf", 0, list[str]()
    for seed in range(1_000, 2_000):
        path.write_bytes(mutated(llama(), seed)[1])
        try:
            check_importable(path)
        except InvalidModelFile:
            continue
        loaded += 1
        if loaded > WITH_A_PROCESS:
            break
        try:
            reference = import_gguf(store, path, try_out=check_usable)
        except ModelError as error:
            said.append(str(error))
            continue
        with closing(load_model(reference)) as model:
            assert model.complete(PROMPT, Decoding(max_tokens=4)).answer_tokens
    assert said
    assert all(each.endswith(".") for each in said)


DIFFERENT = (
    "{{ 'a' * 10**9 }}",
    "{% for i in range(10**9) %}{% endfor %}",
    "{{ '\\ud800' }}",
    "a" * 300_000,
)  # the others are like one of these


@pytest.mark.parametrize(
    "template",
    [pytest.param(each, marks=[] if each in DIFFERENT else pytest.mark.slow) for each in TEMPLATES if each],
    ids=lambda template: template[:40],
)
def test_a_template_takes_no_memory_here_and_bounded_time_there(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    monkeypatch.setattr(trial, "TEMPLATE_SECONDS", 1.0)
    path = llama().with_value("tokenizer.chat_template", ValueType.STRING, template).write(tmp_path / "model.gguf")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    most = max(trial.VOCABULARY_MEMORY_MB << 10, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, before)
    with pytest.raises(ModelError, match=r"template|memory"):
        import_gguf(store, path, try_out=check_usable)
    reference = import_gguf(store, path)
    with pytest.raises(EngineError, match=r"template|memory"):
        load_model(reference)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss <= most  # an earlier test's child may have had more


CHANCE = (  # what ends or explodes by chance: a trial proves nothing of another rendering
    "{% if range(99) | random > 0 %}{{ messages[0].content }}{{ messages[1].content }}{% else %}{{ 'a' * 10**9 }}{% endif %}",
    "{{ range(9999) | random }}{% for m in messages %}{{ m.content }}{% endfor %}",
    "{{ raise_exception | string }}{% for m in messages %}{{ m.content }}{% endfor %}",
)


@pytest.mark.parametrize("template", [CHANCE[0], *(pytest.param(each, marks=pytest.mark.slow) for each in CHANCE[1:])])
def test_a_template_that_goes_by_chance_has_gone_once(store: ModelStore, tmp_path: Path, template: str) -> None:
    path = llama().with_value("tokenizer.chat_template", ValueType.STRING, template).write(tmp_path / "model.gguf")
    try:
        reference = import_gguf(store, path, try_out=check_usable)
    except EngineError:
        return
    digests = set()
    for _ in range(3):
        with closing(load_model(reference)) as model:
            digests.add(model.complete(PROMPT, Decoding(max_tokens=1)).prompt_digest)
    assert len(digests) == 1


NUMBERS = (  # that size something, or on which llama.cpp ends its process
    ("llama.block_count", ValueType.UINT32, 1 << 20),
    ("llama.embedding_length", ValueType.UINT32, 0),
    ("llama.attention.head_count", ValueType.UINT32, 1 << 31),
    ("llama.attention.head_count_kv", ValueType.UINT32, 3),
    ("llama.feed_forward_length", ValueType.UINT32, 1 << 30),
    ("llama.rope.dimension_count", ValueType.UINT32, 1 << 30),
    ("llama.attention.key_length", ValueType.UINT32, 0),
    ("llama.expert_used_count", ValueType.UINT32, 9),
    ("llama.context_length", ValueType.UINT64, (1 << 64) - 1),
    ("llama.block_count", ValueType.FLOAT32, 2.0),
    ("tokenizer.ggml.tokens", ValueType.ARRAY, Array(ValueType.UINT32, (1,) * len(TOKENS))),
    ("tokenizer.ggml.model", ValueType.STRING, "none"),
)
QUICK = ("llama.block_count", "llama.rope.dimension_count", "tokenizer.ggml.model")  # the others are slow, all together


@pytest.mark.parametrize(
    ("key", "kind", "value"),
    [pytest.param(*each, marks=[] if each[0] in QUICK else pytest.mark.slow) for each in NUMBERS],
    ids=str,
)
def test_a_number_ends_only_the_process_that_tries_it(
    store: ModelStore, tmp_path: Path, key: str, kind: ValueType, value: object
) -> None:
    path = llama().with_value(key, kind, value).write(tmp_path / "model.gguf")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(EngineError, match=r"^The model 'model' cannot be used: .+\.$"):
        import_gguf(store, path, try_out=check_usable)
    assert store.names() == {}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


HOSTILE = {
    "aborts in a thread": llama().with_value("llama.expert_count", ValueType.UINT32, 8),
    "throws": llama().with_value("tokenizer.ggml.model", ValueType.STRING, "rwkv"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_nobody_tried_is_refused_when_it_is_opened(store: ModelStore, tmp_path: Path, kind: str) -> None:
    """So a server whose model's name comes to mean such a file keeps the old one: `tests/serving/test_model_reload.py`."""
    reference = import_gguf(store, HOSTILE[kind].write(tmp_path / "model.gguf"), name="served")
    for opens in (load_model, prompt_counter):
        with pytest.raises(EngineError, match=r"^The model 'served' cannot be used: .*\.$"):
            opens(reference)
