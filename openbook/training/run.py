"""A whole run, from a recipe to a new model in the store. Read `train` from top to bottom."""

from __future__ import annotations

import itertools
import json
import os
import platform
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from openbook import __version__
from openbook.core.errors import ConfigError, TrainingError
from openbook.core.files import make_folder, storage_errors
from openbook.core.locks import exclusive_lock
from openbook.core.records import ReaderFormat, canonical_json, sha256_hex
from openbook.inference.tokenizer import PromptTokenizer, open_tokenizer
from openbook.inference.trial import check_usable
from openbook.models import KnowledgeCutoff, ModelReference, ModelStore, read_gguf, runs
from openbook.models.gguf_writer import write_merged
from openbook.models.importer import store_trained
from openbook.models.lineage import TrainingRecord, text_digests, training_record_of
from openbook.training import checkpoints
from openbook.training.datasets import ConversationLine, conversation_trees, document_trees, read_documents, read_lines
from openbook.training.distributed import ONE_PROCESS, Processes
from openbook.training.evaluation import evaluate, sample_answers
from openbook.training.export import lora_updates, write_adapter, write_model
from openbook.training.loop import EvalResult, Learner, StepResult
from openbook.training.network import load_network, make_trainable, new_network, write_vocabulary
from openbook.training.reader_objective import PassageLine, reader_trees
from openbook.training.recipe import Data, Recipe
from openbook.training.trees import Tree, fit

CHECKPOINT_EVERY_S = 300.0
PROBLEMS_SHOWN = 5
DRY_RUN_STEPS = 10
Event: TypeAlias = StepResult | EvalResult | str
Watch: TypeAlias = Callable[[Event], None]  # gets every step, evaluation and message
ShouldStop: TypeAlias = Callable[[], bool]


class RunStopped(Exception):
    """The user asked to stop. A checkpoint holds everything."""


@dataclass(frozen=True, slots=True)
class RunInputs:
    """The inputs of a run: a function of the recipe, the data and the base."""

    base: ModelReference | None  # None: from nothing
    metadata_file: Path  # a GGUF file with the vocabulary and the hyperparameters
    tokenizer: PromptTokenizer
    trees: list[Tree]
    dev: list[Tree]
    # As `TrainingRecord.texts`, before digesting.
    texts: list[str]
    problems: list[str]  # a sentence for each example that does not fit


def train(
    recipe: Recipe,
    recipe_folder: Path,
    store: ModelStore,
    folder: Path,
    watch: Watch,
    *,
    resume: bool = False,
    should_stop: ShouldStop = lambda: False,
    processes: Processes = ONE_PROCESS,
    device: str = "cpu",
) -> ModelReference:
    """Do the run in `folder` and store the resulting model. Of several processes only the first writes and calls `watch`.

    Raises RunStopped, TrainingError, StorageError, and what `load_inputs` raises.
    """
    watch = watch if processes.first else lambda _: None
    with storage_errors(f"write to {folder}"):
        make_folder(folder)
    with _locked(folder, processes), _explained_out_of_memory(recipe, " The last checkpoint is kept."):
        # 1. Is this a new run, or one to continue?
        checkpoint_folder = folder / runs.CHECKPOINTS
        begun = bool(checkpoints.checkpoint_folders(checkpoint_folder)) or (folder / runs.METRICS).is_file()
        begun = processes.any(processes.first and begun)
        if begun and not resume:
            raise TrainingError(
                f"{folder} already holds a run. Continue it (openbook train RECIPE --resume), or choose another folder."
            )
        # 2. Verify the base, check the data, and make it into trees.
        inputs = load_inputs(recipe, recipe_folder, store, folder, processes)
        report_problems([*slow_precision(recipe, device), *inputs.problems], watch)
        # 3. Make the network and sample its answers before training.
        network, parameters = build_network(recipe, inputs, device)
        found = checkpoints.load_newest(checkpoint_folder, recipe.digest, watch) if begun else None
        if processes.first:
            _start_files(recipe, inputs, network, folder, found)
        # 4. Restore the newest checkpoint.
        processes.shard(network)
        learner = Learner(
            recipe, network, {name: network.get_parameter(name) for name in parameters}, inputs.trees, processes
        )
        if found is not None:
            learner.restore(found)
            watch(f"Continuing after step {learner.state.step} of {learner.steps}.")
        numeric = numeric_class(recipe, processes, device)
        if learner.state.numeric_classes[-1:] != (numeric,):
            learner.state = replace(learner.state, numeric_classes=(*learner.state.numeric_classes, numeric))
        # 5. Learn.
        _learn(learner, inputs.dev, folder, watch, should_stop)
        if learner.final_step == 0:
            raise TrainingError(
                "No evaluation was better than the one before training, so there is nothing to store. Lower "
                "optimiser.learning_rate, train longer, or check the data."
            )
        # 6. Take the best parameters; collect the shards in the first process.
        learner.use_best()
        if processes.count > 1:
            state, values = learner.state, learner.masters.whole()
            if not processes.first:
                processes.wait()  # until the first has stored the model
                return store.resolve(recipe.candidate)
            learner = Learner(recipe, *build_network(recipe, inputs, "cpu"), inputs.trees)
            learner.masters.set(values)
            learner.state = state
        # 7. Measure, export and store the model.
        numbers = evaluate(learner.network, inputs.dev, recipe, learner.final_step).numbers if inputs.dev else {}
        numbers = {name: round(value, 4) for name, value in numbers.items()}
        stored = _store_model(learner, inputs, store, folder, numbers)
        _write_result(learner, inputs, stored, folder, numbers)
        processes.wait()
        return stored


def load_inputs(
    recipe: Recipe, recipe_folder: Path, store: ModelStore, folder: Path, processes: Processes = ONE_PROCESS
) -> RunInputs:
    """Read all inputs of a run. A new vocabulary is written into `folder`.

    Raises UnknownModel, ModelNotVerified, ConfigError with file and line, TrainingError if no example is left.
    """
    if not recipe.train:
        raise ConfigError(
            "The recipe names no [[train]] data. Add some, or learn from your knowledge base: openbook train RECIPE --from-kb"
        )
    base = None
    if recipe.base is not None:
        base = store.resolve(recipe.base.digest)
        store.check_fast(base)
        if base.manifest.kind != "language-model":
            raise ConfigError(
                f"base: {recipe.base.model!r} is not a language model but of the kind {base.manifest.kind}. To train an "
                "adapter further, merge it with its base first."
            )
        metadata_file = base.main_file
    else:
        assert recipe.architecture is not None
        metadata_file = folder / ("vocabulary.gguf" if processes.first else f"vocabulary-{processes.rank}.gguf")
        documents = [text for data in recipe.train for _, text in read_documents(data, recipe_folder)]
        write_vocabulary(metadata_file, documents, recipe.architecture, name=recipe.name)
    tokenizer = open_tokenizer(metadata_file)
    header = read_gguf(metadata_file)
    context = header.integer(f"{header.text('general.architecture')}.context_length") or 0
    if recipe.loop.sequence_tokens > context > 0:
        raise ConfigError(
            f"loop.sequence_tokens is {recipe.loop.sequence_tokens}, but the model reads at most {context} tokens."
        )
    trees, texts, problems = _trees(recipe, recipe.train, recipe_folder, tokenizer, evaluation=False)
    dev, _, dev_problems = _trees(recipe, recipe.dev, recipe_folder, tokenizer, evaluation=True)
    if not trees:
        raise TrainingError(
            "There is nothing to learn from: no example fits into sequence_tokens. "
            + (f"The first is {problems[0]}." if problems else "")
        )
    # A random part of the dev data, limited to the recipe's number of questions.
    random.Random(f"{recipe.loop.seed}/dev").shuffle(dev)  # noqa: S311  an order, not a secret
    chosen: list[Tree] = []
    questions = 0
    for tree in dev:
        if questions < recipe.evaluation.questions:
            chosen.append(tree)
            questions += len({branch.key for branch in tree.branches})
    return RunInputs(base, metadata_file, tokenizer, trees, chosen, texts, problems + dev_problems)


def _trees(
    recipe: Recipe, files: Sequence[Data], folder: Path, tokenizer: PromptTokenizer, *, evaluation: bool
) -> tuple[list[Tree], list[str], list[str]]:
    """(trees, `RunInputs.texts`, a sentence for each example that does not fit)."""
    objective, length = recipe.objective, recipe.loop.sequence_tokens
    if objective.kind == "language-modeling":
        documents = [each for data in files for each in read_documents(data, folder)]
        return document_trees(documents, tokenizer, length), [text for _, text in documents], []
    if objective.kind == "instruction":
        talks = [line for data in files for line in read_lines(data, folder, ConversationLine)]
        texts = [turn.content for _, line in talks for turn in line.turns]
        trees = conversation_trees(talks, tokenizer)
    else:
        lines = [line for data in files for line in read_lines(data, folder, PassageLine)]
        texts = [passage.text for _, line in lines for passage in line.all_passages]
        trees = reader_trees(lines, objective, tokenizer, recipe.loop.seed, every_answer=evaluation)
    fitting, problems = fit(trees, length)
    return fitting, texts, problems


def report_problems(problems: list[str], watch: Callable[[str], None]) -> None:
    """Show the first few, and the number of others."""
    for sentence in problems[:PROBLEMS_SHOWN]:
        watch(sentence)
    if len(problems) > PROBLEMS_SHOWN:
        watch(f"and {len(problems) - PROBLEMS_SHOWN} more that do not fit")


def build_network(recipe: Recipe, inputs: RunInputs, device: str) -> tuple[Any, dict[str, torch.nn.Parameter]]:
    """The network at step 0, with its learned parameters."""
    # Otherwise a GPU adds products in a different order each time.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    dtype = torch.bfloat16 if recipe.loop.precision == "bf16" else torch.float32
    if inputs.base is None:
        network = new_network(inputs.metadata_file, recipe.loop.seed, dtype)
    else:
        network = load_network(inputs.metadata_file, dtype=dtype)
    parameters = make_trainable(network, recipe.method, recipe.loop.seed)  # on the CPU, for the same values everywhere
    network.to(device)
    return network, parameters


def choose_device(wanted: str, processes: Processes = ONE_PROCESS) -> str:
    """Resolve `auto` to the GPU if there is one. Raises ConfigError for a GPU that cannot be used."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("PyTorch finds no GPU here. Train on the CPU, or install PyTorch with CUDA.")
    if wanted == "cuda" and processes.count > 1:
        raise ConfigError("Several processes train on CPUs only. Choose the device cpu, or one process.")
    gpu = torch.cuda.is_available() and processes.count == 1 and wanted != "cpu"
    return "cuda" if gpu else "cpu"


def _learn(learner: Learner, dev: list[Tree], folder: Path, watch: Watch, should_stop: ShouldStop) -> None:
    processes = learner.processes
    saved_at = time.monotonic()

    def log(event: StepResult | EvalResult, **values: Any) -> None:
        if processes.first:
            with storage_errors(f"write to {folder}"):
                runs.append_metrics(folder, values)
            watch(event)

    def evaluate_now() -> None:
        result = evaluate(learner.network, dev, learner.recipe, learner.state.step)
        learner.keep_if_best(result)
        log(result, kind="evaluation", step=result.step, **result.numbers)

    if dev and learner.state.step == 0 and learner.state.best_metric is None:
        evaluate_now()
    for progress in learner.steps_to_go():
        log(progress, kind="step", **asdict(progress))
        due = progress.step % learner.recipe.evaluation.every_steps == 0 or progress.step == learner.steps
        if due and dev:
            evaluate_now()
        stop = processes.any(should_stop())
        # The clock affects only checkpoints, never results.
        if due or stop or processes.any(time.monotonic() - saved_at > CHECKPOINT_EVERY_S):
            checkpoint = learner.checkpoint()  # in all processes: each holds a shard
            if processes.first:
                checkpoints.save(folder / runs.CHECKPOINTS, checkpoint)
            saved_at = time.monotonic()
        if stop and progress.step < learner.steps:
            raise RunStopped(
                f"Stopped after step {progress.step} of {learner.steps}. To continue: openbook train RECIPE --resume"
            )


def _store_model(
    learner: Learner, inputs: RunInputs, store: ModelStore, folder: Path, numbers: dict[str, float]
) -> ModelReference:
    recipe, base, objective = learner.recipe, inputs.base, learner.recipe.objective
    quantisation, alpha = recipe.export.quantisation, recipe.method.alpha
    reader = None
    if objective.kind == "reader":
        threshold = numbers.get("declines_above")
        reader = ReaderFormat(objective.instruction, objective.abstention, objective.passages, threshold)
    file, source = folder / "export.gguf", inputs.metadata_file
    with storage_errors(f"write to {folder}"):
        if base is None or recipe.method.kind == "full":
            state = {name: value.float().cpu().numpy() for name, value in learner.learned.items()}
            write_model(file, source, state, quantisation=quantisation, reader=reader)
        elif recipe.exports_adapter:
            write_adapter(file, learner.network, base.digest, alpha=alpha, quantisation=quantisation, reader=reader)
        else:
            write_merged(file, source, lora_updates(learner.network, alpha), quantisation=quantisation, reader=reader)
    ancestors = training_record_of(base)
    record = TrainingRecord(
        recipe=recipe.model_dump(mode="json"),
        parent=base.digest if base else None,
        data=tuple(data.sha256 for data in recipe.train),
        code=_code_version(),
        seed=recipe.loop.seed,
        steps=learner.final_step,
        tokens=learner.state.tokens,
        numeric_class=" then ".join(learner.state.numeric_classes),
        metrics={name: f"{value:.4f}" for name, value in numbers.items()},
        knowledge_base=", ".join(data.knowledge_base for data in recipe.train if data.knowledge_base) or None,
        # The model has also learned what its ancestors learned.
        texts=tuple(sorted({*text_digests(inputs.texts), *(ancestors.texts if ancestors else ())})),
    )
    cutoff = base.manifest.knowledge_cutoff if base else KnowledgeCutoff()
    if recipe.knowledge_cutoff:
        cutoff = KnowledgeCutoff(recipe.knowledge_cutoff, f"the recipe {recipe.name}")
    stored = store_trained(
        store,
        file,
        record,
        kind="adapter" if recipe.exports_adapter else "language-model",
        manifest_name=recipe.name,
        licence=recipe.licence or (base.manifest.licence if base else "not stated"),
        cutoff=cutoff,
        name=recipe.candidate,
        try_out=check_usable,
    )
    file.unlink()
    return stored


def _start_files(
    recipe: Recipe, inputs: RunInputs, network: Any, folder: Path, found: checkpoints.Checkpoint | None
) -> None:
    """Create the run's files, or reset them to the checkpoint. `network` is at step 0, for the answers before."""
    with storage_errors(f"write to {folder}"):
        runs.write_json(folder / runs.RECIPE, {"digest": recipe.digest, "recipe": recipe.model_dump(mode="json")})
        (folder / runs.RESULT).unlink(missing_ok=True)
        if found is not None:
            runs.forget_after(folder, found.state.step)
        else:
            (folder / runs.METRICS).write_bytes(b"")
        if found is None or not runs.has_samples(folder):
            runs.write_json(folder / runs.SAMPLES, sample_answers(network, inputs.dev, inputs.tokenizer))


def _write_result(
    learner: Learner, inputs: RunInputs, stored: ModelReference, folder: Path, numbers: dict[str, float]
) -> None:
    with storage_errors(f"write to {folder}"):
        before = json.loads((folder / runs.SAMPLES).read_bytes())
        after = sample_answers(learner.network, inputs.dev, inputs.tokenizer)
        samples = [{**old, "after": new["answer"]} for old, new in zip(before, after, strict=False)]
        runs.write_json(folder / runs.SAMPLES, samples)
        result = {
            "model": stored.digest,
            "name": stored.name,
            "parent": inputs.base.digest if inputs.base else None,
            "step": learner.final_step,
            "tokens": learner.state.tokens,
            "numbers": numbers,
            "target": learner.recipe.gate.target,
            "missed": [
                f"{name} is {numbers[name]:.3f}, the recipe asks for {wanted:.3f}"
                if name in numbers
                else f"{name} was not measured"
                for name, wanted in sorted(learner.recipe.gate.target.items())
                if not runs.reaches(name, numbers.get(name), wanted)
            ],
            "bytes": stored.main_file.stat().st_size,
            "numeric_class": " then ".join(learner.state.numeric_classes),
        }
        runs.write_json(folder / runs.RESULT, result)


def dry_run(
    recipe: Recipe, recipe_folder: Path, store: ModelStore, watch: Callable[[str], None], device: str
) -> dict[str, float]:
    """Estimate the whole run from a few steps; keep nothing. Raises TrainingError, and what `load_inputs` raises."""
    with tempfile.TemporaryDirectory() as scratch, _explained_out_of_memory(recipe):
        inputs = load_inputs(recipe, recipe_folder, store, Path(scratch))
        report_problems([*slow_precision(recipe, device), *inputs.problems], watch)
        learner = Learner(recipe, *build_network(recipe, inputs, device), inputs.trees)
        done = list(itertools.islice(learner.steps_to_go(), DRY_RUN_STEPS))
    timed = done[1:] or done  # the first step also allocates memory
    return {
        "examples": sum(len(tree.branches) for tree in inputs.trees),
        "epoch_tokens": sum(tree.tokens for tree in inputs.trees),
        "steps": learner.steps,
        "learned_parameters": sum(value.numel() for value in learner.learned.values()),
        "tokens_per_second": sum(step.tokens for step in timed) / sum(step.seconds for step in timed),
        "estimated_seconds": learner.steps * sum(step.seconds for step in timed) / len(timed),
        "memory_mib": peak_memory_mib(),
    }


def _code_version() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = sha256_hex(canonical_json([[path.name, sha256_hex(path.read_bytes())] for path in sources]))
    return f"openbook {__version__}, training {digest[:12]}"


def slow_precision(recipe: Recipe, device: str) -> list[str]:
    """A warning if the processor has no support for the recipe's precision."""
    if recipe.loop.precision == "f32" or device != "cpu" or platform.machine() != "x86_64" or _bf16_units():
        return []
    sentence = (
        'This processor cannot multiply bf16 by itself, and imitating it is several times slower. Set precision = "f32" under '
        "[loop] in the recipe, which takes twice the memory for the model."
    )
    return [sentence]


def _bf16_units() -> list[str]:
    """Units for bf16 matrices; each adds in a different order."""
    checks = {"BF16": "_is_avx512_bf16_supported", "AMX": "_is_amx_tile_supported"}
    return [name for name, check in checks.items() if getattr(torch.cpu, check, lambda: False)()]


def numeric_class(recipe: Recipe, processes: Processes, device: str) -> str:
    """Within one class, the same recipe gives the same bytes."""
    import transformers

    features = " ".join([torch.backends.cpu.get_cpu_capability(), *_bf16_units()])
    if device == "cuda":
        features += f"; {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    return (
        f"torch {torch.__version__}; transformers {transformers.__version__}; {platform.machine()} {features}; "
        f"{torch.get_num_threads()} threads; {recipe.loop.precision}"
        + (f"; {processes.count} processes" if processes.count > 1 else "")
    )


def peak_memory_mib() -> float:
    """The process's peak memory, on the GPU if used; 0 where the system does not report it."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / (1 << 20)
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if platform.system() != "Darwin" else 1 << 20)


@contextmanager
def _locked(folder: Path, processes: Processes) -> Iterator[None]:
    with exclusive_lock(folder / runs.LOCK, 0.0) if processes.first else nullcontext(True) as held:
        if not held:
            raise TrainingError(f"Another process trains in {folder}. Wait for it, or choose another folder.")
        yield


@contextmanager
def _explained_out_of_memory(recipe: Recipe, kept: str = "") -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search("can't allocate memory|out of memory", str(error)):
            raise
        raise TrainingError(
            f"Training ran out of memory. Lower loop.call_tokens (now {recipe.loop.call_tokens}) or "
            f"loop.sequence_tokens (now {recipe.loop.sequence_tokens}).{kept}"
        ) from error
