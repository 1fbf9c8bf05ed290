"""Materials: what a filing states of them, and the bytes that are uploaded, sealed at rest.

What a file is, is told by its content and not by its name: PDF, JPEG or PNG.
"""

import asyncio
import base64
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from libs.common.crypto import Vault
from libs.common.db import columns
from libs.common.errors import DomainError, UnsupportedMediaType
from libs.common.settings import MIB
from services.intake.filing import FiledMaterial

MAX_BYTES = 20 * MIB
"""The largest file."""

MOST_FILES = 100
"""Of one application: whatever reads its materials reads them all."""

MEDIA_TYPES = ("application/pdf", "image/jpeg", "image/png")
_SIGNATURES = ((b"%PDF-", "application/pdf"), (b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"))

_UPLOADED = text("SELECT DISTINCT code FROM material WHERE application = :application AND content IS NOT NULL")
_UPLOADED_OF = text("""
    SELECT DISTINCT application, code FROM material
     WHERE application = ANY(CAST(:applications AS uuid[])) AND content IS NOT NULL
""")
_FILES = text("SELECT count(*) FROM material WHERE application = :application AND content IS NOT NULL")
_DROP_STATED = text("DELETE FROM material WHERE application = :application AND content IS NULL")
_ADD_STATED = text("""
    INSERT INTO material (id, application, code, evidence, reference, promised_by)
    SELECT id, application, code, evidence, reference, promised_by
      FROM unnest(CAST(:ids AS uuid[]), CAST(:applications AS uuid[]), CAST(:codes AS text[]),
                  CAST(:evidences AS text[]), CAST(:references AS text[]), CAST(:bys AS date[]))
           AS r (id, application, code, evidence, reference, promised_by)
""")
_COPY = text("""
    INSERT INTO material (id, application, code, evidence, content)
    SELECT gen_random_uuid(), :successor, code, evidence, content FROM material
     WHERE application = :application AND content IS NOT NULL
""")
_ADD_CONTENT = text("""
    INSERT INTO material_content (id, media_type, size, sha256, sealed)
    VALUES (:id, :media_type, :size, :sha256, :sealed)
""")
_ADD_UPLOAD = text("""
    INSERT INTO material (id, application, code, evidence, content)
    VALUES (:id, :application, :code, 'upload', :content)
""")
# A promise or an announced upload is kept by the file itself.
_DROP_KEPT = text("""
    DELETE FROM material
     WHERE application = :application AND code = :code AND content IS NULL AND evidence IN ('promised', 'upload')
""")
_CONTENT = text("""
    SELECT c.id, c.media_type, c.sha256, c.sealed
      FROM material AS m JOIN material_content AS c ON c.id = m.content
     WHERE m.application = :application AND m.id = :material
""")


class TooManyFiles(DomainError):
    """409: the application holds as many files as one may."""

    status, code, title = 409, "too-many-files", "该申请的文件已达上限"
    detail = "一份申请至多 {most} 个文件。请将多页材料合并为一个文件；确需补充的，请联系受理窗口。"


@dataclass(frozen=True, slots=True)
class File:
    """A file: its media type, its bytes, and their SHA-256."""

    media_type: str
    body: bytes
    sha256: bytes


def recognised(body: bytes) -> File:
    """A file by its content. Raises UnsupportedMediaType for anything but PDF, JPEG and PNG."""
    for signature, media_type in _SIGNATURES:
        if body.startswith(signature):
            return File(media_type, body, hashlib.sha256(body).digest())
    raise UnsupportedMediaType(accepted="multipart/form-data，文件为 PDF、JPEG 或 PNG（按文件内容判断）")


async def uploaded(tx: AsyncConnection, application: UUID) -> frozenset[str]:
    """The codes of the materials whose bytes are here."""
    return frozenset((await tx.execute(_UPLOADED, {"application": application})).scalars())


async def uploaded_of(tx: AsyncConnection, applications: Sequence[UUID]) -> Mapping[UUID, set[str]]:
    """The same of several applications."""
    found: dict[UUID, set[str]] = {application: set() for application in applications}
    for row in await tx.execute(_UPLOADED_OF, {"applications": list(applications)}):
        found[row.application].add(row.code)
    return found


async def drop_stated(tx: AsyncConnection, application: UUID) -> None:
    """Forget what a filing stated of materials, before a correction states it anew; uploads stay."""
    await tx.execute(_DROP_STATED, {"application": application})


class Stated(NamedTuple):
    """What a filing states of materials; `here`: the codes of those whose bytes are here already."""

    application: UUID
    filed: Sequence[FiledMaterial]
    here: Collection[str]


async def add_stated(tx: AsyncConnection, stated: Sequence[Stated]) -> None:
    """Record what filings state of materials; announced or promised files that are here already are left out."""
    kept = {"upload", "promised"}
    rows = [
        (uuid7(), one.application, it.code, it.evidence, it.reference, it.by)
        for one in stated
        for it in one.filed
        if not (it.evidence in kept and it.code in one.here)
    ]
    if rows:
        names = ("ids", "applications", "codes", "evidences", "references", "bys")
        await tx.execute(_ADD_STATED, columns(names, rows))


async def copy_uploads(tx: AsyncConnection, application: UUID, successor: UUID) -> None:
    """Let a successor have the uploads of the application it was transferred from."""
    await tx.execute(_COPY, {"application": application, "successor": successor})


async def add_upload(tx: AsyncConnection, vault: Vault, application: UUID, code: str, file: File) -> UUID:
    """Store a file, sealed, as a material of an application (its row is locked); gives the material's id. Raises
    TooManyFiles."""  # fmt: skip
    if (await tx.execute(_FILES, {"application": application})).scalar_one() >= MOST_FILES:
        raise TooManyFiles(most=MOST_FILES)
    content, material = uuid7(), uuid7()
    sealed = await asyncio.to_thread(vault.seal, file.body, _context(content))
    row = {"id": content, "media_type": file.media_type, "size": len(file.body), "sha256": file.sha256}
    await tx.execute(_ADD_CONTENT, {**row, "sealed": sealed})
    await tx.execute(_DROP_KEPT, {"application": application, "code": code})
    await tx.execute(_ADD_UPLOAD, {"id": material, "application": application, "code": code, "content": content})
    return material


async def open_upload(tx: AsyncConnection, vault: Vault, application: UUID, material: UUID) -> File | None:
    """The bytes of an uploaded material, or None where it has none. Raises VaultError."""
    row = (await tx.execute(_CONTENT, {"application": application, "material": material})).first()
    if row is None:
        return None
    body = await asyncio.to_thread(vault.open, bytes(row.sealed), _context(row.id))
    return File(row.media_type, body, bytes(row.sha256))


def digest_header(file: File) -> str:
    """The file's SHA-256 as RFC 9530 writes it."""
    return f"sha-256=:{base64.b64encode(file.sha256).decode()}:"


def _context(content: UUID) -> bytes:
    return f"material_content:{content}".encode()
