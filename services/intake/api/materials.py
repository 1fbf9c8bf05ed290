"""Materials over HTTP: files in, files out."""

from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import Message
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import Response

from libs.common.errors import (
    ContentWrong,
    DomainError,
    FieldError,
    InvalidRequest,
    NotFound,
    TooLarge,
    UnsupportedMediaType,
)
from libs.common.idempotency import IdempotencyKey, Reply, once
from libs.common.web import Caller, Tx, body_limit, guarded_router, requires
from services.intake import inquiry, materials
from services.intake.api.desk import AtDesk
from services.intake.domain import NotPossibleNow
from services.intake.outcome import identity_of
from services.intake.views import DefectView, MaterialView, state_title

MULTIPART = "multipart/form-data"
MULTIPART_BYTES = 64 * 1024
"""What a multipart body holds beside the file."""

_DOCUMENTED = {
    "requestBody": {
        "required": True,
        "content": {
            MULTIPART: {
                "schema": {
                    "type": "object",
                    "required": ["code", "file"],
                    "additionalProperties": False,
                    "properties": {
                        "code": {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,63}$", "description": "材料代码"},
                        "file": {"type": "string", "contentMediaType": "application/octet-stream"},
                    },
                },
                "encoding": {"file": {"contentType": ", ".join(materials.MEDIA_TYPES)}},
            }
        },
    }
}

router = guarded_router("intake", tags=["材料"])


class MalformedUpload(DomainError):
    """400: the multipart body cannot be parsed, or was cut off."""

    status, code, title = 400, "malformed-upload", "上传内容不完整或无法解析"
    detail = "请检查 multipart/form-data 的分隔符（boundary）以及文件是否传输完整，然后重新上传。"


class _InMemory(MultiPartParser):
    """A file over a mebibyte would else be laid on the disk, unsealed."""

    spool_max_size = materials.MAX_BYTES + MULTIPART_BYTES
    ended = False

    def on_end(self) -> None:
        """The closing boundary came: nothing was cut off."""
        self.ended = True


async def _upload(request: Request) -> tuple[str, bytes]:
    """The material's code and bytes. Raises UnsupportedMediaType, MalformedUpload, InvalidRequest, TooLarge."""
    message = Message()
    message["content-type"] = request.headers.get("content-type", "")
    if message.get_content_type() != MULTIPART:
        raise UnsupportedMediaType(accepted=MULTIPART)
    try:
        parser = _InMemory(request.headers, request.stream(), max_files=1, max_fields=1)
        form = await parser.parse()
    except (MultiPartException, KeyError):
        raise MalformedUpload from None
    try:
        if not parser.ended:
            raise MalformedUpload
        code, file = form.get("code"), form.get("file")
        if not isinstance(code, str) or not isinstance(file, UploadFile):
            raise InvalidRequest(errors=list(_missing(code, file)))
        body = await file.read()
    finally:
        await form.close()
    if len(body) > materials.MAX_BYTES:
        raise TooLarge
    return code, body


def _missing(code: object, file: object) -> Iterator[FieldError]:
    if not isinstance(code, str):
        yield FieldError("/code", "missing", "缺少必填项", "请以文本项 code 填写材料代码。")
    if not isinstance(file, UploadFile):
        yield FieldError("/file", "missing", "缺少必填项", "请以文件项 file（含文件名）上传文件。")


class Uploaded(BaseModel):
    """An uploaded material, and how the application stands now."""

    material: MaterialView
    state: str
    state_title: str
    defects: list[DefectView]


class Materials(BaseModel):
    """The materials of an application."""

    items: list[MaterialView]


@router.post(
    "/applications/{application}/materials",
    status_code=201,
    response_model=Uploaded,
    summary="上传材料",
    dependencies=[requires("intake:material"), body_limit(materials.MAX_BYTES + MULTIPART_BYTES)],
    openapi_extra=_DOCUMENTED,
)
async def upload_material(
    *,
    application: UUID,
    upload: Annotated[tuple[str, bytes], Depends(_upload)],
    tx: Tx,
    caller: Caller,
    key: IdempotencyKey,
    desk: AtDesk,
) -> Response:
    """上传一份材料（PDF、JPEG 或 PNG，不超过 20 MiB，加密保存）。待补正的申请随即重新审查，齐全的当场受理。"""
    code, body = upload
    found = materials.recognised(body)
    now = datetime.now(UTC)

    async def do() -> Reply:
        row = await inquiry.find(tx, caller, application, lock=True)
        if not inquiry.is_open(row):
            raise NotPossibleNow(state=state_title(row.shown))
        pack = desk.packs.get(identity_of(row))
        if not any(material.code == code for item in pack.items for material in item.materials):
            error = FieldError("/code", "unknown-material", "没有此材料", "请按 GET /intake/v1/policy 列出的代码填写。")
            raise ContentWrong(errors=[error])
        ref = await desk.upload(tx, row, code, found, caller, now=now)
        after = await inquiry.find(tx, caller, application)
        view = next(each for each in await inquiry.materials_of(tx, pack, application) if each.id == ref)
        state = {"state": after.shown, "state_title": state_title(after.shown), "defects": after.defects}
        return Reply(201, Uploaded(material=view, **state), {"Location": view.href or ""})

    asked = code.encode() + b"\0" + found.sha256
    target, operation = str(application), "materials.upload"
    return await once(tx, caller=caller, operation=operation, key=key, body=asked, do=do, target=target)


@router.get("/applications/{application}/materials", summary="材料清单", dependencies=[requires("intake:read")])
async def list_materials(application: UUID, tx: Tx, caller: Caller, desk: AtDesk) -> Materials:
    """一份申请的材料；有文件的给出下载地址。部门在承办该申请期间可查阅。"""
    row = await inquiry.find(tx, caller, application)
    return Materials(items=await inquiry.materials_of(tx, desk.packs.get(identity_of(row)), application))


@router.get(
    "/applications/{application}/materials/{material}",
    summary="下载材料",
    dependencies=[requires("intake:read")],
    response_class=Response,
    responses={200: {"description": "文件", "content": {name: {} for name in materials.MEDIA_TYPES}}},
)
async def download_material(application: UUID, material: UUID, tx: Tx, caller: Caller, desk: AtDesk) -> Response:
    """下载一份已上传的材料。"""
    await inquiry.find(tx, caller, application)
    file = await materials.open_upload(tx, desk.vault, application, material)
    if file is None:
        raise NotFound
    headers: dict[str, Any] = {
        "Cache-Control": "no-store",
        "Content-Disposition": f'attachment; filename="{material}"',
        "Content-Security-Policy": "sandbox",
        "Repr-Digest": materials.digest_header(file),
    }
    return Response(file.body, media_type=file.media_type, headers=headers)
