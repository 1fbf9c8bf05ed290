"""The policy that a deployment serves: of the packs in its folder (HUANQUAN_POLICIES), the one in force today."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from deploy.refusals import Refusal
from deploy.sample.policy import Policy
from libs.common.calendar import local_date
from libs.common.packs import in_force
from libs.common.policy import Pack, load_pack
from libs.common.settings import Settings, variable


def served_file() -> Path:
    """The file of the pack that the environment's deployment serves. Raises Refusal, PackRefused."""
    return _served(Settings().policies)[0]


def served_policy(folder: Path) -> Policy:
    """What a deployment with this folder of policies serves, for the sample. Raises Refusal, PackRefused."""
    return Policy(_served(folder)[1], _today())


def _served(folder: Path) -> tuple[Path, Pack]:
    found = [(path, load_pack(path)) for path in sorted(folder.glob("*/*.yaml"))]
    pack = _one_citys([pack for _, pack in found], folder, _today())
    return next((path, each) for path, each in found if each is pack)


def _one_citys(packs: Sequence[Pack], folder: Path, day: date) -> Pack:
    cities = sorted({pack.city for pack in packs})
    where = f"{variable('policies')}: {folder}"
    if not cities:
        raise Refusal(f"{where} holds no policy: put the packs of a city into a folder of its own there, CITY/*.yaml")
    if len(cities) > 1:
        raise Refusal(f"{where} holds policies of {', '.join(cities)}; a deployment serves one")
    pack = in_force(packs, day)
    if pack is None:
        raise Refusal(f"{where} holds no policy that is in force on {day}")
    return pack


def _today() -> date:
    return local_date(datetime.now(UTC))
