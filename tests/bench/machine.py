"""What the machine is and how steady: the same work on one core, and the same writes to the disk, before each turn."""

import hashlib
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

CPU_WORK = bytes(1 << 20)
CPU_TIMES = 64
FSYNCS = 30
PAGE = bytes(8192)


@dataclass(frozen=True)
class Probe:
    """How long fixed work took, in milliseconds: hashing 64 MiB on one core; writing 8 KiB and waiting for the disk."""

    cpu_ms: float
    fsync_ms: float


def probe(folder: Path) -> Probe:
    """Look at the machine once; takes about a tenth of a second."""
    began = time.perf_counter()
    for _ in range(CPU_TIMES):
        hashlib.sha256(CPU_WORK)
    cpu = time.perf_counter() - began
    file = os.open(folder / "probe", os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        began = time.perf_counter()
        for _ in range(FSYNCS):
            os.pwrite(file, PAGE, 0)
            os.fdatasync(file)
        disk = time.perf_counter() - began
    finally:
        os.close(file)
    return Probe(cpu * 1000, disk / FSYNCS * 1000)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest, highest."""
    return {"median": median(values), "lowest": min(values), "highest": max(values)}


def described() -> dict[str, str | int | float]:
    """What ran it."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
