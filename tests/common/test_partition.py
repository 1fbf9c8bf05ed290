"""Which partition a key belongs to: every client of Kafka must find the same."""

from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from libs.common.bus.protocol import partition_of


@given(key=st.text(max_size=80), partitions=st.integers(min_value=1, max_value=1000))
def test_a_key_goes_where_kafkas_own_clients_send_it(key: str, partitions: int) -> None:
    assert partition_of(key, partitions) == (murmur2(key.encode()) & 0x7FFFFFFF) % partitions
