from __future__ import annotations

import pytest

from openbook.parsers.source import read_source


def titles(text: str, name: str) -> list[tuple[int, str]]:
    content = read_source(text.encode(), name)
    assert content.text == text
    for mark in content.headings:
        assert mark.start == 0 or text[mark.start - 1] == "\n"
    return [(mark.level, mark.title) for mark in content.headings]


def test_python_by_its_syntax() -> None:
    text = '"""def not_one(): pass"""\n\n@wraps\nclass A:\n    async def b(self):\n        def c(): pass\n\nif x:\n    def d(): pass\n'
    assert titles(text, "a.py") == [(1, "class A"), (2, "def b"), (3, "def c"), (1, "def d")]
    content = read_source(text.encode(), "a.py")
    assert text[content.headings[0].start :].startswith("@wraps\nclass A")
    assert content.metadata == (("programming_language", "python"),)


def test_python_that_does_not_parse() -> None:
    assert titles("print 'x'\nclass A:\n    def b(self):\n", "a.py") == [(1, "class A"), (2, "def b")]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.ts", "export class A<T> {\n  async go(x: string): Promise<void> {\n    if (x) {\n    }\n  }\n}\nexport const f = (a) => a\nfunction g() {}\n",
         [(1, "export class A"), (2, "async go(x: string): Promise<void>"), (1, "export const f = (a)"), (1, "function g")]),
        ("a.c", "#include <a.h>\nstatic int add(int a, int b)\n{\n  return go(a);\n}\nstruct p { int x; };\nint main(void) {\n  go(1);\n}\n",
         [(1, "static int add(int a, int b)"), (1, "struct p"), (1, "int main(void)")]),
        ("A.java", "public class A {\n  public static void main(String[] args) {\n    new B(3);\n    return go(x);\n  }\n}\n",
         [(1, "public class A"), (2, "public static void main(String[] args)")]),
        ("a.go", "package a\nfunc (s *S) Go(x int) error {\n}\ntype S struct {\n}\n", [(1, "func (s *S) Go"), (1, "type S")]),
        ("a.rs", "impl Go for A {\n    pub async fn go(&self) {}\n}\n", [(1, "impl Go for A"), (2, "pub async fn go")]),
        ("a.rb", "class A\n  def go?\n  end\nend\n", [(1, "class A"), (2, "def go?")]),
        ("a.sh", "go() {\n  ls\n}\nfunction two {\n}\n", [(1, "go()"), (1, "function two")]),
        ("a.sql", "create or replace function go(a int) as\nCREATE TABLE users (id INT);\n", [(1, "create or replace function go"), (1, "CREATE TABLE users")]),
        ("a.toml", "[project]\nname = 1\n[[tool.a]]\n", [(1, "[project]"), (1, "[[tool.a]]")]),
        ("a.yaml", "name: x\nservices:\n  web: 1\n", [(1, "name"), (1, "services")]),
        ("Makefile", "CC := gcc\nall: build\nbuild:\n\tgcc x\n", [(1, "all"), (1, "build")]),
        ("Dockerfile.dev", "FROM debian AS base\nRUN ls\n", [(1, "FROM debian")]),
        ("a.tex", "\\section{Fares}\ntext\n\\subsection*{Children}\n", [(2, "Fares"), (3, "Children")]),
        ("run", "#!/usr/bin/env bash\ngo() {\n}\n", [(1, "go()")]),
        ("a.css", "body { color: red }\n@media print {\n}\n", [(1, "body"), (1, "@media print")]),
        ("a.properties", "a=b\n", []),
    ],
)  # fmt: skip
def test_definitions_are_headings(name: str, text: str, expected: list[tuple[int, str]]) -> None:
    assert titles(text, name) == expected


@pytest.mark.parametrize(
    "name", ["a.js", "a.c", "a.java", "a.rs", "a.sql", "a.yaml", "a.css", "Makefile", "a.tex", "a.py", "a.php"]
)
def test_hostile_lines_take_linear_time(name: str) -> None:
    for text in (
        "a" * 1_000_000,
        "a " * 500_000,
        ("a " * 190 + "\n") * 500,
        ("a:b-c.d" * 50 + "\n") * 300,
        ("(" * 390 + "\n") * 500,
        ("public " * 50 + "\n") * 300,
    ):
        read_source(text.encode(), name)


def test_python_that_nests_too_deeply() -> None:
    assert titles("def a(): pass\nx = " + "(" * 5_000 + ")" * 5_000, "a.py") == [(1, "def a")]
