"""The sample run: everybody who has to do with a city's applications, at work over the REST APIs until all is at rest.

It may be killed at any moment and started again: every act carries the same key as the first time and is done only
where it is still to do. A second run on the same system changes nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from deploy.local import Addresses
from deploy.refusals import Refusal
from deploy.sample.any_city import population_of
from deploy.sample.client import Issuer, Platform, all_of, platform
from deploy.sample.flats import flats_of
from deploy.sample.lines import Line
from deploy.sample.offices import HousingOffice, TalentOffice, departments
from deploy.sample.policy import Json, Policy
from deploy.sample.portal import AT_REST, Filings, certification_number, states_of
from deploy.sample.treasury import PAID, TreasuryOffice, close_months
from libs.common.policy.model import BenefitForm

Report = Callable[[str, int, int], None]
"""What is under way, how much of it is done, of how much. Each of PHASES ends full."""

PHASES = FILED, AT_REST_NOW, KEPT, SETTLED = (
    "filings answered",
    "applications at rest",
    "grants paid or let",
    "months closed, trail verified",
)

BOUND_SECONDS = 600.0
ROUND_PAUSE = 0.3
QUIET_LOOKS = 3


class NotAtRest(Refusal):
    """The run came to its bound; the message says what is still under way."""


class SampleFailed(Refusal):
    """Some application ended otherwise than the population file says."""


@dataclass
class Summary:
    """What the run came to. Amounts in fen; `seconds` and `peak_rss_mb` are measured by whoever starts it.

    `filings` were answered, `not_taken` of them with the refusal, or as the repetition, that the file means them for.
    `people` maps a role to the person_ref of somebody of the sample who has it, for `pages.remember`. `others` are the
    applications under way that somebody else filed: nobody here works on them.
    """

    applications: dict[str, int]
    paid_fen: dict[str, int]
    fiscal_settlement_fen: dict[str, int]
    reconciliation_differences: int
    trail_entries: int
    trail_verified: bool
    seconds: float = 0.0
    peak_rss_mb: int = 0
    filings: int = 0
    not_taken: int = 0
    people: dict[str, str] = field(default_factory=dict)
    others: int = 0

    def to_json(self) -> Json:
        """The form of `huanquan demo --json`."""
        return {
            "applications": self.applications,
            "paid_fen": self.paid_fen,
            "fiscal_settlement_fen": self.fiscal_settlement_fen,
            "reconciliation_differences": self.reconciliation_differences,
            "trail": {"entries": self.trail_entries, "verified": self.trail_verified},
            "seconds": self.seconds,
            "peak_rss_mb": self.peak_rss_mb,
        }


async def run_sample(
    addresses: Addresses,
    issuer: Issuer,
    report: Report,
    policy: Policy,
    *,
    kafka: str | None = None,
    bound_seconds: float = BOUND_SECONDS,
) -> Summary:
    """Drive the population of the city that is served until everything is at rest, close the month, and sum up.

    With `kafka` (bootstrap servers) the departments of one treasury hear of their tasks from there. Raises NotAtRest
    after `bound_seconds`, SampleFailed where something ended otherwise than the file says, and Refused or StayedAway
    where the platform refuses what must be possible, or does not answer.
    """
    async with platform(addresses, issuer) as at:
        run = _Run(at, report, policy)
        try:
            async with asyncio.timeout(bound_seconds) as bound:
                await run.prepare()
                await run.withdraw()
                await run.file()
                async with departments(at, policy, kafka):
                    await run.until_at_rest()
                report(SETTLED, 0, 2)
                await close_months(at, policy)
                report(SETTLED, 1, 2)
                summary = await run.summary()
                report(SETTLED, 2, 2)
                return summary
        except TimeoutError:
            if not bound.expired():
                raise
            raise NotAtRest(f"not at rest after {bound_seconds:.0f} s: {run.under_way}") from None


class _Run:
    """One run: the offices of all treasuries, and what was filed. `under_way` says what is not at rest yet."""

    def __init__(self, at: Platform, report: Report, policy: Policy) -> None:
        self._report = report
        self._policy = policy
        self._lines = lines = population_of(policy)
        self._supervisor = at.desk("supervisor")
        self._filings = Filings(at, lambda answered: report(FILED, answered, len(lines)))
        self._talent = [TalentOffice(at, treasury) for treasury in policy.places]
        self._housing = [HousingOffice(at, treasury) for treasury in policy.places]
        self._treasuries = [TreasuryOffice(at, policy, treasury, self._filings) for treasury in policy.places]
        self._later = [line for line in lines if line.wave == 3]
        self._granted: Mapping[str, set[str]] | None = None
        self.under_way = "filing"

    async def prepare(self) -> None:
        """Enter what is there before anybody files: quotas and flats."""
        flats = flats_of(self._policy)
        await all_of(
            [*(each.give_quotas() for each in self._treasuries), *(each.list_flats(flats) for each in self._housing)]
        )

    async def withdraw(self) -> None:
        """File what is withdrawn, and wait until it is: no department has begun, so every withdrawal still counts."""
        await self._filings.file([line for line in self._lines if _is_withdrawn(line)])
        while not self._rest(await states_of(self._supervisor)):  # noqa: ASYNC110 - what is awaited lies in another process
            await asyncio.sleep(ROUND_PAUSE)

    async def file(self) -> None:
        """File what needs nothing before it, then what needs that to be filed."""
        for wave in (1, 2):
            await self._filings.file([line for line in self._lines if line.wave == wave and not _is_withdrawn(line)])

    async def until_at_rest(self) -> None:
        """Let everybody work, round after round, until nothing is under way. Raises SampleFailed."""
        while True:
            states = await self._round()
            at_rest = self._rest(states)
            self._report_rest(states)
            if at_rest and not self._later and await self._kept():
                break
            await asyncio.sleep(ROUND_PAUSE)
        surprises = self._filings.ends(states)
        if surprises:
            raise SampleFailed("; ".join(surprises[:10]))

    async def summary(self) -> Summary:
        """Sum up, once the trail has heard of everything."""
        await self._quiet()
        trail = await self._supervisor.post("/audit/v1/trail:verify", {})
        books = await self._supervisor.get("/finance/v1/reconciliation")
        states = await states_of(self._supervisor)
        return Summary(
            applications=dict(sorted(Counter(states.values()).items())),
            paid_fen=books["paid_fen"],
            fiscal_settlement_fen=books["fiscal_settlement_fen"],
            reconciliation_differences=sum(each["violations"] for each in books["differences"]),
            trail_entries=trail["entries"],
            trail_verified=trail["verified"],
            filings=len(self._lines),
            not_taken=len(self._lines) - len(self._filings.filed),
            people=self._people(),
            others=len([each for each in states.keys() - self._filings.applications() if states[each] not in AT_REST]),
        )

    def _people(self) -> dict[str, str]:
        first = self._filings.filed[self._lines[0].key].receipt
        return {"talent": first["beneficiary"], "handler": first["handler"]}

    # -- one round

    async def _round(self) -> dict[str, str]:
        await all_of(office.decide() for office in self._talent)
        states = await states_of(self._supervisor)
        await self._file_later(states)
        await all_of(office.choose() for office in self._housing)
        await all_of(office.lease() for office in self._housing)
        await all_of(office.work() for office in self._treasuries)
        await all_of(office.review(self._policy) for office in self._talent)
        return states

    async def _file_later(self, states: Mapping[str, str]) -> None:
        """File the benefits whose certification has come meanwhile."""
        ready = [line for line in self._later if states.get(self._certified(line)) == "closed"]
        numbers = await all_of(certification_number(self._filings, str(line.certification_of)) for line in ready)
        told = [(line, number) for line, number in zip(ready, numbers, strict=True) if number]
        await all_of(self._filings.file_later(line, number) for line, number in told)
        filed = {line.key for line, _ in told}
        self._later = [line for line in self._later if line.key not in filed]

    def _certified(self, line: Line) -> str:
        return self._filings.filed[str(line.certification_of)].id

    # -- whether all is at rest

    def _rest(self, states: Mapping[str, str]) -> bool:
        waiting = self._waiting(states)
        if waiting or self._later:
            self.under_way = f"{len(waiting)} applications ({_first(waiting)}), {len(self._later)} still to be filed"
        return not waiting

    def _waiting(self, states: Mapping[str, str]) -> list[str]:
        ours = sorted(self._filings.applications())
        return [f"{each} {states.get(each)}" for each in ours if states.get(each) not in AT_REST]

    def _report_rest(self, states: Mapping[str, str]) -> None:
        ours = len(self._filings.applications())
        self._report(AT_REST_NOW, ours - len(self._waiting(states)), ours + len(self._later))

    async def _kept(self) -> bool:
        """Whether all that was granted is in the talents' accounts, or let to them, and no review waits."""
        granted = await self._grants()
        orders = await self._supervisor.pages("/finance/v1/orders")
        leases = await self._supervisor.pages("/housing/v1/leases")
        unpaid = [order for order in orders if order["state"] not in PAID]
        unordered = granted["money"] - {order["item"] for order in orders}
        unlet = granted["in_kind"] - {lease["eligibility"] for lease in leases}
        unreviewed = await self._supervisor.pages("/finance/v1/pending-reviews")
        total = len(orders) + len(unordered) + len(granted["in_kind"])
        self._report(KEPT, total - len(unpaid) - len(unordered) - len(unlet), total)
        orders_told = _first([f"{each['id']} {each['state']}" for each in unpaid])
        self.under_way = (
            f"{len(unpaid)} orders not paid ({orders_told}); {len(unordered)} benefits not ordered "
            f"({_first(sorted(unordered))}); {len(unlet)} not let ({_first(sorted(unlet))}); "
            f"{len(unreviewed)} instalments not reviewed"
        )
        return not (unpaid or unordered or unlet or unreviewed)

    async def _grants(self) -> Mapping[str, set[str]]:
        """The benefits granted to our applications, by form; asked once, when every case is at rest."""
        if self._granted is None:
            forms = {code: form for form in BenefitForm for code in self._policy.benefits(form)}
            found: dict[str, set[str]] = {form.value: set() for form in BenefitForm}
            ours = self._filings.applications()
            for case in await self._supervisor.pages("/workflow/v1/cases", state="closed"):
                for item in case["items"] if case["application"] in ours else ():
                    if item["state"] == "done" and item["code"] in forms:
                        found[forms[item["code"]].value].add(item["id"])
            self._granted = found
        return self._granted

    async def _quiet(self) -> None:
        """Wait until the head of the trail stays where it is."""
        last, looks = -1, 0
        while looks < QUIET_LOOKS:
            head = (await self._supervisor.get("/audit/v1/anchors/head"))["seq"]
            looks = looks + 1 if head == last else 0
            last = head
            await asyncio.sleep(ROUND_PAUSE)


def _first(told: Sequence[str]) -> str:
    """The first three, in words."""
    return ", ".join(told[:3]) + (", …" if len(told) > 3 else "") or "none"


def _is_withdrawn(line: Line) -> bool:
    return line.then is not None and bool(line.then.get("withdraw"))
