"""The first load of a model file, in a separate process, so that a crash there does not end this one.

llama.cpp aborts its process for some numbers in a file, for words that a vocabulary cannot spell, and for tokens that it
cannot write; a chat template is a program that may not end. So a file of unknown SHA-256 is first opened by
`python -m openbook.inference.trial`, with time and memory limits. The template's output is recorded there; this process
never renders an unknown template.

A trial is not a sandbox: the process has the same rights as this one.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from openbook.codec import decode
from openbook.config import available_cores
from openbook.errors import EngineError, OpenBookError
from openbook.models.catalogue import KNOWN_FILES
from openbook.models.verify_cache import TemplateText, Trial, read_cached, trial_path, write_cached

if TYPE_CHECKING:
    from openbook.inference.llamalib import Model
    from openbook.models import ModelReference

MEMORY_MB = 8192  # of address space, plus the mapped files
VOCABULARY_MEMORY_MB = 1024  # for the vocabulary and the template, before the weights are mapped
SECONDS = 120.0  # plus one for each 20 MB of the files
TEMPLATE_SECONDS = 5.0
_BYTES_A_SECOND = 20_000_000
MAX_ANSWER_BYTES = 1 << 20  # limit for the process's answer and its error output, each
_MAX_REASON_CHARS = 500
_LONG_WORD_CHARS = 20_000  # stack use grows with word length, so longer words are covered too


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The reason why the model cannot be used, or its template's output, each if any."""

    reason: str | None
    template: TemplateText | None


def check_usable(reference: ModelReference) -> None:
    """Raise EngineError for a model, perhaps in a staging folder, that cannot be loaded and asked.

    An adapter without its base is tried when the base arrives.
    """
    if reference.manifest.kind == "adapter":
        if reference.base is not None:
            trial_of(reference.base, reference)
    elif reference.manifest.kind == "language-model":
        trial_of(reference)


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
        try:
            template = _try([part.main_file for part in parts])
        except EngineError as error:
            reason = " ".join("".join(char if char.isprintable() else " " for char in str(error)).split())
            raise EngineError(
                f"The model {parts[-1].name!r} cannot be used: {reason[-_MAX_REASON_CHARS:].rstrip('.')}. Convert it again, "
                "or take another file."
            ) from None
        found = Trial(engine, files, template)
        write_cached(path, found)
    return found


def _try(files: list[Path]) -> TemplateText | None:
    """Run the process on the model's and the adapter's file. Return the template's output."""
    size = sum(file.stat().st_size for file in files)
    timeout_s = SECONDS + size / _BYTES_A_SECOND
    limits = json.dumps([MEMORY_MB + (size >> 20), timeout_s, TEMPLATE_SECONDS])
    # Same module search path as this process; llama.cpp must not start a debugger when it aborts.
    places = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": places, "PYTHONSAFEPATH": "1", "GGML_NO_BACKTRACE": "1"}
    too_slow = EngineError(
        f"it was not loaded and asked within {timeout_s:.0f} s, of which its chat template may take {TEMPLATE_SECONDS:g} s"
    )
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as complaints:
        try:
            done = subprocess.run(
                [sys.executable, "-X", "utf8", "-m", "openbook.inference.trial", limits, *map(str, files)],
                stdin=subprocess.DEVNULL, stdout=answer, stderr=complaints, timeout=timeout_s, check=False,
                env=environment, start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise too_slow from None
        except OSError as error:
            raise EngineError(f"no process could be started to try it ({error.strerror or error})") from error
        for stream in (answer, complaints):
            stream.seek(0)
        written, said = answer.read(MAX_ANSWER_BYTES), complaints.read(MAX_ANSWER_BYTES)
    if done.returncode == -getattr(signal, "SIGXCPU", 0):
        raise too_slow
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    complaint = said.strip().rpartition(b"\n")[2].decode(errors="replace")
    try:
        outcome = decode(written, _Outcome, "The answer", EngineError)
    except EngineError:
        raise EngineError(f"it ended the process that tried it ({how}{complaint and ': '}{complaint})") from None
    if outcome.reason is not None:
        raise EngineError(outcome.reason)
    return outcome.template


# --- in the process -----------------------------------------------------------------------------------------------------


def main(limits: str, *files: str) -> None:
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes to standard error
    template, reason = None, None
    try:
        template = _load_and_ask(*map(Path, files), limits=json.loads(limits))
    except OpenBookError as error:
        reason = str(error)
    except MemoryError:
        reason = "it needs more memory than a trial may take"
    except Exception as error:  # noqa: BLE001  whatever a template or a library does
        reason = f"it fails ({type(error).__name__}: {error})"
    json.dump({"reason": reason and reason[:_MAX_REASON_CHARS], "template": template}, answer)
    answer.close()


def _load_and_ask(path: Path, adapter: Path | None = None, *, limits: tuple[int, float, float]) -> TemplateText | None:
    """Two questions on one passage keep and restore its state; one has no passage."""
    from openbook.inference.llamacpp import LlamaCppEngine
    from openbook.inference.llamalib import Model
    from openbook.inference.tokenizer import template_of
    from openbook.records import ModelIdentity, Prompt

    memory_mb, timeout_s, template_s = limits
    _limit(VOCABULARY_MEMORY_MB, timeout_s)
    vocabulary = Model(path, vocabulary_only=True)
    _limit(VOCABULARY_MEMORY_MB, template_s)
    template = template_of(vocabulary)
    _limit(VOCABULARY_MEMORY_MB, timeout_s)
    _spell_everything(vocabulary)
    vocabulary.close()
    _limit(memory_mb, timeout_s * available_cores())
    identity, trial = ModelIdentity(path.name, "", "claimed"), Trial("", (), template)
    engine = LlamaCppEngine(path, identity=identity, adapter=adapter, context_tokens=512, trial=trial)
    for passages, question in ((("A.",), "B?"), (("A.",), "C?"), ((), "B?")):
        if not math.isfinite(float(engine.logits(Prompt("Answer.", passages, question)).max())):
            raise EngineError("its numbers give no answer: they are not finite")
    return template


def _spell_everything(vocabulary: Model) -> None:
    """Try every character and token: llama.cpp aborts the process for those it refuses."""
    for token in range(vocabulary.vocabulary_size):
        vocabulary.piece(token)
        vocabulary.is_control(token)
    for character in "a1! \nÄ水":
        vocabulary.tokenize(_LONG_WORD_CHARS * character, control=False)
    if vocabulary.metadata("tokenizer.ggml.model") == "gpt2":
        return  # it spells bytes, and skips those it lacks
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    for start in range(0, len(characters), 1 << 12):
        vocabulary.tokenize(" ".join(characters[start : start + (1 << 12)]), control=False)


def _limit(memory_mb: int, seconds: float) -> None:
    """Set soft limits, since later ones are higher: against accidents and bombs, not intruders."""
    with contextlib.suppress(ImportError, AttributeError, ValueError, OSError):  # not on every platform
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        for kind, limit in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_FSIZE, MAX_ANSWER_BYTES),
            (resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + seconds) + 1),
            (resource.RLIMIT_AS, memory_mb << 20),
        ):
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


if __name__ == "__main__":
    main(*sys.argv[1:])
