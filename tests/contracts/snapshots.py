"""Write the snapshots of new events: `python -m tests.contracts.snapshots`. Those that exist stay as they are."""

import json

from libs.common.events import EVENTS
from tests.contracts.test_schemas import SNAPSHOTS, schema_of


def main() -> None:
    SNAPSHOTS.mkdir(exist_ok=True)
    for event in EVENTS:
        path = SNAPSHOTS / f"{event.__name__}.json"
        if not path.exists():
            path.write_text(json.dumps(schema_of(event), indent=2, ensure_ascii=False, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
