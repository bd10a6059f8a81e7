"""Model files: the GGUF file of a finished run, and a stored model for other programs.

A LoRA run gives an adapter, which needs its base, or a merged model (`openbook.models.gguf_writer`); a full run gives a
model. Everything but the weights is copied from the base.

`python -m openbook.training.export DIGEST FOLDER STORE`, started by `openbook models export`, writes files for vLLM,
Transformers and PEFT: `config.json`, `model.safetensors` and the tokenizer of a model, or `adapter_config.json` and
`adapter_model.safetensors`. Values are float32, those that the engine computes with.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openbook.core.errors import OpenBookError, StorageError
from openbook.core.files import storage_errors
from openbook.models import ModelReference, ModelStore, read_gguf
from openbook.models.describe import BASE_KEY
from openbook.models.gguf_writer import Quantisation, add_tensor, dequantised, finish, write_gguf
from openbook.models.reader_metadata import add_reader
from openbook.training.network import config_of, gguf_name, gguf_rows, hf_name, hf_rows, lora_pairs, parameters_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from openbook.core.records import Digest, ReaderFormat

_WRAPPER = "base_model.model."  # PEFT's prefix of an adapter's tensor names


def write_adapter(
    path: Path,
    network: Any,
    base: Digest,
    *,
    alpha: float,
    quantisation: Quantisation,
    reader: ReaderFormat | None,
) -> None:
    """Write the LoRA updates of `network` for the model `base`."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, network.config.model_type)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    writer.add_string(BASE_KEY, base)
    add_reader(writer, reader)
    for module, (a, b) in sorted(lora_pairs(network).items()):
        name = f"{module}.weight"
        add_tensor(writer, f"{gguf_name(name)}.lora_a", a.float().cpu().numpy(), quantisation)
        rows = gguf_rows(network.config, name, b.float().cpu().numpy())
        add_tensor(writer, f"{gguf_name(name)}.lora_b", rows, quantisation)
    finish(writer)


def write_model(
    path: Path,
    metadata_file: Path,
    state: Mapping[str, NDArray[np.float32]],
    *,
    quantisation: Quantisation,
    reader: ReaderFormat | None,
) -> None:
    """Write a model. `state` has the names of Transformers; metadata comes from the GGUF file `metadata_file`."""
    header = read_gguf(metadata_file)
    config = config_of(header)
    tensors = ((gguf_name(name), gguf_rows(config, name, values)) for name, values in state.items())
    write_gguf(path, header, tensors, quantisation=quantisation, reader=reader)


def lora_updates(network: Any, alpha: float) -> dict[str, NDArray[np.float32]]:
    """The update of each matrix: float32 [out, in], with the names and row order of GGUF."""
    found = {}
    for module, (a, b) in lora_pairs(network).items():
        name = f"{module}.weight"
        update = (b.float() @ a.float() * (alpha / a.shape[0])).cpu().numpy()
        found[gguf_name(name)] = gguf_rows(network.config, name, update)
    return found


def write_safetensors(reference: ModelReference, folder: Path) -> None:
    """Write the model for other programs. `folder` must be empty or new. Raises StorageError, InvalidModelFile."""
    with storage_errors(f"write to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise StorageError(f"{folder} is not empty. Choose a new folder.")
        if reference.manifest.kind == "adapter":
            _write_peft(reference, folder)
        else:
            _write_transformers(reference, folder)


def _write_transformers(reference: ModelReference, folder: Path) -> None:
    from safetensors.numpy import save_file
    from transformers import AutoTokenizer

    file = reference.main_file
    config = config_of(read_gguf(file))
    config.architectures = ["LlamaForCausalLM" if config.model_type == "llama" else "Qwen2ForCausalLM"]
    config.use_cache = True
    metadata = {"format": "pt", "openbook_digest": reference.digest}
    save_file(parameters_of(file), folder / "model.safetensors", metadata=metadata)
    config.save_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.save_pretrained(folder)


def _write_peft(reference: ModelReference, folder: Path) -> None:
    from safetensors.numpy import save_file

    base = reference.needed_base
    header, base_config = read_gguf(reference.main_file), config_of(read_gguf(base.main_file))
    state: dict[str, NDArray[np.float32]] = {}
    modules, ranks = set(), set()
    for tensor, values in dequantised(reference.main_file):
        matrix, _, side = tensor.rpartition(".lora_")
        name = hf_name(matrix)
        if side == "a":
            ranks.add(values.shape[0])
        rows = values if side == "a" else hf_rows(base_config, name, values)
        module = name.removesuffix(".weight")
        modules.add(module)
        state[f"{_WRAPPER}{module}.lora_{side.upper()}.weight"] = np.ascontiguousarray(rows)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        "r": max(ranks),
        "lora_alpha": float(header.metadata["adapter.lora.alpha"].value),
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": sorted(modules),  # full names, because some layers may have none
    }
    metadata = {"format": "pt", "openbook_digest": reference.digest, "openbook_base": base.digest}
    save_file(state, folder / "adapter_model.safetensors", metadata=metadata)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    digest, target, models = sys.argv[1:]
    try:
        write_safetensors(ModelStore(Path(models)).resolve(digest), Path(target))
    except OpenBookError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(error.exit_code)
