"""`docs/policy-coverage.md`: each article of the policy, the rules that state it, the operations that carry it out, and
the tests that say so. Made from the pack, the OpenAPI documents and the tests' markers; nothing of it by hand."""

import ast
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from libs.common.policy import Pack
from libs.common.policy.model import (
    AffiliationOrder,
    AtMostOne,
    Benefit,
    BenefitAmount,
    CashAdvance,
    Category,
    CertificationTerm,
    Cited,
    Condition,
    CorrectionTerms,
    Coverage,
    Department,
    Directory,
    Document,
    DocumentKind,
    EmployerShareRule,
    Exclusion,
    Fact,
    GreenChannel,
    InstalmentPlan,
    Item,
    Lights,
    ManualDecisionRule,
    OrderTerms,
    PackTreasury,
    PayoutTerms,
    Platform,
    PublicNotice,
    Region,
    SettlementRoute,
    SharingPlan,
)

MARKER = "article"
OF_THE_POLICY = frozenset(DocumentKind) - {DocumentKind.INTERPRETATION, DocumentKind.LAW, DocumentKind.STANDARD}

_FILING = ("POST /intake/v1/applications",)
_ASKING = (
    *_FILING,
    "POST /intake/v1/eligibility",
    "POST /intake/v1/eligibility:candidates",
    "GET /intake/v1/applications/{application}/decision",
)
_PAYING = ("GET /finance/v1/entitlements/{entitlement_id}", "GET /finance/v1/orders")
_REVIEWING = (
    "POST /finance/v1/entitlements/{entitlement_id}/instalments/{instalment}:review",
    "GET /finance/v1/pending-reviews",
)
_BOOKS = ("GET /finance/v1/orders/{order_id}", "GET /finance/v1/ledger/accounts", "GET /finance/v1/reconciliation")
_SUPERVISION = ("GET /audit/v1/supervision/overdue", "GET /audit/v1/supervision/summary")

OPERATIONS: Mapping[type[Cited], tuple[str, ...]] = {
    Region: _FILING,
    PackTreasury: _FILING,
    Platform: _FILING,
    AffiliationOrder: _FILING,
    ManualDecisionRule: _FILING,
    Department: ("GET /workflow/v1/tasks",),
    Coverage: _ASKING,
    Category: _ASKING,
    Fact: _ASKING,
    Directory: (
        "POST /intake/v1/directories/{directory}:enter",
        "POST /intake/v1/directories/{directory}:strike",
        "GET /intake/v1/directories/{directory}/employers",
        "GET /intake/v1/directories/{directory}/employers/{credit_code}",
    ),
    Condition: _ASKING,
    Exclusion: _ASKING,
    AtMostOne: _FILING,
    Item: (
        *_FILING,
        "GET /workflow/v1/tasks",
        "POST /workflow/v1/tasks/{task}:complete",
        "GET /workflow/v1/cases/{application}",
    ),
    Benefit: ("POST /workflow/v1/items/{item}:confirm", "GET /housing/v1/eligibilities", *_PAYING),
    BenefitAmount: _PAYING,
    InstalmentPlan: _PAYING,
    PayoutTerms: _PAYING,
    OrderTerms: _PAYING,
    EmployerShareRule: _BOOKS,
    SharingPlan: _BOOKS,
    CashAdvance: _BOOKS,
    SettlementRoute: ("POST /finance/v1/periods/{treasury}/{month}:close", "GET /finance/v1/settlements"),
    PublicNotice: (
        "POST /workflow/v1/items/{item}:publish",
        "POST /workflow/v1/items/{item}/objections",
        "POST /workflow/v1/objections/{objection}:conclude",
        "POST /workflow/v1/items/{item}:confirm",
        "GET /intake/v1/public-notices",
        "GET /intake/v1/public-notices/page",
    ),
    GreenChannel: (
        "GET /intake/v1/policy",
        "GET /workflow/v1/tasks",
        "GET /workflow/v1/tasks/{task}",
        "GET /workflow/v1/cases/{application}",
    ),
    CorrectionTerms: ("POST /intake/v1/applications/{application}:correct",),
    CertificationTerm: ("GET /workflow/v1/certifications/{number}",),
    Lights: _SUPERVISION,
}
"""The operations that carry out a rule of each kind."""

WITHOUT_A_RULE: Mapping[str, tuple[str, ...]] = {
    "第一条": ("GET /intake/v1/policy",),
    "第七条": ("GET /audit/v1/supervision/summary",),
    "第八条": ("GET /audit/v1/supervision/summary",),
    "第九条": (*_SUPERVISION, "GET /audit/v1/trail", "POST /audit/v1/trail:verify"),
}
"""Articles that ask for no rule of a pack and for something of the platform: the older policy goes on (第一条), figures
for the meeting of the quarter (第七条) and for assessments (第八条), supervision (第九条)."""

HEAD = """# What carries out each article

{number} {title}: each article, the rules of `{version}` that state it, the operations that carry it out, and the
tests marked with it. Rules that rest on a document without public articles are assumptions: `huanquan policy check`
lists them.

| article | rules | operations | tests |
| --- | --- | --- | --- |
"""


class Row(NamedTuple):
    """An article of a document of the policy."""

    article: str
    rules: tuple[str, ...]
    operations: tuple[str, ...]
    tests: tuple[str, ...]

    def gap(self, known: Collection[str]) -> str | None:
        """What is wanting, in one line; None where nothing is. `known` are the operations that there are."""
        if strange := [operation for operation in self.operations if operation not in known]:
            return f"{self.article}: no service has {', '.join(strange)}"
        if not self.operations:
            return f"{self.article}: neither a rule nor an operation carries it out"
        if not self.tests:
            return f"{self.article}: no test is marked with it"
        return None


def coverage(pack: Pack, tests: Mapping[str, list[str]]) -> list[Row]:
    """Each article of the policy's own documents; `tests` are those of each article."""
    return [_row(pack, document.id, article, tests) for document in _documents(pack) for article in document.articles]


def _row(pack: Pack, document: str, article: str, tests: Mapping[str, list[str]]) -> Row:
    cited = [
        (name, record) for name, record in pack.cited() if (record.document, record.article) == (document, article)
    ]
    operations = [operation for _, record in cited for operation in _carrying_out(record)]
    found = dict.fromkeys([*operations, *WITHOUT_A_RULE.get(article, ())])
    return Row(article, tuple(dict(cited)), tuple(found), tuple(tests.get(article, ())))


def _carrying_out(record: Cited) -> tuple[str, ...]:
    """A condition of later instalments alone is asked before each of them, and of nobody who applies."""
    if not isinstance(record, Condition) or not record.instalments:
        return OPERATIONS[type(record)]
    asked = (*record.coverages, *record.categories, *record.items)
    return (*(_ASKING if asked else ()), *_REVIEWING)


def _documents(pack: Pack) -> Iterator[Document]:
    return (document for document in pack.documents if document.kind in OF_THE_POLICY)


def marked(folder: Path) -> Mapping[str, list[str]]:
    """The tests below a folder by the articles that they are marked with, as `tests/…/test_a.py::test_b`."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for article in _articles(node):
                    found.setdefault(article, []).append(f"{path.relative_to(folder.parent)}::{node.name}")
    return found


def _articles(test: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for mark in test.decorator_list:
        if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Attribute) and mark.func.attr == MARKER:
            yield from (str(argument.value) for argument in mark.args if isinstance(argument, ast.Constant))


def written(pack: Pack, rows: list[Row]) -> str:
    """The document."""
    about = next(document for document in _documents(pack) if document.articles)
    head = HEAD.format(number=about.number, title=about.title, version=f"{pack.city}/{pack.version}")
    return head + "".join(f"| {row.article} | {' | '.join(map(_cell, row[1:]))} |\n" for row in rows)


def _cell(names: tuple[str, ...]) -> str:
    return "<br>".join(f"`{name}`" for name in names) or "—"
