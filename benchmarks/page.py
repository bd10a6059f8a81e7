"""How much does the web page load, and how fast is it?

    python -m benchmarks.page [--rounds 5] [--conversations 500]

Chromium (OPENBOOK_CHROMIUM, or /usr/bin/chromium) opens the page of a server over fakes with the documents of the handbook. Bytes are
those of the page's files as they lie and as they are sent (gzip): all of them without dictionaries, and those that a first visit with one
question loads. Times are medians in milliseconds: to the first paint and to the first view in a browser that knows nothing; of the longest
task and until its answer is there, when a link opens one of so many conversations; from a click on another conversation until it is
drawn; from the choice of another language until it is spoken.

The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import Page, sync_playwright

from openbook.core.config import Settings
from openbook.knowledge import KnowledgeBase, sync
from openbook.serving.app import create_app
from openbook.serving.configuration import Configuration
from openbook.serving.page import FOLDER
from openbook.serving.server import http_server, listen
from openbook.testing import HashEmbedder, echo_model

HANDBOOK = Path(__file__).parents[1] / "examples" / "handbook"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
GERMAN = json.loads((FOLDER / "words" / "de.json").read_text(encoding="utf-8"))
QUESTION = "When does the ferry to Sandhavn leave?"

# Copies of the conversation that is shown, each of three turns.
FILL = """async n => {
  const asked = request => new Promise(resolve => { request.onsuccess = () => resolve(request.result) });
  const database = await asked(indexedDB.open("openbook", 1));
  const [{ value }] = await asked(database.transaction("conversations").objectStore("conversations").getAll());
  const [{ value: row }] = await asked(database.transaction("list").objectStore("list").getAll());
  const stores = database.transaction(["list", "conversations"], "readwrite");
  for (let i = 0; i < n; i++) {
    const id = i.toString(16).padStart(32, "0"), changed = Date.now() - i * 1e6;
    const turns = [0, 1, 2].map(j => ({ ...value.turns[0], id: id + j }));
    stores.objectStore("list").put({ id, value: { ...row, title: `${row.title} ${i}`, changed, words: row.words.repeat(3), turns: turns.map(turn => turn.id) } });
    stores.objectStore("conversations").put({ id, value: { ...value, id, changed, turns } });
  }
  await new Promise(resolve => { stores.oncomplete = resolve });
}"""
TASKS = """window.tasks = [0]; new PerformanceObserver(list => tasks.push(...list.getEntries().map(each => each.duration))).observe({ type: "longtask", buffered: true });
window.firsts = {}; const look = () => { for (const what of ["#welcome", ".turn .receipt"]) if (!(what in firsts) && document.querySelector(what)) firsts[what] = performance.now();
  requestAnimationFrame(look) }; look();"""
DRAWN = """id => new Promise(resolve => {
  const link = document.querySelectorAll("#conversations li > a")[id], start = performance.now();
  link.click();
  const look = () => document.querySelector(".shown > a") === link && document.querySelectorAll(".turn .receipt").length === 3
    ? requestAnimationFrame(() => resolve(performance.now() - start)) : requestAnimationFrame(look);
  requestAnimationFrame(look);
})"""


def serve(folder: str, door: int) -> None:
    home = Path(folder)
    shutil.copytree(HANDBOOK, home / "docs")
    base = KnowledgeBase.ensure(home / "kb", HashEmbedder().identity)
    sync(base, home / "docs", HashEmbedder())
    app = create_app(Configuration(settings=Settings(home=home)), echo_model(), {"kb": base}, HashEmbedder())
    with listen("127.0.0.1", door) as sockets:
        http_server(app).run(sockets=[sockets])


def sizes(names: list[str]) -> dict[str, int]:
    files = [(FOLDER / name).read_bytes() for name in names]
    return {
        "files": len(files),
        "bytes": sum(map(len, files)),
        "sent_bytes": sum(len(gzip.compress(each)) for each in files),
    }


def first_visit(browser: Any, url: str) -> tuple[list[str], dict[str, float]]:
    """The files that are loaded until a question is answered, and when what was seen."""
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    names = list[str]()
    page.on("request", lambda sent: names.append(sent.url.removeprefix(url).removeprefix("/web/").strip("/")))
    page.add_init_script(TASKS)
    page.goto(url)
    page.wait_for_selector("#holds")
    ask(page)
    times = {
        "first_paint_ms": page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"),
        "first_view_ms": page.evaluate("firsts['#welcome']"),
    }
    context.close()
    return sorted({name or "index.html" for name in names if not name.startswith("v1")}), times


def ask(page: Page) -> None:
    page.locator("#question").fill(QUESTION)
    page.locator("#send").click()
    page.wait_for_selector(".turn .receipt")


def many(browser: Any, url: str, conversations: int, rounds: int) -> list[dict[str, float]]:
    context = browser.new_context(locale="en-US", viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.add_init_script(TASKS)
    page.goto(url)
    page.wait_for_selector("#holds")
    ask(page)
    page.evaluate(FILL, conversations)
    rows = []
    for i in range(rounds):
        page.goto("about:blank")
        page.goto(f"{url}/#/ask/{7 * i + 3:032x}")
        page.wait_for_selector(".turn .receipt")
        page.wait_for_timeout(500)
        row = {
            "opened_ms": page.evaluate("firsts['.turn .receipt']"),
            "longest_task_ms": page.evaluate("Math.max(...tasks)"),
        }
        row["clicked_ms"] = page.evaluate(DRAWN, 20 + i)
        start = time.perf_counter()
        page.locator("#language").select_option("en" if i % 2 else "de")
        page.locator("#new", has_text="New conversation" if i % 2 else GERMAN["New conversation"]).wait_for()
        row["language_ms"] = 1000 * (time.perf_counter() - start)
        rows.append(row)
    context.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--conversations", type=int, default=500)
    options = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        door = free.getsockname()[1]
    url = f"http://127.0.0.1:{door}"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, door), daemon=True)
        server.start()
        chromium = os.environ.get("OPENBOOK_CHROMIUM", "/usr/bin/chromium")
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        while True:
            try:
                socket.create_connection(("127.0.0.1", door), 1).close()
                break
            except OSError:
                server.join(0.2)
        visits = [first_visit(browser, url) for _ in range(options.rounds)]
        rows = many(browser, url, options.conversations, options.rounds)
        browser.close()
        server.kill()
        server.join()
    kept = {".js", ".css", ".html", ".svg"}
    every = [path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.suffix in kept]
    value: dict[str, Any] = {"all": sizes(every), "first_visit": sizes(visits[-1][0]), "loaded": visits[-1][0]}
    for each in ([times for _, times in visits], rows):
        value |= {name: round(median(row[name] for row in each)) for name in each[0]}
    print(json.dumps(value))


if __name__ == "__main__":
    main()
