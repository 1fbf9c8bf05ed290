"""What is compared is alike: the floor does what the product does, and each turn begins where the first one began."""

from libs.common import outbox
from tests.bench import consumer, relay_worker


def test_the_plain_drain_reads_the_columns_and_marks_the_rows_that_the_relay_does() -> None:
    """How it finds them, and that its mark is waited for at the disk, are its own: docs/benchmarks.md."""
    drained, relayed = (sql.split("FROM")[0] for sql in (relay_worker.READ, outbox._UNPUBLISHED))
    assert drained == relayed
    marked, forgotten = (sql.split("WHERE")[1].strip() for sql in (relay_worker.MARK, outbox._PUBLISHED))
    assert marked == forgotten


def test_every_turn_of_the_consumer_begins_without_what_the_last_one_told() -> None:
    emptied = set(consumer.RESET[0].removeprefix("TRUNCATE ").split(", "))
    assert emptied >= {"outbox", "unpublished", "inbox", "consumer_offset"}
