"""A whole run: from a recipe to a new model in the store, with its numbers and checkpoints in a folder of its own."""

from __future__ import annotations

import json
import os
import platform
import random
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from openbook import runs
from openbook.errors import ConfigError, ModelNotVerified, OpenBookError, TrainingError
from openbook.files import make_folder, storage_errors
from openbook.inference.tokenizer import PromptTokenizer, open_tokenizer
from openbook.inference.trial import try_model
from openbook.models import KnowledgeCutoff, ModelReference, ModelStore, read_gguf
from openbook.models.gguf_writer import write_merged
from openbook.models.importer import store_trained
from openbook.models.lineage import record_beside
from openbook.models.training_record import TrainingRecord, text_digests
from openbook.records import ReaderFormat, canonical_json, sha256_hex
from openbook.training import checkpoints
from openbook.training.checkpoints import Checkpoint
from openbook.training.evaluating import evaluate
from openbook.training.examples import Tree, fitted
from openbook.training.exporting import lora_updates, write_adapter, write_full
from openbook.training.instruction import ConversationLine, conversation_trees
from openbook.training.jsonl import read_lines
from openbook.training.language import document_trees, read_documents
from openbook.training.loop import Evaluated, Progress, Run
from openbook.training.network import load_network
from openbook.training.processes import ALONE, Processes
from openbook.training.reader import PassageLine, reader_trees
from openbook.training.recipe import Data, Recipe
from openbook.training.sampling import Sample, samples_of
from openbook.training.scratch import new_network, write_vocabulary
from openbook.training.trainable import prepare

CHECKPOINT_EVERY_S = 300.0  # results do not depend on it: a resumed run ends with the same bytes
PROBLEMS_SHOWN = 5
MEASURED_STEPS = 10  # of a dry run


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who looks on: `step` after each step, `evaluation` after each evaluation, `say` for a sentence."""

    step: Callable[[Progress], None]
    evaluation: Callable[[Evaluated], None]
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that a run begins with. A function of the recipe, the data and the base alone."""

    base: ModelReference | None  # None: from nothing
    described: Path  # the GGUF file with the vocabulary and the hyperparameters: the base's, or a new one
    tokenizer: PromptTokenizer
    trees: list[Tree]
    dev: list[Tree]
    texts: list[str]
    problems: list[str]


class Stopped(Exception):
    """The user asked to stop; all that was done is in a checkpoint."""


def prepared(
    recipe: Recipe, recipe_folder: Path, store: ModelStore, folder: Path, processes: Processes = ALONE
) -> Prepared:
    """Raises UnknownModel, ModelNotVerified, ConfigError with the file and line, TrainingError when nothing is left.

    A new vocabulary is written into `folder`.
    """
    if not recipe.train:
        raise ConfigError("The recipe names no [[train]] data. Add some, or give documents with --from-kb.")
    if recipe.architecture is None:
        base = base_of(recipe, store)
        described = base.main_file
    else:
        base, described = None, folder / ("vocabulary.gguf" if processes.first else f"vocabulary-{processes.rank}.gguf")
        texts = [text for data in recipe.train for _, text in read_documents(data, recipe_folder)]
        write_vocabulary(described, texts, recipe.architecture, name=recipe.name)
    tokenizer = open_tokenizer(described)
    header = read_gguf(described)
    context = header.integer(f"{header.text('general.architecture')}.context_length") or 0
    if recipe.loop.sequence_tokens > context > 0:
        raise ConfigError(
            f"loop.sequence_tokens is {recipe.loop.sequence_tokens}, but the model reads at most {context} tokens."
        )
    trees, texts, problems = trees_of(recipe, recipe.train, recipe_folder, tokenizer, measuring=False)
    dev, _, more = trees_of(recipe, recipe.dev, recipe_folder, tokenizer, measuring=True)
    if not trees:
        raise TrainingError(
            "There is nothing to learn from: no example fits into sequence_tokens. "
            + (f"The first is {problems[0]}." if problems else "")
        )
    dev = sample(dev, recipe.evaluation.questions, recipe.loop.seed)
    return Prepared(base, described, tokenizer, trees, dev, texts, problems + more)


def base_of(recipe: Recipe, store: ModelStore) -> ModelReference:
    """The base, verified. Raises UnknownModel, ModelNotVerified."""
    if recipe.base is None:
        raise ConfigError("The recipe names no base.")
    reference = store.resolve(recipe.base.digest)
    store.check_fast(reference)
    if reference.digest != recipe.base.digest:
        raise ModelNotVerified(f"The base is {reference.digest}, the recipe says {recipe.base.digest}.")
    if reference.manifest.kind != "language-model":
        raise ConfigError(
            f"base: {recipe.base.model!r} is an {reference.manifest.kind}. Give a language model; an adapter is trained "
            "further after it was merged with its base."
        )
    return reference


def trees_of(
    recipe: Recipe, files: Sequence[Data], folder: Path, tokenizer: PromptTokenizer, *, measuring: bool
) -> tuple[list[Tree], list[str], list[str]]:
    """(trees, the texts that they are made of, a sentence for each example that does not fit)."""
    objective, length = recipe.objective, recipe.loop.sequence_tokens
    if objective.kind == "language-modeling":
        documents = [each for data in files for each in read_documents(data, folder)]
        return document_trees(documents, tokenizer, length), [text for _, text in documents], []
    if objective.kind == "instruction":
        talks = [line for data in files for line in read_lines(data, folder, ConversationLine)]
        kept, problems = fitted(conversation_trees(talks, tokenizer), length)
        return kept, [turn.content for _, line in talks for turn in line.turns], problems
    lines = [line for data in files for line in read_lines(data, folder, PassageLine)]
    trees = reader_trees(lines, objective, tokenizer, recipe.loop.seed, every_answer=measuring)
    kept, problems = fitted(trees, length)
    return kept, [text.text for _, line in lines for text in line.texts], problems


def sample(trees: Sequence[Tree], questions: int, seed: int) -> list[Tree]:
    """Whole trees in random order until they hold so many questions."""
    order = list(range(len(trees)))
    random.Random(f"{seed}/dev").shuffle(order)  # noqa: S311  an order, not a secret
    chosen: list[Tree] = []
    count = 0
    for i in order:
        if count >= questions:
            break
        chosen.append(trees[i])
        count += len({branch.key for branch in trees[i].branches})
    return chosen


def begin(recipe: Recipe, ready: Prepared, device: str) -> tuple[Any, dict[str, torch.nn.Parameter]]:
    """The network as it is at step 0, and what is learned of it."""
    # Without it products on a GPU are added in another order each time.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    dtype = torch.bfloat16 if recipe.loop.precision == "bf16" else torch.float32
    if ready.base is None:
        network = new_network(ready.described, recipe.loop.seed, dtype)
    else:
        network = load_network(ready.described, dtype=dtype)
    prepare(network, recipe.method, recipe.loop.seed)  # before it moves: the beginning is the same everywhere
    network.to(device)
    return network, {name: p for name, p in sorted(network.named_parameters()) if p.requires_grad}


def checked_device(wanted: str, processes: Processes = ALONE) -> str:
    """`cpu` or `cuda`; of `auto` the GPU where there is one. Raises ConfigError for a GPU that cannot be used."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("PyTorch finds no GPU here. Leave --device out, or install PyTorch with CUDA.")
    if wanted == "cuda" and processes.count > 1:
        raise ConfigError("Several processes train on CPUs only. Use --device cpu, or one process.")
    gpu = torch.cuda.is_available() and processes.count == 1 and wanted != "cpu"
    return "cuda" if gpu else "cpu"


def measure(recipe: Recipe, ready: Prepared, device: str = "cpu") -> dict[str, float]:
    """A dry run: a few steps, nothing written. Tokens, steps, seconds for all of them, MiB at the highest."""
    run = Run(recipe, *begin(recipe, ready, device), ready.trees)
    seconds, tokens = [], 0
    for progress in run.steps_to_go():
        seconds.append(progress.seconds)
        tokens += progress.tokens
        if len(seconds) == MEASURED_STEPS:
            break
    timed = seconds[1:] or seconds  # the first one also allocates
    epoch_tokens = sum(tree.tokens for tree in ready.trees)
    return {
        "examples": sum(len(tree.branches) for tree in ready.trees),
        "epoch_tokens": epoch_tokens,
        "steps": run.steps,
        "learned_parameters": sum(value.numel() for value in run.learned.values()),
        "tokens_per_second": tokens / sum(seconds),
        "estimated_seconds": run.steps * sum(timed) / len(timed),
        "memory_mib": memory_mib(),
    }


def train(
    recipe: Recipe,
    recipe_folder: Path,
    store: ModelStore,
    folder: Path,
    watcher: Watcher,
    *,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    processes: Processes = ALONE,
    device: str = "cpu",
) -> ModelReference:
    """Do the run in `folder` and store the model that it ends with. Of several processes the first one writes and shows.

    Raises Stopped, TrainingError, StorageError and what `prepared` raises.
    """
    with storage_errors(f"write to {folder}"):
        make_folder(folder)
    with _alone(folder, processes), _out_of_memory(recipe):
        begun = bool(checkpoints.present(folder / runs.CHECKPOINTS)) or (folder / runs.METRICS).is_file()
        started = processes.any(processes.first and begun)
        if started and not resume:
            raise TrainingError(
                f"{folder} already holds a run. Continue it with --resume, or choose another folder with --run."
            )
        say = watcher.say if processes.first else _nothing
        ready = prepared(recipe, recipe_folder, store, folder, processes)
        for sentence in brief(ready.problems):
            say(sentence)
        found = checkpoints.newest(folder / runs.CHECKPOINTS, recipe.digest, say) if started else None
        network, parameters = begin(recipe, ready, device)
        if processes.first:
            _open_files(recipe, ready, network, folder, found)
        processes.shard(network)
        parameters = {name: p for name, p in sorted(network.named_parameters()) if name in parameters}
        run = Run(recipe, network, parameters, ready.trees, processes)
        if found is not None:
            run.restore(found)
        run.computed_in(numeric_class(recipe, processes, device))
        if found is not None:
            say(f"Going on after step {run.state.step} of {run.steps}.")
        evaluated = _learn(run, ready, folder, watcher, should_stop)
        run.keep_best()
        whole = _whole(run, ready)
        stored = _finish(whole, ready, store, folder, evaluated) if whole else None
        processes.wait()
        return stored or store.resolve(recipe.candidate)


def brief(problems: list[str]) -> list[str]:
    """The first few, and how many more there are."""
    more = len(problems) - PROBLEMS_SHOWN
    return problems[:PROBLEMS_SHOWN] + ([f"and {more} more that do not fit"] if more > 0 else [])


def _nothing(_: object) -> None:
    pass


def _learn(
    run: Run, ready: Prepared, folder: Path, watcher: Watcher, should_stop: Callable[[], bool]
) -> Evaluated | None:
    """All steps to go. The last evaluation that was made."""
    every, processes = run.recipe.evaluation.every_steps, run.processes
    saved_at = time.monotonic()

    def log(value: dict[str, Any]) -> None:
        with storage_errors(f"write to {folder}"):
            runs.append_metrics(folder, value)

    def look() -> Evaluated:
        evaluated = evaluate(run.network, ready.dev, run.recipe, run.state.step)
        run.note(evaluated)
        if processes.first:
            log({"kind": "evaluation", "step": evaluated.step, **evaluated.numbers})
            watcher.evaluation(evaluated)
        return evaluated

    last: Evaluated | None = None
    if ready.dev and run.state.step == 0 and run.state.best_metric is None:
        last = look()
    for progress in run.steps_to_go():
        if processes.first:
            log({"kind": "step", **asdict(progress)})
            watcher.step(progress)
        due = progress.step % every == 0 or progress.step == run.steps
        if due and ready.dev:
            last = look()
        stop = processes.any(should_stop())
        if due or stop or processes.any(time.monotonic() - saved_at > CHECKPOINT_EVERY_S):
            checkpoint = run.checkpoint()  # by all: each has a part of it
            if processes.first:
                checkpoints.save(folder / runs.CHECKPOINTS, checkpoint)
            saved_at = time.monotonic()
        if stop and progress.step < run.steps:
            raise Stopped(f"Stopped after step {progress.step} of {run.steps}. Go on with --resume.")
    return last


def _whole(run: Run, ready: Prepared) -> Run | None:
    """In the first process the run with the whole network, in the others None."""
    if run.processes.count == 1:
        return run
    values = run.masters.whole_values()
    if not run.processes.first:
        return None
    found = Run(run.recipe, *begin(run.recipe, ready, "cpu"), ready.trees)
    found.masters.set(values)
    found.state = run.state
    return found


def _finish(run: Run, ready: Prepared, store: ModelStore, folder: Path, evaluated: Evaluated | None) -> ModelReference:
    """Export, store, and say so in the run's folder. `evaluated`: the last evaluation. Raises TrainingError when nothing was learned."""
    recipe = run.recipe
    if run.kept_step == 0:
        raise TrainingError(
            "No evaluation was better than the one before training, so there is nothing to store. Lower "
            "optimiser.learning_rate, train longer, or look at the data."
        )
    if ready.dev and (evaluated is None or evaluated.step != run.kept_step):
        evaluated = evaluate(run.network, ready.dev, recipe, run.kept_step)
    numbers = evaluated.numbers if evaluated else {}
    numbers = {name: round(value, 4) for name, value in numbers.items()}  # as the record has them
    exported = folder / "export.gguf"
    with storage_errors(f"write to {folder}"):
        objective = recipe.objective
        reader = None
        if objective.kind == "reader":
            threshold = numbers.get("declines_above")
            reader = ReaderFormat(objective.instruction, objective.abstention, objective.passages, threshold)
        base, kind = ready.base, recipe.export.quantisation
        if base is None or recipe.method.kind == "full":
            state = {name: value.float().cpu().numpy() for name, value in run.learned.items()}
            write_full(exported, ready.described, state, quantisation=kind, reader=reader)
        elif recipe.exports_adapter:
            alpha = recipe.method.alpha
            write_adapter(
                exported, run.network, ready.described, base.digest, alpha=alpha, quantisation=kind, reader=reader
            )
        else:
            updates = lora_updates(run.network, recipe.method.alpha)
            write_merged(exported, ready.described, updates, quantisation=kind, reader=reader)
    stored = store_trained(
        store,
        exported,
        record_of(run, ready, numbers),
        kind="adapter" if recipe.exports_adapter else "language-model",
        name=recipe.name,
        licence=recipe.licence or (base.manifest.licence if base else "not stated"),
        cutoff=_cutoff(recipe, base),
        as_name=recipe.candidate,
        try_out=try_model,
    )
    with storage_errors(f"write to {folder}"):
        exported.unlink()
        before = [
            Sample(each["question"], each["expected"], each["answer"])
            for each in json.loads((folder / runs.SAMPLES).read_bytes())
        ]
        after = samples_of(run.network, ready.dev, ready.tokenizer)
        both = zip(before, after, strict=False)  # none before where there was no dev data
        runs.write_json(folder / runs.SAMPLES, [asdict(old) | {"after": new.answer} for old, new in both])
        result = {
            "model": stored.digest,
            "name": stored.name,
            "parent": base.digest if base else None,
            "step": run.kept_step,
            "tokens": run.state.tokens,
            "numbers": numbers,
            "target": recipe.gate.target,
            "missed": missed_targets(recipe, numbers),
            "bytes": stored.main_file.stat().st_size,
            "numeric_class": " then ".join(run.state.numeric_classes),
        }
        runs.write_json(folder / runs.RESULT, result)
    return stored


def missed_targets(recipe: Recipe, numbers: dict[str, float]) -> list[str]:
    """A sentence for each target of the recipe's gate that `numbers` do not reach."""
    return [
        f"{name} is {numbers[name]:.3f}, the recipe asks for {wanted:.3f}"
        if name in numbers
        else f"{name} was not measured"
        for name, wanted in sorted(recipe.gate.target.items())
        if not runs.reaches(name, numbers.get(name), wanted)
    ]


def record_of(run: Run, ready: Prepared, numbers: dict[str, float]) -> TrainingRecord:
    """What its ancestors learned, the model has learned too."""
    recipe, before = run.recipe, record_beside(ready.base)
    return TrainingRecord(
        recipe=recipe.model_dump(mode="json"),
        parent=ready.base.digest if ready.base else None,
        data=tuple(data.sha256 for data in recipe.train),
        code=code_version(),
        seed=recipe.loop.seed,
        steps=run.kept_step,
        tokens=run.state.tokens,
        numeric_class=" then ".join(run.state.numeric_classes),
        metrics={name: f"{value:.4f}" for name, value in numbers.items()},
        knowledge_base=", ".join(data.knowledge_base for data in recipe.train if data.knowledge_base) or None,
        texts=tuple(sorted({*text_digests(ready.texts), *(before.texts if before else ())})),
    )


def code_version() -> str:
    """OpenBook's version and a digest of the code that trains."""
    from openbook import __version__

    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = sha256_hex(canonical_json([[path.name, sha256_hex(path.read_bytes())] for path in sources]))
    return f"openbook {__version__}, training {digest[:12]}"


def numeric_class(recipe: Recipe, processes: Processes = ALONE, device: str = "cpu") -> str:
    """Inside one class, the same recipe gives the same bytes."""
    import transformers

    features = " ".join([torch.backends.cpu.get_cpu_capability(), *_products()])
    if device == "cuda":
        features += f"; {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    return (
        f"torch {torch.__version__}; transformers {transformers.__version__}; {platform.machine()} {features}; "
        f"{torch.get_num_threads()} threads; {recipe.loop.precision}"
        + (f"; {processes.count} processes" if processes.count > 1 else "")
    )


def _products() -> list[str]:
    """Units of the processor that multiply matrices of bf16 in an order of their own; AVX512 says nothing of them."""
    asked = {"BF16": "_is_avx512_bf16_supported", "AMX": "_is_amx_tile_supported"}
    return [name for name, question in asked.items() if getattr(torch.cpu, question, lambda: False)()]


def memory_mib() -> float:
    """The most memory that this process has used."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if platform.system() != "Darwin" else 1 << 20)


def _cutoff(recipe: Recipe, base: ModelReference | None) -> KnowledgeCutoff:
    if recipe.knowledge_cutoff:
        return KnowledgeCutoff(recipe.knowledge_cutoff, f"the recipe {recipe.name}")
    return base.manifest.knowledge_cutoff if base else KnowledgeCutoff()


def _open_files(recipe: Recipe, ready: Prepared, network: Any, folder: Path, found: Checkpoint | None) -> None:
    """The files of a run, new or as they were at the checkpoint. `network` is as at step 0, for the answers before."""
    with storage_errors(f"write to {folder}"):
        runs.write_json(folder / runs.RECIPE, {"digest": recipe.digest, "recipe": recipe.model_dump(mode="json")})
        (folder / runs.RESULT).unlink(missing_ok=True)
        if found is not None:
            runs.forget_after(folder, found.state.step)
        else:
            (folder / runs.METRICS).write_bytes(b"")
        if found is None or not (folder / runs.SAMPLES).is_file():
            samples = samples_of(network, ready.dev, ready.tokenizer)
            runs.write_json(folder / runs.SAMPLES, [asdict(sample) for sample in samples])


@contextmanager
def _alone(folder: Path, processes: Processes) -> Iterator[None]:
    """Nobody else may train in this folder. Raises TrainingError."""
    if not processes.first:
        yield
        return
    import filelock

    lock = filelock.FileLock(folder / runs.LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise TrainingError(
            f"Another process trains in {folder}. Wait for it, or choose another folder with --run."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _out_of_memory(recipe: Recipe) -> Iterator[None]:
    try:
        yield
    except OpenBookError:
        raise
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text:
            raise TrainingError(
                f"The memory is not enough. Lower loop.call_tokens (now {recipe.loop.call_tokens}) or "
                f"loop.sequence_tokens (now {recipe.loop.sequence_tokens}); the last checkpoint is kept."
            ) from error
        raise
