"""What every test may ask for: a real PostgreSQL, databases of its own in it, and both buses."""

import asyncio
import gc
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import asyncpg
import certifi
import pytest
import structlog
from hypothesis import settings
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from deploy.engine import EmbeddedPostgres
from deploy.forms import answering
from deploy.local import Addresses
from libs.common.auth import TokenIssuer
from libs.common.bus.kafka import KafkaBus
from libs.common.bus.postgres import PostgresBus, create_schema
from libs.common.bus.protocol import Bus
from libs.common.db import Database, connect
from libs.common.migration import grant
from libs.common.settings import Settings

MakeDatabase = Callable[..., Awaitable[Database]]  # (metadata, owner="toy")
PARTITIONS = 3
ROOT = Path(__file__).parents[1]
FOLDER = "HUANQUAN_TEST_FOLDER"  # where this run keeps its cluster
_STARTED: list[EmbeddedPostgres] = []
LONGEST = ("test_sample_run.py", "test_lifecycle.py", "test_second_city.py", "test_backup.py")


class Postgres(Protocol):
    """A cluster to test on."""

    def url(self, database: str, role: str = "postgres") -> str:
        """The address of a database for a role."""


@dataclass(frozen=True)
class ServerPostgres:
    """A cluster that runs already, on a Unix socket in this folder, trusting us (`tests/on_server_postgres`)."""

    folder: str

    def url(self, database: str, role: str = "postgres") -> str:
        return f"postgresql+asyncpg://{role}@/{database}?host={self.folder}"


def pytest_configure(config: pytest.Config) -> None:
    """The controller names the cluster's folder; its workers inherit the name. Outside pytest's own folders, whose
    rights another run of pytest changes under our feet."""
    gc.set_threshold(100_000, 20, 20)  # as in each process of the product: what was collected stays, and is much
    if not hasattr(config, "workerinput"):
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="huanquan-test-")
        _trust_one_authority(Path(os.environ[FOLDER]))
    settings.register_profile("untimed", deadline=None)  # speed is measured by `make bench`, and judged nowhere else
    settings.load_profile("untimed")
    # By default a traceback is drawn with every local variable: seconds for each error that a test brings about.
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])


def _trust_one_authority(folder: Path) -> None:
    """Nobody here speaks TLS, and yet each HTTP client of each process reads all authorities first: 20 ms of work."""
    first, end, _ = certifi.contents().partition("-----END CERTIFICATE-----")
    file = folder / "authority.pem"
    file.write_text(first + end)
    os.environ["SSL_CERT_FILE"] = str(file)


def pytest_unconfigure(config: pytest.Config) -> None:
    """The cluster has stopped with the last worker, or stops now."""
    if not hasattr(config, "workerinput"):
        for engine in _STARTED:
            engine.stop()
        shutil.rmtree(os.environ[FOLDER], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: what is short then fills all workers to the end."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def postgres() -> Postgres:
    """One cluster for the whole run, shared by all workers; the embedded one stops with the last of them."""
    if folder := os.environ.get("HUANQUAN_TEST_POSTGRES"):
        return ServerPostgres(folder)
    engine = EmbeddedPostgres(Path(os.environ[FOLDER]) / "pg", stops_with_process=True)
    engine.start()
    _STARTED.append(engine)
    asyncio.run(_hurry(engine))
    return engine


async def _hurry(engine: EmbeddedPostgres) -> None:
    """Nothing here has to survive a power cut."""
    connection = await connect(engine.url("postgres"))
    await connection.execute("ALTER SYSTEM SET fsync = off")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()


async def create_database(postgres: Postgres, name: str, owner: str, template: str = "template1") -> None:
    """A fresh database; roles are shared by the whole cluster. Copying files takes two thirds of the time that copying
    blocks takes where nothing is synced."""
    connection = await connect(postgres.url("postgres"))
    try:
        if template == "template1":  # nobody has copied this owner's tables yet
            await _create_roles(connection, owner)
        await connection.execute(
            f'CREATE DATABASE "{name}" OWNER {owner}_owner TEMPLATE "{template}" STRATEGY FILE_COPY'
        )
    finally:
        await connection.close()


async def _create_roles(connection: "asyncpg.Connection[asyncpg.Record]", owner: str) -> None:
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(1)")  # workers make the same roles
        for role in (f"{owner}_owner", f"{owner}_app"):
            if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
                await connection.execute(f"CREATE ROLE {role} LOGIN")


async def drop_database(postgres: Postgres, name: str) -> None:
    connection = await connect(postgres.url("postgres"))
    await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await connection.close()


async def make_template(postgres: Postgres, metadata: MetaData, owner: str) -> str:
    """A database with these tables to copy from: made once a worker."""
    name = f"template_{uuid.uuid4().hex}"
    await create_database(postgres, name, owner)
    owner_url = postgres.url(name, f"{owner}_owner")
    engine = create_async_engine(owner_url)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()
    await grant(owner_url, metadata, f"{owner}_app")
    return name


Tables = tuple[str, MetaData]  # not their names alone: two files may give one to different tables
_TEMPLATES: dict[Tables, str] = {}
_CLEAN: dict[Tables, list["Ground"]] = defaultdict(list)
_SCHEMA = """
    SELECT count(*), max(xmin::text::bigint)
    FROM (SELECT xmin FROM pg_class UNION ALL SELECT xmin FROM pg_attribute UNION ALL SELECT xmin FROM pg_constraint
          UNION ALL SELECT xmin FROM pg_trigger UNION ALL SELECT xmin FROM pg_proc UNION ALL SELECT xmin FROM pg_rewrite
          UNION ALL SELECT xmin FROM pg_database WHERE datname = current_database()
          UNION ALL SELECT s.xmin FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase
                    WHERE d.datname = current_database()) AS catalogue
"""
"""What any change of the schema, of a right or of a setting changes too."""


@dataclass(frozen=True)
class Ground:
    """A database with these tables, and their schema as it was made."""

    tables: Tables
    name: str
    schema: object


@pytest.fixture
async def make_database(postgres: Postgres) -> AsyncIterator[MakeDatabase]:
    """Makes databases with the tables of a MetaData; the answer works as `_app`, as the product does. To empty one for
    the next test takes a hundredth of the time that copying its files takes."""
    lent: list[tuple[Ground, Database]] = []

    async def make(metadata: MetaData, owner: str = "toy") -> Database:
        free = _CLEAN[owner, metadata]
        ground = free.pop() if free else await _make_ground(postgres, (owner, metadata))
        database = Database(postgres.url(ground.name, f"{owner}_app"))
        lent.append((ground, database))
        return database

    yield make
    for ground, database in lent:
        await database.close()
        await _take_back(postgres, ground)


async def _make_ground(postgres: Postgres, tables: Tables) -> Ground:
    owner, metadata = tables
    if tables not in _TEMPLATES:
        _TEMPLATES[tables] = await make_template(postgres, metadata, owner)
    name = f"t_{uuid.uuid4().hex}"
    await create_database(postgres, name, owner, _TEMPLATES[tables])
    connection = await connect(postgres.url(name))
    schema = await connection.fetchrow(_SCHEMA)
    await connection.close()
    return Ground(tables, name, schema)


async def _take_back(postgres: Postgres, ground: Ground) -> None:
    """Empty it for the next test, or drop it where the test changed its schema."""
    connection = await connect(postgres.url(ground.name))
    await connection.execute("""
        SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()
    """)
    unchanged = await connection.fetchrow(_SCHEMA) == ground.schema
    if unchanged:
        deletes = (f'DELETE FROM "{table.name}"' for table in ground.tables[1].sorted_tables)  # noqa: S608 - our own
        restart = "SELECT setval(seqrelid, seqstart, false) FROM pg_sequence"
        # Not even triggers keep a row.
        await connection.execute("; ".join(["SET session_replication_role = replica", *deletes, restart]))
    await connection.close()
    if unchanged:
        _CLEAN[ground.tables].append(ground)
    else:
        await drop_database(postgres, ground.name)


class BusKit:
    """A driver under test: makes topics, and clients of the bus as separate processes would have them."""

    def __init__(self, kind: str, address: str) -> None:
        self.kind = kind
        self.address = address
        self.topics: list[str] = []
        self._clients: list[Bus] = []

    async def topic(self) -> str:
        """A fresh topic of PARTITIONS partitions."""
        name = f"toy.{uuid.uuid4().hex[:12]}"
        if self.kind == "postgres":
            await create_schema(
                self.address.replace("bus_app", "bus_owner"), topics=[name], partitions=PARTITIONS, app_role="bus_app"
            )
        else:
            await make_kafka_topic(self.address, name, PARTITIONS)
        self.topics.append(name)
        return name

    def client(self) -> Bus:
        """One more client."""
        bus: Bus = PostgresBus(self.address) if self.kind == "postgres" else KafkaBus(self.address)
        self._clients.append(bus)
        return bus

    async def close(self) -> None:
        for client in self._clients:
            await client.stop()


async def make_kafka_topic(bootstrap: str, name: str, partitions: int) -> None:
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, partitions, 1)])
    finally:
        await admin.close()


@pytest.fixture(params=["postgres", pytest.param("kafka", marks=pytest.mark.kafka)])
async def buses(request: pytest.FixtureRequest, postgres: Postgres) -> AsyncIterator[BusKit]:
    """Each driver in turn: the contract suite runs on both."""
    if request.param == "kafka":
        address = os.environ.get("HUANQUAN_TEST_KAFKA", "")
        if not address:
            pytest.skip("no Kafka: HUANQUAN_TEST_KAFKA names no broker (`make test-kafka` starts one)")
    else:
        name = f"bus_{uuid.uuid4().hex}"
        await create_database(postgres, name, "bus")
        address = postgres.url(name, "bus_app")
    kit = BusKit(request.param, address)
    yield kit
    await kit.close()


@dataclass(frozen=True)
class System:
    """The whole system as `huanquan up` starts it: five services, real HTTP, a home of its own."""

    addresses: Addresses
    home: Path
    process: subprocess.Popen[bytes]

    def token(self, role: str, **claims: str) -> str:
        """A development token of this system."""
        return TokenIssuer(Settings(home=self.home)).token(role, **claims)  # type: ignore[arg-type]


def start_system(home: Path, *arguments: str) -> System:
    """Start it as a process of its own on a free port and wait until it is ready."""
    addresses = Addresses(free_port(), together=True)
    command = [sys.executable, "-m", "deploy.entry", "up", "--port", str(addresses.port), *arguments]
    environment = {**os.environ, "HUANQUAN_HOME": str(home)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        asyncio.run(answering(addresses))
    except BaseException:
        process.kill()
        raise
    return System(addresses, home, process)


def environment(home: Path) -> dict[str, str]:
    """The environment of a command on a home of its own, with ports of its own for brokers."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HUANQUAN_")}
    return clean | {"HUANQUAN_HOME": str(home), "KAFKA_PORT": str(free_port())}


def free_port() -> int:
    """The first of six free ports in a row: a whole system takes p to p + 5. Below the ports that the kernel gives to
    connections going out, in steps of eight, and each worker has steps of its own: what listens soon looks free."""
    lane = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % LANES
    for _ in range(1000):
        first = random.randrange(12_000 + 8 * lane, 28_000, 8 * LANES)
        if first not in _GIVEN and all(map(_is_free, range(first, first + 6))):
            _GIVEN.add(first)
            return first
    raise AssertionError("no six free ports in a row")


_GIVEN: set[int] = set()
LANES = 4


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One running system for the tests of a worker."""
    started = start_system(tmp_path_factory.mktemp("home"), "--no-sample")
    yield started
    started.process.send_signal(signal.SIGINT)
    assert started.process.wait(30) == 0
