"""Invented people and employers: names of every kind that must survive, numbers that are well formed, nobody real."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random

from deploy.sample.identities import make_credit_code, make_document_number
from libs.common.identity import DocumentType, Sex
from libs.common.treasuries import EmployerKind

SURNAMES = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏"
)
DOUBLE_SURNAMES = ("欧阳", "司马", "上官", "诸葛", "尉迟", "皇甫")
GIVEN = "洹安文明宇轩子涵雨桐思远嘉怡浩然欣妍博雅俊杰晓彤志强丽华建国海燕春梅秀英立新学勤望舒景行若水承泽知微予宁"
# One of each extension of the unified ideographs, with those that civil registers really hold among them.
RARE = {
    "A": "\u4dae",  # 䶮
    "B": "\U00020164",  # 𠅤
    "B2": "\U00020bb7",  # 𠮷
    "C": "\U0002a7dd",  # 𪟝
    "D": "\U0002b7a9",
    "E": "\U0002cc56",  # 𬱖
    "F": "\U0002ceb9",
    "G": "\U00030edd",  # 𰻝
    "H": "\U00031350",
}
_MINORITY_GIVEN = ("阿依努尔", "帕提古丽", "艾力江", "吐尔逊江", "巴特尔", "娜仁托娅", "古丽米热", "凯赛尔")
_MINORITY_FAMILY = ("买买提", "吐尔逊", "艾合买提", "热合曼", "乌兰", "依布拉音", "玉素甫")
_LATIN_GIVEN = ("ANNA", "JONAS", "KENJI", "MARIA DEL MAR", "SEAN", "CHLOÉ", "NATHANIEL")
_LATIN_FAMILY = ("WEBER-LINDT", "O'HALLORAN", "TAKAHARA", "FERNÁNDEZ", "VAN DER BERGH", "KOWALCZYK")
EPOCH = date(1974, 1, 1)
_BIRTHPLACES = ("410502", "410503", "410522", "410523", "410526", "410527", "410581", "130402", "370102", "110108")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who does not exist."""

    name: str
    document_type: DocumentType
    number: str
    sex: Sex
    birth: date

    def age_on(self, day: date) -> int:
        """Full years of age."""
        return day.year - self.birth.year - ((day.month, day.day) < (self.birth.month, self.birth.day))


@dataclass(frozen=True, slots=True)
class Employer:
    """An employer that does not exist; `treasury` is the one that it belongs to."""

    name: str
    credit_code: str
    kind: EmployerKind
    treasury: str


def make_person(
    rng: Random, kind: DocumentType = DocumentType.RESIDENT_IDENTITY_CARD, rare: str | None = None
) -> Person:
    """A person with a document of `kind`; `rare` names an extension whose character the given name holds."""
    sex = rng.choice((Sex.MALE, Sex.FEMALE))
    birth = EPOCH + timedelta(days=rng.randrange(28 * 365))
    number = make_document_number(rng, kind, birth, sex, region=rng.choice(_BIRTHPLACES))
    return Person(_name(rng, kind, rare), kind, number, sex, birth)


def make_child(rng: Random) -> Person:
    """A child of school age."""
    born = date(2012, 1, 1) + timedelta(days=rng.randrange(8 * 365))
    kind, sex = DocumentType.RESIDENT_IDENTITY_CARD, rng.choice((Sex.MALE, Sex.FEMALE))
    number = make_document_number(rng, kind, born, sex, region=rng.choice(_BIRTHPLACES))
    return Person(_name(rng, kind, None), kind, number, sex, born)


def make_minority_name(rng: Random) -> str:
    """A name of two parts with the separation dot between."""
    return f"{rng.choice(_MINORITY_GIVEN)}·{rng.choice(_MINORITY_FAMILY)}"


def make_employers(rng: Random, treasuries: Sequence[tuple[str, str]]) -> list[Employer]:
    """Five employers a treasury (code, place name), one of each ordinary kind, and one above the city."""
    made = [_employer(rng, code, place, kind) for code, place in treasuries for kind in _SUFFIXES]
    return [*made, _employer(rng, *treasuries[0], EmployerKind.CENTRAL_OR_PROVINCIAL)]


def _name(rng: Random, kind: DocumentType, rare: str | None) -> str:
    if kind in {DocumentType.PASSPORT, DocumentType.FOREIGN_PERMANENT_RESIDENCE}:
        return f"{rng.choice(_LATIN_GIVEN)} {rng.choice(_LATIN_FAMILY)}"
    surname = rng.choice(DOUBLE_SURNAMES) if rng.random() < 0.04 else rng.choice(SURNAMES)
    if rare is not None:
        return surname + rng.choice(GIVEN) * rng.randrange(2) + RARE[rare]
    return surname + "".join(rng.choices(GIVEN, k=rng.choice((1, 2, 2, 2))))


_SUFFIXES: dict[EmployerKind, tuple[tuple[str, str], tuple[str, ...]]] = {
    EmployerKind.ENTERPRISE: (("9", "1"), ("精密制造有限公司", "新材料股份有限公司", "智能装备有限公司")),
    EmployerKind.INSTITUTION: (("1", "2"), ("第一中学", "人民医院", "职业技术学院")),
    EmployerKind.GOVERNMENT: (("1", "1"), ("发展服务局", "乡村振兴局")),
    EmployerKind.SOCIAL_ORGANISATION: (("5", "2"), ("科技服务中心", "产业研究院")),
    EmployerKind.OWN_STARTUP: (("9", "1"), ("文创工作室有限公司", "农业科技有限公司", "软件有限公司")),
}
_ABOVE_THE_CITY = (("1", "2"), ("部属研究所",))
_WORDS = ("洹水", "殷墟", "太行", "红旗渠", "羑里", "仰韶", "甲骨", "青铜", "漳河", "林虑")


def _employer(rng: Random, treasury: str, place: str, kind: EmployerKind) -> Employer:
    (registry, category), suffixes = _SUFFIXES.get(kind, _ABOVE_THE_CITY)
    name = f"{place}{rng.choice(_WORDS)}{rng.choice(suffixes)}（示例）"
    return Employer(name, make_credit_code(rng, treasury, registry, category), kind, treasury)
