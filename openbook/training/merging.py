"""`python -m openbook.training.merging`: an adapter and its base, or a model, as one new model in the store.

Nothing is learned, but another file is another function: it has a digest and a lineage of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from openbook.errors import ConfigError, OpenBookError, StorageError
from openbook.models import CATALOGUE, ModelReference, ModelStore
from openbook.models.importing import store_trained
from openbook.models.incoming import incoming_folder
from openbook.models.lineage import record_beside
from openbook.models.names import checked_name
from openbook.models.training_record import TrainingRecord
from openbook.records import ReaderFormat
from openbook.training.exporting import Quantisation, adapter_updates, checked_quantisation, reader_of, write_merged
from openbook.training.running import code_version


def merge(store: ModelStore, reference: ModelReference, quantisation: Quantisation, name: str) -> ModelReference:
    """Store `reference` (with its base, if it is an adapter) as one model of that quantisation, called `name`."""
    if name in CATALOGUE or name in store.names():
        raise ConfigError(
            f"The name {name!r} is taken. Give another with --name; then openbook models promote lets the gate decide."
        )
    checked_name(name)
    store.check_fast(reference)
    is_adapter = reference.manifest.kind == "adapter"
    base = reference.needed_base if is_adapter else reference
    reader: ReaderFormat | None = reader_of(reference.main_file)
    updates = adapter_updates(reference.main_file, base.main_file) if is_adapter else {}
    # What it has learned, and what it was asked to reach, it has from where it comes from.
    before = record_beside(reference)
    record = TrainingRecord(
        recipe={"name": "merged" if is_adapter else "quantised", "quantisation": quantisation}
        | ({"gate": before.recipe["gate"]} if before and "gate" in before.recipe else {}),
        parent=reference.digest,
        data=before.data if before else (),
        code=code_version(),
        seed=0,
        steps=0,
        tokens=0,
        numeric_class="",
        metrics=before.metrics if before else {},
        knowledge_base=before.knowledge_base if before else None,
        texts=before.texts if before else (),
    )
    with incoming_folder(store.root) as scrap:
        path = scrap / "model.gguf"
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
    except OSError as error:
        click.echo(f"Error: The operating system refused: {error.strerror or error}.", err=True)
        sys.exit(StorageError.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
