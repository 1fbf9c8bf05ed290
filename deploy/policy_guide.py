"""The guide of a policy as a page and as a document: one structure (`libs/common/policy/guide.py`), two forms."""

from html import escape
from io import BytesIO
from itertools import chain
from typing import Any

from docx import Document
from docx.oxml.ns import qn

from libs.common.policy.guide import Entry, Guide

FONT = "SimSun"
STYLE = """
body { font: 16px/1.7 "Noto Sans CJK SC", "Microsoft YaHei", sans-serif; max-width: 52rem; margin: 2rem auto;
       padding: 0 1rem; color: #1a1a1a; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.3rem; border-bottom: 2px solid #0072b2; padding-bottom: .2rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; } p { margin: .2rem 0; }
table { border-collapse: collapse; width: 100%; margin: .4rem 0; }
th, td { border: 1px solid #bbb; padding: .3rem .6rem; text-align: left; vertical-align: top; }
th { background: #eef4f8; } nav li { display: inline-block; margin-right: 1.2rem; }
footer { margin-top: 3rem; color: #555; font-size: .85rem; word-break: break-all; }
@media print { nav { display: none; } section { break-before: page; } }
"""


def as_page(guide: Guide) -> str:
    """One HTML page that needs nothing else: no script, no address outside."""
    links = "".join(f'<li><a href="#{escape(item.code)}">{escape(item.title)}</a></li>' for item in guide.items)
    parts = [
        '<!doctype html><html lang="zh-CN"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(guide.title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(guide.title)}</h1><p>{guide.on.isoformat()} 有效</p><nav><ul>{links}</ul></nav>",
        f"<h2>服务规范</h2>{_html(guide.standard)}",
    ]
    for item in guide.items:
        heading = f'<section id="{escape(item.code)}"><h2>办事指南：{escape(item.title)}</h2>'
        parts += [heading, _html(item.entries), "</section>"]
    parts.append(f"<footer>政策包：{escape(guide.policy)}</footer></body></html>\n")
    return "\n".join(parts)


def _html(entries: tuple[Entry, ...]) -> str:
    return "\n".join(chain.from_iterable(_entry(entry) for entry in entries))


def _entry(entry: Entry) -> list[str]:
    told = [f"<h3>{escape(entry.name)}</h3>", *(f"<p>{escape(line)}</p>" for line in entry.lines)]
    if entry.table:
        head, *rows = entry.table
        cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        told.append(f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>")
    return told


def as_document(guide: Guide) -> bytes:
    """A Word document (.docx)."""
    document: Any = Document()
    normal = document.styles["Normal"]
    normal.font.name = FONT
    normal.element.rPr.rFonts.set(qn("w:eastAsia"), FONT)
    document.add_heading(guide.title, level=0)
    document.add_paragraph(f"{guide.on.isoformat()} 有效")
    document.add_heading("服务规范", level=1)
    _write(document, guide.standard)
    for item in guide.items:
        document.add_page_break()
        document.add_heading(f"办事指南：{item.title}", level=1)
        _write(document, item.entries)
    document.add_paragraph(f"政策包：{guide.policy}")
    written = BytesIO()
    document.save(written)
    return written.getvalue()


def _write(document: Any, entries: tuple[Entry, ...]) -> None:
    for entry in entries:
        document.add_heading(entry.name, level=2)
        for line in entry.lines:
            document.add_paragraph(line)
        if entry.table:
            table = document.add_table(rows=0, cols=len(entry.table[0]), style="Table Grid")
            for row in entry.table:
                for cell, text in zip(table.add_row().cells, row, strict=True):
                    cell.text = text


def as_text(guide: Guide) -> str:
    """Plain text, for a terminal."""
    lines = [guide.title, f"{guide.on.isoformat()} 有效", "", "== 服务规范", *_text(guide.standard)]
    for item in guide.items:
        lines += ["", f"== 办事指南：{item.title}", *_text(item.entries)]
    return "\n".join([*lines, "", f"政策包：{guide.policy}"])


def _text(entries: tuple[Entry, ...]) -> list[str]:
    told: list[str] = []
    for entry in entries:
        told += [f"{entry.name}：", *(f"  {line}" for line in entry.lines)]
        told += [f"  {'｜'.join(row)}" for row in entry.table]
    return told
