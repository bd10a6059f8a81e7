"""A stored model as the files that vLLM, Transformers and PEFT read: `python -m openbook.training.safetensors_files`.

`openbook models export` starts it, in a process of its own, since it uses Transformers. A model becomes `config.json`,
`model.safetensors` and its tokenizer; an adapter what PEFT writes (`adapter_config.json`, `adapter_model.safetensors`), for
the base that it names, whose numbers are those of the stored one and of no other quantisation.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from openbook.errors import OpenBookError, StorageError
from openbook.files import storage_errors
from openbook.models import ModelReference, ModelStore, read_gguf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from openbook.models import GgufHeader

_ADAPTED = "base_model.model."  # PEFT's names are those of the network in its wrapper


@click.command()
@click.argument("digest")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--store", type=click.Path(path_type=Path), required=True)
def export(digest: str, folder: Path, store: Path) -> None:
    write_files(ModelStore(store).resolve(digest), folder)


def write_files(reference: ModelReference, folder: Path) -> None:
    """Into `folder`, which must be empty or not there. Raises StorageError, InvalidModelFile."""
    with storage_errors(f"write to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise StorageError(f"{folder} is not empty. Choose a new folder.")
        if reference.manifest.kind == "adapter":
            _write_adapter(reference, folder)
        else:
            _write_model(reference, folder)


def _write_model(reference: ModelReference, folder: Path) -> None:
    """Numbers as float32: what the engine computes with is what its file stands for."""
    from safetensors.numpy import save_file
    from transformers import AutoTokenizer

    from openbook.training.network import config_of, dequantised

    config = config_of(read_gguf(reference.main_file))
    config.architectures = ["LlamaForCausalLM"]
    config.use_cache = True
    state = dequantised(reference.main_file)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt", "openbook_digest": reference.digest})
    config.save_pretrained(folder)
    file = reference.main_file
    tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.save_pretrained(folder)


def _write_adapter(reference: ModelReference, folder: Path) -> None:
    from safetensors.numpy import save_file

    header = read_gguf(reference.main_file)
    state = _low_rank(reference.main_file, read_gguf(reference.needed_base.main_file))
    ranks = {values.shape[0] for name, values in state.items() if ".lora_A." in name}
    modules = sorted({name.removeprefix(_ADAPTED).partition(".lora_")[0] for name in state})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": reference.needed_base.name,
        "r": max(ranks),
        "lora_alpha": float(header.metadata["adapter.lora.alpha"].value),
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": modules,  # whole names: some layers may have none
    }
    metadata = {"format": "pt", "openbook_digest": reference.digest, "openbook_base": reference.needed_base.digest}
    save_file(state, folder / "adapter_model.safetensors", metadata=metadata)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _low_rank(path: Path, base: GgufHeader) -> dict[str, NDArray[np.float32]]:
    """The adapter's matrices by PEFT's names, rows in the order of transformers."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    from openbook.training.network import config_of, hf_name, unpermuted

    config = config_of(base)
    heads = {
        "q_proj": config.num_attention_heads,
        "k_proj": config.num_key_value_heads or config.num_attention_heads,
    }
    found: dict[str, NDArray[np.float32]] = {}
    for tensor in GGUFReader(path).tensors:
        matrix, _, side = tensor.name.rpartition(".lora_")
        module = hf_name(matrix).removesuffix(".weight")
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        rotated = heads.get(module.rpartition(".")[2])
        if side == "b" and rotated:
            values = unpermuted(values, rotated)
        found[f"{_ADAPTED}{module}.lora_{side.upper()}.weight"] = np.ascontiguousarray(values)
    return found


if __name__ == "__main__":
    try:
        export.main(standalone_mode=False)
    except OpenBookError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
