"""Materials: files in by content and size, sealed at rest, out again to those who may."""

import asyncio
import hashlib
from typing import Any
from uuid import uuid4

import pytest

from libs.common.events import ApplicationClosed
from services.intake.materials import MAX_BYTES
from tests.intake.builders import COUNTY, DISTRICT, PAPERS, licences
from tests.intake.conftest import Answer, Caller, House, uuids
from tests.intake.test_course import DAY, an_event, assigned, completed

PDF = b"%PDF-1.7\n" + b"secret contract " * 100
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
JPEG = b"\xff\xd8\xff\xe0" + bytes(100)


async def upload(caller: Caller, application: str, body: bytes, code: str = "labour_contract", **more: Any) -> Answer:
    headers = {"Idempotency-Key": more.pop("key", uuid4().hex)}
    path, files = f"/applications/{application}/materials", {"file": ("合同.pdf", body, "application/x-anything")}
    return await caller._ask("POST", path, headers=headers, data={"code": code}, files=files)


async def test_the_last_upload_of_a_correction_has_it_accepted(house: House) -> None:
    portal = house.portal()
    uploads = [{"code": code, "evidence": "upload"} for code in PAPERS[1:]]
    receipt = await portal.file(materials=[*licences(PAPERS[0]), *uploads])
    assert [defect["code"] for defect in receipt["defects"]] == ["material-not-uploaded"] * 2
    first = await upload(portal, receipt["id"], PDF, PAPERS[1])
    assert (first.status, first.body["state"], len(first.body["defects"])) == (201, "correction", 1)
    second = await upload(portal, receipt["id"], JPEG, PAPERS[2])
    assert (second.body["state"], second.body["defects"]) == ("accepted", [])
    assert await house.kinds(receipt["id"]) == ["ApplicationReceived", "CorrectionRequested", "ApplicationAccepted"]
    shown = await portal.show(receipt["id"])
    assert [step["code"] for step in shown["timeline"]].count("MaterialAdded") == 2
    assert len(shown["materials"]) == 3


@pytest.mark.parametrize(("body", "media_type"), [(PDF, "application/pdf"), (PNG, "image/png"), (JPEG, "image/jpeg")])
async def test_a_file_is_what_its_content_says_and_comes_back_whole(house: House, body: bytes, media_type: str) -> None:
    portal = house.portal()
    receipt = await portal.file()
    added = (await upload(portal, receipt["id"], body)).body["material"]
    assert (added["media_type"], added["size"]) == (media_type, len(body))
    assert added["sha256"] == hashlib.sha256(body).hexdigest()
    answer = await portal.get(added["href"].removeprefix("/intake/v1"))
    assert (answer.content, answer.headers["content-type"]) == (body, media_type)
    (row,) = await house.rows("SELECT sealed FROM material_content")
    assert b"secret contract" not in bytes(row.sealed)


async def test_other_content_and_larger_files_are_refused(house: House) -> None:
    portal = house.portal()
    receipt = await portal.file()
    (await upload(portal, receipt["id"], b"MZ\x90\x00")).problem(415, "unsupported-media-type")
    (await upload(portal, receipt["id"], b"")).problem(415, "unsupported-media-type")
    (await upload(portal, receipt["id"], b"%PDF-" + bytes(MAX_BYTES))).problem(413, "too-large")
    (await upload(portal, receipt["id"], b"%PDF-" + bytes(MAX_BYTES + 2**20))).problem(413, "too-large")
    (await upload(portal, receipt["id"], PDF, "no_such_material")).problem(422, "content-wrong")
    assert (await upload(portal, receipt["id"], b"%PDF-" + bytes(MAX_BYTES - 5))).status == 201


async def test_a_body_that_is_no_upload_is_refused(house: House) -> None:
    portal = house.portal()
    path = f"/applications/{(await portal.file())['id']}/materials"

    async def send(media_type: str, body: bytes) -> Answer:
        headers = {"Content-Type": media_type, "Idempotency-Key": uuid4().hex}
        return await portal._ask("POST", path, headers=headers, content=body)

    (await send("application/json", b"{}")).problem(415, "unsupported-media-type")
    (await send("multipart/form-data", b"x")).problem(400, "malformed-upload")
    (await send("multipart/form-data; boundary=b", b"--c\r\n")).problem(400, "malformed-upload")
    cut = b'--b\r\nContent-Disposition: form-data; name="code"\r\n\r\nx\r\n--b\r\nContent-Disp'
    (await send("multipart/form-data; boundary=b", cut)).problem(400, "malformed-upload")
    nothing = b'--b\r\nContent-Disposition: form-data; name="code"\r\n\r\nx\r\n--b--\r\n'
    (await send("multipart/form-data; boundary=b", nothing)).problem(422, "invalid-request")


async def test_each_missing_part_of_an_upload_is_named(house: House) -> None:
    portal = house.portal()
    path, headers = f"/applications/{uuid4()}/materials", {"Idempotency-Key": "k"}
    for part, missing in (("file", ["/code"]), ("other", ["/code", "/file"])):
        answer = await portal._ask("POST", path, headers=headers, files={part: ("a", PDF)})
        assert [error["field"] for error in answer.problem(422, "invalid-request")["errors"]] == missing


async def test_an_application_holds_so_many_files_and_no_more(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.intake.materials.MOST_FILES", 2)
    portal = house.portal()
    receipt = await portal.file()
    for _ in range(2):
        assert (await upload(portal, receipt["id"], PDF)).status == 201
    told = (await upload(portal, receipt["id"], PDF)).problem(409, "too-many-files")
    assert "至多 2 个文件" in told["detail"]
    assert len(await house.rows("SELECT 1 FROM material_content")) == 2


async def test_the_same_upload_twice_is_one_material(house: House) -> None:
    portal = house.portal()
    receipt = await portal.file()
    answers = await asyncio.gather(*(upload(portal, receipt["id"], PDF, key="k") for _ in range(3)))
    assert len({answer.content for answer in answers}) == 1
    (await upload(portal, receipt["id"], PNG, key="k")).problem(409, "idempotency-key-reused")


async def test_an_ended_application_takes_no_more(house: House) -> None:
    portal = house.portal()
    application, _ = uuids(await portal.file())
    await house.hear(an_event(ApplicationClosed, application, state="closed", closed_on=DAY, items=()))
    (await upload(portal, str(application), PDF)).problem(409, "not-possible-now")


async def test_a_department_reads_materials_while_it_holds_a_task(house: House) -> None:
    portal = house.portal()
    application, items = uuids(await portal.file())
    path = (await upload(portal, str(application), PDF)).body["material"]["href"].removeprefix("/intake/v1")
    holder = house.a("department", org_unit=f"{COUNTY}/education")
    others = [house.a("department", org_unit=f"{COUNTY}/tax"), house.a("department", org_unit=f"{DISTRICT}/education")]
    task, item = uuid4(), items["talent_certification"]
    (await holder.get(path)).problem(404, "not-found")
    await house.hear(assigned(application, item, task))
    assert (await holder.get(path)).content == PDF
    listed = (await holder.get(f"/applications/{application}/materials")).body["items"]
    assert path in {str(one["href"]).removeprefix("/intake/v1") for one in listed}
    for other in others:
        (await other.get(path)).problem(404, "not-found")
    await house.hear(completed(application, item, task))
    (await holder.get(path)).problem(404, "not-found")


async def test_a_withdrawn_case_takes_the_materials_from_its_departments(house: House) -> None:
    application, items = uuids(await house.portal().file())
    await house.hear(assigned(application, items["talent_certification"], uuid4()))
    holder = house.a("specialist", org_unit=f"{COUNTY}/education")
    assert (await holder.get(f"/applications/{application}/materials")).status == 200
    await house.hear(an_event(ApplicationClosed, application, state="withdrawn", closed_on=DAY, items=()))
    (await holder.get(f"/applications/{application}/materials")).problem(404, "not-found")


async def test_materials_go_with_a_transfer(house: House) -> None:
    portal = house.portal()
    receipt = await portal.file(employer=None, applicant={"kind": "person"}, materials=licences(*PAPERS[:2]))
    await upload(portal, receipt["id"], PDF)
    moved = (await portal.post(f"/applications/{receipt['id']}:correct", {"region": DISTRICT})).body
    assert (moved["state"], moved["successor"]["state"]) == ("transferred", "accepted")
    materials = (await portal.show(moved["successor"]["id"]))["materials"]
    (there,) = [one for one in materials if one["href"]]
    assert (await portal.get(there["href"].removeprefix("/intake/v1"))).content == PDF
