"""One process of the toy service, for tests that kill or pause it: KIND BUS DATABASE TOPIC NAME."""

import asyncio
import sys

from libs.common.bus.kafka import KafkaBus
from libs.common.bus.postgres import PostgresBus
from libs.common.bus.protocol import Bus
from libs.common.consumer import Consumer
from libs.common.db import Database
from libs.common.inbox import Inbox
from tests.contracts.toy import Recorder, happened_on


async def main(kind: str, address: str, database_url: str, topic: str, name: str) -> None:
    bus: Bus = PostgresBus(address) if kind == "postgres" else KafkaBus(address)
    inbox = Inbox({happened_on(topic): Recorder(by=name).on_happened})
    await Consumer(Database(database_url), bus, inbox, group=topic, topics=[topic], instance=name).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
