"""What is otherwise between two versions of a policy, day by day and in words that a policy office reads.

Rules are compared by what they are about and by the days on which they hold, not by their ids: a rule that a new
version splits in two, or tells anew under another id, is no difference where it says the same.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from itertools import groupby
from typing import Any, NamedTuple

from libs.common.dated import Dated
from libs.common.policy.errors import PolicyError
from libs.common.policy.model import Rule, VersionBy
from libs.common.policy.pack import Pack
from libs.common.policy.wording import TITLES, WORDINGS, Effect, Facets, about, source_of

_ONE_DAY = timedelta(days=1)


class NotOfOneCity(PolicyError):
    """Two packs of different cities are no versions of one policy."""


class Difference(NamedTuple):
    """One thing that is otherwise from `since` to `until` (None: until further notice).

    `was` and `becomes` hold what differs, each part under its Chinese name, and are empty where nothing held or holds;
    `version_by` names the date of an application that counts, None where it is the day itself (a region's treasury).
    """

    kind: str
    about: tuple[str, ...]
    since: date
    until: date | None
    version_by: VersionBy | None
    was: Facets
    becomes: Facets
    effect: Effect
    source: Facets


def differences(before: Pack, after: Pack) -> list[Difference]:
    """What `after` says otherwise than `before`: by kind of rule, in each by day. Raises NotOfOneCity."""
    if before.city != after.city:
        told = f"{before.identity} 与 {after.identity} 不属同一城市，无法比较，请检查文件。"
        raise NotOfOneCity(told, told)
    kinds = [*(_of_rules(kind, before, after) for kind in WORDINGS), _of_treasuries(before, after)]
    kinds.append(_of_regions(before, after))
    return [each for found in kinds for each in sorted(_together(found), key=lambda each: each.since)]


class _Told(NamedTuple):
    """What held in a span, in words; of nothing, nothing."""

    record: Any
    facets: Facets
    source: Facets


_NOTHING = _Told(None, {}, {})


class _Span(NamedTuple):
    """Days in which two versions say different things, each always the same."""

    since: date
    until: date | None
    was: _Told
    becomes: _Told


def _of_rules(kind: type[Rule], before: Pack, after: Pack) -> Iterator[Difference]:
    wording = WORDINGS[kind]

    def told(pack: Pack, rule: Rule) -> _Told:
        return _Told(rule, wording.facets(pack, rule), source_of(pack, rule))

    old, new = dict(before.by_subject(kind)), dict(after.by_subject(kind))
    for subject in {**old, **new}:
        spans = _spans(
            [(rule, told(before, rule)) for rule in old.get(subject, ())],
            [(rule, told(after, rule)) for rule in new.get(subject, ())],
        )
        for span in spans:
            was, becomes = span.was.record, span.becomes.record
            words = about(after if becomes else before, subject)
            effect = wording.effect(after, was, becomes)
            yield _difference(wording.title, words, span, (becomes or was).version_by, effect)


def _of_treasuries(before: Pack, after: Pack) -> Iterator[Difference]:
    def told(pack: Pack) -> Mapping[str, list[tuple[Dated, _Told]]]:
        found: dict[str, list[tuple[Dated, _Told]]] = defaultdict(list)
        for each in pack.treasuries:
            facets = {"名称": each.title, "种类": TITLES[each.kind]}
            found[each.code].append((each, _Told(each, facets, source_of(pack, each))))
        return found

    yield from _of_codes("财政", told(before), told(after))


def _of_regions(before: Pack, after: Pack) -> Iterator[Difference]:
    def told(pack: Pack) -> Mapping[str, list[tuple[Dated, _Told]]]:
        titles = {region.code: region.title for region in pack.regions}
        found: dict[str, list[tuple[Dated, _Told]]] = defaultdict(list)
        for each in pack.treasuries:
            for served in each.regions:
                place = f"{served.region} {titles.get(served.region, '')}".strip()
                found[place].append((served, _Told(served, {"所属财政": each.title}, source_of(pack, each))))
        return found

    yield from _of_codes("行政区划", told(before), told(after))


def _of_codes(
    kind: str, old: Mapping[str, list[tuple[Dated, _Told]]], new: Mapping[str, list[tuple[Dated, _Told]]]
) -> Iterator[Difference]:
    for code in {**old, **new}:
        for span in _spans(old.get(code, ()), new.get(code, ())):
            yield _difference(kind, code, span, None, Effect())


def _spans(old: Sequence[tuple[Dated, _Told]], new: Sequence[tuple[Dated, _Told]]) -> Iterator[_Span]:
    """The longest spans in which the two differ."""
    turns = sorted({day for held, _ in (*old, *new) for day in _turns(held)})
    days = [_Span(day, None, _on(day, old), _on(day, new)) for day in turns]
    alike = [list(each) for _, each in groupby(days, lambda day: (day.was[1:], day.becomes[1:]))]
    ends = [following[0].since - _ONE_DAY for following in alike[1:]]
    for (first, *_), until in zip(alike, [*ends, None], strict=True):
        if first.was[1:] != first.becomes[1:]:
            yield first._replace(until=until)


def _turns(held: Dated) -> Iterable[date]:
    yield held.valid_from
    if held.valid_to is not None and held.valid_to < date.max:
        yield held.valid_to + _ONE_DAY


def _on(day: date, told: Sequence[tuple[Dated, _Told]]) -> _Told:
    return next((words for held, words in told if held.covers(day)), _NOTHING)


def _difference(kind: str, about: str, span: _Span, version_by: VersionBy | None, effect: Effect) -> Difference:
    was, becomes = span.was.facets, span.becomes.facets
    if was and becomes:
        old, new = {**was, **span.was.source}, {**becomes, **span.becomes.source}
        same = old.items() & new.items()
        was, becomes = (dict(item for item in each.items() if item not in same) for each in (old, new))
    source = span.becomes.source or span.was.source
    return Difference(kind, (about,), span.since, span.until, version_by, was, becomes, effect, source)


def _together(found: Iterable[Difference]) -> list[Difference]:
    """Differences that say the same of several things, as one of all of them."""
    together: list[Difference] = []
    for each in found:
        for n, other in enumerate(together):
            if other._replace(about=()) == each._replace(about=()):
                together[n] = other._replace(about=(*other.about, *each.about))
                break
        else:
            together.append(each)
    return together
