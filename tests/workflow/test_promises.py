"""A missed promise ends a case that nobody has decided yet; what was decided without the material stands."""

from datetime import date, timedelta
from uuid import UUID

import pytest

from libs.common.calendar import end_of_day
from libs.common.events import ApplicationClosed, PromiseMissed, SlaBreached, TalentCertified
from tests.common.packs import anyang
from tests.workflow.builders import COUNTY, a_withdrawal, an_acceptance, today
from tests.workflow.conftest import House

WORDS = "前补交的材料逾期未交：劳动（聘用）合同"


def a_missed_promise(application: UUID) -> PromiseMissed:
    named = {"materials": ("labour_contract",), "promised_by": today() - timedelta(days=1)}
    return PromiseMissed.model_validate({"policy": anyang().identity, "application": application, **named})


async def test_a_missed_promise_ends_an_undecided_case_as_lapsed(house: House) -> None:
    application = an_acceptance("talent_certification", "medical_care")
    await house.hear(application)
    health = await house.task(application, "health")
    (await house.department("health").post(f"/tasks/{health.id}:complete", {"result": "passed"})).ok()
    await house.hear(a_missed_promise(application.application))
    assert await house.state(application) == "lapsed"
    (closed,) = await house.emitted(ApplicationClosed)
    assert (closed.state, closed.closed_on) == ("lapsed", today())
    assert [(item.result, item.reason and WORDS in item.reason) for item in closed.items] == [
        ("refused", True),
        ("done", None),
    ]
    assert {task.state for task in await house.tasks(application)} == {"cancelled", "completed"}
    assert (await house.actions(application))[-2:] == ["promise_missed", "case_ended"]
    await house.tick(end_of_day(date(2099, 1, 1)))
    assert await house.emitted(SlaBreached) == []
    shown = (await house.officer().get(f"/cases/{application.application}")).ok()
    assert (shown["state"], shown["state_title"]) == ("lapsed", "逾期终止")
    (missed,) = [entry for entry in shown["history"] if entry["action"] == "promise_missed"]
    assert missed["detail"]["materials"] == ["labour_contract"]


async def test_a_proposal_that_nobody_confirmed_does_not_save_the_case(house: House) -> None:
    application = an_acceptance()
    await house.hear(application)
    await house.work_off(application)
    first, second, item = house.officer("officer-1"), house.officer("officer-2"), application.items[0].item
    etag = (await first.get(f"/items/{item}")).ok()["etag"]
    proposed = (await first.post(f"/items/{item}:propose", {"verdict": "certify"}, etag=etag)).ok()
    await house.hear(a_missed_promise(application.application))
    assert await house.state(application) == "lapsed"
    answer = await second.post(f"/items/{item}:confirm", etag=proposed["etag"])
    assert answer.status in {409, 412}
    assert await house.emitted(TalentCertified) == []


@pytest.mark.parametrize("verdict", ["certify", "refuse"])
async def test_a_missed_promise_after_a_decision_is_noted_and_changes_nothing(house: House, verdict: str) -> None:
    application = an_acceptance("talent_certification", "medical_care")
    await house.hear(application)
    await house.work_off(application)
    reason = {"reason": "材料不实"} if verdict == "refuse" else {}
    (await house.decide(application.items[0].item, verdict, **reason)).ok()
    before = await house.state(application)
    await house.hear(a_missed_promise(application.application))
    assert await house.state(application) == before == "closed"
    assert (await house.actions(application))[-1] == "promise_missed_ignored"
    assert len(await house.emitted(ApplicationClosed)) == 1


async def test_of_two_items_one_decided_the_other_goes_on_in_spite_of_a_missed_promise(house: House) -> None:
    application = an_acceptance("talent_certification", "living_allowance")
    await house.hear(application)
    await house.work_off(application)
    (await house.decide(application.items[0].item, "certify")).ok()
    await house.hear(a_missed_promise(application.application))
    assert await house.state(application) == "in_progress"
    (await house.decide(application.items[1].item, "approve")).ok()
    assert await house.state(application) == "closed"


@pytest.mark.parametrize("withdrawn_first", [True, False])
async def test_of_a_withdrawal_and_a_missed_promise_the_first_ends_the_case(
    house: House, withdrawn_first: bool
) -> None:
    application = an_acceptance()
    await house.hear(application)
    events = [a_withdrawal(application.application), a_missed_promise(application.application)]
    await house.hear(*(events if withdrawn_first else reversed(events)))
    assert await house.state(application) == ("withdrawn" if withdrawn_first else "lapsed")
    assert (await house.actions(application))[-1] == (
        "promise_missed_ignored" if withdrawn_first else "withdrawal_ignored"
    )
    assert len(await house.emitted(ApplicationClosed)) == 1


async def test_an_acceptance_and_its_missed_promise_may_come_in_one_batch_and_again(house: House) -> None:
    applications = [an_acceptance(treasury=COUNTY) for _ in range(3)]
    late = [a_missed_promise(each.application) for each in applications[:2]]
    await house.hear_together(*applications, *late, late[0])
    await house.hear(late[1])
    assert [await house.state(each) for each in applications] == ["lapsed", "lapsed", "in_progress"]
    assert len(await house.emitted(ApplicationClosed)) == 2
    assert not await house.rows("SELECT 1 FROM parked")
