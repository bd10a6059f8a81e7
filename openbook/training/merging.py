"""`python -m openbook.training.merging`: an adapter and its base, or a model, as one new model in the store.

Nothing is learned, but another file is another function: it has a digest and a lineage of its own.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from openbook.errors import OpenBookError
from openbook.models import ModelReference, ModelStore
from openbook.models.importing import store_trained
from openbook.models.names import checked_name
from openbook.models.training_record import TrainingRecord
from openbook.records import ReaderFormat
from openbook.training.exporting import Quantisation, adapter_updates, checked_quantisation, reader_of, write_merged
from openbook.training.running import code_version


def merge(store: ModelStore, reference: ModelReference, quantisation: Quantisation, name: str) -> ModelReference:
    """Store `reference` (with its base, if it is an adapter) as one model of that quantisation, called `name`."""
    checked_name(name)
    store.check_fast(reference)
    is_adapter = reference.manifest.kind == "adapter"
    base = reference.needed_base if is_adapter else reference
    reader: ReaderFormat | None = reader_of(reference.main_file)
    updates = adapter_updates(reference.main_file, base.main_file) if is_adapter else {}
    record = TrainingRecord(
        recipe={"name": "merged" if is_adapter else "quantised", "quantisation": quantisation},
        parent=reference.digest,
        data=(),
        code=code_version(),
        seed=0,
        steps=0,
        tokens=0,
        numeric_class="",
        metrics={},
        knowledge_base=None,
        texts=(),
    )
    with tempfile.TemporaryDirectory() as scrap:
        path = Path(scrap) / "model.gguf"
        write_merged(path, base.main_file, updates, quantisation=quantisation, reader=reader)
        return store_trained(
            store,
            path,
            record,
            kind="language-model",
            name=name,
            licence=reference.manifest.licence,
            cutoff=reference.manifest.knowledge_cutoff,
            as_name=name,
        )


@click.command()
@click.argument("model")
@click.option("--store", type=click.Path(path_type=Path), required=True)
@click.option("--name", required=True)
@click.option("--quantisation", required=True)
def main(model: str, store: Path, name: str, quantisation: str) -> None:
    models = ModelStore(store)
    found = merge(models, models.resolve(model), checked_quantisation(quantisation), name)
    click.echo(found.digest)


if __name__ == "__main__":
    try:
        main.main(standalone_mode=False)
    except OpenBookError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
