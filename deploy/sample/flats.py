"""The flats of the sample: what each treasury offers.

`python -m deploy.sample.flats > deploy/sample/flats.jsonl` writes Anyang's.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from deploy.sample.generate import CITY, anyang
from deploy.sample.lines import SEED
from deploy.sample.policy import Json, Policy
from libs.common.policy.model import FlatKind

FILE = Path(__file__).parent / "flats.jsonl"
KINDS = {FlatKind.TRANSITIONAL: "周转", FlatKind.APARTMENT: "公寓"}
OWN = 3
OF_THE_CITY = 12


def flats_of(policy: Policy) -> Sequence[Json]:
    """The flats of the city that is served: Anyang's are fixed, any other city's are made."""
    return read_flats() if policy.pack.city == CITY else list(flats(policy))


def read_flats(path: Path = FILE) -> Sequence[Json]:
    """The flats of a file."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def flats(policy: Policy, seed: int = SEED) -> Iterator[Json]:
    """Each flat with the `treasury` whose officer enters it; the rest is the body of `POST /housing/v1/flats`. Every
    fourth treasury has none: its talents choose from those of the city level."""
    rng = Random(seed)
    none_of_their_own = list(policy.places)[4::4]
    for treasury, place in policy.places.items():
        for kind in policy.flat_kinds:
            count = OF_THE_CITY if treasury == policy.city else 0 if treasury in none_of_their_own else OWN
            for number in range(1, count + 1):
                yield {
                    "treasury": treasury,
                    "code": f"{kind[0].upper()}{number:03}",
                    "estate": f"{place}示例人才{KINDS[kind]}小区",
                    "building": f"{(number - 1) // 4 + 1}号楼",
                    "room": f"{number // 2 + 1}0{number % 2 + 1}",
                    "area": rng.randrange(3_500, 9_000),
                    "kind": kind.value,
                    "standards": dict.fromkeys(
                        ("decoration", "outside_style", "furnishing", "property_management"), True
                    ),
                }


def main() -> None:
    """Write Anyang's flats to standard output."""
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.writelines(
        json.dumps(flat, ensure_ascii=False, separators=(",", ":")) + "\n" for flat in flats(anyang())
    )


if __name__ == "__main__":
    main()
