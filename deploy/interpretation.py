"""An interpretation of the talent office (第十条) written into a policy pack: a new version in which what was assumed
rests on a document, or holds otherwise."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date, timedelta
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from libs.common.packs import version_order
from libs.common.policy import Pack
from libs.common.policy.model import DocumentKind, Rule

RULED = frozenset({"id", "document", "article", "assumption", "note", "valid_from", "valid_to"})
WHOLE = "全文"
"""What is cited of an interpretation, which has no articles."""


class NotInterpreted(Exception):
    """The ruling does not fit the pack; the message says why."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the talent office ruled on one assumption. `about` is its name in `policy check`; `changes` are the fields
    that hold otherwise, from `since` on where it is given; without them the assumption is confirmed as it stands."""

    about: str
    number: str
    issued_on: date
    issued_by: str
    text: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    since: date | None = None


def interpreted(pack: Pack, ruling: Ruling, *, version: str) -> bytes:
    """The file of the new version; what a person wrote in the old one, comments too, stays. Raises NotInterpreted."""
    if told := sorted(RULED & ruling.changes.keys()):
        raise NotInterpreted(f"{'、'.join(told)} 由解释本身写入，请从 --set 中删去。")
    if version_order(version) <= version_order(pack.version):
        raise NotInterpreted(f"新版本号 {version} 不在 {pack.version} 之后，请改用更高的版本号。")
    yaml = _yaml()
    data = yaml.load(pack.source.decode())
    section, index = _place(pack, data, ruling)
    document = f"interpretation-{version.lower()}"
    data["version"] = DoubleQuotedScalarString(version)
    data["documents"].append(_document(document, ruling))
    record = data[section][index]
    if ruling.since is not None:
        before, record = record, _from_then_on(record, ruling.since)
        data[section].insert(index + 1, record)
        _override_too(data[section], before["id"], record["id"])
    _rule_on(record, document, ruling)
    written = StringIO()
    yaml.dump(data, written)
    return written.getvalue().encode()


def read_value(text: str) -> Any:
    """A value as a pack's file would have it. Raises NotInterpreted."""
    try:
        return _yaml().load(text)
    except (YAMLError, ValueError) as error:
        raise NotInterpreted(f"“{text}”不能作为政策包中的值，请检查引号、括号和日期。") from error


def _place(pack: Pack, data: Mapping[str, Any], ruling: Ruling) -> tuple[str, int]:
    cited = dict(pack.cited())
    if ruling.about not in cited:
        raise NotInterpreted(f"政策包中没有 {ruling.about}，请用 huanquan policy check 查看各项假定的名称。")
    record = cited[ruling.about]
    if not record.assumption:
        raise NotInterpreted(f"{ruling.about} 依据的是{pack.citation(record)}，不是假定，无须解释。")
    if ruling.since is not None:
        parts = [each for name, each in pack.cited() if name == ruling.about and isinstance(each, Rule)]
        if not parts:
            raise NotInterpreted(f"{ruling.about} 没有有效期，请删去 --from。")
        if ruling.since == parts[0].valid_from or not any(each.covers(ruling.since) for each in parts):
            raise NotInterpreted(f"{ruling.since} 须在 {ruling.about} 的有效期内，且晚于首日，请改正 --from。")
    for section in type(pack).model_fields:
        records = getattr(pack, section)
        if isinstance(records, tuple) and any(each is record for each in records):
            return section, _index(data[section], records, record)
    raise AssertionError(ruling.about)


def _index(written: Sequence[Mapping[str, Any]], records: Sequence[Any], record: Any) -> int:
    """Where a record stands in its section of the file: rules that are overridden are fewer in the pack, or more."""
    if isinstance(record, Rule):
        return next(n for n, each in enumerate(written) if each["id"] == record.id)
    return next(n for n, each in enumerate(records) if each is record)


def _document(document: str, ruling: Ruling) -> dict[str, Any]:
    return {
        "id": document,
        "kind": DocumentKind.INTERPRETATION.value,
        "number": ruling.number,
        "title": f"关于 {ruling.about} 的解释",
        "issued_by": ruling.issued_by,
        "issued_on": ruling.issued_on,
        "articles": [WHOLE],
    }


def _rule_on(record: Any, document: str, ruling: Ruling) -> None:
    """Let a record of the file rest on the ruling."""
    record |= ruling.changes
    record["document"] = document
    record["article"] = WHOLE
    record.pop("assumption", None)
    record["note"] = ruling.text


def _from_then_on(before: Any, day: date) -> Any:
    """The record once more, from a day on; the one before it ends on the eve."""
    after = deepcopy(before)
    before["valid_to"] = day - timedelta(days=1)
    after["id"] = f"{before['id']}.{day:%Y%m%d}"
    after["valid_from"] = day
    return after


def _override_too(written: Sequence[Any], before: str, after: str) -> None:
    """What overrides a rule overrides its successor."""
    for each in written:
        if before in each.get("overrides", ()):
            each["overrides"].append(after)


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml
