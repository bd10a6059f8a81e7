"""Checkpoints: safetensors and JSON, each with its digest, written whole or not at all.

    <run>/checkpoints/step-00000120/state.json           written last; names and digests of the others
                                    parameters.safetensors
                                    moments.safetensors
                                    best.safetensors      the parameters of the best evaluation, if there was one

A folder appears under its name in one step. The newest that is whole is used; one with a wrong byte is refused by name.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from openbook.errors import TrainingError
from openbook.files import make_folder, storage_errors, sync_file, sync_folder
from openbook.records import Digest, canonical_json, sha256_hex

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
KEPT = 2
Tensors: TypeAlias = Mapping[str, "Tensor"]


@dataclass(frozen=True, slots=True)
class State:
    """All of a run at the end of a step but its tensors. `best_metric` None: not evaluated yet; higher is better.

    `numeric_classes`: those that steps were done in, in order; more than one where a run went on elsewhere.
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
    """Write it, then drop all but the newest few. Raises StorageError; what was there before is still there then."""
    target = folder / f"step-{checkpoint.state.step:08}"
    staged = folder / f".{target.name}"
    with storage_errors(f"write the checkpoint {target}"):
        make_folder(folder)
        for leftover in folder.glob(".step-*"):
            shutil.rmtree(leftover)
        staged.mkdir()
        try:
            digests = {name: _write(staged / name, tensors) for name, tensors in _parts(checkpoint).items()}
            value = {"format": FORMAT, "files": digests, **asdict(checkpoint.state)}
            value["sha256"] = sha256_hex(canonical_json(value))
            (staged / "state.json").write_bytes(canonical_json(value))
            sync_file(staged / "state.json")
            sync_folder(staged)
            if target.exists():
                shutil.rmtree(target)
            staged.rename(target)
            sync_folder(folder)
        except SafetensorError as error:  # its way to say that the disk refused
            raise OSError(str(error)) from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        for old in present(folder)[:-KEPT]:
            shutil.rmtree(old)
    return target


def newest(folder: Path, recipe: Digest, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint; `warn` gets a sentence for each newer one that is damaged.

    Raises TrainingError when there are checkpoints and none is whole, or they are of another recipe.
    """
    found = present(folder)
    for path in reversed(found):
        try:
            checkpoint = _read(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
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


def _parts(checkpoint: Checkpoint) -> dict[str, Tensors]:
    parts = {"parameters.safetensors": checkpoint.parameters, "moments.safetensors": checkpoint.moments}
    return {**parts, "best.safetensors": checkpoint.best} if checkpoint.best else parts


def present(folder: Path) -> list[Path]:
    """The folders of all checkpoints, oldest first, whole or not."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def _write(path: Path, tensors: Tensors) -> Digest:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    sync_file(path)
    return _digest(path)


def _read(path: Path) -> Checkpoint:
    value = json.loads((path / "state.json").read_bytes())
    if value.pop("sha256") != sha256_hex(canonical_json(value)):
        raise ValueError("state.json is not what was written")
    if value.pop("format") != FORMAT:
        raise ValueError("it has another format")
    tensors: dict[str, Tensors] = {}
    for name, digest in value.pop("files").items():
        if _digest(path / name) != digest:
            raise ValueError(f"{name} is not what was written")
        tensors[name] = load_file(path / name)
    value["numeric_classes"] = tuple(value["numeric_classes"])
    return Checkpoint(
        State(**value),
        tensors["parameters.safetensors"],
        tensors["moments.safetensors"],
        tensors.get("best.safetensors", {}),
    )


def _digest(path: Path) -> Digest:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
