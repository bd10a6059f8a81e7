"""Checkpoints: safetensors and JSON, each file with its digest, written whole or not at all.

    <run>/checkpoints/step-00000120/state.json           written last; names and digests of the other files
                                    parameters.safetensors
                                    moments.safetensors
                                    best.safetensors      the parameters of the best evaluation, if any

A folder gets its name in one step. A run continues from the newest whole checkpoint.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from openbook.core.codec import convert
from openbook.core.errors import StorageError, TrainingError
from openbook.core.files import make_folder, storage_errors, sync_file, sync_folder
from openbook.core.records import Digest, canonical_json, sha256_hex
from openbook.models.digest import hash_file

FORMAT = 1
KEPT = 2
Tensors: TypeAlias = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class State:
    """A run at the end of a step, without tensors. `best_metric`: higher is better; None before an evaluation.

    `numeric_classes`, in order: several if the run continued elsewhere.
    """

    recipe: Digest
    step: int
    tokens: int = 0
    best_metric: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    numeric_classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    state: State
    parameters: Tensors
    moments: Tensors
    best: Tensors


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write the checkpoint, then delete all but the newest `KEPT`. On StorageError the older ones are intact."""
    target = folder / f"step-{checkpoint.state.step:08}"
    staged = folder / f".{target.name}"
    tensors = {"parameters": checkpoint.parameters, "moments": checkpoint.moments, "best": checkpoint.best}
    files: dict[str, Digest] = {}
    with storage_errors(f"write the checkpoint {target}"):
        make_folder(folder)
        for leftover in folder.glob(".step-*"):
            shutil.rmtree(leftover)
        staged.mkdir()
        try:
            for part, values in tensors.items():
                if values or part != "best":
                    path = staged / f"{part}.safetensors"
                    save_file({name: tensor.contiguous() for name, tensor in values.items()}, path)
                    sync_file(path)
                    files[path.name] = hash_file(path).sha256
            value = {"format": FORMAT, "files": files, **asdict(checkpoint.state)}
            value["sha256"] = sha256_hex(canonical_json(value))
            (staged / "state.json").write_bytes(canonical_json(value))
            sync_file(staged / "state.json")
            sync_folder(staged)
            if target.exists():
                shutil.rmtree(target)
            staged.rename(target)
            sync_folder(folder)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(str(error)) from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        for old in checkpoint_folders(folder)[:-KEPT]:
            shutil.rmtree(old)
    return target


def load_newest(folder: Path, recipe: Digest, warn: Callable[[str], None]) -> Checkpoint | None:
    """Load the newest whole checkpoint. `warn` gets a sentence for each newer, damaged one.

    Raises TrainingError if the checkpoints belong to another recipe, or none is whole.
    """
    found = checkpoint_folders(folder)
    for path in reversed(found):
        try:
            checkpoint = _load(path)
        except (OSError, StorageError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            warn(f"The checkpoint {path.name} is damaged and is not used: {error}.")
            continue
        if checkpoint.state.recipe != recipe:
            raise TrainingError(
                f"{path} is of another recipe ({checkpoint.state.recipe[:12]}, not {recipe[:12]}). Train into another folder."
            )
        return checkpoint
    if found:
        raise TrainingError(f"No checkpoint in {folder} is whole. Remove the folder to begin again.")
    return None


def checkpoint_folders(folder: Path) -> list[Path]:
    """All checkpoints, oldest first, damaged ones included."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def _load(path: Path) -> Checkpoint:
    value = json.loads((path / "state.json").read_bytes())
    if value.pop("sha256") != sha256_hex(canonical_json(value)):
        raise ValueError("state.json is not what was written")
    if value.pop("format") != FORMAT:
        raise ValueError("it has another format")
    tensors: dict[str, Tensors] = {}
    for name, digest in value.pop("files").items():
        if hash_file(path / name).sha256 != digest:
            raise ValueError(f"{name} is not what was written")
        tensors[name.removesuffix(".safetensors")] = load_file(path / name)
    state = convert(value, State, "state.json", ValueError)
    return Checkpoint(state, tensors["parameters"], tensors["moments"], tensors.get("best", {}))
