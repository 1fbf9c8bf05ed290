"""Whom a rule is for: the categories that a certification certifies, and the benefits that a coverage shuts out."""

from datetime import date

from libs.common.policy.model import Category, Exclusion
from libs.common.policy.pack import Pack


def certifies(pack: Pack, *, item: str, category: str, on: date) -> bool:
    """Say whether a certification item is for people of a category. `on` is the day of acceptance.

    Raises UnknownCode, NoRuleInForce.
    """
    return pack.category(category, on).coverage in pack.item(item, on).certifies


def categories_of(pack: Pack, *, item: str, on: date) -> list[Category]:
    """Give the categories that a certification item certifies on a day. Raises UnknownCode, NoRuleInForce."""
    coverages = pack.item(item, on).certifies
    return [category for category in pack.categories if category.covers(on) and category.coverage in coverages]


def exclusion(pack: Pack, *, benefit: str, category: str, on: date) -> Exclusion | None:
    """Give the rule that excludes a category from a benefit, or None. `on` is the day of acceptance.

    It goes by the category's coverage: no category is certified by an item that is not for that coverage.
    Raises UnknownCode, NoRuleInForce.
    """
    pack.benefit(benefit, on)
    return pack.find_rule(Exclusion, pack.category(category, on).coverage, benefit, on=on)
