"""The flats of the sample: what each treasury offers. `python -m deploy.sample.flats > deploy/sample/flats.jsonl`."""

import json
import sys
from collections.abc import Iterator
from random import Random
from typing import Any

from deploy.sample.generate import PLACES, SEED

KINDS = {"transitional": "周转", "apartment": "公寓"}
OWN = 3
OF_THE_CITY = 12
NONE_OF_THEIR_OWN = frozenset({"410506", "410527"})
"""Treasuries without flats: their talents choose from those of the city level."""


def flats(seed: int = SEED) -> Iterator[dict[str, Any]]:
    """Each flat with the `treasury` whose officer enters it; the rest is the body of `POST /housing/v1/flats`."""
    rng = Random(seed)
    for treasury, place in PLACES.items():
        for kind, word in KINDS.items():
            count = OF_THE_CITY if treasury == "410500" else 0 if treasury in NONE_OF_THEIR_OWN else OWN
            for number in range(1, count + 1):
                yield {
                    "treasury": treasury,
                    "code": f"{kind[0].upper()}{number:03}",
                    "estate": f"{place}示例人才{word}小区",
                    "building": f"{(number - 1) // 4 + 1}号楼",
                    "room": f"{number // 2 + 1}0{number % 2 + 1}",
                    "area": rng.randrange(3_500, 9_000),
                    "kind": kind,
                    "standards": dict.fromkeys(
                        ("decoration", "outside_style", "furnishing", "property_management"), True
                    ),
                }


def main() -> None:
    """Write the flats to standard output."""
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.writelines(json.dumps(flat, ensure_ascii=False, separators=(",", ":")) + "\n" for flat in flats())


if __name__ == "__main__":
    main()
