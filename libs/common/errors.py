"""What the system refuses, and how it says so: one class a refusal, told as problem+json (RFC 9457).

A subclass states `status`, a stable English `code`, a Chinese `title` and a Chinese `detail` template with named
fields that says what to do; docs/errors.md is made from the registry of them. A refusal is a fact about the request,
so nothing in it repeats what the caller sent where that may be personal data.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

_CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_REGISTRY: dict[str, type["DomainError"]] = {}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one field.

    `field` is a JSON pointer into the body (`/items/0/amount`; empty for the whole), or names a part outside it
    without the leading slash: `query/limit`, `path/id`, `header/if-match`.
    """

    field: str
    code: str
    title: str
    detail: str


class FieldProblem(BaseModel):
    """One entry of `errors` in a problem."""

    model_config = ConfigDict(title="FieldProblem")

    field: str = Field(description="JSON pointer into the body, or query/…, path/…, header/…")
    code: str
    title: str
    detail: str


class Problem(BaseModel):
    """The body of every refusal: application/problem+json of RFC 9457."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(description="stable URI of the kind of problem; the page /errors explains each")
    code: str = Field(description="stable English code")
    title: str = Field(description="标题（中文）")
    status: int
    detail: str = Field(description="原因及办法（中文）")
    instance: str | None = Field(default=None, description="urn of the trace: quote it to operations")
    errors: list[FieldProblem] = Field(default_factory=list)


class DomainError(Exception):
    """A refusal. `fields` are those that the `detail` template names, no more and no fewer (else TypeError)."""

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]
    detail: ClassVar[str] = ""
    semantic: ClassVar[bool] = False  # a 422 of what is well-formed but wrong in substance

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check and register the code: two kinds of refusal never share one."""
        super().__init_subclass__(**kwargs)
        for name in ("status", "code", "title"):
            if not hasattr(cls, name):
                raise TypeError(f"{cls.__qualname__} states no {name}")
        if _CODE.fullmatch(cls.code) is None:
            raise TypeError(f"{cls.__qualname__}: {cls.code!r} is no code of lower-case words")
        other = _REGISTRY.get(cls.code)
        if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"{cls.__qualname__} and {other.__qualname__} share the code {cls.code!r}")
        _REGISTRY[cls.code] = cls

    def __init__(
        self, *, errors: Sequence[FieldError] = (), headers: Mapping[str, str] | None = None, **fields: object
    ) -> None:
        if set(fields) != self.fields():
            raise TypeError(f"{type(self).__qualname__} needs {sorted(self.fields())}, got {sorted(fields)}")
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.message = self.detail.format(**fields) if self.detail else self.title
        super().__init__(f"{self.code}: {self.message}")

    @classmethod
    def fields(cls) -> set[str]:
        """The names that the `detail` template needs."""
        return {name for _, name, _, _ in Formatter().parse(cls.detail) if name}

    def problem(self, instance: str | None = None) -> dict[str, Any]:
        """The body of RFC 9457, ready for JSON."""
        told = Problem(
            type=f"/errors#{self.code}",
            code=self.code,
            title=self.title,
            status=self.status,
            detail=self.message,
            instance=instance,
            errors=[FieldProblem(field=e.field, code=e.code, title=e.title, detail=e.detail) for e in self.errors],
        )
        return told.model_dump(exclude_none=True)


def registry() -> Mapping[str, type[DomainError]]:
    """Every kind of refusal in the modules imported so far, by code, in order of status and code."""
    return dict(sorted(_REGISTRY.items(), key=lambda item: (item[1].status, item[0])))


class MalformedBody(DomainError):
    """400: the body cannot be parsed at all, or holds characters that no text may hold."""

    status, code, title = 400, "malformed-body", "请求内容无法解析"
    detail = "请检查请求体是否为完整的 UTF-8 编码 JSON，且不含空字符（U+0000），改正后重新提交。"


class MalformedRequest(DomainError):
    """400: what came is no HTTP request (RFC 9112)."""

    status, code, title = 400, "malformed-request", "请求无法识别"
    detail = "收到的内容不是有效的 HTTP 请求。请检查客户端、代理的地址和协议设置。"


class IdempotencyKeyMissing(DomainError):
    """400: the operation creates or moves something and the request names no (valid) key."""

    status, code, title = 400, "idempotency-key-missing", "缺少有效的幂等键"
    detail = "请在请求头 Idempotency-Key 中填写本次操作的唯一编号（1 至 200 个可见 ASCII 字符）；重试时使用同一编号。"


class Unauthenticated(DomainError):
    """401: no token, or one that does not hold."""

    status, code, title = 401, "unauthenticated", "未登录或登录凭证无效"
    detail = "请在请求头 Authorization 中以 Bearer 方式提供有效且未过期的访问令牌。"

    def __init__(self, *, presented: bool = False) -> None:
        challenge = 'Bearer error="invalid_token"' if presented else "Bearer"
        super().__init__(headers={"WWW-Authenticate": challenge})


class Forbidden(DomainError):
    """403: the token holds, but not for this operation."""

    status, code, title = 403, "forbidden", "没有办理此项操作的权限"
    detail = "此操作需要权限“{scope}”。如确需办理，请向系统管理员申请相应角色。"

    def __init__(self, *, scope: str) -> None:
        challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
        super().__init__(scope=scope, headers={"WWW-Authenticate": challenge})


class NotFound(DomainError):
    """404: unknown, or not for the caller's eyes. The two look the same on purpose."""

    status, code, title = 404, "not-found", "未找到"
    detail = "没有此记录或地址，或者不在您的查阅范围内。请核对编号和地址。"


class MethodNotAllowed(DomainError):
    """405: the address exists, the method does not."""

    status, code, title = 405, "method-not-allowed", "此地址不支持该请求方法"
    detail = "请按接口文档使用此地址支持的请求方法。"


class RequestTimeout(DomainError):
    """408: head or body came too slowly."""

    status, code, title = 408, "request-timeout", "请求内容接收超时"
    detail = "请求未在规定时间内传完。请检查网络后，以同一幂等键重新提交。"


class IdempotencyKeyReused(DomainError):
    """409: the key was used by this client, for this operation, with another body."""

    status, code, title = 409, "idempotency-key-reused", "幂等键已用于其他内容"
    detail = "同一幂等键此前已提交过不同的内容。重试请保持内容不变；新的操作请更换编号。"


class PreconditionFailed(DomainError):
    """412: somebody changed the record since the caller read it."""

    status, code, title = 412, "precondition-failed", "记录已被他人修改"
    detail = "您读取之后，该记录已有新的版本。请重新读取，核对后再提交。"


class TooLarge(DomainError):
    """413: the body is over the limit of the operation."""

    status, code, title = 413, "too-large", "请求内容过大"
    detail = "请求体超过此接口的上限。请减小内容或分批提交。"


class UnsupportedMediaType(DomainError):
    """415: the body is of a type that the operation does not read."""

    status, code, title = 415, "unsupported-media-type", "不支持的内容类型"
    detail = "请将请求头 Content-Type 设为：{accepted}。"


class InvalidRequest(DomainError):
    """422: fields are missing or badly formed, which the interface document would have told; `errors` names each."""

    status, code, title = 422, "invalid-request", "请求内容不符合要求"
    detail = "请按 errors 中逐项列出的说明改正后重新提交。"


class ContentWrong(DomainError):
    """422: every field has the form that the interface document asks for, and still its content is refused; `errors`
    names each. Nothing was stored."""

    status, code, title = 422, "content-wrong", "内容有误"
    detail = "请按 errors 中逐项列出的说明改正后重新提交。"
    semantic = True


class PreconditionRequired(DomainError):
    """428: two officers may edit the record, so the change must name the version it was made on."""

    status, code, title = 428, "precondition-required", "缺少版本标识"
    detail = "请先读取该记录，并在请求头 If-Match 中填写其 ETag。"


class TooManyRequests(DomainError):
    """429: the client is over its rate. `seconds` until the next request is let in."""

    status, code, title = 429, "too-many-requests", "请求过于频繁"
    detail = "请在 {seconds} 秒后重试。"

    def __init__(self, *, seconds: int) -> None:
        super().__init__(seconds=seconds, headers={"Retry-After": str(seconds)})


class Internal(DomainError):
    """500: our mistake. The trace in `instance` finds it in the log."""

    status, code, title = 500, "internal", "系统内部错误"
    detail = "系统未能完成此操作，请稍后以同一幂等键重试；仍不成功时，请将 instance 中的编号告知运维人员。"


class Unavailable(DomainError):
    """503: something that the service needs is away for the moment. Nothing was changed, or a retry finds out."""

    status, code, title = 503, "unavailable", "服务暂时不可用"
    detail = "请在 {seconds} 秒后以同一幂等键重试。"

    def __init__(self, *, seconds: int = 5) -> None:
        super().__init__(seconds=seconds, headers={"Retry-After": str(seconds)})


class NotReady(DomainError):
    """503 of `/readyz`: names each thing that is not ready: `database`, `bus`, `leader`, `relay`, `ticker`, or
    `consumer` with its group or partition (`Service.not_ready` says when)."""

    status, code, title = 503, "not-ready", "服务尚未就绪"
    detail = "未就绪：{things}。"
