"""What a policy can answer beside a result: refused at load, unknown, silent, or for people to decide."""

from collections.abc import Sequence
from dataclasses import dataclass


class PolicyError(Exception):
    """Base of all that the rules raise: the message is for operators and developers, `told` says the same to a policy
    office, in Chinese."""

    def __init__(self, message: str, told: str) -> None:
        super().__init__(message)
        self.told = told


class ManualDecision(PolicyError):
    """The documents leave the case to people: a central or provincial unit, for one."""


class UnknownCode(PolicyError):
    """A code that the pack does not hold: a treasury, benefit, item, category."""


class NoRuleInForce(PolicyError):
    """The pack holds no rule for this case on this day."""


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing wrong with a pack: the line (from 1; 0 where the whole file is meant), the place, the reason
    in a Chinese sentence that says what to do."""

    line: int
    place: str
    reason: str

    def __str__(self) -> str:
        where = f"第 {self.line} 行" if self.line else "整个文件"
        return f"{where}：{self.place}：{self.reason}" if self.place else f"{where}：{self.reason}"


class PackRefused(PolicyError):
    """A pack was refused at load; `defects` lists everything found wrong, in the order of the file."""

    def __init__(self, name: str, defects: Sequence[Defect]) -> None:
        self.name = name
        self.defects = tuple(sorted(defects, key=lambda defect: defect.line))
        told = "\n".join([f"{name} 未通过检查：", *(f"  {defect}" for defect in self.defects)])
        super().__init__(told, told)
