"""From an approval to money in the account: orders, quotas, batches, results."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from libs.common.calendar import CALENDAR, Calendar, end_of_day
from libs.common.events import PayoutBounced, PayoutCancelled, PayoutOrdered, PayoutSent, PayoutSettled, SlaBreached
from libs.common.ticker import Due
from services.finance import entitlements
from tests.finance.builders import CITY, COUNTY, DISTRICT, a_result, an_approval, bounced, credited, pending, today
from tests.finance.conftest import House, reference

SUBSIDY, EMPLOYER, PUBLIC, CITYS, DISTRICTS = 5_000_000, 1_666_666, 3_333_334, 1_000_000, 2_333_334


async def test_an_approval_makes_an_order_that_is_paid_and_posted(house: House) -> None:
    await house.give_quota()
    event = an_approval()
    await house.hear(event)
    (order,) = await house.orders()
    assert (order.state, order.public_fen, order.employer_fen) == ("due", PUBLIC, EMPLOYER)
    assert order.shares == {CITY: CITYS, DISTRICT: DISTRICTS}
    assert order.due_on == CALENDAR.add_working_days(event.decided_on, 2)
    batch = await house.send()
    assert (batch["lines"], batch["total"]["fen"], batch["left_out"]) == (1, PUBLIC, [])
    report = await house.told(credited(reference(order), PUBLIC), finals=[batch["number"]])
    assert (report["verdicts"]["settle"], report["exceptions"], report["unknown"]) == (1, 0, 0)
    assert await house.balances() == {
        (DISTRICT, "cash", ""): -PUBLIC,
        (DISTRICT, "expenditure", ""): DISTRICTS,
        (DISTRICT, "due_from", CITY): CITYS,
        (CITY, "due_to", DISTRICT): -CITYS,
        (CITY, "expenditure", ""): CITYS,
    }
    kinds = [type(each) for each in await house.emitted()]
    assert kinds == [PayoutOrdered, PayoutSent, PayoutSettled]
    settled = (await house.emitted(PayoutSettled))[0]
    assert (settled.fen, settled.shares, settled.settled_on) == (PUBLIC, {CITY: CITYS, DISTRICT: DISTRICTS}, today())
    assert await house.differences() == []


async def test_a_redelivered_approval_pays_once(house: House) -> None:
    event = an_approval()
    again = event.model_copy()  # the same fact under another event id, as a replay by hand would bring it
    await house.hear(event, event)
    await house.hear(again.stamped(event_id=uuid4(), time=datetime.now(UTC), trace=None))
    assert len(await house.orders()) == 1
    assert len(await house.emitted()) == 1


async def test_a_second_approval_of_the_same_benefit_is_parked_and_harms_no_other(house: House) -> None:
    person = uuid4()
    await house.hear(an_approval(beneficiary=person), an_approval(beneficiary=person), an_approval())
    assert len(await house.orders()) == 2
    (parked,) = await house.rows("SELECT reason FROM parked")
    assert parked.reason.startswith("AlreadyEntitled")


async def test_what_the_documents_leave_to_people_is_parked(house: House) -> None:
    await house.hear(an_approval(employer_kind="central_or_provincial"), an_approval(employer_kind=None), an_approval())
    assert len(await house.orders()) == 1
    assert all(row.reason.startswith("ManualDecision") for row in await house.rows("SELECT reason FROM parked"))


async def test_housing_in_kind_is_not_finances(house: House) -> None:
    await house.hear(an_approval(benefit="talent_flat"))
    assert await house.orders() == []
    assert await house.rows("SELECT * FROM parked") == []


async def test_an_unfunded_order_falls_due_when_its_quota_grows(house: House) -> None:
    quota = await house.give_quota(fen=PUBLIC)
    await house.hear(an_approval())
    await house.hear(an_approval(), an_approval())
    assert sorted(order.state for order in await house.orders()) == ["due", "unfunded", "unfunded"]
    grown = await house.treasurer().post(f"/quotas/{quota['id']}:increase", {"fen": PUBLIC + 1, "reason": "追加"})
    assert len(grown.ok()["funded"]) == 1
    assert grown.body["committed"]["fen"] == 2 * PUBLIC
    states = [event.state for event in await house.emitted(PayoutOrdered)]
    assert states == ["due", "unfunded", "unfunded", "due"]
    too_far = await house.treasurer().post(f"/quotas/{quota['id']}:increase", {"fen": -PUBLIC, "reason": "调减"})
    too_far.problem(409, "quota-too-small")
    assert await house.differences() == []


async def test_nobody_is_overtaken_by_a_smaller_order(house: House) -> None:
    await house.give_quota(fen=PUBLIC)
    await house.hear(an_approval(category="doctor"))
    await house.hear(an_approval(category="bachelor"))
    assert [order.state for order in await house.orders()] == ["unfunded", "unfunded"]


async def test_a_cancelled_order_gives_its_quota_to_whoever_waits(house: House) -> None:
    await house.give_quota(fen=PUBLIC)
    await house.hear(an_approval())
    (first,) = await house.orders()
    await house.hear(an_approval())
    await house.treasurer().post(f"/orders/{first.id}:cancel", {"reason": "本人放弃"})
    assert sorted(order.state for order in await house.orders()) == ["cancelled", "due"]
    again = await house.treasurer().post(f"/orders/{first.id}:cancel", {"reason": "本人放弃"})
    again.problem(409, "order-state-forbids")
    assert await house.differences() == []


async def test_a_cancellation_is_told_once_by_its_cause_never_by_the_officers_words(house: House) -> None:
    order = await house.due_order()
    path, body = f"/orders/{order.id}:cancel", {"cause": "given_up", "reason": "张三来电自愿放弃"}
    (await house.treasurer().post(path, body, key="once")).ok()
    (await house.treasurer().post(path, body, key="once")).ok()
    (event,) = await house.emitted(PayoutCancelled)
    assert (event.application, event.order, event.item) == (order.application, order.id, order.item)
    assert (event.reason, event.cancelled_on, event.policy.sha256) == ("given_up", today(), order.policy_sha256)
    assert "张三" not in event.model_dump_json()
    detail = (await house.treasurer().get(f"/orders/{order.id}")).ok()
    assert detail["history"][-1]["reason"] == "张三来电自愿放弃"
    refused = await house.treasurer().post(path, {"cause": "no such cause", "reason": "x"})
    refused.problem(422, "invalid-request")


async def test_an_order_at_the_bank_is_not_told_of_as_cancelled(house: House) -> None:
    order = await house.due_order()
    await house.send()
    (await house.treasurer().post(f"/orders/{order.id}:cancel", {"reason": "等不及"})).problem(
        409, "order-state-forbids"
    )
    assert await house.emitted(PayoutCancelled) == []


async def test_later_instalments_get_their_orders_ten_working_days_ahead(house: House) -> None:
    event = an_approval(benefit="living_allowance", category="doctor", treasury=COUNTY)
    await house.hear(event)
    (first,) = await house.orders()
    planned = await house.planned(first)
    assert [part.amount["fen"] for part in planned] == [900_000] * 6
    second = planned[1]
    starts = end_of_day(second.order_on - timedelta(days=1))
    await house.tick(starts - timedelta(seconds=1))
    assert len(await house.orders()) == 1
    await house.tick(starts)
    await house.tick(starts)
    second_order = (await house.orders())[1]
    assert (second_order.instalment, second_order.due_on, second_order.public_fen) == (2, second.due_on, 600_000)
    assert second_order.shares == {CITY: 180_000, COUNTY: 420_000}
    await house.tick(end_of_day(planned[-1].due_on))
    await house.tick(end_of_day(planned[-1].due_on))
    assert len(await house.orders()) == 6
    assert await house.differences() == []


def noticed(holiday: date) -> Calendar:
    """The calendar once the notices up to the year of `holiday` are published, of which the last names it."""
    calendar = CALENDAR
    for year in range(CALENDAR.official_through.year + 1, holiday.year + 1):
        off = [holiday] if year == holiday.year else []
        calendar = calendar.with_notice(working=[], holidays=off, official_through=date(year, 12, 31))
    return calendar


async def test_days_that_no_notice_covers_are_labelled_provisional(house: House) -> None:
    first = await house.due_order(benefit="living_allowance", category="doctor")
    planned = await house.planned(first)
    assert [part.provisional for part in planned] == [CALENDAR.is_provisional(part.due_on) for part in planned]
    assert planned[-1].provisional
    shown = (await house.treasurer().get(f"/orders/{first.id}")).ok()
    assert shown["provisional"] == CALENDAR.is_provisional(first.due_on)


async def test_the_order_of_an_instalment_is_made_by_the_calendar_then_in_force(house: House) -> None:
    first = await house.due_order(benefit="living_allowance", category="doctor")
    last = (await house.planned(first))[-1]
    (due,) = await house.rows("SELECT * FROM due WHERE kind = 'instalment.order' ORDER BY at DESC LIMIT 1")
    assert due.at < end_of_day(last.order_on - timedelta(days=30))  # in time for a notice that moves the days
    calendar = noticed(last.due_on)

    async def look() -> list[Any]:
        async with house.service.database.transaction() as tx:
            (row,) = (await tx.execute(text("SELECT * FROM due WHERE key = :key"), {"key": due.key})).all()
            await tx.execute(text("DELETE FROM due WHERE key = :key"), {"key": due.key})
            found = Due(row.kind, row.key, row.at, row.payload)
            await entitlements.order_instalments(tx, house.service.packs, [found], calendar=calendar)
        return list(await house.orders(instalment=last.number))

    assert await look() == []
    (order,) = await look()
    assert order.due_on == calendar.add_working_days(last.due_on, 1)


@pytest.mark.parametrize("paid", [True, False])
async def test_a_later_instalment_goes_to_the_account_that_was_really_paid(house: House, paid: bool) -> None:
    first = await house.due_order(benefit="living_allowance", category="doctor")
    await house.send()
    await house.told(bounced(reference(first), first.public_fen))
    corrected = house.intake.account_of(first.beneficiary)
    (await house.treasurer().post(f"/orders/{first.id}:reissue", {"payee_account": str(corrected)})).ok()
    if paid:
        await house.send()
        await house.told(credited(reference(await house.order(first)), first.public_fen))
    (_, second, *_) = await house.planned(first)
    for _ in range(2):  # looked at first, then ordered
        await house.tick(end_of_day(second.order_on))
    assert (await house.orders())[1].payee_account == (corrected if paid else first.payee_account)


async def test_the_end_of_the_last_day_tells_of_what_is_not_paid_once(house: House) -> None:
    paid, late = await house.due_order(), await house.due_order()
    await house.send()
    await house.told(credited(reference(paid), PUBLIC))
    end = end_of_day(late.due_on)
    await house.tick(end - timedelta(seconds=1))
    assert await house.emitted(SlaBreached) == []
    await house.tick(end)
    await house.told(bounced(reference(paid), PUBLIC))
    await house.tick(end)
    told = await house.emitted(SlaBreached)
    assert [(event.clock, event.record, event.due_on) for event in told] == [
        ("payout", late.id, late.due_on),
        ("payout", paid.id, paid.due_on),  # the returned payment reopened the same clock
    ]


async def test_intake_away_changes_nothing(house: House) -> None:
    await house.due_order()
    house.intake.away = True
    answer = await house.treasurer().post("/batches", {"treasury": DISTRICT}, key="batch-1")
    answer.problem(503, "unavailable")
    assert [order.state for order in await house.orders()] == ["due"]
    house.intake.away = False
    made = await house.treasurer().post("/batches", {"treasury": DISTRICT}, key="batch-1")
    again = await house.treasurer().post("/batches", {"treasury": DISTRICT}, key="batch-1")
    assert made.ok(201) == again.ok(201)
    assert len(house.intake.calls) == 1


async def test_an_order_without_a_good_account_stays_behind_with_its_reason(house: House) -> None:
    good, gone, strange, none = [await house.due_order() for _ in range(4)]
    house.intake.unknown = {gone.payee_account}
    house.intake.holders = {strange.payee_account: "张|三"}
    await house.rows("UPDATE payout_order SET payee_account = NULL WHERE id = :id RETURNING id", id=none.id)
    batch = await house.send()
    assert batch["lines"] == 1
    assert {left["order"] for left in batch["left_out"]} == {str(each.id) for each in (gone, strange, none)}
    assert (await house.order(good)).state == "sent"


async def test_the_file_is_sealed_at_rest_and_each_taking_is_written_down(house: House) -> None:
    order = await house.due_order()
    house.intake.holders = {order.payee_account: "张𠮷㛃·麦麦提"}
    batch = await house.send()
    (row,) = await house.rows("SELECT file FROM payout_batch")
    assert "𠮷".encode("gb18030") not in row.file
    raw = (await house.treasurer().get(f"/batches/{batch['id']}/file")).raw
    lines = raw.decode("gb18030").splitlines()
    assert lines[1].split("|")[3] == "张𠮷㛃·麦麦提"
    assert lines[1].split("|")[1] == reference(order)
    assert lines[1].endswith("|购房补贴第1期")
    assert lines[-1] == f"T|1|{PUBLIC}"
    assert len(await house.rows("SELECT * FROM file_access")) == 1


async def test_a_bounced_order_goes_to_the_corrected_account_under_the_same_deadline(house: House) -> None:
    order = await house.due_order()
    await house.send()
    await house.told(bounced(reference(order), PUBLIC, reason="R02"))
    assert (await house.order(order)).state == "bounced"
    assert (await house.emitted(PayoutBounced))[0].reason == "account_unknown"
    account = house.intake.account_of(order.beneficiary)
    (await house.treasurer().post(f"/orders/{order.id}:reissue", {"payee_account": str(account)})).ok()
    again = await house.order(order)
    assert (again.state, again.attempt, again.due_on, again.payee_account) == ("due", 2, order.due_on, account)
    await house.send()
    await house.told(credited(reference(again), PUBLIC))
    assert (await house.order(order)).state == "settled"
    history = (await house.treasurer().get(f"/orders/{order.id}")).ok()["history"]
    steps = [step["action"] for step in history]
    assert steps == ["order", "fund", "send", "bounce", "reissue", "send", "settle"]
    assert await house.differences() == []


@pytest.mark.parametrize(
    ("said", "shown"),
    [("6222000000000000", "6222********0000"), ("4105221990.01010011", "4105***********0011"), ("R99", "R99")],
)
async def test_what_a_bank_writes_for_a_reason_enters_no_event_and_no_number_is_shown(
    house: House, said: str, shown: str
) -> None:
    order = await house.due_order()
    await house.send()
    await house.told(bounced(reference(order), PUBLIC, reason=said))
    (event,) = await house.emitted(PayoutBounced)
    assert event.reason == "other"
    history = (await house.treasurer().get(f"/orders/{order.id}")).ok()["history"]
    assert history[-1]["reason"] == shown
    if said != shown:
        tables = ("outbox", "order_history", "bank_result_line", "idempotency")
        for table in tables:
            assert said not in str(await house.rows(f"SELECT {table}::text FROM {table}"))  # noqa: S608


async def test_money_for_one_person_never_goes_to_another(house: House) -> None:
    order, other = await house.due_order(), await house.due_order()
    house.intake.owners[order.payee_account] = other.beneficiary
    batch = await house.send()
    assert batch["left_out"] == [{"order": str(order.id), "reason": "收款账户不属于受益人"}]
    assert ((await house.order(order)).state, (await house.order(other)).state) == ("due", "sent")
    (await house.treasurer().post("/batches", {"treasury": DISTRICT})).problem(409, "nothing-to-pay")


async def test_records_merged_meanwhile_are_one_person(house: House) -> None:
    order, leading = await house.due_order(), uuid4()
    older = uuid4()
    house.intake.owners[order.payee_account] = older
    house.intake.account_of(order.beneficiary)
    house.intake.merged = {order.beneficiary: leading, older: leading}
    assert (await house.send())["left_out"] == []


async def test_a_bounced_order_is_reissued_to_the_beneficiary_alone(house: House) -> None:
    order, other = await house.due_order(), await house.due_order()
    await house.send()
    await house.told(bounced(reference(order), PUBLIC))
    path, officer = f"/orders/{order.id}:reissue", house.treasurer()
    theirs = {"payee_account": str(other.payee_account)}
    (await officer.post(path, theirs)).problem(422, "payee-not-the-beneficiary")
    (await officer.post(path, {"payee_account": str(uuid4())})).problem(422, "payee-account-unknown")
    (await officer.post(path, {"payee_account": str(order.beneficiary)})).problem(422, "payee-account-unknown")
    own = {"payee_account": str(house.intake.account_of(order.beneficiary))}
    house.intake.away = True
    (await officer.post(path, own, key="own")).problem(503, "unavailable")
    assert (await house.order(order)).state == "bounced"
    house.intake.away = False
    first = (await officer.post(path, own, key="own")).ok()
    asked = len(house.intake.calls)
    assert (await officer.post(path, own, key="own")).ok() == first
    assert len(house.intake.calls) == asked
    (await officer.post(path, theirs, key="own")).problem(409, "idempotency-key-reused")


async def test_a_due_order_changes_its_account_only_where_it_could_not_be_paid(house: House) -> None:
    sound, gone, strange, unfit, none = [await house.due_order() for _ in range(5)]
    house.intake.unknown = {gone.payee_account}
    house.intake.owners[strange.payee_account] = sound.beneficiary
    house.intake.holders = {unfit.payee_account: "张|三"}
    await house.rows("UPDATE payout_order SET payee_account = NULL WHERE id = :id RETURNING id", id=none.id)
    for order in (sound, gone, strange, unfit, none):
        own = {"payee_account": str(house.intake.account_of(order.beneficiary))}
        answer = await house.treasurer().post(f"/orders/{order.id}:reissue", own)
        if order is sound:
            answer.problem(409, "order-state-forbids")
        else:
            assert (answer.ok()["state"], answer.body["attempt"]) == ("due", 1)
    assert (await house.send())["left_out"] == []


async def test_an_order_that_waits_for_quota_keeps_its_account(house: House) -> None:
    event = an_approval()
    await house.hear(event)
    (order,) = await house.orders()
    own = {"payee_account": str(house.intake.account_of(event.beneficiary))}
    (await house.treasurer().post(f"/orders/{order.id}:reissue", own)).problem(409, "order-state-forbids")


async def test_an_unknown_order_waits_for_the_banks_word_and_is_never_sent_again(house: House) -> None:
    silent, waiting = await house.due_order(), await house.due_order()
    batch = await house.send()
    report = await house.told(pending(reference(waiting), PUBLIC), finals=[batch["number"]])
    assert (report["unknown"], report["verdicts"]["pending"]) == (2, 1)
    assert [order.state for order in await house.orders()] == ["unknown", "unknown"]
    await_bank = await house.treasurer().post("/batches", {"treasury": DISTRICT})
    await_bank.problem(409, "nothing-to-pay")
    for path, body in (("reissue", {"payee_account": str(uuid4())}), ("cancel", {"reason": "等不及"})):
        answer = await house.treasurer().post(f"/orders/{silent.id}:{path}", body)
        answer.problem(409, "order-state-forbids")
    await house.told(credited(reference(silent), PUBLIC), bounced(reference(waiting), PUBLIC))
    assert {(await house.order(silent)).state, (await house.order(waiting)).state} == {"settled", "bounced"}
    assert await house.differences() == []


async def test_before_the_file_is_final_a_silent_order_stays_sent(house: House) -> None:
    order = await house.due_order()
    await house.send()
    await house.told(pending(reference(order), PUBLIC))
    assert (await house.order(order)).state == "sent"


async def test_the_same_result_file_twice_settles_once_and_answers_alike(house: House) -> None:
    order = await house.due_order()
    await house.send()
    raw = a_result(credited(reference(order), PUBLIC), credited(reference(order), PUBLIC))
    first = (await house.treasurer().post("/bank-results", raw, key="one")).ok()
    again = (await house.treasurer().post("/bank-results", raw, key="one")).ok()
    other = (await house.treasurer(subject="treasurer-2").post("/bank-results", raw, key="two")).ok()
    assert first == again == other
    assert (first["verdicts"]["settle"], first["verdicts"]["repeated"]) == (1, 1)
    anew = await house.told(credited(reference(order), PUBLIC))  # the same word in another file
    assert anew["verdicts"]["repeated"] == 1
    assert len(await house.emitted(PayoutSettled)) == 1
    assert await house.differences() == []


async def test_other_contents_under_a_known_file_number_are_refused(house: House) -> None:
    order = await house.due_order()
    await house.send()
    first = a_result(pending(reference(order), PUBLIC), number="RES-1")
    other = a_result(credited(reference(order), PUBLIC), number="RES-1")
    told = (await house.treasurer().post("/bank-results", first)).ok()
    (await house.treasurer().post("/bank-results", other)).problem(409, "result-file-number-reused")
    assert (await house.order(order)).state == "sent"
    assert (await house.treasurer().post("/bank-results", first)).ok() == told
    (await house.treasurer(COUNTY).post("/bank-results", a_result(treasury=COUNTY, number="RES-1"))).ok()


async def test_what_cannot_be_believed_goes_to_the_exceptions_and_stops_nothing(house: House) -> None:
    right, wrong, twice, early = [await house.due_order() for _ in range(4)]
    batch = await house.send()
    yesterday = today() - timedelta(days=1)
    report = await house.told(
        credited(reference(right), PUBLIC),
        credited(reference(wrong), PUBLIC + 1),
        credited(reference(twice), PUBLIC),
        bounced(reference(twice), PUBLIC),
        credited(reference(early), PUBLIC, yesterday),
        credited("f" * 34, 5),
        finals=[batch["number"]],
    )
    assert report["exceptions"] == 5
    assert report["unknown"] == 3
    found = (await house.treasurer().get("/bank-exceptions")).ok()["items"]
    assert sorted(one["kind"] for one in found) == [
        "contradiction",
        "contradiction",
        "implausible_date",
        "unknown_reference",
        "wrong_amount",
    ]
    amounts = [(one["expected"], one["told"]) for one in found if one["kind"] == "wrong_amount"]
    assert [(a["fen"], b["fen"]) for a, b in amounts] == [(PUBLIC, PUBLIC + 1)]
    assert (await house.order(right)).state == "settled"
    assert await house.differences() == []


async def test_an_open_exception_keeps_an_order_from_being_paid_again(house: House) -> None:
    order = await house.due_order()
    await house.send()
    await house.told(bounced(reference(order), PUBLIC))
    await house.told(credited(reference(order), PUBLIC))  # the money may have arrived after all
    body = {"payee_account": str(house.intake.account_of(order.beneficiary))}
    (await house.treasurer().post(f"/orders/{order.id}:reissue", body)).problem(409, "bank-exception-open")
    (exception,) = (await house.treasurer().get("/bank-exceptions", resolved=False)).ok()["items"]
    path = f"/bank-exceptions/{exception['id']}:resolve"
    (await house.treasurer().post(path, {"resolution": "经与银行核实，未入账"})).ok()
    (await house.treasurer().post(path, {"resolution": "再次处理"})).problem(409, "bank-exception-resolved")
    (await house.treasurer().post(f"/orders/{order.id}:reissue", body)).ok()


async def test_a_bounce_after_the_credit_reverses_the_posting(house: House) -> None:
    order = await house.due_order()
    await house.send()
    await house.told(credited(reference(order), PUBLIC))
    await house.told(bounced(reference(order), PUBLIC))
    again = await house.order(order)
    assert (again.state, again.settled_on) == ("bounced", None)
    assert await house.balances() == {}
    assert len(await house.rows("SELECT * FROM transfer")) == 2
    (await house.treasurer().post(f"/orders/{order.id}:reissue", {"payee_account": str(order.payee_account)})).ok()
    await house.send()
    await house.told(credited(reference(await house.order(order)), PUBLIC))
    assert (await house.balances())[DISTRICT, "cash", ""] == -PUBLIC
    assert await house.differences() == []


async def test_a_file_that_is_not_whole_is_refused_as_a_whole(house: House) -> None:
    order = await house.due_order()
    await house.send()
    whole = a_result(credited(reference(order), PUBLIC))
    for raw in (b"", whole[:-10], whole.replace(b"|1|", b"|2|", 1), whole.replace(b"HQRES1", b"HQRES9"), b"\xff\xff"):
        (await house.treasurer().post("/bank-results", raw)).problem(422, "result-file-refused")
    (await house.treasurer(COUNTY).post("/bank-results", whole)).problem(422, "result-file-refused")
    assert (await house.order(order)).state == "sent"
    assert await house.rows("SELECT * FROM bank_result_file") == []


async def test_a_batch_of_somebody_else_answered_for_is_an_exception(house: House) -> None:
    county = await house.due_order(treasury=COUNTY)
    theirs = await house.send(treasury=COUNTY)
    order = await house.due_order()
    await house.send()
    report = await house.told(credited(reference(order), PUBLIC), finals=[theirs["number"], "NOBODYS"])
    assert (report["verdicts"]["unknown_reference"], report["verdicts"]["settle"], report["unknown"]) == (2, 1, 0)
    assert (await house.order(county)).state == "sent"


async def test_a_payment_of_another_treasury_is_out_of_reach(house: House) -> None:
    county = await house.due_order(treasury=COUNTY)
    await house.send(treasury=COUNTY)
    report = await house.told(bounced(reference(county), county.public_fen))
    assert report["verdicts"]["unknown_reference"] == 1
    assert (await house.order(county)).state == "sent"
    (exception,) = (await house.treasurer().get("/bank-exceptions")).ok()["items"]
    assert (exception["order"], exception["expected"]) == (None, None)


async def test_a_line_that_cannot_be_read_is_an_exception(house: House) -> None:
    order = await house.due_order()
    await house.send()
    report = await house.told(credited(reference(order), PUBLIC), f"R|{reference(order)}|1.5|P||", "R|a b|1|P||")
    assert report["verdicts"]["malformed"] == 2
    assert (await house.order(order)).state == "settled"


async def test_lists_go_page_by_page_and_amounts_carry_their_currency(house: House) -> None:
    await house.give_quota()
    await house.hear(*(an_approval() for _ in range(5)))
    page = (await house.treasurer().get("/orders", limit=2, state="due")).ok()
    seen = [order["id"] for order in page["items"]]
    assert page["items"][0]["amount"] == {"fen": PUBLIC, "currency": "CNY"}
    while page["next"]:
        page = (await house.treasurer().get("/orders", limit=2, cursor=page["next"])).ok()
        seen += [order["id"] for order in page["items"]]
    assert len(set(seen)) == len(seen) == 5
    order = (await house.orders())[0]
    shown = (await house.treasurer().get(f"/entitlements/{order.entitlement_id}")).ok()
    assert [part["order"] for part in shown["instalments"]] == [str(order.id)]
    assert shown["total"]["fen"] == SUBSIDY
    assert Decimal(shown["total"]["fen"]) / 100 == 50_000


async def test_a_quota_is_given_once_and_its_number_is_its_own(house: House) -> None:
    given = await house.give_quota(fen=1)
    body = {name: value for name, value in given.items() if name in {"benefit", "fiscal_year", "number"}}
    codes = ("budget_unit", "project", "functional", "economic_department", "economic_government")
    body |= {name: given[name] for name in codes} | {"fen": 1}
    (await house.treasurer().post("/quotas", body)).problem(409, "quota-exists")
    body |= {"fiscal_year": 2030}
    (await house.treasurer().post("/quotas", body)).problem(409, "quota-exists")
    (await house.treasurer(COUNTY).post("/quotas", body)).ok(201)


async def test_a_quota_beyond_what_the_system_carries_is_refused_by_its_field(house: House) -> None:
    given = await house.give_quota(fen=1)
    path = f"/quotas/{given['id']}:increase"
    answer = await house.treasurer().post(path, {"fen": 10**15, "reason": "追加"})
    assert [error["field"] for error in answer.problem(422, "content-wrong")["errors"]] == ["/fen"]
    assert (await house.treasurer().post(path, {"fen": 10**15 - 1, "reason": "追加"})).ok()["amount"]["fen"] == 10**15


@pytest.mark.parametrize("benefit", ["no_such_benefit", "talent_flat"])
async def test_a_quota_is_for_a_benefit_that_a_policy_pays_in_money(house: House, benefit: str) -> None:
    given = await house.give_quota(fen=1)
    names = ("fiscal_year", "budget_unit", "project", "functional", "economic_department", "economic_government")
    body = {name: given[name] for name in names} | {"benefit": benefit, "fen": 1, "number": "ZB-X"}
    answer = (await house.treasurer().post("/quotas", body)).problem(422, "content-wrong")
    assert [(error["field"], error["code"]) for error in answer["errors"]] == [("/benefit", "unknown-benefit")]


async def test_the_ratio_of_the_day_due_counts_for_people_accepted_earlier(house: House) -> None:
    event = an_approval(treasury="410522", accepted_on=date(2021, 12, 20), decided_on=date(2021, 12, 31))
    await house.hear(event)
    (order,) = await house.orders()
    assert order.due_on == date(2022, 1, 5)
    assert "sharing.purchase-subsidy.county.2022" in order.rules
