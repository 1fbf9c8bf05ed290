"""Applications: taken in, told their defects, accepted, transferred or not accepted; corrected, withdrawn, lapsed.

An application without defects is accepted in the transaction that receives it. One filed at a platform that is not the
affiliated one is transferred in the same transaction: it lives on as a successor with a case number of its own there,
materials and external references go with it, and the receipt stays good.

A case number is the pack's `case_prefix`, then as `identity.make_case_no` says.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from libs.common.auth import Principal
from libs.common.calendar import local_date
from libs.common.crypto import Vault
from libs.common.errors import DomainError
from libs.common.events import ApplicationNotAccepted, ApplicationWithdrawn
from libs.common.identity import make_case_no
from libs.common.outbox import continuing, emit
from libs.common.packs import Packs
from libs.common.policy import Pack, PolicyError, platform_of
from libs.common.ticker import Due, cancel
from services.intake import claims, materials, people, refs
from services.intake.domain import MAY_CORRECT, TITLES, State, move
from services.intake.examination import Examined, examine_all
from services.intake.filing import PEOPLE, Filing, read_correction, read_filing
from services.intake.materials import File
from services.intake.outcome import Case, Docket, identity_of, step_of
from services.intake.settlement import LAPSE, Entry, filing_context, settle
from services.intake.timeline import Step, tell
from services.intake.views import Receipt, material_title

_NEXT_NUMBERS = text("""
    INSERT INTO case_counter (platform, day, last)
    SELECT platform, :day, wanted
      FROM unnest(CAST(:platforms AS text[]), CAST(:wanted AS integer[])) AS r (platform, wanted)
     ORDER BY platform  -- in order, so that two groups of filings cannot wait in a ring
    ON CONFLICT (platform, day) DO UPDATE SET last = case_counter.last + excluded.last
    RETURNING platform, last
""")
_DROP_ITEMS = text("""
    DELETE FROM application_item WHERE application = :application AND NOT code = ANY(CAST(:codes AS text[]))
""")
_END = text("UPDATE application SET state = :state, decided_on = :on, reason = :reason WHERE id = :id")
_ASK_WITHDRAWAL = text("UPDATE application SET withdrawal_asked_at = :now WHERE id = :id")
_IGNORED = text("SELECT detail FROM timeline WHERE application = :id AND code = 'WithdrawalIgnored' LIMIT 1")
_LOCK_UNANSWERED = text("""
    SELECT id, answer_by, policy_city, policy_version, policy_sha256 FROM application
     WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'correction' AND answer_by < :today
     ORDER BY id FOR NO KEY UPDATE
""")
_LAPSE = text("""
    UPDATE application SET state = 'lapsed', reason = 'lapsed', decided_on = :today WHERE id = ANY(CAST(:ids AS uuid[]))
""")


class CaseEnded(DomainError):
    """409: the case has come to its end, so that there is nothing to withdraw any more."""

    status, code, title = 409, "case-ended", "该申请已办理结束，不能撤回"
    detail = "该申请目前为“{state}”，撤回不再生效。如需放弃已获批的待遇，请联系人才办；对结果有异议的，请咨询受理平台。"


class WithdrawalAlreadyIgnored(DomainError):
    """409: a withdrawal was asked for before, and workflow has answered that it does not count."""

    status, code, title = 409, "withdrawal-ignored", "此前的撤回未生效，不能再次撤回"
    detail = "此前已申请撤回，办理环节的答复是：{told}"


class Filed(NamedTuple):
    """A filing that came in, and the trace (`traceparent`) of the request that brought it."""

    filing: Filing
    trace: str | None = None


class Desk:
    """The receiving desk: its operations take a transaction, and never commit."""

    def __init__(self, vault: Vault, packs: Packs) -> None:
        self.vault = vault
        self.people = people.People(vault)
        self.packs = packs

    def read(self, raw: Mapping[str, Any], caller: Principal, now: datetime) -> Filing:
        """What a filing says. Raises InvalidRequest, FilingWrong."""
        today = local_date(now)
        pack = self.packs.on(today)
        return read_filing(raw, pack, today, window=_window(pack, caller, today))

    async def file(
        self, tx: AsyncConnection, filed: Sequence[Filed], caller: Principal, now: datetime
    ) -> list[Receipt]:
        """Take filings in, in order. Raises ExternalRefTaken where one of them names a number of another's."""
        today = local_date(now)
        pack = self.packs.on(today)
        window = _window(pack, caller, today)
        cases = await examine_all(
            tx, self.people, pack, [Examined(one.filing) for one in filed], caller=caller, now=now
        )
        ways = [(here := window or _filed_at(case), case.verdict.platform or here) for case in cases]
        numbers = await _numbers(tx, pack, [platform for way in ways for platform in dict.fromkeys(way)], today)
        entries = []
        for case, (here, there) in zip(cases, ways, strict=True):
            docket = Docket(uuid7(), next(numbers[here]), case.filing.channel, here, caller.client, caller.subject, now)
            onward = _onward(docket, there, next(numbers[there])) if there != here else None
            entries.append(Entry(docket, case, State.RECEIVED, onward=onward))
        traces = {
            str(key): one.trace
            for it, one in zip(entries, filed, strict=True)
            for key in (it.docket.id, it.case.parties.employer)
            if one.trace
        }
        with continuing(traces):
            receipts = await settle(tx, self.vault, entries)
        held = [((it.onward or it.docket).id, it.case.filing.external_refs) for it in entries]
        await refs.add(tx, held, caller)
        return receipts

    async def correct(
        self,
        tx: AsyncConnection,
        row: Any,
        raw: Mapping[str, Any],
        caller: Principal,
        *,
        now: datetime,
        quiet: bool = False,
    ) -> Receipt:
        """Put a correction on a filing (`row` is locked) and examine everything again, uploads included.

        `quiet`: what is still missing and was told already is not told again. Raises NotPossibleNow, InvalidRequest,
        FilingWrong.
        """
        move(State(row.state), "request_correction")
        filed = json.loads(self.vault.open(row.sealed, filing_context(row.id)))
        today = local_date(now)
        pack = self.packs.on(today)
        filing = read_correction(filed, raw, pack, today)
        uploaded = await materials.uploaded(tx, row.id)
        entitled = {} if raw.keys().isdisjoint(PEOPLE) else MAY_CORRECT  # who may see it may mend the rest of it
        asked = Examined(filing, uploaded, entitled)
        [case] = await examine_all(tx, self.people, pack, [asked], caller=caller, now=now)
        docket = _docket(row)
        await cancel(tx, LAPSE, [str(row.id)])
        await claims.drop(tx, row.id)
        await tx.execute(_DROP_ITEMS, {"application": row.id, "codes": [item.code for item in filing.items]})
        await materials.drop_stated(tx, row.id)
        there = case.verdict.platform or docket.platform
        if there == docket.platform:
            told = [defect["title"] for defect in row.defects] if quiet else []
            [receipt] = await settle(tx, self.vault, [Entry(docket, case, State.CORRECTION, row.answer_by, told)])
            return receipt
        onward = _onward(docket, there, next((await _numbers(tx, pack, [there], today))[there]))
        [receipt] = await settle(tx, self.vault, [Entry(docket, case, State.CORRECTION, onward=onward)])
        await materials.copy_uploads(tx, docket.id, onward.id)
        await refs.move(tx, docket.id, onward.id)
        return receipt

    async def upload(
        self, tx: AsyncConnection, row: Any, code: str, file: File, caller: Principal, *, now: datetime
    ) -> UUID:
        """Add a file (`row` is locked); gives the material's id. Where that mends the last defect of a correction the
        application is accepted at once; what is still missing was told already and is not told again."""  # fmt: skip
        ref = await materials.add_upload(tx, self.vault, row.id, code, file)
        title = material_title(self.packs.get(identity_of(row)), code)
        await tell(tx, [Step(row.id, ref, "MaterialAdded", now, "材料已上传", f"已收到：{title}。")])
        if row.state == State.CORRECTION:
            await self.correct(tx, row, {}, caller, now=now, quiet=True)
        return ref

    async def withdraw(self, tx: AsyncConnection, row: Any, now: datetime) -> None:
        """Withdraw (`row` is locked). After acceptance workflow decides whether it still counts, so only the wish is
        recorded and told, once. Raises NotPossibleNow, CaseEnded, WithdrawalAlreadyIgnored."""  # fmt: skip
        state = move(State(row.state), "withdraw")
        if row.closed_on is not None and not (row.withdrawal_asked_at is not None and row.shown == "withdrawn"):
            raise CaseEnded(state=TITLES[row.shown])
        if row.withdrawal_asked_at is not None:
            told = (await tx.execute(_IGNORED, {"id": row.id})).scalar()
            if told is not None:
                raise WithdrawalAlreadyIgnored(told=told)
            return  # withdrawn, or workflow has not answered yet: the same result again
        event = ApplicationWithdrawn(policy=identity_of(row), application=row.id, withdrawn_at=now)
        if state is State.ACCEPTED:
            await tx.execute(_ASK_WITHDRAWAL, {"id": row.id, "now": now})
            step = step_of(event, now, "已申请撤回", "已受理的申请能否撤回，以办理进度为准。")
        else:
            await cancel(tx, LAPSE, [str(row.id)])
            await tx.execute(_END, {"id": row.id, "state": state.value, "on": local_date(now), "reason": None})
            step = step_of(event, now, "已撤回")
        await emit(tx, event)
        await tell(tx, [step])

    async def on_lapse(self, tx: AsyncConnection, dues: Sequence[Due]) -> None:
        """Due work: applications whose correction was not answered by the last day end (逾期终止)."""
        now = max(due.at for due in dues)
        today = local_date(now)
        found = {"ids": [UUID(due.key) for due in dues], "today": today}
        rows = (await tx.execute(_LOCK_UNANSWERED, found)).all()
        await tx.execute(_LAPSE, {"ids": [row.id for row in rows], "today": today})
        events = [
            ApplicationNotAccepted(policy=identity_of(row), application=row.id, reason="lapsed", decided_on=today)
            for row in rows
        ]
        await emit(tx, *events)
        words = [f"补正截止日期 {row.answer_by} 已过，未收到补正。" for row in rows]
        await tell(tx, [step_of(e, now, "逾期终止", word) for e, word in zip(events, words, strict=True)])

    # -- examination


def _window(pack: Pack, caller: Principal, today: date) -> str | None:
    """The platform of a clerk's window."""
    at_window = caller.role == "window_clerk" and caller.treasury is not None
    return _platform(pack, caller.treasury or "", today) if at_window else None


def _filed_at(case: Case) -> str:
    """The platform that takes an on-line filing in: the one named, the affiliated one, else the city's."""
    pack, today = case.pack, case.today
    return case.filing.platform or case.verdict.platform or _platform(pack, pack.city_treasury(today).code, today)


def _platform(pack: Pack, treasury: str, today: date) -> str:
    try:
        return platform_of(pack, treasury, today).code
    except PolicyError:
        return treasury


async def _numbers(tx: AsyncConnection, pack: Pack, platforms: Iterable[str], today: date) -> dict[str, Iterator[str]]:
    """The next case numbers at each platform, as many as it stands there."""
    wanted = Counter(platforms)
    given = {"platforms": list(wanted), "wanted": list(wanted.values()), "day": today}
    return {
        row.platform: iter(
            [
                make_case_no(pack.case_prefix, row.platform, today, n)
                for n in range(row.last - wanted[row.platform] + 1, row.last + 1)
            ]
        )
        for row in await tx.execute(_NEXT_NUMBERS, given)
    }


def _onward(docket: Docket, platform: str, case_no: str) -> Docket:
    return replace(docket, id=uuid7(), case_no=case_no, platform=platform, predecessor=docket.id)


# -- rows


def _docket(row: Any) -> Docket:
    return Docket(
        row.id, row.case_no, row.channel, row.platform, row.client, row.filed_by, row.received_at, row.predecessor
    )
