# /// script
# requires-python = ">=3.11"
# dependencies = ["python-docx==1.2.0", "reportlab==5.1.0"]
# ///
"""Write the two PDF and the two DOCX files of the example handbook.

Their text stands in `texts/`, in a small markup: ``# `` and ``## `` are headings, ``- `` starts a list item,
``| a | b |`` is a table row (the first row of a table is its head), ``---`` starts a new page, and a
blank line ends a paragraph. With the pinned libraries a second run writes the same bytes.

    uv run examples/make_binaries.py            # or: pip install python-docx reportlab, then python
"""

import io
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from docx import Document
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

HANDBOOK = Path(__file__).parent / "handbook"
TEXTS = Path(__file__).parent / "texts"
ZIP_DATE = (2025, 3, 1, 0, 0, 0)


@dataclass
class Block:
    """One piece of a document: `kind` is h1, h2, h3, p, li, table or page; only a table has `rows`."""

    kind: str
    text: str = ""
    rows: list[list[str]] = field(default_factory=list)


def parse(path: Path) -> list[Block]:
    """The text of the document that is written to `path`."""
    blocks: list[Block] = []
    marks = {"# ": "h1", "## ": "h2", "### ": "h3", "- ": "li"}
    goes_on = False  # whether a plain line belongs to the last block
    for line in (TEXTS / f"{path.stem}.txt").read_text(encoding="utf-8").splitlines():
        mark = next((m for m in marks if line.startswith(m)), None)
        if line == "---":
            blocks.append(Block("page"))
        elif not line.strip():
            pass
        elif line.startswith("|"):
            if not (blocks and blocks[-1].kind == "table"):
                blocks.append(Block("table"))
            blocks[-1].rows.append([cell.strip() for cell in line[1:-1].split("|")])
        elif mark:
            blocks.append(Block(marks[mark], line.removeprefix(mark)))
        elif goes_on:
            blocks[-1].text += f" {line.strip()}"
        else:
            blocks.append(Block("p", line.strip()))
        goes_on = bool(line.strip()) and blocks[-1].kind in ("p", "li")
    return blocks


def write_pdf(path: Path, *, title: str, author: str, footer: str) -> None:
    """Lay the text out on A4 pages with `footer` and the page number below each."""
    body = ParagraphStyle("body", fontName="Times-Roman", fontSize=11, leading=15, spaceAfter=7)
    head = {"fontName": "Helvetica-Bold", "textColor": colors.HexColor("#0B4F6C"), "keepWithNext": 1}
    styles = {
        "h1": ParagraphStyle("h1", fontSize=19, leading=24, spaceAfter=10, **head),
        "h2": ParagraphStyle("h2", fontSize=13, leading=17, spaceBefore=8, spaceAfter=4, **head),
        "p": body,
        "li": ParagraphStyle("li", parent=body, leftIndent=14, bulletIndent=3),
    }
    flow = []
    for block in parse(path):
        if block.kind == "page":
            flow.append(PageBreak())
        elif block.kind == "table":
            flow += [pdf_table(block.rows), Spacer(1, 9)]
        else:
            bullet = "•" if block.kind == "li" else None
            flow.append(Paragraph(block.text, styles[block.kind], bulletText=bullet))

    def draw_footer(canvas: Canvas, _: object) -> None:
        canvas.setFont("Helvetica", 8)
        canvas.drawString(25 * mm, 13 * mm, footer)
        canvas.drawRightString(185 * mm, 13 * mm, f"Page {canvas.getPageNumber()}")

    margins = dict.fromkeys(("leftMargin", "rightMargin", "topMargin", "bottomMargin"), 25 * mm)
    doc = SimpleDocTemplate(
        str(path), pagesize=A4, title=title, author=author, invariant=1, pageCompression=1, **margins
    )
    doc.build(flow, onFirstPage=draw_footer, onLaterPages=draw_footer)


def pdf_table(rows: list[list[str]]) -> Table:
    return Table(
        rows,
        hAlign="LEFT",
        style=TableStyle(
            [
                ("FONT", (0, 0), (-1, 0), "Helvetica-Bold", 9.5),
                ("FONT", (0, 1), (-1, -1), "Helvetica", 9.5),
                ("BACKGROUND", (0, 0), (-1, 0), colors.HexColor("#DCE9EF")),
                ("LINEBELOW", (0, 0), (-1, -1), 0.4, colors.grey),
            ]
        ),
    )


def write_docx(path: Path, *, title: str, author: str, changed: datetime) -> None:
    """Write the text with Word's own heading, list and table styles."""
    doc = Document()
    for block in parse(path):
        if block.kind == "h1":
            doc.add_heading(block.text, level=0)
        elif block.kind in ("h2", "h3"):
            doc.add_heading(block.text, level=int(block.kind[1]) - 1)
        elif block.kind == "table":
            table = doc.add_table(rows=0, cols=len(block.rows[0]), style="Light Grid Accent 1")
            for row in block.rows:
                for cell, value in zip(table.add_row().cells, row, strict=True):
                    cell.text = value
        elif block.kind == "li":
            doc.add_paragraph(block.text, style="List Bullet")
        else:
            paragraph = doc.add_paragraph()
            for index, part in enumerate(block.text.split("*")):  # every second part is in italics
                paragraph.add_run(part).italic = index % 2 == 1 or None
    doc.core_properties.title, doc.core_properties.author = title, author
    doc.core_properties.created = doc.core_properties.modified = changed
    doc.core_properties.last_modified_by, doc.core_properties.comments = author, ""
    buffer = io.BytesIO()
    doc.save(buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():  # saved again, because python-docx stamps members with the time of day
            info = zipfile.ZipInfo(name, ZIP_DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(info, old.read(name))


def main() -> None:
    write_pdf(
        HANDBOOK / "safety/vessel-safety-manual.pdf", title="Vessel Safety Manual",
        author="Priya Nandakumar", footer="MFH-SM-01, edition 9",
    )  # fmt: skip
    write_pdf(
        HANDBOOK / "reports/annual-review-2024.pdf", title="Annual Review 2024",
        author="Morvane Ferries and Harbours", footer="Morvane Ferries and Harbours, Annual Review 2024",
    )  # fmt: skip
    write_docx(
        HANDBOOK / "people/onboarding-guide.docx", title="Welcome aboard",
        author="Inês Carvalhal", changed=datetime(2025, 2, 10, 9, 0, tzinfo=UTC),
    )  # fmt: skip
    write_docx(
        HANDBOOK / "suppliers/fuel-contract-summary.docx", title="Fuel supply contract",
        author="Amélie Rouvière", changed=datetime(2024, 6, 17, 16, 30, tzinfo=UTC),
    )  # fmt: skip


if __name__ == "__main__":
    main()
