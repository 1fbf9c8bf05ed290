"""The treasury officers: quotas, batches for the bank, its answers, bounced payments, and the close of the month."""

from collections import defaultdict
from datetime import UTC, datetime

from deploy.sample.bank import BankConfig, answer
from deploy.sample.client import Platform, Refused, key_of
from deploy.sample.policy import Json, Policy
from deploy.sample.portal import Filings, new_account
from libs.common.calendar import local_date
from libs.common.policy.model import BenefitForm

AMPLE_FEN = 100_000_000
SHORT_FEN = 1_000_000
"""Every fourth treasury's first quotas do not reach: some orders wait until the officer raises them."""

PAID = frozenset({"settled", "cancelled", "recovered"})
BANK = BankConfig()


class TreasuryOffice:
    """The officer of one treasury, who also takes the files to the bank and back."""

    def __init__(self, at: Platform, policy: Policy, treasury: str, filings: Filings) -> None:
        self.treasury = treasury
        # The benefits in money, with the project codes that the sample's budgets give them.
        self._projects = {code: f"BT{n:02}" for n, code in enumerate(policy.benefits(BenefitForm.MONEY), 1)}
        self._first_quota = SHORT_FEN if treasury in list(policy.places)[2::4] else AMPLE_FEN
        self._filings = filings
        self._answered: set[tuple[str, bool]] = set()
        self._officer = at.desk("treasury", org_unit=f"{treasury}/finance")

    async def give_quotas(self) -> None:
        """Give the year's first quotas, unless the treasury has some already."""
        if any(line["number"] for line in await self._officer.pages("/finance/v1/quotas")):
            return
        for benefit in self._projects:
            await self._give(benefit, local_date(datetime.now(UTC)).year, self._first_quota)

    async def work(self) -> int:
        """Do what can be done for every order that is not paid; gives how many there were."""
        states = ["unfunded", "due", "sent", "unknown", "bounced"]
        orders = await self._officer.pages("/finance/v1/orders", state=states)
        by_state: dict[str, list[Json]] = defaultdict(list)
        for order in orders:
            by_state[order["state"]].append(order)
        await self._fund(by_state["unfunded"])
        await self._send(by_state["due"])
        await self._take_answers(by_state)
        for order in by_state["bounced"]:
            await self._reissue(order)
        return len(orders)

    async def _give(self, benefit: str, year: int, fen: int) -> None:
        body = {
            "benefit": benefit,
            "fiscal_year": year,
            "fen": fen,
            "number": f"SL{self.treasury}{year}{self._projects[benefit]}",
            "budget_unit": f"{self.treasury}001",
            "project": f"{self.treasury}-{self._projects[benefit]}",
            "functional": "2080999",
            "economic_department": "30399",
            "economic_government": "50999",
        }
        await self._officer.post("/finance/v1/quotas", body, key=f"quota-{self.treasury}-{benefit}-{year}")

    async def _fund(self, orders: list[Json]) -> None:
        """Raise each quota by what its waiting orders lack."""
        waiting: dict[str, list[Json]] = defaultdict(list)
        for order in orders:
            waiting[order["quota"]].append(order)
        if not waiting:
            return
        for quota in await self._officer.pages("/finance/v1/quotas"):
            lacking = sum(order["amount"]["fen"] for order in waiting[quota["id"]])
            if not lacking:
                continue
            if quota["number"] is None:
                await self._give(quota["benefit"], quota["fiscal_year"], lacking)
                continue
            body = {"fen": lacking, "reason": "待落实指标的支付令"}
            key = key_of("increase", quota["id"], sorted(order["id"] for order in waiting[quota["id"]]))
            await self._officer.post(f"/finance/v1/quotas/{quota['id']}:increase", body, key=key)

    async def _send(self, orders: list[Json]) -> None:
        """Release what is due, before it falls due, in one file."""
        if not orders:
            return
        chosen = sorted((order["id"], order["attempt"]) for order in orders)
        body = {"treasury": self.treasury, "orders": [order for order, _ in chosen]}
        await self._officer.post("/finance/v1/batches", body, key=key_of("batch", chosen))

    async def _take_answers(self, orders: dict[str, list[Json]]) -> None:
        """Fetch the bank's result files: the first of each batch; after an enquiry for the unknown, the final one."""
        if not orders["sent"] and not orders["unknown"]:
            return
        for batch in await self._officer.pages("/finance/v1/batches"):
            first, final = (batch["number"], False), (batch["number"], True)
            if first not in self._answered:  # also the first time after a restart: the same key gives the same answer
                await self._take_answer(batch, final=False)
                self._answered.add(first)
            elif orders["unknown"] and final not in self._answered:
                await self._take_answer(batch, final=True)
                self._answered.add(final)
        for one in await self._officer.pages("/finance/v1/bank-exceptions", resolved="false"):
            await self._resolve(one["id"])

    async def _take_answer(self, batch: Json, *, final: bool) -> None:
        file = await self._officer.raw(batch["file"])
        told = answer(file, BANK, on=local_date(datetime.now(UTC)), final_round=final)
        key = f"bank-{'final' if final else 'first'}-{batch['number']}"
        try:
            await self._officer.post("/finance/v1/bank-results", key=key, content=told)
        except Refused as refused:
            # The bank dates its answer: one that was imported on another day is known under this key already.
            if refused.code != "idempotency-key-reused":
                raise

    async def _reissue(self, order: Json) -> None:
        account = await new_account(
            self._filings, order["application"], order["beneficiary"], order["id"], order["attempt"]
        )
        key = f"reissue-{order['id']}-{order['attempt']}"
        await self._officer.post(f"/finance/v1/orders/{order['id']}:reissue", {"payee_account": account}, key=key)

    async def _resolve(self, exception: str) -> None:
        body = {"resolution": "已与银行核实，以其最后回盘为准"}
        try:
            path = f"/finance/v1/bank-exceptions/{exception}:resolve"
            await self._officer.post(path, body, key=f"resolve-{exception}")
        except Refused as refused:
            if refused.code != "bank-exception-resolved":
                raise


async def close_months(at: Platform, policy: Policy) -> None:
    """Close every month with postings for the treasuries below the city; one that is not over, early with a reason."""
    city = at.desk("treasury", org_unit=f"{policy.city}/finance")
    for period in await city.pages("/finance/v1/periods"):
        treasury, month = period["treasury"], period["month"]
        if treasury in policy.places and treasury != policy.city and period["closed_at"] is None:
            path = f"/finance/v1/periods/{treasury}/{month}:close"
            await city.post(path, {"reason": "样本数据提前关账"}, key=f"close-{treasury}-{month}")
