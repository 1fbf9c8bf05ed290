"""One record of each kind, made over HTTP as in life: an application paid and housed, one open, a bank exception."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from random import Random

from deploy.sample.bank import answer
from deploy.sample.client import Platform
from deploy.sample.filings import Draft, item
from deploy.sample.flats import read_flats
from deploy.sample.generate import anyang as policy
from deploy.sample.generate import certification
from deploy.sample.people import make_employers, make_person
from deploy.sample.portal import FILE
from tests.common.packs import anyang
from tests.conftest import System
from tests.steps import (
    CREDITS_STRANGERS_TOO,
    Json,
    confirm,
    contest,
    departments_answer,
    desks_of,
    eventually,
    found,
    give_quota,
    item_of,
    officers_of,
    order_of,
    propose,
    send_to_bank,
    today,
    treasurer_of,
)

HOME = "410523"
TERM = {"from_day": today().isoformat(), "to_day": (today() + timedelta(days=365)).isoformat()}


async def make_records(system: System) -> Mapping[str, str]:
    """One record of each kind of one treasury, by the name of the parameter that it stands for. Once a system."""
    async with desks_of(system) as at:
        told = await _file(at, "complete", items=["living_allowance", "talent_apartment"])
        application = told["id"]
        await departments_answer(at, application)
        one, other = officers_of(at, HOME)
        for code in ("talent_certification", "living_allowance", "talent_apartment"):
            decided = await item_of(at, application, code)
            await propose(one, decided, "certify" if code == "talent_certification" else "approve")
            await confirm(other, decided)
        certified = await item_of(at, application, "talent_certification")
        return {
            "seq": "1",
            "sha256": anyang().identity.sha256,
            **await _directory(at),
            "person": told["beneficiary"],
            "ref": told["beneficiary"],
            "number": certified["decision"]["number"],
            **await _still_open(at),
            **await _contested(at),
            **await _money(at, application),
            **await _housing(at, application),
        }


async def _file(at: Platform, word: str, items: Sequence[str], uploads: Sequence[str] = ()) -> Json:
    """An application of a master at the treasury."""
    rng = Random(word)
    [employer, *_] = make_employers(rng, [(HOME, "汤阴")])
    wanted = [certification("master"), *map(item, items)]
    draft = Draft(rng, policy(), make_person(rng), wanted, employer=employer, handler=make_person(rng), uploads=uploads)
    receipt: Json = await at.desk("portal").post("/intake/v1/applications", draft.body(), key=f"access-{word}")
    return receipt


async def _directory(at: Platform) -> dict[str, str]:
    """An employer that stands in a directory, which its keeper entered."""
    [directory] = anyang().directories
    [employer, *_] = make_employers(Random("listed"), [(HOME, "汤阴")])
    keeper = at.desk("talent_office", org_unit=f"410500/{directory.keeper}")
    line = {"credit_code": employer.credit_code, "name": employer.name}
    stated = {"document": "安人才办〔2026〕5 号", "from": TERM["from_day"], "employers": [line]}
    await keeper.post(f"/intake/v1/directories/{directory.code}:enter", stated, key="access-directory")
    return {"directory": directory.code, "credit_code": employer.credit_code}


async def _still_open(at: Platform) -> dict[str, str]:
    """An application with an uploaded material, which the departments have not answered."""
    application = (await _file(at, "open", items=[], uploads=["degree_certificate"]))["id"]
    form = {"data": {"code": "degree_certificate"}, "files": {"file": ("degree.pdf", FILE, "application/pdf")}}
    uploaded = await at.desk("portal").post(
        f"/intake/v1/applications/{application}/materials", key="access-upload", **form
    )
    opened = await item_of(at, application, "talent_certification")
    return {
        "application": application,
        "material": uploaded["material"]["id"],
        "item": opened["id"],
        "task": opened["tasks"][0]["id"],
    }


async def _contested(at: Platform) -> dict[str, str]:
    """An objection to a certification that is on public notice."""
    application = (await _file(at, "contested", items=[]))["id"]
    await departments_answer(at, application)
    one, other = officers_of(at, HOME)
    objection = await contest(one, other, await item_of(at, application, "talent_certification"))
    return {"objection": objection["id"]}


async def _money(at: Platform, application: str) -> dict[str, str]:
    """An order at the bank, which answered for a stranger too."""
    treasurer = treasurer_of(at, HOME)
    await order_of(at, application, "unfunded")
    await give_quota(treasurer, HOME, "living_allowance", fen=100_000_000)
    order = await order_of(at, application, "due")
    batch = await send_to_bank(treasurer, HOME, order)
    strangers_too = answer(await treasurer.raw(batch["file"]), CREDITS_STRANGERS_TOO, on=today())
    await treasurer.post("/finance/v1/bank-results", key="access-result", content=strangers_too)
    [exception] = await treasurer.pages("/finance/v1/bank-exceptions")
    return {
        "order_id": order["id"],
        "entitlement_id": order["entitlement"],
        "instalment": "2",
        "quota_id": order["quota"],
        "batch_id": batch["id"],
        "exception_id": exception["id"],
    }


async def _housing(at: Platform, application: str) -> dict[str, str]:
    """A flat that is held and let."""
    officer = at.desk("housing", org_unit=f"{HOME}/housing")
    eligibility = (await item_of(at, application, "talent_apartment"))["id"]
    await eventually(lambda: found(officer, f"/housing/v1/eligibilities/{eligibility}"))
    [flat, *_] = [flat for flat in read_flats() if flat["kind"] == "apartment"]
    del flat["treasury"]
    listed = await officer.post("/housing/v1/flats", flat, key="access-flat")
    held = await officer.post(f"/housing/v1/flats/{listed['id']}:hold", {"eligibility": eligibility}, key="access-hold")
    lease = await officer.post(f"/housing/v1/holds/{held['id']}:lease", TERM, key="access-lease")
    return {"flat": listed["id"], "eligibility": eligibility, "hold": held["id"], "lease": lease["id"]}
