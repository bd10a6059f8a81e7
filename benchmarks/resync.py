"""What does `openbook sync` cost when nothing changed, and when one file did?

    python benchmarks/resync.py FOLDER [--runs 7]
    python benchmarks/resync.py --web 1000 [--runs 3]

Copies FOLDER, syncs it once, then measures whole runs of the command, process start included: with nothing changed, and
with one line added to one file, after which the line must be found by a fresh `openbook search`. With --web: the first
and the second sync of a site on loopback, whose pages are found by links, or by a sitemap with `lastmod`. Prints
medians with the least and the most, and as its last line one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SERVER = """
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
SimpleHTTPRequestHandler.protocol_version = "HTTP/1.1"
SimpleHTTPRequestHandler.wbufsize = 65_536  # heads and bodies leave together
server = ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--web", type=int, default=0, metavar="PAGES")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        if options.web:
            result = web(options.web, Path(work), options.runs)
        else:
            result = run(options.folder or parser.error("which FOLDER?"), Path(work), options.runs)
    for name, values in result.items():
        if isinstance(values, list):
            print(f"{name:<16} {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")
    print(json.dumps(result))


def run(source: Path, work: Path, runs: int) -> dict[str, object]:
    docs, kb, chance = work / "docs", work / "kb", random.Random(1)
    shutil.copytree(source, docs)
    files = sorted(p for p in docs.rglob("*") if p.is_file())
    first_s = openbook("sync", str(docs), "--kb", str(kb))[0]
    time.sleep(3)  # what was changed in the last two seconds is read again, in case it changed twice
    unchanged, changed, found = list[float](), list[float](), list[float]()
    for number in range(runs):
        unchanged.append(openbook("sync", "--kb", str(kb))[0])
        with chance.choice(files).open("a", encoding="utf-8") as file:
            file.write(f"\n\nThe quokkavane{number} is painted green on Tuesdays.\n")
        changed.append(openbook("sync", "--kb", str(kb))[0])
        seconds, output = openbook("search", f"quokkavane{number}", "-n", "1", "--kb", str(kb))
        assert f"quokkavane{number} is painted" in output, output
        found.append(seconds)
    return {
        "files": len(files),
        "first_s": first_s,
        "unchanged_s": unchanged,
        "one_changed_s": changed,
        "search_s": found,
    }


def web(pages: int, work: Path, runs: int) -> dict[str, object]:
    site = work / "site"
    site.mkdir()
    for number in range(pages):
        links = "".join(f"<a href={10 * number + n}.html>" for n in range(10) if 0 < 10 * number + n < pages)
        text = f"Page {number}. The office is open from nine to five on every working day, and closed on holidays."
        (site / f"{number}.html").write_text(f"<html><body>{links}<main><p>{text}</p></main></body></html>")
    command = [sys.executable, "-c", SERVER]
    server = subprocess.Popen(command, cwd=site, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/"
        named = "".join(f"<url><loc>{url}{n}.html</loc><lastmod>2024-03-05</lastmod></url>" for n in range(pages))
        (site / "map.xml").write_text(f"<urlset>{named}</urlset>")
        result: dict[str, list[float]] = {}
        for number in range(runs):
            for way, robots in (("links", ""), ("lastmod", f"Sitemap: {url}map.xml")):
                (site / "robots.txt").write_text(robots)
                kb = work / f"{way}{number}"
                kb.mkdir()
                source = f'[[sources]]\nurl = "{url}0.html"\ndelay_s = 0.0\npages = {pages + 9}\n'
                (kb / "sources.toml").write_text(source)
                for order in ("first", "second"):
                    seconds, output = openbook("sync", "--kb", str(kb))
                    assert f"{pages} {'added' if order == 'first' else 'unchanged'}" in output, output
                    result.setdefault(f"{way}_{order}_s", []).append(seconds)
                first, second = result[f"{way}_first_s"][-1], result[f"{way}_second_s"][-1]
                result.setdefault(f"{way}_ratio", []).append(second / first)
        return {"pages": pages, **result}
    finally:
        server.terminate()


def openbook(*arguments: str) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "openbook", *arguments], capture_output=True, text=True, check=True, env=os.environ
    )
    return time.perf_counter() - started, done.stdout


if __name__ == "__main__":
    main()
