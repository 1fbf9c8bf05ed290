"""The other side of `harness.in_processes`: a contender's own process. Needs nothing but the standard library, for the
peers have an environment of their own."""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any


def ready() -> None:
    """Loaded and connected: wait until every process of this turn is, then start to measure."""
    print("ready", flush=True)  # noqa: T201 - what the harness reads
    sys.stdin.readline()


def serve(work: Callable[..., Mapping[str, float]]) -> None:
    """Call `work` with the arguments that the harness gave; it calls `ready` and gives its figures."""
    figures = work(**arguments())
    print(json.dumps(dict(figures)), flush=True)  # noqa: T201 - what the harness reads


def arguments() -> dict[str, Any]:
    """What the harness gave."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    return given
