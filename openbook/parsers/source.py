"""Source code and settings: the text as it is, with definitions as headings, so that a passage knows its function."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath

from openbook.parsers.cleaning import one_line, title_from_name
from openbook.parsers.text import read_text
from openbook.records import Content, HeadingMark

MOST_HEADINGS = 20_000
_LONGEST_LINE_CHARS = 400  # what is longer was not written by a person
_MOST_PARSED_CHARS = 2_000_000
_INDENT = 4  # spaces a level, where a file mixes them

_ACCESS = r"(?:(?:public|private|protected|internal|static|final|abstract|virtual|override|async|export|default|sealed|partial|open|inline|suspend|data|unsafe|extern|readonly|const|declare)\s+)*"
_C_LIKE = (
    rf"\s*{_ACCESS}(?:class|interface|enum|struct|union|namespace|record|trait|object|protocol|extension)\s+[A-Za-z_][\w:.]*"
    rf"|\s*{_ACCESS}(?:[A-Za-z_][\w:<>\[\],.*&?]*\s+){{1,4}}[*&]*(?!if\b|for\b|while\b|switch\b|catch\b|return\b)[A-Za-z_~][\w:~]*\s*\([^;{{}}]*\)?[^;{{}}=]*(?:\{{.*)?$"
)
_JAVASCRIPT = (
    rf"\s*{_ACCESS}(?:class|interface|enum|namespace|function\*?|type)\s+[A-Za-z_$][\w$]*"
    r"|\s*(?:export\s+)?(?:const|let|var)\s+[A-Za-z_$][\w$]*\s*(?::[^=]*)?=\s*(?:async\s*)?(?:function\b|\([^()]*\)\s*(?::[^=]*)?=>|[\w$]+\s*=>)"
    rf"|\s+{_ACCESS}(?!if\b|for\b|while\b|switch\b|catch\b|return\b|function\b)[A-Za-z_$#][\w$]*\s*\([^()]*\)\s*(?::[^{{]*)?\{{\s*$"
)
_NAMED = {
    "python": r"\s*(?:async\s+def|def|class)\s+\w+",
    "javascript": _JAVASCRIPT,
    "typescript": _JAVASCRIPT,
    "java": _C_LIKE,
    "c": _C_LIKE,
    "c++": _C_LIKE,
    "objective-c": _C_LIKE,
    "csharp": _C_LIKE,
    "go": r"(?:func|type)\s+(?:\([^()]*\)\s*)?\w+",
    "rust": r"\s*(?:pub(?:\([^()]*\))?\s+)?(?:(?:async|unsafe|const|extern\s+\"C\")\s+)*(?:fn|struct|enum|trait|mod|union|macro_rules!)\s+\w+|\s*(?:unsafe\s+)?impl\b[^{;]*",
    "ruby": r"\s*(?:def|class|module)\s+[\w.:?!=]+",
    "php": rf"\s*{_ACCESS}(?:function|class|interface|trait|enum)\s+&?\w+",
    "swift": rf"\s*{_ACCESS}(?:func|class|struct|enum|protocol|extension|actor)\s+\w+|\s*init\s*\(",
    "kotlin": rf"\s*{_ACCESS}(?:fun|class|interface|object)\s+[\w.<>]+",
    "scala": rf"\s*{_ACCESS}(?:case\s+)?(?:def|class|object|trait)\s+\w+",
    "shell": r"\s*(?:function\s+[\w:.-]+|[\w:.-]+\s*\(\s*\))",
    "powershell": r"\s*(?:function|filter|class)\s+[\w:-]+",
    "sql": r"\s*create\s+(?:or\s+replace\s+)?(?:(?:temporary|temp|unique|materialized|external)\s+)*(?:table|view|function|procedure|trigger|index|type|schema)\b[^(;]*",
    "r": r"\s*[\w.]+\s*(?:<-|=)\s*function\b",
    "julia": r"\s*(?:function|struct|mutable\s+struct|module|macro)\s+[\w.!]+",
    "lua": r"\s*(?:local\s+)?function\s+[\w.:]+",
    "perl": r"\s*(?:sub|package)\s+[\w:]+",
    "css": r"[^\s{}@/*;][^{}]*\{|@media[^{]*\{",
    "yaml": r"[A-Za-z_][\w. -]*:(?:\s|$)",
    "toml": r"\s*\[{1,2}[^\[\]]+\]{1,2}\s*$",
    "ini": r"\s*\[{1,2}[^\[\]]+\]{1,2}\s*$",
    "make": r"[A-Za-z0-9_.%/-]+(?:\s+[\w.%/-]+)*\s*::?(?!=)",
    "dockerfile": r"(?i:from)\s+\S+",
    "tex": r"\s*\\(?:part|chapter|(?:sub){0,2}section|paragraph)\*?\s*(?:\[[^\[\]]*\])?\{.+\}",
    "haskell": r"(?:[a-z]\w*\s*::|data\s+\w|newtype\s+\w|class\s+\w|instance\s+\w|module\s+\w)",
    "elixir": r"\s*(?:defmodule|defp?|defmacro)\s+[\w.?!]+",
    "terraform": r"(?:resource|data|module|variable|output|provider|locals|terraform)\b[^{]*\{",
    "proto": r"\s*(?:message|service|enum|rpc)\s+\w+",
    "graphql": r"(?:type|input|enum|interface|union|query|mutation|fragment)\s+\w+",
}
_SUFFIXES = {
    "python": "py pyi pyw", "javascript": "js mjs cjs jsx vue svelte", "typescript": "ts mts cts tsx", "java": "java groovy gradle dart",
    "c": "c h", "c++": "cpp hpp cc hh cxx hxx", "objective-c": "m mm", "csharp": "cs", "go": "go", "rust": "rs", "ruby": "rb", "php": "php",
    "swift": "swift", "kotlin": "kt kts", "scala": "scala", "shell": "sh bash zsh fish", "powershell": "ps1 psm1", "sql": "sql",
    "r": "r", "julia": "jl", "lua": "lua", "perl": "pl pm", "css": "css scss sass less", "yaml": "yaml yml",
    "toml": "toml", "ini": "ini cfg conf", "make": "mk", "dockerfile": "dockerfile", "tex": "tex sty cls", "haskell": "hs",
    "elixir": "ex exs", "terraform": "tf hcl", "proto": "proto", "graphql": "graphql",
}  # fmt: skip
_LANGUAGES = {f".{end}": language for language, ends in _SUFFIXES.items() for end in ends.split()}
NAMES = {
    "makefile": "make",
    "gnumakefile": "make",
    "dockerfile": "dockerfile",
    "containerfile": "dockerfile",
    "rakefile": "ruby",
    "gemfile": "ruby",
}
_PROGRAMS = {"python": "python", "sh": "shell", "bash": "shell", "zsh": "shell", "node": "javascript", "ruby": "ruby", "perl": "perl", "php": "php"}  # fmt: skip
_SHEBANG = re.compile(r"#!.*?\b(python|bash|zsh|sh|node|ruby|perl|php)[\d.]*\b")
_TEX_LEVELS = {"part": 1, "chapter": 1, "section": 2, "subsection": 3, "subsubsection": 4, "paragraph": 5}
_TEX_TITLE = re.compile(r"\s*\\(\w+)\*?\s*(?:\[[^\[\]]*\])?\{(.*)\}")


def read_source(data: bytes, name: str) -> Content:
    text, metadata = read_text(data)
    language = _language(text, name)
    headings = _headings(text, language)
    if language:
        metadata = (("programming_language", language), *metadata)
    media_type = f"text/x-{language}" if language else "text/plain"
    return Content(
        text, media_type, title_from_name(name), headings=headings, source_chars=len(text), metadata=metadata
    )


def _language(text: str, name: str) -> str:
    path = PurePath(name)
    known = _LANGUAGES.get(path.suffix.lower()) or NAMES.get(path.name.lower().partition(".")[0])
    if known:
        return known
    found = _SHEBANG.match(text[:200].split("\n", 1)[0])
    return _PROGRAMS[found[1]] if found else ""


def _headings(text: str, language: str) -> tuple[HeadingMark, ...]:
    if language == "python" and (parsed := _python(text)) is not None:
        return parsed
    pattern = _NAMED.get(language)
    if pattern is None:
        return ()
    return tuple(_matching(text, re.compile(pattern, re.IGNORECASE if language == "sql" else 0), language))


def _python(text: str) -> tuple[HeadingMark, ...] | None:
    """Classes and functions with their decorators; None when the file does not parse."""
    import ast
    import warnings

    if len(text) > _MOST_PARSED_CHARS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the file's own, about its escapes
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    starts = [0]
    starts.extend(found.end() for found in re.finditer("\n", text))
    marks: list[HeadingMark] = []
    waiting: list[tuple[ast.AST, int]] = [(tree, 1)]
    while waiting:
        node, level = waiting.pop()
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                line = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
                word = "class" if isinstance(child, ast.ClassDef) else "def"
                marks.append(HeadingMark(starts[line - 1], level, one_line(f"{word} {child.name}")))
            if named or not isinstance(child, ast.expr):
                waiting.append((child, level + named))
    return tuple(sorted(marks, key=lambda mark: mark.start)[:MOST_HEADINGS])


def _matching(text: str, pattern: re.Pattern[str], language: str) -> Iterator[HeadingMark]:
    start = found = 0
    indents: list[int] = []  # of the definitions that this line may stand in
    for line in text.split("\n"):
        match = pattern.match(line) if len(line) <= _LONGEST_LINE_CHARS else None
        if match and found < MOST_HEADINGS:
            level, title = _place(line, match, language, indents)
            if title:
                found += 1
                yield HeadingMark(start, level, title)
        start += len(line) + 1


def _place(line: str, match: re.Match[str], language: str, indents: list[int]) -> tuple[int, str]:
    if language == "tex" and (section := _TEX_TITLE.match(line)):
        return _TEX_LEVELS[section[1]], one_line(section[2])
    indent = len(line.expandtabs(_INDENT)) - len(line.expandtabs(_INDENT).lstrip())
    while indents and indents[-1] >= indent:
        indents.pop()
    indents.append(indent)
    title = match[0].strip().rstrip("{ \t").removesuffix("=>").rstrip(" =")
    return len(indents), one_line(title if language == "shell" else title.rstrip("(:").strip())
