"""Directories of employers (企业目录): who stands in one on a day, as its keeper stated it.

Each statement enters an employer or strikes it, from a day on, by the number of a document. None is ever changed: on a
day the newest that covers it counts, and every earlier one can be seen. Employers need not be on record. Each statement
is told of in its own transaction, so that the trail holds it.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

from pydantic import BaseModel, Field
from sqlalchemy import CursorResult, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.auth import ROLES, Principal
from libs.common.db import Database, columns
from libs.common.errors import DomainError, NotFound
from libs.common.events import EmployerListed, EmployerStruck
from libs.common.outbox import emit
from libs.common.packs import Packs
from libs.common.paging import PageRequest, read_after, running_number
from libs.common.policy import Facts, Pack
from libs.common.policy.model import Directory
from services.intake.employers import lock
from services.intake.models import directory_entry

_ENTER = text("""
    INSERT INTO directory_entry (city, directory, credit_code, name, listed, valid_from, valid_to, document, "by")
    SELECT CAST(:city AS text), CAST(:directory AS text), credit_code, name, true,
           CAST(:first AS date), CAST(:last AS date), CAST(:document AS text), CAST(:by AS text)
      FROM unnest(CAST(:credit_codes AS text[]), CAST(:names AS text[]))
           WITH ORDINALITY AS r (credit_code, name, n)
     ORDER BY n
    RETURNING id, credit_code
""")
_STRIKE = text("""
    INSERT INTO directory_entry (city, directory, credit_code, name, listed, valid_from, document, "by")
    SELECT CAST(:city AS text), CAST(:directory AS text), r.credit_code, newest.name, false,
           CAST(:first AS date), CAST(:document AS text), CAST(:by AS text)
      FROM unnest(CAST(:credit_codes AS text[])) WITH ORDINALITY AS r (credit_code, n)
     CROSS JOIN LATERAL (
           SELECT e.name, e.listed FROM directory_entry AS e
            WHERE (e.city, e.directory, e.credit_code) = (:city, :directory, r.credit_code)
              AND :first BETWEEN e.valid_from AND COALESCE(e.valid_to, 'infinity')
            ORDER BY e.id DESC LIMIT 1) AS newest
     WHERE newest.listed
     ORDER BY r.n
    RETURNING id, credit_code
""")
_STANDING = text("""
    SELECT r.n
      FROM unnest(CAST(:cities AS text[]), CAST(:directories AS text[]), CAST(:credit_codes AS text[]),
                  CAST(:days AS date[]))
           WITH ORDINALITY AS r (city, directory, credit_code, day, n)
     CROSS JOIN LATERAL (
           SELECT e.listed FROM directory_entry AS e
            WHERE (e.city, e.directory, e.credit_code) = (r.city, r.directory, r.credit_code)
              AND r.day BETWEEN e.valid_from AND COALESCE(e.valid_to, 'infinity')
            ORDER BY e.id DESC LIMIT 1) AS newest
     WHERE newest.listed
""")
_LISTED = text("""
    SELECT id, credit_code, name, listed, valid_from, valid_to, document, "by", recorded_at
      FROM (SELECT DISTINCT ON (e.credit_code)
                   e.id, e.credit_code, e.name, e.listed, e.valid_from, e.valid_to, e.document, e."by", e.recorded_at
              FROM directory_entry AS e
             WHERE e.city = :city AND e.directory = :directory AND e.credit_code > :after
               AND :on BETWEEN e.valid_from AND COALESCE(e.valid_to, 'infinity')
             ORDER BY e.credit_code, e.id DESC) AS newest
     WHERE listed
     ORDER BY credit_code LIMIT :limit
""")


class NotListed(DomainError):
    """409: an employer cannot be struck on a day on which it does not stand in the directory."""

    status, code, title = 409, "employer-not-listed", "该企业当日不在目录中"
    detail = "该企业在所填之日不在目录中，无须移出。请核对统一社会信用代码和移出之日。"


class DirectoryEntry(BaseModel):
    """One statement on an employer: that it is entered or struck, from when, by which document, who stated it when."""

    id: int = Field(description="先后次序：同一日以编号大者为准")
    credit_code: str
    name: str = Field(description="列入文件所载的单位名称")
    listed: bool = Field(description="true 为列入，false 为移出")
    valid_from: date
    valid_to: date | None = Field(description="最后一日；长期的为空")
    document: str = Field(description="列入或移出文件的文号")
    by: str | None = Field(description="登记人；只对登记部门和督查、审计人员显示，其他为空")
    recorded_at: datetime = Field(description="登记时间")


class Statement(NamedTuple):
    """What is stated of many employers at once: from and to when, by which document, and by whom."""

    valid_from: date
    valid_to: date | None
    document: str
    by: str


class Asked(NamedTuple):
    """An employer, by its credit code (None: there is none), under a policy on a day."""

    pack: Pack
    credit_code: str | None
    on: date


def kept(packs: Packs, code: str, caller: Principal, today: date) -> tuple[Pack, Directory]:
    """The policy of today and its directory of this code, which is the caller's to keep: the caller is of the keeper's
    department at the city treasury. Raises NotFound."""
    pack, directory = _on(packs, code, today)
    if not _keeps(caller, pack, directory, today):
        raise NotFound
    return pack, directory


def _keeps(caller: Principal, pack: Pack, directory: Directory, today: date) -> bool:
    unit = (pack.city_treasury(today).code, directory.keeper)
    return (caller.treasury, caller.department) == unit and "intake:directory" in ROLES[caller.role]


def _sees_who(packs: Packs, code: str, caller: Principal, today: date) -> bool:
    """Whether the caller is told which officers made the statements: the keeper, and whoever supervises it."""
    try:
        return caller.sees_everything or _keeps(caller, *_on(packs, code, today), today)
    except NotFound:
        return False


def _on(packs: Packs, code: str, day: date) -> tuple[Pack, Directory]:
    pack = packs.find_on(day)
    directory = pack.find_rule(Directory, code, on=day) if pack is not None else None
    if pack is None or directory is None:
        raise NotFound
    return pack, directory


async def enter(
    tx: AsyncConnection, pack: Pack, directory: Directory, stated: Statement, employers: Sequence[tuple[str, str]]
) -> None:
    """Enter employers (credit code and name), in order, and tell of it."""
    if not employers:
        return
    await lock(tx, [code for code, _ in employers])
    given = columns(("credit_codes", "names"), employers)
    done = await tx.execute(_ENTER, {**_said(pack, directory, stated), **given, "last": stated.valid_to})
    told = _told(pack, directory, stated)
    await emit(tx, *(EmployerListed(**told, **row, valid_to=stated.valid_to) for row in _numbered(done)))


async def strike(
    tx: AsyncConnection, pack: Pack, directory: Directory, stated: Statement, credit_codes: Collection[str]
) -> dict[str, NotListed]:
    """Strike employers from a day on, and tell of it; gives the refusal of each that does not stand in the directory on
    that day."""
    if not credit_codes:
        return {}
    await lock(tx, credit_codes)
    done = await tx.execute(_STRIKE, {**_said(pack, directory, stated), "credit_codes": list(credit_codes)})
    rows, told = _numbered(done), _told(pack, directory, stated)
    await emit(tx, *(EmployerStruck(**told, **row) for row in rows))
    struck = {row["credit_code"] for row in rows}
    return {code: NotListed() for code in credit_codes if code not in struck}


def _said(pack: Pack, directory: Directory, stated: Statement) -> dict[str, Any]:
    where = {"city": pack.city, "directory": directory.code}
    return {**where, "first": stated.valid_from, "document": stated.document, "by": stated.by}


def _told(pack: Pack, directory: Directory, stated: Statement) -> dict[str, Any]:
    """What the events of one document share; who stated it and what the employer is called stay here."""
    days = {"valid_from": stated.valid_from, "document": stated.document}
    return {"policy": pack.identity, "directory": directory.code, **days}


def _numbered(done: CursorResult[Any]) -> list[dict[str, Any]]:
    """The running number and the credit code of each statement made, in order."""
    return [{"statement": row.id, "credit_code": row.credit_code} for row in sorted(done, key=lambda row: row.id)]


async def facts_of(tx: AsyncConnection, asked: Sequence[Asked]) -> Sequence[Facts]:
    """What the directories say of each employer, as the facts that the policy declares: whether it stands in them on
    the day (第二条). Of nobody's employer nothing is said. One statement, and none where no policy has such a fact."""
    said: list[dict[str, bool]] = [{} for _ in asked]
    rows: list[tuple[str, str, str, date]] = []
    places: list[tuple[dict[str, bool], str]] = []
    for one, facts in zip(asked, said, strict=True):
        for fact in one.pack.facts:
            if fact.directory is None or one.credit_code is None:
                continue
            facts[fact.name] = False
            if one.pack.find_rule(Directory, fact.directory, on=one.on) is not None:
                rows.append((one.pack.city, fact.directory, one.credit_code, one.on))
                places.append((facts, fact.name))
    if rows:
        given = columns(("cities", "directories", "credit_codes", "days"), rows)
        for n in (await tx.execute(_STANDING, given)).scalars():
            facts, name = places[n - 1]
            facts[name] = True
    return said


async def looked_up(database: Database, asked: Sequence[Asked]) -> Sequence[Facts]:
    """What `facts_of` gives, outside any transaction; where nobody names an employer, no connection is taken."""
    if not any(one.credit_code for one in asked):
        return [{} for _ in asked]
    async with database.statements() as tx:
        return await facts_of(tx, asked)


async def listed(
    tx: AsyncConnection, packs: Packs, code: str, on: date, wanted: PageRequest, *, caller: Principal, today: date
) -> list[DirectoryEntry]:
    """Up to one more than a page of the employers that stand in a directory on a day, by credit code, as a caller sees
    them. Raises NotFound where the policy has no such directory on that day, ContentWrong for the cursor of another
    list."""
    pack, directory = _on(packs, code, on)
    after = read_after(wanted, str) or ("",)
    where = {"city": pack.city, "directory": directory.code, "on": on}
    found = await tx.execute(_LISTED, {**where, "after": after[0], "limit": wanted.limit + 1})
    return _shown(found, who=_sees_who(packs, code, caller, today))


async def history(
    tx: AsyncConnection,
    packs: Packs,
    code: str,
    credit_code: str,
    wanted: PageRequest,
    *,
    caller: Principal,
    today: date,
) -> list[DirectoryEntry]:
    """Up to one more than a page of all that was ever stated of an employer in a directory, as a caller sees it, the
    newest first. Raises NotFound where no policy had such a directory, ContentWrong for the cursor of another list."""
    cities = {pack.city for pack in packs.all() for each in pack.directories if each.code == code}
    if not cities:
        raise NotFound
    entry = directory_entry.c
    query = select(directory_entry).where(
        entry.city.in_(cities), entry.directory == code, entry.credit_code == credit_code
    )
    if after := read_after(wanted, running_number):
        query = query.where(entry.id < after[0])
    found = await tx.execute(query.order_by(entry.id.desc()).limit(wanted.limit + 1))
    return _shown(found, who=_sees_who(packs, code, caller, today))


def _shown(rows: Iterable[Any], *, who: bool) -> list[DirectoryEntry]:
    hidden = {} if who else {"by": None}
    names = DirectoryEntry.model_fields
    return [DirectoryEntry(**{name: getattr(row, name) for name in names} | hidden) for row in rows]
