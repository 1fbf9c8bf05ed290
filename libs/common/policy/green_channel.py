"""The green channel (绿色通道, 第六条): who has an item worked through it, and the limits that it shortens."""

from datetime import date

from libs.common.policy.model import GreenChannel, Item, Task
from libs.common.policy.pack import Pack


def green_channel(pack: Pack, *, item: str, category: str | None, on: date) -> GreenChannel | None:
    """Give the rule by which an item of talent of a category goes through the green channel; None where it does not, or
    where no category is known. `on` is the day of acceptance."""
    return pack.find_rule(GreenChannel, item, category, on=on) if category is not None else None


def limit_of(task: Task, channel: GreenChannel | None) -> int:
    """Give the limit of a task in working days: its own, or that of the channel where it is the shorter one."""
    return task.within(channel.limit_working_days if channel else None)


def promised_working_days(item: Item, channel: GreenChannel | None) -> int:
    """Give the longest that an item may take in working days."""
    return item.longest(channel.limit_working_days if channel else None)
