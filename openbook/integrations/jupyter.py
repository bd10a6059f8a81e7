"""`%load_ext openbook.integrations.jupyter` for notebooks and IPython: `%ask QUESTION`, `%%ask KB`."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import openbook
from openbook.integrations import needs

with needs("ipython"):
    from IPython.core.error import UsageError
    from IPython.core.magic import Magics, line_cell_magic, magics_class


opened = cache(openbook.open)  # so that the model stays open


@magics_class
class OpenBookMagics(Magics):
    @line_cell_magic
    def ask(self, line: str, cell: str | None = None) -> openbook.Answer:
        """Answer from a knowledge base, with quotes.

        `%ask QUESTION` asks the variable `kb` if that is one, else your own. `%%ask KB`, over a cell with the question:
        KB is a variable, a folder or a URL.
        """
        place, question = ("", line.strip('"')) if cell is None else (line.strip(), cell)
        named = self.shell.user_ns.get(place or "kb")
        try:
            view = named if isinstance(named, openbook.View) else opened(place or None)
            return view.ask(question)
        except openbook.OpenBookError as error:
            raise UsageError(str(error)) from error


def _quoted(lines: list[str]) -> list[str]:
    """IPython would take a question mark at the end for a request for help."""
    return [re.sub(r"^((?:\w+\s*=\s*)?%ask\s+)(.*\?)\s*$", r'\1"\2"\n', line) for line in lines]


def load_ipython_extension(ipython: Any) -> None:
    ipython.input_transformers_cleanup.append(_quoted)
    ipython.register_magics(OpenBookMagics)
