"""The list of public notices as an HTML page, to print or to show: no script, no address outside."""

from collections.abc import Mapping
from datetime import date
from html import escape
from urllib.parse import urlencode

from libs.common.paging import Page
from services.intake.notices import PublishedView

_STYLE = """
body { font: 16px/1.7 "Noto Sans CJK SC", "Microsoft YaHei", sans-serif; max-width: 64rem; margin: 2rem auto;
       padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; width: 100%; }
th, td { border: 1px solid #bbb; padding: .3rem .6rem; text-align: left; vertical-align: top; }
th { background: #eef4f8; white-space: nowrap; }
"""
_HEADS = ("姓名", "用人单位", "事项", "拟认定类别", "所属财政", "公示日期", "公示期至")


def as_page(shown: Page[PublishedView], today: date, asked: Mapping[str, str]) -> str:
    """The page of `today`; `asked` is the query by which it was asked for, which the link to the next one repeats."""
    heads = "".join(f"<th>{head}</th>" for head in _HEADS)
    rows = "".join(_row(each) for each in shown.items)
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>" if rows else "<p>今日没有公示。</p>"
    query = escape(urlencode({**asked, "cursor": shown.next})) if shown.next else ""
    onward = f'<p><a href="?{query}">下一页</a></p>' if query else ""
    return (
        '<!doctype html><html lang="zh-CN"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>拟认定人才公示</title><style>{_STYLE}</style></head><body><h1>拟认定人才公示</h1>"
        f"<p>{today} 公示中的名单。对公示内容有异议的，请在公示期内向所属财政的人才工作部门提出。</p>"
        f"{table}{onward}</body></html>"
    )


def _row(each: PublishedView) -> str:
    cells = (
        each.name,
        each.employer or "—",
        each.item,
        each.category,
        each.treasury_title,
        str(each.opened_on),
        str(each.last_day),
    )
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
