"""`python -m openbook.training RECIPE`, which `openbook train` starts as a process of its own.

So the process that answers questions never loads a framework that could change a weight.
"""

from __future__ import annotations

import os
import sys

import click

from openbook.errors import OpenBookError, StorageError

INTERRUPTED = 130


def main() -> None:
    try:
        from openbook.training.command import train  # takes seconds, because of torch

        train.main(standalone_mode=False)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            # Everything is done, but threads of the connection may abort the process while Python shuts down.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
    except OpenBookError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        file = f" ({error.filename})" if error.filename else ""
        click.echo(f"Error: The operating system refused: {error.strerror or error}{file}.", err=True)
        sys.exit(StorageError.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted. The last checkpoint is kept. Go on with --resume.", err=True)
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
