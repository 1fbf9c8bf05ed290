"""What follows a filing: corrected, withdrawn, lapsed; what others tell, shown step by step and fed back together."""

import time
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from libs.common.calendar import end_of_day
from libs.common.db import connect
from libs.common.events import (
    ApplicationClosed,
    ApplicationEvent,
    BenefitApproved,
    CaseResumed,
    CaseSuspended,
    DeptAssigned,
    DeptCompleted,
    Event,
    FlatHeld,
    FlatLeased,
    FlatReleased,
    InstalmentReviewed,
    ItemResult,
    LeaseEnded,
    ObjectionConcluded,
    ObjectionReceived,
    PayeeAccountChanged,
    PayoutBounced,
    PayoutCancelled,
    PayoutOrdered,
    PayoutSent,
    PayoutSettled,
    PublicNoticeOpened,
    PublicNoticeWithdrawn,
    TalentCertified,
    WithdrawalIgnored,
)
from libs.common.paging import decode_cursor, encode_cursor
from services.intake.feedback import PROJECTION_TABLES
from tests.common.packs import anyang
from tests.conftest import Postgres
from tests.intake.builders import (
    ALLOWANCE,
    CERTIFICATION,
    COUNTY,
    DISTRICT,
    PAPERS,
    a_certification_number,
    a_filing,
    a_person,
    an_account,
    licences,
)
from tests.intake.conftest import Caller, House, uuids

DAY = date(2026, 3, 2)
POLICY = anyang().identity


def an_event(kind: type[ApplicationEvent], application: UUID, **fields: Any) -> Any:
    return kind.model_validate({"policy": POLICY, "application": application, **fields})


def assigned(application: UUID, item: UUID, task: UUID, **more: Any) -> DeptAssigned:
    fields = {"department": "education", "treasury": COUNTY, "due_on": DAY} | more
    event: DeptAssigned = an_event(DeptAssigned, application, item=item, task=task, **fields)
    return event


def completed(application: UUID, item: UUID, task: UUID, **more: Any) -> DeptCompleted:
    fields = {"department": "education", "treasury": COUNTY, "result": "passed", "completed_on": DAY} | more
    event: DeptCompleted = an_event(DeptCompleted, application, item=item, task=task, **fields)
    return event


def the_whole_story(application: UUID, items: dict[str, UUID]) -> list[Event]:
    certification, allowance = items["talent_certification"], items["living_allowance"]
    task, order, flat, lease = uuid4(), uuid4(), uuid4(), uuid4()
    notice, objection = {"item": certification, "notice": uuid4()}, {"objection": uuid4()}
    benefit = {"item": allowance, "benefit": "living_allowance"}
    money = {"order": order, **benefit, "instalment": 1, "treasury": COUNTY, "fen": 400_000, "due_on": DAY}
    who = {"beneficiary": uuid4(), "treasury": COUNTY, "category": "master", "decided_on": DAY}
    results = (ItemResult(item=certification, result="done"), ItemResult(item=allowance, result="done"))
    return [
        assigned(application, certification, task),
        an_event(CaseSuspended, application, task=task, reason="expert_review", from_day=DAY),
        an_event(CaseResumed, application, task=task, to_day=DAY, due_on=DAY + timedelta(days=9)),
        completed(application, certification, task),
        an_event(
            PublicNoticeOpened, application, **notice, category="master", treasury=COUNTY, opened_on=DAY, last_day=DAY
        ),
        an_event(ObjectionReceived, application, **notice, **objection, received_on=DAY),
        an_event(ObjectionConcluded, application, **notice, **objection, upheld=False, concluded_on=DAY),
        an_event(PublicNoticeWithdrawn, application, **notice, withdrawn_on=DAY),
        an_event(
            TalentCertified, application, item=certification, certification=uuid4(), number="RC-1",
            valid_to=date(2031, 3, 2), **who,
        ),
        an_event(
            BenefitApproved, application, number="DX-1", certification="RC-1", accepted_on=DAY, **benefit, **who
        ),
        an_event(
            PayeeAccountChanged, application, item=allowance, beneficiary=uuid4(), payee_account=uuid4(),
            accepted_on=DAY, decided_on=DAY,
        ),
        an_event(ApplicationClosed, application, state="closed", closed_on=DAY, items=results),
        an_event(PayoutOrdered, application, state="due", **money),
        an_event(PayoutSent, application, order=order, batch=uuid4()),
        an_event(PayoutBounced, application, order=order, item=allowance, reason="account_closed", bounced_on=DAY),
        an_event(PayoutSent, application, order=order, batch=uuid4()),
        an_event(PayoutSettled, application, shares={COUNTY: 400_000}, settled_on=DAY, **money),
        an_event(
            InstalmentReviewed, application, review=uuid4(), **benefit, instalment=2, treasury=COUNTY, verdict="fail",
            rules=["condition.demand-declared"], reviewed_on=DAY,
        ),
        an_event(FlatHeld, application, item=allowance, flat=flat, held_until=datetime.now(UTC)),
        an_event(FlatReleased, application, item=allowance, flat=flat, reason="expired"),
        an_event(FlatLeased, application, item=allowance, flat=flat, lease=lease, from_day=DAY, to_day=DAY),
        an_event(LeaseEnded, application, item=allowance, flat=flat, lease=lease, ended_on=DAY, reason="expired"),
    ]  # fmt: skip


async def test_what_others_tell_is_shown_step_by_step_and_fed_back_together(house: House) -> None:
    portal = house.portal()
    application, items = uuids(await portal.file())
    story = the_whole_story(application, items)
    await house.hear(*story)
    shown = await portal.show(str(application))
    assert [step["title"] for step in shown["timeline"][:5]] == [
        "已收件", "已受理", "教育局已受理", "特别程序：专家评审", "特别程序结束",
    ]  # fmt: skip
    assert {type(event).__name__ for event in story} <= {step["code"] for step in shown["timeline"]}
    assert (shown["state"], shown["closed_on"]) == ("closed", "2026-03-02")
    certification, allowance = shown["items"]
    assert (certification["number"], certification["valid_to"], certification["result"]) == (
        "RC-1",
        "2031-03-02",
        "done",
    )
    assert allowance["number"] == "DX-1"
    (payment,) = shown["payments"]
    assert (payment["state"], payment["amount"]) == ("settled", {"fen": 400_000, "currency": "CNY"})
    for words in ("认定为硕士研究生", "RC-1", "已到账 4,000.00 元", "1. 人才认定", "2. 生活补贴"):
        assert words in shown["feedback"]
    (bounce,) = [step for step in shown["timeline"] if step["code"] == "PayoutBounced"]
    assert "账户已销户" in bounce["detail"]
    (review,) = [step for step in shown["timeline"] if step["code"] == "InstalmentReviewed"]
    [declared] = [rule for rule in anyang().conditions if rule.id == "condition.demand-declared"]
    assert (review["title"], review["detail"]) == (
        "发放前复核：不符合",
        f"生活补贴第 2 期暂缓发放：{declared.failed}。",
    )
    assert not await house.rows("SELECT 1 FROM parked")


@pytest.mark.parametrize(
    ("verdict", "rules", "told"),
    [
        ("pass", [], "复核符合，按期发放。"),
        ("undetermined", ["condition.master"], "暂缓发放：未说明最高学位，请填写并提交学历学位证书。"),
    ],
)
async def test_a_review_is_told_by_what_the_policy_says_of_it(
    house: House, verdict: str, rules: list[str], told: str
) -> None:
    portal = house.portal()
    application, items = uuids(await portal.file())
    review = {"review": uuid4(), "item": items["living_allowance"], "benefit": "living_allowance", "instalment": 3}
    found = {"treasury": COUNTY, "verdict": verdict, "rules": rules, "reviewed_on": DAY}
    await house.hear(an_event(InstalmentReviewed, application, **review, **found))
    step = (await portal.show(str(application)))["timeline"][-1]
    assert step["detail"] == f"生活补贴第 3 期{told}"


async def test_any_order_of_topics_gives_the_same_projection_and_nothing_twice(house: House) -> None:
    portal = house.portal()
    application, items = uuids(await portal.file())
    story = the_whole_story(application, items)
    await house.hear(*story)
    before = await portal.show(str(application))
    handlers = house.service.projection
    assert handlers is not None
    async with house.service.database.transaction() as tx:
        for table in PROJECTION_TABLES:
            await tx.execute(text(f"DELETE FROM {table}"))  # noqa: S608
        for event in sorted(story, key=lambda event: event.topic, reverse=True):
            await handlers[1][type(event)](tx, [event])
    assert await portal.show(str(application)) == before
    assert set(PROJECTION_TABLES) == set(handlers[0])


def payment_of(story: list[Event]) -> PayoutOrdered:
    return next(event for event in story if isinstance(event, PayoutOrdered))


def cancelled(order: PayoutOrdered, reason: str = "given_up") -> Any:
    told = {"order": order.order, "item": order.item, "reason": reason, "cancelled_on": DAY}
    return an_event(PayoutCancelled, order.application, **told)


@pytest.mark.parametrize("cancelled_first", [False, True])
async def test_a_cancelled_payment_is_shown_as_such_whichever_topic_comes_first(
    house: House, cancelled_first: bool
) -> None:
    portal = house.portal()
    application, items = uuids(await portal.file())
    order = payment_of(the_whole_story(application, items))
    events = [order, cancelled(order)]
    await house.hear(*(reversed(events) if cancelled_first else events))
    shown = await portal.show(str(application))
    (payment,) = shown["payments"]
    assert (payment["state"], payment["state_title"]) == ("cancelled", "已取消")
    assert (payment["cancelled_on"], payment["amount"]["fen"]) == (DAY.isoformat(), order.fen)
    (step,) = [step for step in shown["timeline"] if step["code"] == "PayoutCancelled"]
    assert (step["title"], "自愿放弃" in step["detail"]) == ("已取消", True)


async def test_a_credit_that_the_bank_took_back_and_nobody_paid_again_is_not_fed_back_as_paid(house: House) -> None:
    portal = house.portal()
    application, items = uuids(await portal.file())
    story = the_whole_story(application, items)
    order = payment_of(story)
    bounce = next(event for event in story if isinstance(event, PayoutBounced))
    await house.hear(*story[:13], *(event for event in story if isinstance(event, PayoutSettled)), bounce)
    assert (await portal.show(str(application)))["payments"][0]["state"] == "bounced"
    await house.hear(cancelled(order, "other"))
    shown = await portal.show(str(application))
    assert shown["payments"][0]["state"] == "cancelled"
    assert "已到账" not in shown["feedback"]


async def test_the_state_follows_the_tasks(house: House) -> None:
    portal = house.portal()
    application, items = uuids(await portal.file())
    task, item = uuid4(), items["talent_certification"]
    await house.hear(assigned(application, item, task))
    assert (await portal.show(str(application)))["state"] == "in_progress"
    await house.hear(an_event(CaseSuspended, application, task=task, reason="hearing", from_day=DAY))
    assert (await portal.show(str(application)))["state"] == "suspended"
    listed = await portal.get("/applications?state=suspended")
    assert [one["id"] for one in listed.body["items"]] == [str(application)]
    assert (await portal.get("/applications?state=in_progress")).body["items"] == []
    await house.hear(an_event(CaseResumed, application, task=task, to_day=DAY, due_on=DAY))
    assert (await portal.show(str(application)))["state"] == "in_progress"


async def test_an_event_of_an_application_that_is_not_here_waits(house: House) -> None:
    await house.hear(assigned(uuid4(), uuid4(), uuid4()))
    (parked,) = await house.rows("SELECT waiting_for FROM parked_key")
    assert parked.waiting_for.startswith("ApplicationReceived:")


async def test_a_correction_is_examined_as_a_whole_and_accepted(house: House) -> None:
    portal = house.portal()
    receipt = await portal.file(materials=licences(*PAPERS[:2]), payee_account=None)
    path = f"/applications/{receipt['id']}:correct"
    still = await portal.post(path, {"materials": licences("labour_contract")})
    assert [defect["code"] for defect in still.body["defects"]] == ["payee-account-missing"]
    assert still.body["answer_by"] == receipt["answer_by"]
    done = await portal.post(path, {"payee_account": an_account()})
    assert (done.body["state"], done.body["defects"]) == ("accepted", [])
    assert {item["id"] for item in done.body["items"]} == {item["id"] for item in receipt["items"]}
    assert await house.kinds(receipt["id"]) == [
        "ApplicationReceived", "CorrectionRequested", "CorrectionRequested", "ApplicationAccepted",
    ]  # fmt: skip
    assert not await house.rows("SELECT 1 FROM due WHERE kind = 'correction.lapse'")
    (await portal.post(path, {"payee_account": an_account()})).problem(409, "not-possible-now")


async def test_a_correction_can_change_people_items_and_the_platform(house: House) -> None:
    portal = house.portal()
    receipt = await portal.file(employer=None, applicant={"kind": "person"}, items=[CERTIFICATION])
    path = f"/applications/{receipt['id']}:correct"
    moved = (await portal.post(path, {"region": DISTRICT, "items": [CERTIFICATION, ALLOWANCE]})).body
    assert (moved["state"], moved["successor"]["platform"]) == ("transferred", DISTRICT)
    assert moved["successor"]["state"] == "accepted"
    shown = await portal.show(moved["successor"]["id"])
    assert (shown["predecessor"], len(shown["items"])) == (receipt["id"], 2)


async def test_a_correction_names_wrong_values_and_what_it_cannot_change(house: House) -> None:
    portal = house.portal()
    receipt = await portal.file(materials=[])
    path = f"/applications/{receipt['id']}:correct"
    told = (await portal.post(path, {"materials": [{"code": "x y", "evidence": "upload"}]})).problem(
        422, "invalid-request"
    )
    assert told["errors"][0]["field"].startswith("/materials/")
    told = (await portal.post(path, {"channel": "on_site"})).problem(422, "filing-wrong")
    assert [(error["field"], error["code"]) for error in told["errors"]] == [("/channel", "not-correctable")]
    answer = await portal.post(path, {"materials": licences(*PAPERS)}, headers={"If-Match": '"1"'})
    answer.problem(412, "precondition-failed")
    read = await portal.get(f"/applications/{receipt['id']}")
    answer = await portal.post(path, {"materials": licences(*PAPERS)}, headers={"If-Match": read.headers["etag"]})
    assert answer.body["state"] == "accepted"


async def test_a_promised_material_is_accepted_within_the_term_of_correction(house: House) -> None:
    promised = {"code": "labour_contract", "evidence": "promised"}
    today = datetime.now(UTC).date()
    for by, state in ((today + timedelta(days=3), "accepted"), (today + timedelta(days=300), "correction")):
        materials = [*licences(*PAPERS[:2]), {**promised, "by": by.isoformat()}]
        assert (await house.portal().file(materials=materials))["state"] == state


async def test_a_correction_with_the_same_material_twice_is_refused(house: House) -> None:
    portal = house.portal()
    receipt = await portal.file(materials=[])
    twice = {"materials": licences("labour_contract", "labour_contract")}
    told = (await portal.post(f"/applications/{receipt['id']}:correct", twice)).problem(422, "filing-wrong")
    assert [error["code"] for error in told["errors"]] == ["material-twice"]


async def test_a_withdrawal_before_acceptance_ends_it_and_frees_the_claim(house: House) -> None:
    portal, person = house.portal(), a_person()
    receipt = await portal.file(beneficiary=person, materials=[])
    shown = await portal.post(f"/applications/{receipt['id']}:withdraw")
    assert shown.body["state"] == "withdrawn"
    assert (await house.kinds(receipt["id"]))[-1] == "ApplicationWithdrawn"
    (await portal.post(f"/applications/{receipt['id']}:withdraw")).problem(409, "not-possible-now")
    assert (await portal.file(beneficiary=person))["state"] == "accepted"


async def test_a_withdrawal_after_acceptance_is_asked_once_and_left_to_workflow(house: House) -> None:
    portal, person = house.portal(), a_person()
    application, items = uuids(await portal.file(beneficiary=person))
    path = f"/applications/{application}:withdraw"
    assert (await portal.post(path)).body["state"] == "accepted"
    await portal.post(path)
    assert (await house.kinds(str(application))).count("ApplicationWithdrawn") == 1
    gone = tuple(ItemResult(item=item, result="withdrawn") for item in items.values())
    await house.hear(an_event(ApplicationClosed, application, state="withdrawn", closed_on=DAY, items=gone))
    assert (await portal.show(str(application)))["state"] == "withdrawn"
    assert (await portal.file(beneficiary=person))["state"] == "accepted"


async def test_a_withdrawal_after_the_end_is_refused_with_what_to_do(house: House) -> None:
    portal = house.portal()
    application, items = uuids(await portal.file())
    done = tuple(ItemResult(item=item, result="done") for item in items.values())
    await house.hear(an_event(ApplicationClosed, application, state="closed", closed_on=DAY, items=done))
    told = (await portal.post(f"/applications/{application}:withdraw")).problem(409, "case-ended")
    assert "已办结" in told["detail"]
    assert "ApplicationWithdrawn" not in await house.kinds(str(application))


async def test_a_withdrawal_that_came_too_late_is_told(house: House) -> None:
    portal = house.portal()
    application, _ = uuids(await portal.file())
    await portal.post(f"/applications/{application}:withdraw")
    await house.hear(an_event(WithdrawalIgnored, application, reason="decided"))
    step = (await portal.show(str(application)))["timeline"][-1]
    assert step["title"] == "撤回未生效"
    assert "已有事项作出决定" in step["detail"]


async def test_a_withdrawal_after_an_ignored_one_says_what_became_of_it(house: House) -> None:
    portal = house.portal()
    application, _ = uuids(await portal.file())
    path = f"/applications/{application}:withdraw"
    first = await portal.post(path, key="first")
    assert (await portal.post(path)).body["withdrawal_asked_at"] == first.body["withdrawal_asked_at"]
    await house.hear(an_event(WithdrawalIgnored, application, reason="decided"))
    told = (await portal.post(path)).problem(409, "withdrawal-ignored")
    assert "已有事项作出决定" in told["detail"]
    assert "人才办" in told["detail"]
    assert (await portal.post(path, key="first")).content == first.content
    assert (await house.kinds(str(application))).count("ApplicationWithdrawn") == 1


async def test_a_refused_item_may_be_claimed_again_and_an_expired_certification_too(house: House) -> None:
    portal, person = house.portal(), a_person()
    application, items = uuids(await portal.file(beneficiary=person))
    story = the_whole_story(application, items)
    certified = next(event for event in story if isinstance(event, TalentCertified))
    await house.hear(certified.model_copy(update={"valid_to": date(2026, 1, 1)}))
    result = (ItemResult(item=items["living_allowance"], result="refused", reason="材料不实"),)
    await house.hear(an_event(ApplicationClosed, application, state="refused", closed_on=DAY, items=result))
    assert "原因：材料不实" in (await portal.show(str(application)))["feedback"]
    assert (await portal.file(beneficiary=person))["state"] == "accepted"


@pytest.mark.parametrize("decided_on", [DAY, None])  # none: an event from before the day was told
@pytest.mark.parametrize("certified_first", [True, False])  # there is no order between topics
async def test_a_refused_item_shows_the_day_on_which_it_was_decided(
    house: House, decided_on: date | None, certified_first: bool
) -> None:
    portal = house.portal()
    application, items = uuids(await portal.file())
    story = the_whole_story(application, items)
    certified = next(event for event in story if isinstance(event, TalentCertified))
    results = (
        ItemResult(item=items["talent_certification"], result="done", decided_on=decided_on),
        ItemResult(item=items["living_allowance"], result="refused", reason="材料不实", decided_on=decided_on),
    )
    closed = an_event(ApplicationClosed, application, state="closed", closed_on=DAY, items=results)
    await house.hear(*((certified, closed) if certified_first else (closed, certified)))
    granted, refused = (await portal.show(str(application)))["items"]
    assert (granted["result"], granted["decided_on"]) == ("done", DAY.isoformat())
    assert (refused["result"], refused["decided_on"]) == ("refused", decided_on and decided_on.isoformat())


async def test_a_benefit_relies_on_an_earlier_certification_whose_category_counts(house: House) -> None:
    portal, person = house.portal(), a_person()
    item = {"code": "flexible_certification", "category": "flexible"}
    papers = licences("identity_document", "cooperation_agreement")
    application, items = uuids(await portal.file(beneficiary=person, items=[item], materials=papers))
    number = a_certification_number()
    benefit = {"items": [{"code": "living_allowance", "certification": number}]}
    early = await portal.file(beneficiary=person, **benefit)
    assert [defect["code"] for defect in early["defects"]] == ["certification-unknown"]
    certified = an_event(
        TalentCertified, application, item=items["flexible_certification"], certification=uuid4(), number=number,
        valid_to=date(2031, 1, 1), category="flexible", decided_on=DAY, beneficiary=uuid4(), treasury=COUNTY,
    )  # fmt: skip
    await house.hear(certified)
    receipt = (await portal.post(f"/applications/{early['id']}:correct", {})).body
    assert (receipt["state"], receipt["reason"]["code"]) == ("not_accepted", "not-covered")


@pytest.mark.parametrize(
    ("owner", "valid_to", "code"),
    [
        (True, date(2031, 1, 1), None),
        (True, date(2026, 1, 1), "certification-expired"),
        (False, date(2031, 1, 1), "certification-unknown"),
    ],
)
async def test_a_benefit_on_anothers_or_an_expired_certification_is_told_before_anybody_works(
    house: House, owner: bool, valid_to: date, code: str | None
) -> None:
    portal, person, number = house.portal(), a_person(), a_certification_number()
    application, items = uuids(await portal.file(beneficiary=person, items=[CERTIFICATION]))
    certified = an_event(
        TalentCertified, application, item=items["talent_certification"], certification=uuid4(), number=number,
        valid_to=valid_to, category="master", decided_on=DAY, beneficiary=uuid4(), treasury=COUNTY,
    )  # fmt: skip
    await house.hear(certified)
    benefit = {**ALLOWANCE, "certification": f" {number.lower()}"}
    receipt = await portal.file(beneficiary=person if owner else a_person(), items=[benefit])
    assert [(defect["code"], defect["field"]) for defect in receipt["defects"]] == (
        [(code, "/items/0/certification")] if code else []
    )
    assert receipt["state"] == ("correction" if code else "accepted")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        ("hello-world", "certification-number-form"),
        ("DX" + a_certification_number()[2:], "certification-number-form"),
        (a_certification_number()[:-2] + "9" + a_certification_number()[-1], "certification-number-check-digit"),
    ],
)
async def test_a_number_that_is_none_of_a_certification_is_a_wrong_filing(house: House, number: str, code: str) -> None:
    filing = a_filing(items=[{**ALLOWANCE, "certification": number}])
    told = (await house.portal().post("/applications", filing)).problem(422, "filing-wrong")
    assert [(error["field"], error["code"]) for error in told["errors"]] == [("/items/0/certification", code)]


async def test_a_correction_not_answered_lapses_after_its_last_day(house: House) -> None:
    portal = house.portal()
    receipt = await portal.file(materials=[])
    last = date.fromisoformat(receipt["answer_by"])
    await house.tick(end_of_day(last) - timedelta(seconds=1))
    assert (await portal.show(receipt["id"]))["state"] == "correction"
    await house.tick(end_of_day(last))
    shown = await portal.show(receipt["id"])
    assert (shown["state"], shown["reason"]["code"], shown["state_title"]) == ("lapsed", "lapsed", "逾期终止")
    ended = (await house.emitted(receipt["id"]))[-1]
    assert (type(ended).__name__, ended.reason) == ("ApplicationNotAccepted", "lapsed")


async def every_change(caller: Caller, count: int, after: str | None = None) -> tuple[list[Any], str]:
    """`count` changes page by page, and where the feed ends.

    A transaction of any database of the cluster holds the feed back while it runs, so another test may for a moment.
    """
    found: list[Any] = []
    end = time.monotonic() + 20
    while time.monotonic() < end:
        more = await caller.get(f"/changes?limit=2&wait=1{f'&after={after}' if after else ''}")
        found += more.body["items"]
        after = more.body["next"]
        if len(found) >= count:
            break
    assert len(found) == count
    return found, str(after)


async def test_the_feed_tells_a_portal_its_own_changes_once_and_in_order(house: House) -> None:
    portal, other = house.portal(), house.portal("portal-b")
    application, items = uuids(await portal.file())
    await other.file()
    told, end = await every_change(portal, 2)
    assert [change["title"] for change in told] == ["已收件", "已受理"]
    story = the_whole_story(application, items)
    await house.hear(*story)
    more, _ = await every_change(portal, len(story), end)
    (closed,) = [change for change in more if change["code"] == "ApplicationClosed"]
    assert "2. 生活补贴" in closed["feedback"]
    assert {change["application"] for change in told + more} == {str(application)}
    for after in ("bm9uc2Vuc2U", "abc", "WyJ4Il0"):
        told = (await portal.get(f"/changes?after={after}")).problem(422, "content-wrong")
        assert [error["field"] for error in told["errors"]] == ["query/after"]


async def test_the_feed_of_a_restored_cluster_gives_a_portal_what_comes_after_its_cursor_from_the_lost_time(
    house: House, postgres: Postgres
) -> None:
    portal = house.portal()
    await portal.file()
    database = str(house.service.database.url.database)
    owner = await connect(postgres.url(database, "intake_owner"))
    # As if these steps had been written by much later transactions, before the cluster was restored.
    await owner.execute("UPDATE timeline SET epoch = epoch - 1, xid = xid + 1000000")
    await owner.close()
    told, end = await every_change(portal, 2)
    new = await portal.file()
    more, _ = await every_change(portal, 2, end)
    assert {change["application"] for change in more} == {new["id"]} != {change["application"] for change in told}


async def test_a_cursor_from_before_there_were_epochs_goes_on_where_it_was(house: House) -> None:
    portal = house.portal()
    await portal.file()
    _, end = await every_change(portal, 2)
    _, xid, seq = decode_cursor(end)
    assert (await portal.get(f"/changes?after={encode_cursor(xid, seq)}")).body["items"] == []


async def test_the_feed_never_passes_a_transaction_that_commits_late(house: House) -> None:
    portal = house.portal()
    application, items = uuids(await portal.file())
    _, end = await every_change(portal, 2)
    step = text("""
        INSERT INTO timeline (application, event_id, code, at, title, detail)
        VALUES (:application, gen_random_uuid(), 'Late', now(), '迟到', '')
    """)
    async with house.service.database.transaction() as slow:
        await slow.execute(step, {"application": application})
        await house.hear(assigned(application, items["talent_certification"], uuid4()))
        hidden = (await portal.get(f"/changes?after={end}&wait=1")).body
        assert hidden == {
            "items": [],
            "next": end,
        }  # written later and committed first: it must wait for the one before it
    told, _ = await every_change(portal, 2, end)
    assert [change["code"] for change in told] == ["Late", "DeptAssigned"]


async def test_the_feed_waits_for_a_change(house: House) -> None:
    portal = house.portal()
    started = datetime.now(UTC)
    assert (await portal.get("/changes?wait=1")).body["items"] == []
    assert datetime.now(UTC) - started >= timedelta(seconds=1)


@pytest.mark.parametrize("command", ["UPDATE {0} SET {1} = {1}", "DELETE FROM {0}", "TRUNCATE {0}"])
@pytest.mark.parametrize(("table", "column"), [("timeline", "title"), ("people_resolved", "purpose")])
async def test_history_cannot_be_rewritten(house: House, command: str, table: str, column: str) -> None:
    with pytest.raises(DBAPIError, match="permission denied"):
        await house.rows(command.format(table, column))


async def test_nobody_can_give_away_rights_on_history(house: House) -> None:
    async with house.service.database.transaction() as tx:
        await tx.execute(text("GRANT ALL ON timeline, people_resolved TO intake_app"))  # PostgreSQL only warns
    (may,) = await house.rows("SELECT has_table_privilege('timeline', 'UPDATE, DELETE, TRUNCATE') AS anything")
    assert not may.anything
