"""Those who file: the provincial portal (one by one and in bulk files) and the window clerks, with what follows."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.sample.client import BUSY, Desk, Platform, Refused, all_of, key_of
from deploy.sample.lines import Line
from deploy.sample.policy import Json

POPULATION = Path(__file__).parent / "population.jsonl"
BULK_LINES = 20
FILE = b"%PDF-1.4\n% sample material\n%%EOF\n"
AT_REST = frozenset({"not_accepted", "transferred", "refused", "withdrawn", "lapsed", "closed"})


def read_population(path: Path = POPULATION) -> list[Line]:
    """The lines of the file, in order."""
    with path.open(encoding="utf-8") as file:
        return [Line(**json.loads(line)) for line in file]


@dataclass(slots=True)
class Filed:
    """A line that was taken in: the application's id and what the receipt said."""

    line: Line
    id: str
    receipt: Json

    @property
    def lives_on_as(self) -> str:
        """The application that is worked: the successor where this one was transferred."""
        successor = self.receipt.get("successor")
        return str(successor["id"]) if successor else self.id


@dataclass(slots=True)
class Filings:
    """What was filed so far, and whatever went otherwise than the file says."""

    at: Platform
    on_each: Callable[[int], None]
    filed: dict[str, Filed] = field(default_factory=dict)
    surprises: list[str] = field(default_factory=list)
    answered: int = 0
    _desks: dict[str, Desk] = field(default_factory=dict)

    def desk(self, line: Line) -> Desk:
        """Whoever files the line."""
        who = line.org_unit or line.role
        if who not in self._desks:
            self._desks[who] = self.at.desk(line.role, org_unit=line.org_unit)
        return self._desks[who]

    def follows_up(self, filed: Filed) -> Desk:
        """Whoever looks after an application now: of one filed at a window and transferred, the window it went to."""
        successor = filed.receipt.get("successor")
        if successor and filed.line.role == "window_clerk":
            return self.at.desk("window_clerk", org_unit=f"{successor['platform']}/government_services")
        return self.desk(filed.line)

    async def file(self, lines: Sequence[Line]) -> None:
        """File lines, those for bulk files in some, and do what follows each: correct, upload, withdraw."""
        bulk = [line for line in lines if line.batch]
        files = [bulk[start : start + BULK_LINES] for start in range(0, len(bulk), BULK_LINES)]
        singly = [line for line in lines if not line.batch]
        await all_of([*map(self._file_in_bulk, files), *map(self._file_one, singly)])

    async def file_later(self, line: Line, certification: str) -> None:
        """File a line that relies on an earlier certification, whose number is now known."""
        items = [{**item, "certification": certification} for item in line.body["items"]]
        await self._file(line, {**line.body, "items": items})

    async def _file_one(self, line: Line) -> None:
        await self._file(line, line.body)

    async def _file(self, line: Line, body: Json) -> None:
        try:
            receipt = await self.desk(line).post("/intake/v1/applications", body, key=line.key)
        except Refused as refused:
            self._answer(line, refused.status, refused.problem)
        else:
            self._answer(line, 201, receipt)
            await self._follow(line)

    async def _file_in_bulk(self, lines: Sequence[Line]) -> None:
        told = [{"idempotency_key": line.key, "application": line.body} for line in lines]
        content = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in told).encode()
        headers = {"Content-Type": "application/x-ndjson"}
        answers = await self.desk(lines[0]).lines("/intake/v1/applications:batch", content=content, headers=headers)
        for line, answer in zip(lines, answers, strict=True):
            if answer["status"] in BUSY:
                await self._file_one(line)
            else:
                self._answer(line, answer["status"], answer.get("application") or answer["problem"])
        await all_of(self._follow(line) for line in lines)

    def _answer(self, line: Line, status: int, told: Json) -> None:
        self.answered += 1
        self.on_each(self.answered)
        wanted = (line.expect.get("status", 201), line.expect.get("code"))
        if (status, told.get("code")) != wanted:
            self.surprises.append(f"{line.key}: {status} {told.get('code') or told.get('state')}, expected {wanted}")
        elif status == 201 and line.expect.get("same"):
            if told["id"] != self.filed[line.key].id:
                self.surprises.append(f"{line.key}: another application than the first time")
        elif status == 201:
            self.filed[line.key] = Filed(line, told["id"], told)

    async def _follow(self, line: Line) -> None:
        filed = self.filed.get(line.key)
        if filed is None or line.then is None or line.expect.get("same"):
            return
        address, desk = f"/intake/v1/applications/{filed.id}", self.desk(line)
        if "correct" in line.then:
            filed.receipt = await desk.post(f"{address}:correct", line.then["correct"], key=f"{line.key}-correct")
        for code in line.then.get("upload", ()):
            form = {"data": {"code": code}, "files": {"file": ("sample.pdf", FILE, "application/pdf")}}
            await desk.post(f"{address}/materials", key=f"{line.key}-upload-{code}", **form)
        if line.then.get("withdraw"):
            await desk.post(f"{address}:withdraw", key=f"{line.key}-withdraw")

    def applications(self) -> set[str]:
        """The ids of all that was filed, successors among them."""
        return {each for filed in self.filed.values() for each in (filed.id, filed.lives_on_as)}

    def ends(self, states: Mapping[str, str]) -> list[str]:
        """What ended otherwise than the file says, given the state of each application."""
        found = list(self.surprises)
        for filed in self.filed.values():
            for word, application in (("state", filed.id), ("successor", filed.lives_on_as)):
                wanted, state = filed.line.expect.get(word), states.get(application)
                if wanted is not None and state != wanted:
                    found.append(f"{filed.line.key} ({application}): {state}, expected {wanted}")
        return found


async def states_of(supervisor: Desk) -> dict[str, str]:
    """The state of every application in the system."""
    return {one["id"]: one["state"] for one in await supervisor.pages("/intake/v1/applications")}


async def certification_number(filings: Filings, key: str) -> str | None:
    """The number of the certification that a line led to, or None while there is none."""
    filed = filings.filed[key]
    view = await filings.desk(filed.line).get(f"/intake/v1/applications/{filed.id}")
    return next(
        (item["number"] for item in view["items"] if item["kind"] == "certification" and item.get("number")), None
    )


async def new_account(filings: Filings, application: str, person: str, order: str, attempt: int) -> str:
    """Register another account of a beneficiary whose payment bounced; gives its reference."""
    filed = next(each for each in filings.filed.values() if application in {each.id, each.lives_on_as})
    body = filed.line.body | (filed.line.then or {}).get("correct", {})
    number = int(key_of("account", order, attempt).rsplit("-", 1)[1][:12], 16) % 10**14
    account = body["payee_account"] | {"number": f"00{number:014}"}
    path = f"/intake/v1/people/{person}/payee-accounts"
    made = await filings.follows_up(filed).post(path, account, key=f"account-{order}-{attempt}")
    return str(made["payee_account"])
