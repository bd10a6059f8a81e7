"""A model file is loaded in a separate process first, once for each file and engine."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from openbook.core.errors import EngineError
from openbook.core.records import Decoding
from openbook.inference import load_model, trial
from openbook.inference.llamalib import library
from openbook.inference.trial import check_usable, trial_of
from openbook.models import ModelReference, ModelStore, import_gguf
from openbook.models.gguf import ValueType
from openbook.models.verify import Trial, read_cached, trial_path
from tests.conformance.models import PROMPT
from tests.conftest import printed
from tests.models.gguf_files import llama

TEMPLATE = ("<s>system\n", "<s>\n<s>user\n", "<s>\n<s>assistant\n")
ABORTS = ("llama.attention.layer_norm_rms_epsilon", ValueType.FLOAT32, -1.0)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> ModelReference:
    folder = tmp_path_factory.mktemp("tried")
    return import_gguf(ModelStore(folder / "models"), llama().write(folder / "small.gguf"), try_out=check_usable)


@pytest.fixture
def small(store: ModelStore, tried: ModelReference) -> ModelReference:
    shutil.copytree(tried.path.parent, store.root)
    return store.resolve("small")


def record_of(store: ModelStore, reference: ModelReference) -> Trial | None:
    return read_cached(trial_path(store.root, reference.digest), Trial)


def recorded(store: ModelStore, reference: ModelReference) -> Trial:
    found = record_of(store, reference)
    assert found is not None
    return found


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/no such program")


def test_a_trial_is_recorded_and_not_repeated(store: ModelStore, small: ModelReference, no_process: None) -> None:
    sha256 = small.manifest.files["model.gguf"].sha256
    found = Trial(library().build, (sha256,), TEMPLATE)
    assert trial_of(small) == record_of(store, small) == found
    with closing(load_model(small)) as model:
        assert model.complete(PROMPT, Decoding(max_tokens=2)).answer_tokens
    store.remove("small")
    assert record_of(store, small) is None


def test_a_model_without_a_record_is_tried_when_opened(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = import_gguf(store, llama().write(tmp_path / "small.gguf"))
    with monkeypatch.context() as patch:
        patch.setattr("sys.executable", "/no such program")
        with pytest.raises(EngineError, match="no process could be started to try it"):
            load_model(small)
    load_model(small).close()
    assert recorded(store, small)


def test_another_engine_or_file_or_a_damaged_record_is_another_trial(
    store: ModelStore, small: ModelReference, no_process: None
) -> None:
    path = trial_path(store.root, small.digest)
    value = json.loads(path.read_bytes())
    changes = ({"engine": "b1"}, {"files": ["f" * 64]}, {"format": 9}, {"template": ["one"]})
    for content in (*(json.dumps(value | change) for change in changes), "{"):
        path.write_text(content)
        with pytest.raises(EngineError, match="no process could be started"):
            trial_of(small)


def test_a_file_that_differs_outside_the_digest_is_another_file(
    store: ModelStore, small: ModelReference, tmp_path: Path
) -> None:
    first = small
    store.remove("small")
    again = llama().with_value("general.quantization_version", ValueType.STRING, "x").write(tmp_path / "small.gguf")
    second = import_gguf(store, again)
    assert second.digest == first.digest
    load_model(second).close()
    before, after = (each.manifest.files["model.gguf"].sha256 for each in (first, second))
    assert recorded(store, second).files == (after,) != (before,)


def test_a_model_that_crashes_its_trial_gets_no_name_and_ends_no_other_process(
    store: ModelStore, tmp_path: Path
) -> None:
    path = llama().with_value(*ABORTS).write(tmp_path / "small.gguf")
    with pytest.raises(EngineError, match=r"'small' cannot be used: it ended the process .*signal 6.*eps >= 0"):
        import_gguf(store, path, try_out=check_usable)
    assert (store.names(), store.all_models()) == ({}, ())
    assert not list((store.root / "trials").glob("*"))
    assert not list(store.root.glob(".incoming-*"))
    untried = import_gguf(store, path)
    for _ in range(2):  # a failure is not remembered
        with pytest.raises(EngineError, match="signal 6"):
            load_model(untried)


def test_weights_that_are_not_finite_and_a_vocabulary_with_gaps_are_refused(store: ModelStore, tmp_path: Path) -> None:
    recipe = llama()
    tensors = tuple(replace(each, data=b"\xff" * len(each.data)) for each in recipe.tensors)
    with pytest.raises(EngineError, match="they are not finite"):
        import_gguf(store, replace(recipe, tensors=tensors).write(tmp_path / "small.gguf"), try_out=check_usable)
    # Over such a character llama.cpp would end the process at the first question that has it.
    recipe = recipe.with_value("tokenizer.ggml.model", ValueType.STRING, "llama")
    with pytest.raises(EngineError, match="it ended the process"):
        import_gguf(store, recipe.write(tmp_path / "small.gguf"), try_out=check_usable)


def test_a_word_longer_than_a_stack_ends_no_process(tmp_path: Path) -> None:
    path = llama().with_value("tokenizer.ggml.pre", ValueType.STRING, "deepseek-llm").write(tmp_path / "x.gguf")
    assert printed(LONG_WORDS, path) == ["60000", "60000"]


LONG_WORDS = """
import sys, threading
from pathlib import Path
from openbook.core.errors import EngineError
from openbook.inference.llamalib import Model
model = Model(Path(sys.argv[1]), vocabulary_only=True)
def count(): print(len(model.tokenize(60_000 * "1", control=False)))
count()
thread = threading.Thread(target=count)
thread.start(), thread.join()
try:
    model.tokenize(2_000_000 * "a", control=False)
except EngineError as error:
    assert "A word of 2,000,000 bytes is too long to tokenise" in str(error)
else:
    raise AssertionError
"""


def test_a_template_is_rendered_in_the_trial_alone(
    store: ModelStore, small: ModelReference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def render(*_: object) -> str:
        raise AssertionError

    monkeypatch.setattr("jinja2.Template.render", render)
    with closing(load_model(small)) as model:
        assert model.complete(PROMPT, Decoding(max_tokens=1)).prompt_tokens
    path = llama().without("tokenizer.chat_template").write(tmp_path / "plain.gguf")
    plain = import_gguf(store, path, try_out=check_usable)  # its texts follow each other
    assert recorded(store, plain).template is None
    with closing(load_model(plain)) as model:
        assert model.complete(PROMPT, Decoding(max_tokens=1)).prompt_tokens


@pytest.mark.parametrize(
    ("does", "match"),
    [
        ("printf %s '[]' >trial.json", "ended the process"),
        ('printf %s \'{"engine": "", "files": [], "template": ["a", "b"]}\' >trial.json', "ended the process"),
        ("head -c 100000 /dev/zero | tr '\\0' '[' >trial.json", "ended the process"),
        (r"printf 'b\na\033[2Jb\n' >&2; exit 1", r"cannot be used: a \[2Jb\."),
        ("true", r"ended the process that tried it \(exit code 0\)"),
        ("exec sleep 1000", "not loaded and asked within [0-3] s"),
    ],
)
def test_what_the_process_does_and_says_is_checked(
    small: ModelReference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, match: str
) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    trial_path(small.path.parent, small.digest).unlink()
    monkeypatch.setattr("sys.executable", str(program))
    monkeypatch.setattr(trial, "SECONDS", 0.5 if "sleep" in does else 30.0)
    with pytest.raises(EngineError, match=match):
        trial_of(small)


@pytest.mark.model
def test_files_of_the_catalogue_need_no_trial(
    model_reference: ModelReference, reader_reference: ModelReference, no_process: None
) -> None:
    merged = reader_reference.merged
    assert merged is not None
    assert [trial_of(model_reference), trial_of(merged), trial_of(model_reference, reader_reference)] == [None] * 3
    load_model(reader_reference).close()


def test_an_adapter_is_tried_on_its_base(small_reader: ModelReference, store: ModelStore, tmp_path: Path) -> None:
    copy = tmp_path / "reader-copy.gguf"
    copy.write_bytes(small_reader.main_file.read_bytes() + b"\0")  # not the file that is known
    without = import_gguf(store, copy, try_out=check_usable)
    assert record_of(store, without) is None
    import_gguf(store, small_reader.needed_base.main_file, name="base", try_out=check_usable)
    adapter = import_gguf(store, copy, try_out=check_usable)
    assert len(recorded(store, adapter).files) == 2
