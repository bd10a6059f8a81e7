"""`openbook completion`: a shell completion script."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script with which a shell completes commands.

    \b
    bash:  openbook completion bash >> ~/.bashrc
    zsh:   openbook completion zsh >> ~/.zshrc      (after compinit)
    fish:  openbook completion fish > ~/.config/fish/completions/openbook.fish

    New shells complete from then on.
    """  # noqa: D301  click keeps the lines after this control character as they are
    from click.shell_completion import shell_complete

    from openbook.cli import COMPLETE, PROGRAM, command

    shell_complete(command, {}, PROGRAM, COMPLETE, f"{shell}_source")
