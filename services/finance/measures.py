"""Finance's gauges: per treasury, the orders under way and those past their day, the reviews that wait, doubts of the
bank, and balances."""

from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.calendar import local_date
from libs.common.measures import Measure, Rows, query
from libs.common.packs import Packs
from services.finance.payouts import start_of_day
from services.finance.reviews import count_pending

_MEASURES = (
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


def measures(packs: Packs) -> tuple[Measure, ...]:
    """The gauges; whose a review is after an employer moved, the packs say."""

    async def reviews(connection: AsyncConnection) -> Rows:
        now = datetime.now(UTC)
        return [
            {
                "treasury": treasury,
                "last": last,
                "pending_reviews": pending.n,
                "pending_reviews_withheld": pending.withheld,
                "pending_reviews_oldest_seconds": (now - start_of_day(pending.oldest)).total_seconds(),
            }
            for (treasury, last), pending in (await count_pending(connection, packs, local_date(now))).items()
        ]

    pending = Measure(
        gauges={
            "pending_reviews": "Instalments that may be reviewed and have no review that passes, by their last review",
            "pending_reviews_withheld": "Those of them that are withheld: the day of their order has come",
            "pending_reviews_oldest_seconds": "For how long the oldest of them may be reviewed",
        },
        labels=("treasury", "last"),
        look=reviews,
        every=60,
    )
    return (*_MEASURES, pending)
