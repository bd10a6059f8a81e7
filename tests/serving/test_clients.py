"""What clients send, recorded or written from their sources; and clients themselves: of OpenAI, Ollama, LangChain, LlamaIndex.

The last two are no dependency for development: `scripts/integrations.py` installs them in an environment of its own.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from pydantic import BaseModel, Field

from openbook.answers.prompts import ABSTENTION
from openbook.core.records import ModelIdentity
from openbook.knowledge import KnowledgeBase
from openbook.testing import EchoEngine, HashEmbedder, echo_model
from tests.conftest import ROOT
from tests.serving.conftest import OPENED, QUESTION, TOWER, Running, Serve, add_file, code, events_of, refusal

# --- recorded requests ------------------------------------------------------------------------------------------------

FILES = sorted((ROOT / "tests" / "data" / "clients").glob("*.json"))


def sent(server: Running, request: dict[str, Any]) -> httpx.Response:
    body = request["body"]
    return server.client.get(request["path"]) if body is None else server.client.post(request["path"], json=body)


def said(response: httpx.Response) -> list[str]:
    """The warnings in a response, whole or streamed."""
    kind = response.headers["content-type"].partition(";")[0]
    if kind == "application/json":
        values = [response.json()]
    elif kind == "text/event-stream":
        values = [json.loads(each) for each in events_of(response.text) if each != "[DONE]"]
    else:
        assert kind == "application/x-ndjson"
        values = [json.loads(line) for line in response.text.splitlines()]
    assert not [each for each in values if each.get("error")]
    found = [each.get("response", each) if "type" in each else each for each in values]
    return [text for each in found if "openbook" in each for text in each["openbook"].get("warnings", ())]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_client_is_answered_or_told_which_part_is_refused(shared: Running, path: Any) -> None:
    for request in json.loads(path.read_text(encoding="utf-8"))["requests"]:
        response = sent(shared, request)
        if refused := request.get("refused"):
            assert response.status_code == request.get("status", 400), (request, response.text)
            param = refusal(response)[2]
            assert param == refused or (param is None and refused in response.text), (request, response.text)
        else:
            assert response.status_code == 200, (request, response.text)
            warnings = said(response)
            for each in request["warns"]:
                assert any(each in warning for warning in warnings), (request, warnings)
            assert request["warns"] or not warnings, (request, warnings)


# --- clients ----------------------------------------------------------------------------------------------------------


def test_response_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="echo", input=QUESTION)
    assert (whole.output_text, whole.status) == (OPENED, "completed")
    assert whole.usage is not None
    events = list(client.responses.create(model="echo", input=QUESTION, stream=True))
    assert "".join(each.delta for each in events if each.type == "response.output_text.delta") == OPENED
    assert [each.sequence_number for each in events] == list(range(len(events)))
    begin = ["created", "in_progress", "output_item.added", "content_part.added"]
    end = ["output_text.done", "content_part.done", "output_item.done", "completed"]
    names = [each.type.removeprefix("response.") for each in events]
    assert (names[:4], set(names[4:-5]), names[-4:]) == (begin, {"output_text.delta"}, end)
    assert names[-5] == "output_text.annotation.added"
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.model_copy(update={"created_at": whole.created_at}) == whole
    with client.responses.stream(model="echo", input=QUESTION) as stream:
        assert stream.get_final_response().output_text == OPENED
    asked: Any = {"role": "user", "content": QUESTION}
    turns = [asked, *whole.output, {"role": "user", "content": "And who opened the bridge?"}]
    assert client.responses.create(model="echo", input=turns).output_text == OPENED
    with pytest.raises(openai.BadRequestError, match="keeps no conversation"):
        client.responses.create(model="echo", input="And who?", previous_response_id=whole.id)


class Opening(BaseModel):
    when: str = Field(description="the day")


def test_json_answer_is_parsed_by_the_client(client: openai.OpenAI) -> None:
    for text, parsed in ((QUESTION, Opening(when=OPENED)), (TOWER, None)):
        asked: Any = [{"role": "user", "content": text}]
        message = (
            client.chat.completions.parse(model="echo", messages=asked, response_format=Opening).choices[0].message
        )
        assert (message.parsed, message.refusal) == (parsed, None if parsed else ABSTENTION)
        with client.chat.completions.stream(model="echo", messages=asked, response_format=Opening) as stream:
            final = stream.get_final_completion().choices[0].message
        assert (final.parsed, final.refusal, final.content) == (parsed, message.refusal, message.content)
    response = client.responses.parse(model="echo", input=QUESTION, text_format=Opening)
    assert response.output_parsed == Opening(when=OPENED)
    with client.responses.stream(model="echo", input=QUESTION, text_format=Opening) as events:
        assert events.get_final_response().output_parsed == Opening(when=OPENED)


def test_embeddings_models_and_errors(shared: Running, client: openai.OpenAI) -> None:
    texts = ["The ferry leaves.", "Überraschung"]
    expected = HashEmbedder().embed_passages(texts)
    kinds: list[Any] = [{}, {"encoding_format": "float"}]  # without it the client asks for base64
    for kind in kinds:
        made = client.embeddings.create(model="hash", input=texts, dimensions=64, **kind)
        assert np.array_equal(np.array([each.embedding for each in made.data], dtype=np.float32), expected)
        assert ([each.index for each in made.data], made.usage.total_tokens) == ([0, 1], 4)  # words, to this embedder
    listed = list(client.models.list())
    assert [each.id for each in listed] == ["echo", "echo:closed-book", "hash"]
    assert (listed[0].model_extra or {})["openbook"]["digest"] == echo_model().identity.digest
    assert [client.models.retrieve(each.id) for each in listed] == listed
    assert code(shared.get("/v1/models/other")) == (404, "model_not_found")
    with pytest.raises(openai.NotFoundError, match="does not exist") as missing:
        client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "x"}])
    assert missing.value.code == "model_not_found"


def test_ollama_client(shared: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    ollama = pytest.importorskip("ollama", reason="pip install ollama, to test with this client too")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    asked, written = [{"role": "user", "content": QUESTION}], len(OPENED.split())
    with ollama.Client(shared.url) as client:
        whole = client.chat(model="echo", messages=asked)
        assert (whole.message.content, whole.done, whole.done_reason) == (OPENED, True, "stop")
        assert (whole.eval_count, whole.prompt_eval_count > written) == (written, True)
        told = [{"role": "system", "content": "Be brief."}, *asked]
        parts = list(client.chat(model="echo:latest", messages=told, stream=True))
        assert "".join(each.message.content for each in parts) == OPENED
        assert [each.done for each in parts] == [False] * (len(parts) - 1) + [True]
        assert (len(parts) > 2, parts[-1].eval_count) == (True, written)
        assert client.generate("echo", QUESTION, options={"num_predict": 2}).done_reason == "length"
        assert "".join(each.response for each in client.generate("echo", QUESTION, stream=True)) == OPENED
        texts = ["The ferry leaves.", "Überraschung"]
        vectors = np.array(client.embed("hash", texts).embeddings, dtype=np.float32)
        assert np.array_equal(vectors, HashEmbedder().embed_passages(texts))
        assert [each.model for each in client.list().models] == ["echo", "echo:closed-book", "hash"]
        shown = client.show("echo")
        assert (shown.capabilities, shown.modelinfo["openbook.context_length"]) == (["completion"], 4096)
        assert client.show("hash").capabilities == ["embedding"]
        with pytest.raises(ollama.ResponseError, match="does not exist") as missing:
            client.chat(model="llama3", messages=asked)
        assert missing.value.status_code == 404
        parts = list(client.chat(model="echo", messages=asked, format=Opening.model_json_schema(), stream=True))
        text = "".join(each.message.content for each in parts)
        assert (Opening.model_validate_json(text), parts[-1].done_reason) == (Opening(when=OPENED), "stop")
        assert json.loads(client.generate("echo", QUESTION, format="json").response) == {"answer": OPENED}
        assert client.generate("echo", TOWER, format="json").response == "null"
        with pytest.raises(ollama.ResponseError, match="'not' cannot be used"):
            list(client.chat(model="echo", messages=asked, format={"not": {}}, stream=True))


NOT_HERE = "pip install langchain-openai llama-index-llms-openai-like, to test with these clients too"


class Reader(EchoEngine):
    identity = ModelIdentity(name="qwen2.5-coder-1.5b-instruct", digest="0" * 64, evidence="verified")


@pytest.mark.filterwarnings("ignore")  # theirs are not ours to mend
@pytest.mark.parametrize("library", ["openai", "langchain_openai", "llama_index"])
def test_clients_in_the_docs(
    library: str,
    serve: Serve,
    base: KnowledgeBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("llama_index.llms.openai_like" if library == "llama_index" else library, reason=NOT_HERE)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "serving.md").read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [each for each in blocks if each.startswith((f"from {library}", f"import {library}"))]
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    add_file(base, tmp_path / "travel.txt", "An expense is approved by Ines Okoro.")
    server = serve(Reader(), embedder=HashEmbedder(name="minilm-l6-int8"))
    exec(block.replace("http://127.0.0.1:8000", server.url), {})
    assert "approved by Ines Okoro." in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("curl") is None, reason="apt-get install curl, to test the commands for it too")
def test_curl_commands_in_the_docs(server: Running, tmp_path: Path) -> None:
    (tmp_path / "news.md").write_text("The treasurer approves a bonus.")
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8").replace("http://127.0.0.1:8000", server.url)
    shown = [
        subprocess.run(
            ["sh", "-ec", f"{line} --silent --noproxy '*'"], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout
        for line in re.findall(r"^curl .*", page, re.MULTILINE)
    ]
    uploaded, text, removed = map(json.loads, shown)
    assert [each["data"][0]["outcome"] for each in (uploaded, removed)] == ["added", "removed"]
    assert text["text"] == "The treasurer approves a bonus."
