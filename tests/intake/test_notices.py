"""Public notices: shown to everybody de-identified while they run, and to the applicant step by step."""

import html
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.calendar import local_date
from libs.common.events import (
    ApplicationClosed,
    ItemResult,
    ObjectionConcluded,
    ObjectionReceived,
    PublicNoticeOpened,
    PublicNoticeWithdrawn,
)
from tests.intake.builders import COUNTY, DISTRICT, a_person, an_account
from tests.intake.conftest import House, uuids
from tests.intake.test_course import an_event

TODAY = local_date(datetime.now(UTC))
SOON, YESTERDAY = TODAY + timedelta(days=7), TODAY - timedelta(days=1)


def opened(application: UUID, item: UUID, **changes: Any) -> PublicNoticeOpened:
    given = {"notice": uuid4(), "item": item, "category": "master", "treasury": COUNTY}
    days = {"opened_on": TODAY, "last_day": SOON}
    event: PublicNoticeOpened = an_event(PublicNoticeOpened, application, **given | days | changes)
    return event


async def noticed(house: House, name: str = "张三丰", **changes: Any) -> tuple[UUID, PublicNoticeOpened]:
    """An application whose certification is on public notice."""
    application, items = uuids(await house.portal().file(beneficiary=a_person(name), payee_account=an_account(name)))
    event = opened(application, items["talent_certification"], **changes)
    await house.hear(event)
    return application, event


async def listed(house: House, **query: Any) -> list[Any]:
    answer = await house.client.get("/intake/v1/public-notices", params=query)
    assert answer.status_code == 200, answer.text
    items: list[Any] = answer.json()["items"]
    return items


@pytest.mark.article("第五条")
async def test_everybody_reads_who_is_on_notice_and_nobody_reads_a_whole_name(house: House) -> None:
    _, event = await noticed(house)
    (line,) = await listed(house)
    assert line == {
        "notice": str(event.notice),
        "name": "张*",
        "employer": line["employer"],
        "item": "人才认定",
        "category": "硕士研究生（示例）",
        "treasury": COUNTY,
        "treasury_title": "安阳县财政",
        "opened_on": str(TODAY),
        "last_day": str(SOON),
    }
    assert line["employer"]
    assert "三丰" not in str(line)


async def test_a_notice_is_listed_from_its_first_day_to_its_last(house: House) -> None:
    _, last = await noticed(house, opened_on=YESTERDAY - timedelta(days=7), last_day=TODAY)
    await noticed(house, opened_on=YESTERDAY - timedelta(days=8), last_day=YESTERDAY)
    assert [line["notice"] for line in await listed(house)] == [str(last.notice)]


async def test_a_notice_that_was_withdrawn_or_decided_is_listed_no_more(house: House) -> None:
    application, event = await noticed(house)
    other, decided = await noticed(house)
    assert len(await listed(house)) == 2
    await house.hear(
        an_event(PublicNoticeWithdrawn, application, notice=event.notice, item=event.item, withdrawn_on=TODAY)
    )
    result = ItemResult(item=decided.item, result="withdrawn")
    await house.hear(an_event(ApplicationClosed, other, state="withdrawn", closed_on=TODAY, items=(result,)))
    assert await listed(house) == []
    (shown,) = (await house.portal().show(str(application)))["notices"]
    assert shown["withdrawn_on"] == str(TODAY)


async def test_the_list_is_of_one_treasury_where_it_is_asked_for_and_comes_in_pages(house: House) -> None:
    told = [(await noticed(house))[1] for _ in range(3)]
    await noticed(house, treasury=DISTRICT)
    assert len(await listed(house, treasury=DISTRICT)) == 1
    answer = (await house.client.get("/intake/v1/public-notices", params={"treasury": COUNTY, "limit": 2})).json()
    rest = await listed(house, treasury=COUNTY, cursor=answer["next"])
    lines = [*answer["items"], *rest]
    assert sorted(line["notice"] for line in lines) == sorted(str(event.notice) for event in told)
    assert await listed(house, treasury="nowhere") == []


async def test_that_a_notice_is_over_is_told_of_what_still_stands(house: House) -> None:
    application, event = await noticed(house, last_day=TODAY)
    withdrawn = {"notice": event.notice, "item": event.item, "withdrawn_on": TODAY}
    await house.hear(an_event(PublicNoticeWithdrawn, application, **withdrawn))
    await house.tick(datetime.now(UTC) + timedelta(days=2))
    titles = [step["title"] for step in (await house.portal().show(str(application)))["timeline"]]
    assert titles[-1] == "撤销公示"


async def test_a_name_is_cut_by_its_first_character_however_it_is_written(house: House) -> None:
    await noticed(house, name="𠮷川安")
    [line] = await listed(house)
    assert line["name"] == "𠮷*"


async def test_the_list_may_be_kept_by_a_proxy_for_a_minute(house: House) -> None:
    for path in ("public-notices", "public-notices/page"):
        answer = await house.client.get(f"/intake/v1/{path}")
        assert answer.headers["cache-control"] == "public, max-age=60", path


async def test_the_list_is_a_page_to_print_with_nothing_from_elsewhere(house: House) -> None:
    empty = await house.client.get("/intake/v1/public-notices/page")
    assert "今日没有公示" in empty.text
    for _ in range(2):
        await noticed(house)
    page = await house.client.get("/intake/v1/public-notices/page", params={"limit": 1, "treasury": COUNTY})
    assert page.headers["content-type"].startswith("text/html")
    for words in ("拟认定人才公示", "张*", "硕士研究生（示例）", "安阳县财政"):
        assert words in page.text
    [onward] = re.findall('href="([^"]+)"', page.text)
    following = await house.client.get(f"/intake/v1/public-notices/page{html.unescape(onward)}")
    assert (following.text.count("<tr>"), f"treasury={COUNTY}" in onward, "limit=1" in onward) == (2, True, True)
    assert "http" not in page.text
    assert "<script" not in page.text


async def test_the_applicant_sees_the_notice_each_objection_and_what_came_of_it(house: House) -> None:
    application, event = await noticed(house)
    objection = uuid4()
    of = {"notice": event.notice, "item": event.item, "objection": objection}
    portal = house.portal()
    shown = await portal.show(str(application))
    assert shown["state"] == "suspended"
    assert shown["timeline"][-1]["title"] == "公示：拟认定为硕士研究生（示例）"
    await house.hear(an_event(ObjectionReceived, application, **of, received_on=TODAY))
    (notice,) = (await portal.show(str(application)))["notices"]
    assert notice["objections"] == [{"received_on": str(TODAY), "upheld": None, "concluded_on": None}]
    await house.hear(an_event(ObjectionConcluded, application, **of, upheld=True, concluded_on=TODAY))
    shown = await portal.show(str(application))
    assert shown["notices"][0]["objections"][0]["upheld"] is True
    assert [step["title"] for step in shown["timeline"][-2:]] == ["收到异议", "异议核查结论：成立"]


async def test_a_notice_that_is_over_stops_nothing_unless_an_objection_is_open(house: House) -> None:
    application, event = await noticed(house, opened_on=YESTERDAY - timedelta(days=7), last_day=YESTERDAY)
    portal = house.portal()
    assert (await portal.show(str(application)))["state"] == "suspended"
    for _ in range(2):
        await house.tick(datetime.now(UTC))
    shown = await portal.show(str(application))
    assert shown["state"] == "accepted"
    assert [step["title"] for step in shown["timeline"]].count("公示期满") == 1
    of = {"notice": event.notice, "item": event.item, "objection": uuid4()}
    await house.hear(an_event(ObjectionReceived, application, **of, received_on=YESTERDAY))
    assert (await portal.show(str(application)))["state"] == "suspended"
    await house.hear(an_event(ObjectionConcluded, application, **of, upheld=False, concluded_on=TODAY))
    assert (await portal.show(str(application)))["state"] == "accepted"
