"""Reconciliation (对账): what must be true of the books, the orders and the bank's files, each as one read-only query.

Every query gives a row for each thing it checked: `record` (what it is), `treasury`, `month` (null where it belongs to
none), `ok`, and `detail` where it is not so. All are linear in the rows they read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

INVARIANTS: tuple[tuple[str, str], ...] = (
    (
        "every transfer balances in every book",
        """
        SELECT t.key AS record, e.treasury, t.month, e.fen = 0 AS ok, 'sums to ' || e.fen AS detail
          FROM (SELECT e.transfer_id, a.treasury, sum(e.fen) AS fen
                  FROM entry AS e JOIN account AS a ON a.id = e.account_id
                 GROUP BY e.transfer_id, a.treasury) AS e
          JOIN transfer AS t ON t.id = e.transfer_id
        """,
    ),
    (
        "every balance is the sum of its entries",
        """
        SELECT a.treasury || ' ' || a.kind || ' ' || a.counterparty AS record, a.treasury, NULL AS month,
               a.balance = coalesce(e.fen, 0) AS ok, a.balance || ' <> ' || coalesce(e.fen, 0) AS detail
          FROM account AS a
          LEFT JOIN (SELECT account_id, sum(fen) AS fen FROM entry GROUP BY account_id) AS e ON e.account_id = a.id
        """,
    ),
    (
        "what is owed stands alike in both books",
        """
        SELECT coalesce(f.treasury, d.counterparty) || ' from ' || coalesce(f.counterparty, d.treasury) AS record,
               coalesce(f.treasury, d.counterparty) AS treasury, NULL AS month,
               coalesce(f.balance, 0) + coalesce(d.balance, 0) = 0 AS ok,
               coalesce(f.balance, 0) || ' <> ' || -coalesce(d.balance, 0) AS detail
          FROM (SELECT * FROM account WHERE kind = 'due_from') AS f
          FULL JOIN (SELECT * FROM account WHERE kind = 'due_to') AS d
            ON d.treasury = f.counterparty AND d.counterparty = f.treasury
        """,
    ),
    (
        "every order is posted once where settled, else not at all",
        """
        SELECT o.id::text AS record, o.treasury, to_char(o.settled_on, 'YYYY-MM') AS month,
               coalesce(p.posted, 0) = CASE WHEN o.settled_on IS NULL THEN 0 ELSE 1 END
               AND coalesce(p.attempt, o.attempt) = o.attempt AS ok,
               o.state || ', posted ' || coalesce(p.posted, 0) || ' times' AS detail
          FROM payout_order AS o
          LEFT JOIN (SELECT order_id, sum(CASE kind WHEN 'payout' THEN 1 ELSE -1 END) AS posted,
                            max(attempt) FILTER (WHERE kind = 'payout') AS attempt
                       FROM transfer WHERE order_id IS NOT NULL GROUP BY order_id) AS p
            ON p.order_id = o.id AND (p.posted <> 0 OR o.settled_on IS NOT NULL)
        """,
    ),
    (
        "every posting has the amounts of its order",
        """
        SELECT t.key AS record, t.treasury, t.month,
               bool_and(CASE a.kind
                        WHEN 'cash' THEN a.treasury = o.treasury AND s.sign * e.fen = -o.public_fen
                        WHEN 'expenditure' THEN s.sign * e.fen = (o.shares ->> a.treasury)::bigint
                        WHEN 'due_from' THEN a.treasury = o.treasury
                                             AND s.sign * e.fen = (o.shares ->> a.counterparty)::bigint
                        ELSE a.counterparty = o.treasury AND s.sign * e.fen = -(o.shares ->> a.treasury)::bigint END)
               AND count(*) FILTER (WHERE a.kind = 'cash') = 1
               AND sum(s.sign * e.fen) FILTER (WHERE a.kind = 'expenditure') = o.public_fen AS ok,
               'entries are not those of order ' || o.id AS detail
          FROM transfer AS t
          JOIN payout_order AS o ON o.id = t.order_id
          JOIN entry AS e ON e.transfer_id = t.id
          JOIN account AS a ON a.id = e.account_id
         CROSS JOIN LATERAL (SELECT CASE t.kind WHEN 'payout' THEN 1 ELSE -1 END AS sign) AS s
         GROUP BY t.id, o.id
        """,
    ),
    (
        "every posting is of the day that the bank told, or its month was closed",
        """
        SELECT t.key AS record, t.treasury, t.month,
               CASE t.kind WHEN 'settlement' THEN t.posted_on = (s.closed_at AT TIME ZONE 'Asia/Shanghai')::date
                           ELSE t.posted_on = l.on_day AND t.month >= to_char(l.on_day, 'YYYY-MM') END AS ok,
               'posted on ' || t.posted_on || ' in ' || t.month || ', told of '
               || coalesce(l.on_day, (s.closed_at AT TIME ZONE 'Asia/Shanghai')::date)::text AS detail
          FROM transfer AS t
          LEFT JOIN settlement AS s ON s.id = t.settlement_id
          LEFT JOIN batch_line AS b ON b.order_id = t.order_id AND b.attempt = t.attempt
          LEFT JOIN bank_result_line AS l ON l.reference = b.reference
           AND l.verdict = CASE t.kind WHEN 'payout' THEN 'settle' WHEN 'payout_reversal' THEN 'bounce' END
        """,
    ),
    (
        "every order pays its entitlement, to whom that is due",
        """
        SELECT o.id::text AS record, o.treasury, NULL AS month,
               (o.beneficiary, o.application, o.item, o.benefit) = (e.beneficiary, e.application, e.item, e.benefit)
               AND (o.state IN ('unfunded', 'due', 'cancelled') OR o.payee_account IS NOT NULL) AS ok,
               'the order pays ' || o.beneficiary || ' to ' || coalesce(o.payee_account::text, 'no account')
               || ', due to ' || e.beneficiary AS detail
          FROM payout_order AS o
          JOIN entitlement AS e ON e.id = o.entitlement_id
        """,
    ),
    (
        "the shares of every order sum to what is paid",
        """
        SELECT o.id::text AS record, o.treasury, NULL AS month,
               s.fen = o.public_fen AND i.amount_fen = o.public_fen + o.employer_fen AS ok,
               'shares ' || s.fen || ', public ' || o.public_fen || ', employer ' || o.employer_fen
               || ', instalment ' || i.amount_fen AS detail
          FROM payout_order AS o
          JOIN instalment AS i ON i.entitlement_id = o.entitlement_id AND i.number = o.instalment
         CROSS JOIN LATERAL (SELECT sum(value::bigint) AS fen FROM jsonb_each_text(o.shares)) AS s
        """,
    ),
    (
        "no entitlement is paid more than once",
        """
        SELECT e.id::text AS record, e.treasury, NULL AS month,
               i.fen = e.total_fen AND coalesce(o.fen, 0) <= e.total_fen AND coalesce(o.n = o.instalments, true) AS ok,
               'total ' || e.total_fen || ', instalments ' || i.fen || ', settled ' || coalesce(o.fen, 0) AS detail
          FROM entitlement AS e
          JOIN (SELECT entitlement_id, sum(amount_fen) AS fen FROM instalment GROUP BY entitlement_id) AS i
            ON i.entitlement_id = e.id
          LEFT JOIN (SELECT entitlement_id, sum(public_fen + employer_fen) AS fen, count(*) AS n,
                            count(DISTINCT instalment) AS instalments
                       FROM payout_order WHERE settled_on IS NOT NULL GROUP BY entitlement_id) AS o
            ON o.entitlement_id = e.id
        """,
    ),
    (
        "nothing that needs a review is ordered without one that passes",
        """
        SELECT o.id::text AS record, o.treasury, NULL AS month, coalesce(r.verdict = 'pass', false) AS ok,
               'ordered, reviewed: ' || coalesce(r.verdict, 'never') AS detail
          FROM payout_order AS o
          JOIN instalment AS i ON (i.entitlement_id, i.number) = (o.entitlement_id, o.instalment)
                              AND i.review_from IS NOT NULL
          LEFT JOIN (SELECT DISTINCT ON (entitlement_id, number) entitlement_id, number, verdict FROM instalment_review
                      ORDER BY entitlement_id, number, serial DESC) AS r
            ON (r.entitlement_id, r.number) = (i.entitlement_id, i.number)
        """,
    ),
    (
        "every bank file has the amounts of its orders",
        """
        SELECT b.number AS record, b.treasury, to_char(b.made_on, 'YYYY-MM') AS month,
               count(o.id) = b.lines AND sum(l.fen) = b.total_fen AND sum(o.public_fen) = b.total_fen
               AND bool_and(l.fen = o.public_fen AND o.treasury = b.treasury) AS ok,
               count(o.id) || ' lines of ' || b.lines || ', ' || coalesce(sum(l.fen), 0) || ' fen of ' || b.total_fen
               || ', orders of ' || coalesce(sum(o.public_fen), 0) AS detail
          FROM payout_batch AS b
          LEFT JOIN batch_line AS l ON l.batch_id = b.id
          LEFT JOIN payout_order AS o ON o.id = l.order_id
         GROUP BY b.id
        """,
    ),
    (
        "an order is sent again only after the bank bounced it",
        """
        SELECT l.reference AS record, o.treasury, NULL AS month,
               l.attempt = o.attempt OR coalesce(r.outcome = 'bounced', false) AS ok,
               'attempt ' || l.attempt || ' of ' || o.attempt || ': ' || coalesce(r.outcome, 'no answer') AS detail
          FROM batch_line AS l
          JOIN payout_order AS o ON o.id = l.order_id
          LEFT JOIN (SELECT DISTINCT ON (reference) reference, outcome FROM bank_result_line
                      WHERE verdict IN ('settle', 'bounce') ORDER BY reference, recorded_at DESC) AS r
            ON r.reference = l.reference
        """,
    ),
    (
        "every line of a bank file is one sending of its order",
        """
        SELECT coalesce(l.reference, h.order_id || ' attempt ' || h.attempt) AS record, o.treasury, NULL AS month,
               l.n = 1 AND h.n = 1 AS ok, 'in files ' || coalesce(l.n, 0) || ', sent ' || coalesce(h.n, 0) AS detail
          FROM (SELECT order_id, attempt, batch_id, min(reference) AS reference, count(*) AS n
                  FROM batch_line GROUP BY order_id, attempt, batch_id) AS l
          FULL JOIN (SELECT order_id, attempt, record AS batch_id, count(*) AS n
                       FROM order_history WHERE action = 'send' GROUP BY order_id, attempt, record) AS h
         USING (order_id, attempt, batch_id)
          JOIN payout_order AS o ON o.id = coalesce(l.order_id, h.order_id)
        """,
    ),
    (
        "every line of the bank that is believed moved its order once",
        """
        SELECT coalesce(l.reference, h.order_id::text) AS record, o.treasury, NULL AS month,
               l.n = 1 AND h.n = 1 AND l.fen = o.public_fen AS ok,
               coalesce(l.verdict, h.verdict) || ': lines ' || coalesce(l.n, 0) || ', moves ' || coalesce(h.n, 0)
               || ', ' || coalesce(l.fen::text, 'no') || ' fen of ' || o.public_fen AS detail
          FROM (SELECT order_id, file_id, verdict, min(reference) AS reference, count(*) AS n, sum(fen) AS fen
                  FROM bank_result_line WHERE verdict IN ('settle', 'bounce') GROUP BY order_id, file_id, verdict) AS l
          FULL JOIN (SELECT order_id, record AS file_id, action AS verdict, count(*) AS n
                       FROM order_history WHERE action IN ('settle', 'bounce')
                      GROUP BY order_id, record, action) AS h USING (order_id, file_id, verdict)
          JOIN payout_order AS o ON o.id = coalesce(l.order_id, h.order_id)
        """,
    ),
    (
        "every state is the one that history came to",
        """
        SELECT o.id::text AS record, o.treasury, NULL AS month, coalesce(h.state = o.state, false) AS ok,
               o.state || ', history says ' || coalesce(h.state, 'nothing') AS detail
          FROM payout_order AS o
          LEFT JOIN (SELECT DISTINCT ON (order_id) order_id, state FROM order_history
                      WHERE action <> 'breach' ORDER BY order_id, id DESC) AS h ON h.order_id = o.id
        """,
    ),
    (
        "every quota holds what its orders commit",
        """
        SELECT q.treasury || ' ' || q.benefit || ' ' || q.fiscal_year AS record, q.treasury, NULL AS month,
               q.committed_fen = coalesce(o.fen, 0) AND q.amount_fen = coalesce(c.fen, 0) AS ok,
               'committed ' || q.committed_fen || ', orders ' || coalesce(o.fen, 0)
               || '; amount ' || q.amount_fen || ', changes ' || coalesce(c.fen, 0) AS detail
          FROM quota AS q
          LEFT JOIN (SELECT quota_id, sum(public_fen) AS fen FROM payout_order
                      WHERE state NOT IN ('unfunded', 'cancelled') GROUP BY quota_id) AS o ON o.quota_id = q.id
          LEFT JOIN (SELECT quota_id, sum(fen) AS fen FROM quota_change GROUP BY quota_id) AS c ON c.quota_id = q.id
        """,
    ),
    (
        "every closed month is settled to the fen",
        """
        SELECT treasury || ' ' || month AS record, treasury, month,
               coalesce(s.fen, 0) = coalesce(e.owed, 0) AND coalesce(e.even, true) AND p.closed_at IS NOT NULL
               AND (s.owed IS NULL OR s.owed = '{}' OR s.owed = coalesce(e.owed_by, '{}')) AS ok,
               'settled ' || coalesce(s.fen, 0) || ', owed ' || coalesce(e.owed, 0) || ', posted '
               || -coalesce(e.settled, 0) AS detail
          FROM period AS p
          LEFT JOIN settlement AS s USING (treasury, month)
          LEFT JOIN (SELECT treasury, month, sum(owed) AS owed, sum(settled) AS settled,
                            bool_and(owed + settled = 0) AS even, jsonb_object_agg(debtor, owed) AS owed_by
                       FROM (SELECT t.treasury, t.month, a.counterparty AS debtor,
                                    coalesce(sum(e.fen) FILTER (WHERE t.kind <> 'settlement'), 0) AS owed,
                                    coalesce(sum(e.fen) FILTER (WHERE t.kind = 'settlement'), 0) AS settled
                               FROM transfer AS t JOIN entry AS e ON e.transfer_id = t.id
                               JOIN account AS a
                                 ON a.id = e.account_id AND a.treasury = t.treasury AND a.kind = 'due_from'
                              GROUP BY t.treasury, t.month, a.counterparty) AS each
                      GROUP BY treasury, month) AS e USING (treasury, month)
         WHERE p.closed_at IS NOT NULL OR s.id IS NOT NULL
        """,
    ),
    (
        "both legs through the province are alike",
        """
        SELECT s.treasury || ' ' || s.month AS record, s.treasury, s.month,
               count(*) FILTER (WHERE a.kind = 'cash') >= CASE WHEN s.fen = 0 THEN 0 ELSE 2 END
               AND coalesce(sum(e.fen) FILTER (WHERE a.kind = 'cash'), 0) = 0
               AND coalesce(sum(e.fen) FILTER (WHERE a.kind = 'due_to'), 0) = 0
               AND (s.fen = 0 OR coalesce(bool_or(abs(e.fen) = abs(s.fen)), false)) AS ok,
               'the clearing book does not pass on ' || s.fen AS detail
          FROM settlement AS s
          LEFT JOIN (transfer AS t JOIN entry AS e ON e.transfer_id = t.id JOIN account AS a ON a.id = e.account_id)
            ON t.settlement_id = s.id AND a.treasury = s.through
         WHERE s.route = 'via_province'
         GROUP BY s.id
        """,
    ),
)
_PAID = """
    SELECT o.treasury, sum(o.public_fen)::bigint AS fen FROM payout_order AS o
     WHERE o.settled_on IS NOT NULL AND (CAST(:month AS text) IS NULL OR to_char(o.settled_on, 'YYYY-MM') = :month)
       AND (CAST(:treasury AS text) IS NULL OR o.treasury = :treasury)
     GROUP BY o.treasury ORDER BY o.treasury
"""
_SETTLED = """
    SELECT treasury, sum(fen)::bigint AS fen FROM settlement
     WHERE (CAST(:month AS text) IS NULL OR month = :month)
       AND (CAST(:treasury AS text) IS NULL OR treasury = :treasury)
     GROUP BY treasury ORDER BY treasury
"""


@dataclass(frozen=True, slots=True)
class Checked:
    """An invariant looked at: how many things, how many are not so, and the first of these with what is wrong."""

    name: str
    checked: int
    violations: int
    first: str | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """A reconciliation. `paid` maps the treasury that paid to fen, `settled` each treasury that was owed to fen."""

    checks: Sequence[Checked]
    paid: dict[str, int]
    settled: dict[str, int]

    @property
    def differences(self) -> list[Checked]:
        """The checks that found something."""
        return [check for check in self.checks if check.violations]


async def check(connection: AsyncConnection, *, month: str | None = None, treasury: str | None = None) -> list[Checked]:
    """Look at every invariant: of everything, or of one month, or of one treasury. Reads only."""
    return [await look(connection, name, sql, month=month, treasury=treasury) for name, sql in INVARIANTS]


async def report(connection: AsyncConnection, *, month: str | None = None, treasury: str | None = None) -> Report:
    """The reconciliation of everything, of one month, or of one treasury. Reads only."""
    where = {"month": month, "treasury": treasury}
    paid = {row.treasury: row.fen for row in await connection.execute(text(_PAID), where)}
    settled = {row.treasury: row.fen for row in await connection.execute(text(_SETTLED), where)}
    return Report(await check(connection, **where), paid, settled)


def summary(sql: str) -> str:
    """One row over an invariant's query: `checked`, `violations`, `first`, `detail`. Parameters `month`, `treasury`.

    In one pass, so that nothing is kept of a row that is sound: the first of the others is the least pair of record and
    detail, which is made only where a row is not `ok`.
    """
    return f"""
        SELECT checked, violations, wrong[1] AS first, wrong[2] AS detail
          FROM (SELECT count(*) AS checked, count(*) FILTER (WHERE ok IS NOT TRUE) AS violations,
                       min(ARRAY[record, detail]) FILTER (WHERE ok IS NOT TRUE) AS wrong
                  FROM ({sql}) AS every
                 WHERE (CAST(:month AS text) IS NULL OR month IS NULL OR month = :month)
                   AND (CAST(:treasury AS text) IS NULL OR treasury = :treasury)) AS looked
    """  # noqa: S608 - the queries are those above


async def look(
    connection: AsyncConnection, name: str, sql: str, *, month: str | None = None, treasury: str | None = None
) -> Checked:
    """Look at one invariant. Reads only."""
    row = (await connection.execute(text(summary(sql)), {"month": month, "treasury": treasury})).one()
    return Checked(name, row.checked, row.violations, row.first, row.detail)
