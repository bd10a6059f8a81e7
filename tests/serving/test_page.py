"""The web page's files and their policy, and what it reads beside the older routes: texts, differences, lineage."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from openbook.answers.certainty import MEANING, UNMEASURED
from openbook.core.config import Settings
from openbook.core.records import ModelIdentity
from openbook.inference import FrozenModel
from openbook.knowledge import add, remove
from openbook.models import ModelStore, import_gguf
from openbook.serving.configuration import Bounds, Configuration
from openbook.serving.page import FOLDER, POLICY
from openbook.testing import EchoEngine, HashEmbedder, echo_model
from tests.conftest import ROOT
from tests.models.gguf_files import Recipe
from tests.models.test_trained import store_adapter
from tests.serving.conftest import Running, Serve, add_file, code, path_of, refusal, running

FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file() and path.suffix not in {".md", ".txt"})
OWN = [path for path in FILES if path.parent.name != "vendor"]


def text(server: Running, headers: dict[str, str] | None = None, **params: Any) -> httpx.Response:
    return server.client.get("/v1/documents/text", params=params, headers=headers)


def difference(server: Running, headers: dict[str, str] | None = None, **params: Any) -> httpx.Response:
    return server.client.get("/v1/versions/difference", params=params, headers=headers)


def test_uploads_of_the_page_are_within_the_bounds_of_the_server() -> None:
    script = (FOLDER / "upload.js").read_text()
    (files,) = re.findall(r"^const AT_ONCE = (\d+);", script, re.MULTILINE)
    (size,) = re.findall(r"^const MAX_BYTES = (\d+e\d+);", script, re.MULTILINE)
    assert int(files) <= Bounds().upload_files
    assert float(size) <= Bounds().upload_bytes / 2


def test_the_page_has_the_words_for_every_certainty() -> None:
    script = (FOLDER / "answer.js").read_text(encoding="utf-8")
    table = dict(
        re.findall(r'^  "([a-z ]+)": \[t\("[A-Z][a-z ]+"\), "[a-z]*", t\("([^"]+)"\)\],$', script, re.MULTILINE)
    )
    assert table == MEANING
    assert f'const unmeasured = () => t("{UNMEASURED}");' in script


def test_the_page_needs_no_key_and_no_other_file_is_given_out(keyed: Running) -> None:
    kinds = {
        ".html": "text/html",
        ".css": "text/css",
        ".js": "text/javascript",
        ".json": "application/json",
        ".svg": "image/svg+xml",
    }
    for address, path in [
        ("/", FOLDER / "index.html"),
        *((f"/web/{path.relative_to(FOLDER).as_posix()}", path) for path in FILES),
    ]:
        response = keyed.client.get(address)
        assert response.status_code == 200
        assert response.content == path.read_bytes()
        assert response.headers["content-encoding"] == "gzip"
        plain = keyed.client.get(address, headers={"accept-encoding": "identity"})
        assert (plain.content, plain.headers.get("content-encoding")) == (response.content, None)
        assert response.headers["content-type"].startswith(kinds[path.suffix])
        assert response.headers.get_list("content-security-policy") == [POLICY]  # two policies would both hold
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
    assert (
        keyed.client.get("/health").headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    )
    for name in ("page.py", "..%2fpage.py", "%2e%2e/page.py", "..\\page.py", "index.html%00", "none.js"):
        assert code(keyed.client.get(f"/web/{name}")) == (404, "unknown_url"), name


def test_the_page_is_small() -> None:
    assert sum(path.stat().st_size for path in FILES if path.parent.name != "words") < 325_000


def test_a_browser_that_has_a_file_gets_it_no_second_time(server: Running) -> None:
    first = server.client.get("/web/main.js")
    again = server.client.get("/web/main.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == POLICY
    other = server.client.get("/web/ask.js", headers={"if-none-match": first.headers["etag"]})
    assert other.status_code == 200


def test_the_page_asks_nobody_else_and_makes_no_markup_of_text() -> None:
    for path in OWN:
        content = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z0-9.-]+\.[a-z]{2,}/|@import|url\(|data:image", content), path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|Function\(", content), (
            path
        )
        if path.suffix == ".html":
            assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", content), path


CALL = re.compile(r"(?<![\w.$])(t|count)\(")
LITERAL = r'"(?:[^"\\]|\\.)*"'
GIVEN = {"t": re.compile(rf"({LITERAL})\s*[,)]"), "count": re.compile(rf"[^\"`]+?,\s*({LITERAL}),\s*({LITERAL})\)")}


def keys_of(path: Path) -> Iterator[str]:
    """The English texts that a module shows. Raises AssertionError for a text that is not written in the call itself."""
    script = path.read_text(encoding="utf-8")
    if path.name == "words.js":
        script = script.replace("function t(", "").replace("function count(", "").replace("return t(format", "")
    for call in CALL.finditer(script):
        given = GIVEN[call[1]].match(script, call.end())
        assert given, f"{path.name}: {script[call.start() : call.start() + 80]!r}"
        yield from (json.loads(each) for each in given.groups())


def test_every_text_of_the_page_has_its_translations() -> None:
    texts = {key for path in OWN if path.suffix == ".js" for key in keys_of(path)}
    (choice,) = re.findall(
        r"^export const LANGUAGES = \{(.+)\};$", (FOLDER / "words.js").read_text(encoding="utf-8"), re.M
    )
    languages = re.findall(r"(\w+):", choice)
    assert {path.stem for path in (FOLDER / "words").iterdir()} == {*languages} - {"en"}
    for path in (FOLDER / "words").iterdir():
        words = json.loads(path.read_text(encoding="utf-8"))
        assert {"missing": texts - words.keys(), "unused": words.keys() - texts} == {
            "missing": set(),
            "unused": set(),
        }, path
        for text_, translated in words.items():
            assert translated.strip(), (path, text_)
            assert sorted(re.findall(r"\{\w+\}", translated)) == sorted(re.findall(r"\{\w+\}", text_)), (path, text_)


def test_a_part_of_a_text_is_what_a_citation_points_to(server: Running, docs: Path) -> None:
    signs = "🚢🚢 Line one.\n\nThe harbour pilot of Sandhavn is called Ödön Gray since the spring of 2024."
    add_file(server.bases["kb"], docs / "signs.txt", signs)
    answer = server.ask("Who is the harbour pilot of Sandhavn?").json()["openbook"]
    cited = answer["citations"][0]
    length = cited["end"] - cited["start"]
    found = text(server, path=cited["document"], start=cited["start"], length=length).json()
    assert found["text"] == cited["quote"]
    assert (found["start"], found["end"]) == (cited["start"], cited["end"])
    assert found["total"] == len(signs)
    assert (found["pages"], found["media_type"]) == ([], "text/plain")
    beyond = text(server, path=cited["document"], start=10**6).json()
    assert (beyond["text"], beyond["start"]) == ("", found["total"])


def test_the_pages_of_a_pdf_are_told(server: Running) -> None:
    add(server.bases["kb"], [ROOT / "examples" / "handbook" / "safety" / "vessel-safety-manual.pdf"], HashEmbedder())
    path = path_of(server.bases["kb"], "vessel-safety-manual.pdf")
    whole = text(server, path=path).json()
    assert whole["media_type"] == "application/pdf"
    pages = [(each["page"], each["start"]) for each in whole["pages"]]
    assert [page for page, _ in pages] == list(range(1, len(pages) + 1))
    assert len(pages) > 2
    starts = [start for _, start in pages]
    assert starts == sorted(starts)
    passages = server.bases["kb"].passages(path)
    assert starts == [next(p.start for p in passages if p.page == page) for page, _ in pages]
    part = text(server, path=path, start=starts[1] + 1, length=1).json()
    assert part["pages"] == [whole["pages"][1]]
    assert text(server, path=path, start=starts[1] - 1, length=2).json()["pages"] == whole["pages"][:2]


def test_what_is_asked_of_a_text_is_bounded(serve: Serve) -> None:
    server = serve(text_chars=20)
    path = path_of(server.bases["kb"], "bridge.txt")
    assert len(text(server, path=path).json()["text"]) == 20
    assert refusal(text(server, path=path, length=21)) == (400, "above_limit", "length")
    assert refusal(text(server)) == (400, "missing_required_parameter", "path")
    for params in ({"start": -1}, {"start": "x"}, {"length": 0}, {"start": "9" * 14}, {"page": 1}, {"as_of": "no"}):
        response = text(server, path=path, **params)
        assert response.status_code == 400, params
        assert response.json()["error"]["param"] in params


def test_versions_are_compared_and_an_older_one_has_its_own_text(server: Running, docs: Path) -> None:
    base = server.bases["kb"]
    before = base.version
    add_file(base, docs / "ferry.md", "# Ferry\n\nThe ferry to Sandhavn leaves at ten.")
    add_file(base, docs / "tower.txt", "The tower of Lund is 55 metres high.")
    remove(base, [path_of(base, "bridge.txt")])
    ferry = path_of(base, "ferry.md")
    assert "at ten" in text(server, path=ferry).json()["text"]
    old = text(server, path=ferry, as_of=before).json()
    assert ("at nine" in old["text"], old["version"]) == (True, before)
    found = difference(server, before=before).json()
    assert (found["before"], found["after"]) == (before, base.version)
    names = {
        kind: [Path(path).name for path in found[kind]] for kind in ("added", "changed", "removed", "metadata_changed")
    }
    assert names == {"added": ["tower.txt"], "changed": ["ferry.md"], "removed": ["bridge.txt"], "metadata_changed": []}
    came = [each["text"] for each in found["passages_added"]]
    assert any("at ten" in each for each in came)
    assert found["counts"]["passages_added"] == len(came)
    back = difference(server, before=base.version, after=before).json()
    assert (back["added"], back["removed"]) == (found["removed"], found["added"])
    short = difference(server, before=before, limit=1).json()
    assert len(short["passages_added"]) == 1
    assert short["counts"] == found["counts"]
    assert refusal(difference(server)) == (400, "missing_required_parameter", "before")
    assert refusal(difference(server, before=99)) == (400, "version_not_found", "before")
    assert refusal(difference(server, before=0, after="no")) == (400, "version_not_found", "after")


def test_a_model_tells_what_it_was_trained_on_and_not_what_else_there_is(own_home: Path, tmp_path: Path) -> None:
    settings = Settings(home=own_home)
    store = ModelStore(settings.models_dir)
    (tmp_path / "tiny.gguf").write_bytes(Recipe().build())
    tiny = import_gguf(store, tmp_path / "tiny.gguf", name="tiny")
    found = store_adapter(store, tmp_path, tiny, "small")
    other = store_adapter(store, tmp_path, tiny, "sibling", b"\x07" * 16)
    engine = EchoEngine()
    engine.identity = ModelIdentity("small", found.digest, "verified")
    with running(Configuration(settings), FrozenModel(engine), {}) as server:
        value = server.client.get("/v1/models/small:closed-book/lineage").json()
        assert [each["digest"] for each in value["data"]] == [found.digest, tiny.digest]
        assert "1,000 tokens" in " ".join(value["data"][0]["details"])
        assert "sibling" not in str(value)
        assert other.digest not in str(value)
        assert refusal(server.client.get("/v1/models/sibling/lineage")) == (404, "model_not_found", "model")
    with running(Configuration(settings), echo_model(), {}) as server:  # which is not in the store
        assert refusal(server.client.get("/v1/models/echo/lineage")) == (404, "lineage_unknown", "model")
