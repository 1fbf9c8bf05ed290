"""Finance's gauges: per treasury, the orders under way and those past their day, doubts of the bank, and balances."""

from libs.common.measures import Measure, query

MEASURES = (
    Measure(
        gauges={
            "payouts": "Payout orders under way, by payment state",
            "payouts_fen": "What they come to, in fen",
            "payouts_late": "Those of them past the last day on which the money must be in the account",
        },
        labels=("treasury", "state"),
        look=query("""
            SELECT treasury, state, count(*) AS payouts, sum(public_fen) AS payouts_fen,
                   count(*) FILTER (WHERE due_on < (now() AT TIME ZONE 'Asia/Shanghai')::date) AS payouts_late
              FROM payout_order WHERE state NOT IN ('settled', 'cancelled', 'recovered') GROUP BY treasury, state
        """),
        every=15,
    ),
    Measure(
        gauges={"bank_exceptions": "Lines of bank files that cannot be believed and that nobody has resolved"},
        labels=("treasury", "kind"),
        look=query("""
            SELECT treasury, kind, count(*) AS bank_exceptions
              FROM bank_exception WHERE resolved_at IS NULL GROUP BY treasury, kind
        """),
        every=15,
    ),
    Measure(
        gauges={"ledger_fen": "Balances of the books in fen, debit positive"},
        labels=("treasury", "account", "counterparty"),
        look=query("SELECT treasury, kind AS account, counterparty, balance AS ledger_fen FROM account"),
        every=15,
    ),
)
