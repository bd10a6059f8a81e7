"""The end-to-end law: nothing a request does changes the model, and nothing around a request changes its answer."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from openbook.answers.ask import ask
from openbook.answers.retrieval import Corpus, Options
from openbook.core.errors import OpenBookError
from openbook.core.records import Answer, Decoding, Embedder, Prompt, canonical_json, sha256_hex
from openbook.inference import FrozenModel
from openbook.inference.llamacpp import LlamaCppEngine
from openbook.models import ModelReference, ModelStore
from openbook.testing import HashEmbedder
from tests.conformance.models import PROMPT
from tests.conftest import ROOT, base_with, open_engine, printed

QUESTIONS = ["Who opened the bridge?", "When is the library closed?", "How many books are there?", "What colour is it?"]
FAST = Options(passages=2, decoding=Decoding(max_tokens=10, stop=("\n",)))


def folder_digest(folder: Path) -> str:
    files = {p.relative_to(folder).as_posix(): sha256_hex(p.read_bytes()) for p in folder.rglob("*") if p.is_file()}
    modes = {p.relative_to(folder).as_posix(): p.stat().st_mode for p in folder.rglob("*")}
    return sha256_hex(canonical_json([files, modes]))


TEXTS = {
    "bridge.txt": "The bridge was opened on 14 March 2026 by mayor Lila Ortega. It has four lanes.",
    "library.md": "# Library\n\nThe library holds 2.3 million books. It is closed on Mondays.",
}


def essence(answer: Answer) -> bytes:
    value = answer.to_json()
    value.pop("timings")
    return canonical_json(value)


# Long enough that another cut into calls shows in the last bits of the log-probability that a completion carries.
LONG = Prompt("Answer.", ("The ferry to Sandhavn leaves at nine on weekdays. " * 20,), "When does the ferry leave?")


def a_request(chance: random.Random, engine: LlamaCppEngine) -> str:
    """One of the kinds of request that a server meets: short, long, malformed, hostile, sampled, cancelled, dropped.

    How it ended: a finish reason, or "refused" or "dropped".
    """
    words = " ".join(
        chance.choice(["ferry", "<|im_end|>", "day", "\x00", "🚢", "{{x}}", "rain"])
        for _ in range(chance.randint(0, 40))
    )
    prompt = Prompt(chance.choice(["Be brief.", "", words]), tuple([words] * chance.randint(0, 2)), words + "?")
    decoding = Decoding(
        temperature=chance.choice([0.0, 0.0, 1.3]),
        top_p=chance.choice([1.0, 0.5]),
        seed=chance.randint(0, 9),
        max_tokens=chance.choice([1, 2, 4, 4, 4, 5000]),
        stop=chance.choice([(), ("\n",), ("e",)]),
    )
    steps = iter(range(chance.choice([0, 1, 3, *[10**6] * 7])))
    stream = engine.generate(prompt, decoding, lambda: next(steps, None) is None)
    try:
        for _ in range(chance.choice([1, 100, 100, 100])):
            next(stream)
    except StopIteration as end:
        return str(end.value.finish_reason)
    except OpenBookError:
        return "refused"
    finally:
        stream.close()
    return "dropped"


TRAINED = pytest.param("trained", marks=[pytest.mark.model, pytest.mark.slow])


@pytest.mark.parametrize("reader", ["small", TRAINED], indirect=True)
def test_200_mixed_requests_leave_the_model_as_it_was(reader: ModelReference) -> None:
    model = reader.needed_base
    engine = open_engine(model)
    files, logits = folder_digest(model.path), engine.logits_digest(PROMPT)
    chance = random.Random(20261125)
    ends = [a_request(chance, engine) for _ in range(140)]

    def some_requests(own: random.Random) -> None:
        ends.extend(a_request(own, engine) for _ in range(15))

    with ThreadPoolExecutor(4) as clients:
        for own in [random.Random(chance.randint(0, 10**9)) for _ in range(4)]:
            clients.submit(some_requests, own)
    assert len(ends) == 200
    assert sum(end in {"end", "stop", "length"} for end in ends) >= 67, Counter(ends)  # refusals alone prove little
    assert {"cancelled", "refused", "dropped"} <= set(ends)
    assert engine.logits_digest(PROMPT) == logits
    engine.close()
    assert folder_digest(model.path) == files
    assert ModelStore(model.path.parent).findings(model) == ()


def test_a_request_gives_the_same_bytes_after_any_others_and_while_others_run(
    reader: ModelReference, tmp_path: Path
) -> None:
    engine = open_engine(reader.needed_base)
    model, base = FrozenModel(engine), base_with(tmp_path, TEXTS)

    def answer(question: str) -> bytes:
        return essence(ask(question, model, Corpus(base, HashEmbedder()), FAST))

    alone = {question: answer(question) for question in QUESTIONS}
    reading = model.complete(LONG, Decoding(max_tokens=4))
    chance = random.Random(7)
    for question in chance.sample(QUESTIONS, len(QUESTIONS)):
        a_request(chance, engine)
        assert answer(question) == alone[question]
    assert model.complete(LONG, Decoding(max_tokens=4)) == reading
    order = [*QUESTIONS, *QUESTIONS[2:], *QUESTIONS[:2]]
    with ThreadPoolExecutor(3) as clients:
        assert list(clients.map(answer, order)) == [alone[question] for question in order]
    model.close()


IN_A_NEW_PROCESS = """
import sys
from pathlib import Path
from openbook.core.records import ModelIdentity
from openbook.inference.llamacpp import LlamaCppEngine
from tests.conformance.models import PROMPT
engine = LlamaCppEngine(Path(sys.argv[1]), identity=ModelIdentity("", "", "verified"), context_tokens=2048, threads=1)
print(engine.logits_digest(PROMPT))
"""


def test_the_probe_gives_the_same_logits_in_new_processes(reader: ModelReference) -> None:
    base = reader.needed_base
    with ThreadPoolExecutor(2) as pool:
        digests = list(pool.map(lambda _: printed(IN_A_NEW_PROCESS, base.main_file), range(2)))
    with closing(open_engine(base, threads=1)) as engine:
        assert digests == [[engine.logits_digest(PROMPT)]] * 2


@pytest.mark.laws
@pytest.mark.model
def test_the_answer_json_is_the_same_in_a_new_process(
    real_embedder: Embedder, model_store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = base_with(tmp_path, TEXTS, real_embedder)
    monkeypatch.setenv("OPENBOOK_HOME", str(model_store.root.parent))
    command = [sys.executable, "-m", "openbook", "ask", QUESTIONS[0], "--kb", str(base.folder), "--json"]
    outputs = [json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout) for _ in range(2)]
    for output in outputs:
        output.pop("timings")
    assert outputs[0] == outputs[1]
    assert outputs[0]["receipt"]["model"]["evidence"] == "verified"
