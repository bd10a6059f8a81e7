"""The first load of a model file, in a separate process, so that a crash there does not end this one.

llama.cpp aborts its process for some numbers in a file, for words that a vocabulary cannot spell, and for tokens that it cannot write; a chat
template is a program that may not end. So `python -m openbook.inference.trial` first opens a file of unknown SHA-256, with time and memory limits, and
records the template's output; this process never renders an unknown template. The other has the same rights as this one: it is no sandbox.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openbook.core.config import available_cores
from openbook.core.errors import EngineError, OpenBookError
from openbook.models.catalogue import KNOWN_FILES
from openbook.models.verify import TemplateText, Trial, read_cached, trial_path, write_cached

if TYPE_CHECKING:
    from openbook.models import ModelReference

MEMORY_MB = 8192  # of address space, plus the mapped files
VOCABULARY_MEMORY_MB = 1024  # for the vocabulary and the template, before the weights are mapped
SECONDS = 120.0  # plus one for each 20 MB of the files
TEMPLATE_SECONDS = 5.0
ANSWER = "trial.json"  # in the process's folder
MAX_OUTPUT_BYTES = 1 << 20  # of any file that the process writes


def check_usable(reference: ModelReference) -> None:
    """Raise EngineError for a model, perhaps in a staging folder, that cannot be loaded and asked."""
    if reference.manifest.kind == "language-model":
        trial_of(reference)
    elif reference.base is not None:  # an adapter; without its base, it is tried when that arrives
        trial_of(reference.base, reference)


def trial_of(model: ModelReference, adapter: ModelReference | None = None) -> Trial | None:
    """The recorded or a new trial of a model, or of an adapter on it; None for files of the catalogue.

    The caller has verified both. Raises EngineError if the trial fails.
    """
    from openbook.inference.llamalib import library

    parts = [model, *([adapter] if adapter else [])]
    files = tuple(part.manifest.files[part.manifest.main_file].sha256 for part in parts)
    if KNOWN_FILES.issuperset(files):
        return None
    path = trial_path(parts[-1].path.parent, parts[-1].digest)
    engine, found = library().build, read_cached(path, Trial)
    if found is None or (found.engine, found.files) != (engine, files):
        template, reason = _try([part.main_file for part in parts])
        if reason:
            hint = "Convert it again, or take another file."
            raise EngineError(f"The model {parts[-1].name!r} cannot be used: {reason}. {hint}")
        found = Trial(engine, files, template)
        write_cached(path, found)
    return found


def _try(files: list[Path]) -> tuple[TemplateText | None, str]:
    """Run the process on the model's and the adapter's file. Return the template's output, or why it failed."""
    size = sum(file.stat().st_size for file in files)
    timeout_s = SECONDS + size / 20_000_000
    request = json.dumps([MEMORY_MB + (size >> 20), timeout_s, TEMPLATE_SECONDS, *(str(f.absolute()) for f in files)])
    # Same module search path as this process; llama.cpp must not start a debugger when it aborts.
    places = os.pathsep.join(map(os.path.abspath, [str(Path(__file__).parents[2]), *filter(None, sys.path)]))
    environment = {**os.environ, "PYTHONPATH": places, "PYTHONSAFEPATH": "1", "GGML_NO_BACKTRACE": "1"}
    command = [sys.executable, "-X", "utf8", "-m", "openbook.inference.trial", request]
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w+b") as log:
        how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
        try:
            code = subprocess.run(command, cwd=folder, timeout=timeout_s, env=environment, **how).returncode
        except subprocess.TimeoutExpired:
            code = -getattr(signal, "SIGXCPU", 0)
        except OSError as error:
            return None, f"no process could be started to try it ({error.strerror or error})"
        if found := read_cached(Path(folder, ANSWER), Trial):
            return found.template, ""
        log.seek(0)
        last = log.read(MAX_OUTPUT_BYTES).strip().rpartition(b"\n")[2].decode(errors="replace")
    said = "".join(char if char.isprintable() else " " for char in last)[-500:].rstrip(".")
    if code == -getattr(signal, "SIGXCPU", 0):
        allowed = f"of which its chat template may take {TEMPLATE_SECONDS:g} s"
        return None, f"it was not loaded and asked within {timeout_s:.0f} s, {allowed}"
    if code == 1 and said:  # `main` ended by an exception
        return None, said
    ended = f"signal {-code}" if code < 0 else f"exit code {code}"
    return None, f"it ended the process that tried it ({ended}{said and ': '}{said})"


# --- in the process -----------------------------------------------------------------------------------------------------


def main(memory_mb: int, timeout_s: float, template_s: float, model: str, adapter: str | None = None) -> None:
    """Try every token and character, the template, and three questions, two of them on one passage, whose state is kept."""
    from openbook.core.records import ModelIdentity, Prompt
    from openbook.inference.llamacpp import LlamaCppEngine
    from openbook.inference.llamalib import Model
    from openbook.inference.tokenizer import template_of

    _limit(VOCABULARY_MEMORY_MB, timeout_s)
    vocabulary = Model(Path(model), vocabulary_only=True)
    for token in range(vocabulary.vocabulary_size):
        vocabulary.piece(token)
        vocabulary.is_control(token)
    words = [20_000 * character for character in "a1! \nÄ水"]  # stack use grows with word length
    if vocabulary.metadata("tokenizer.ggml.model") != "gpt2":  # it spells bytes, and skips those it lacks
        characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
        words += [" ".join(characters[start : start + (1 << 12)]) for start in range(0, len(characters), 1 << 12)]
    for word in words:
        vocabulary.tokenize(word, control=False)
    _limit(VOCABULARY_MEMORY_MB, template_s)
    trial = Trial("", (), template_of(vocabulary))
    vocabulary.close()
    _limit(memory_mb, timeout_s * available_cores())
    identity, part = ModelIdentity(Path(model).name, "", "claimed"), Path(adapter) if adapter else None
    engine = LlamaCppEngine(Path(model), identity=identity, adapter=part, context_tokens=512, trial=trial)
    for passages, question in ((("A.",), "B?"), (("A.",), "C?"), ((), "B?")):
        if not math.isfinite(float(engine.logits(Prompt("Answer.", passages, question)).max())):
            raise EngineError("its numbers give no answer: they are not finite")
    write_cached(Path(ANSWER), trial)


def _limit(memory_mb: int, seconds: float) -> None:
    """Set soft limits, since later ones are higher: against accidents and bombs, not intruders."""
    with suppress(ImportError, AttributeError, ValueError, OSError):  # not on every platform
        import resource

        cpu_s = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) + seconds) + 1  # user and system time
        limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: MAX_OUTPUT_BYTES, resource.RLIMIT_CPU: cpu_s}
        for kind, limit in {**limits, resource.RLIMIT_AS: memory_mb << 20}.items():
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


if __name__ == "__main__":
    try:
        main(*json.loads(sys.argv[1]))
    except OpenBookError as error:
        sys.exit(" ".join(str(error).split()))
    except MemoryError:
        sys.exit("it needs more memory than a trial may take")
