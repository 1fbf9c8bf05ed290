"""The states of cases, items and tasks as data, and the rules that move them. No SQL, no HTTP, no clock."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any, Final

from libs.common.errors import DomainError
from libs.common.policy import Facts, Pack, fact_faults
from libs.common.policy.model import SUBJECTS, FactFrom
from services.workflow.clock import Clock


class CaseState(StrEnum):
    """State of a case. `suspended` is shown while the clock of a task stands still or a proposal is on public notice,
    and never stored."""

    IN_PROGRESS = "in_progress"
    SUSPENDED = "suspended"
    CLOSED = "closed"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    LAPSED = "lapsed"


class ItemState(StrEnum):
    """State of one item of a case."""

    IN_PROGRESS = "in_progress"
    AWAITING_DECISION = "awaiting_decision"
    PROPOSED = "proposed"
    DONE = "done"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


class TaskState(StrEnum):
    """State of one department's task."""

    OPEN = "open"
    SUSPENDED = "suspended"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


TRANSITIONS: Final[Mapping[tuple[StrEnum, str], StrEnum]] = {
    (CaseState.IN_PROGRESS, "close"): CaseState.CLOSED,
    (CaseState.IN_PROGRESS, "refuse"): CaseState.REFUSED,
    (CaseState.IN_PROGRESS, "withdraw"): CaseState.WITHDRAWN,
    (CaseState.IN_PROGRESS, "lapse"): CaseState.LAPSED,
    (ItemState.IN_PROGRESS, "finish"): ItemState.AWAITING_DECISION,
    (ItemState.IN_PROGRESS, "complete"): ItemState.DONE,
    (ItemState.IN_PROGRESS, "refuse"): ItemState.REFUSED,
    (ItemState.IN_PROGRESS, "withdraw"): ItemState.WITHDRAWN,
    (ItemState.AWAITING_DECISION, "propose"): ItemState.PROPOSED,
    (ItemState.AWAITING_DECISION, "refuse"): ItemState.REFUSED,
    (ItemState.AWAITING_DECISION, "withdraw"): ItemState.WITHDRAWN,
    (ItemState.PROPOSED, "confirm"): ItemState.DONE,
    (ItemState.PROPOSED, "refuse"): ItemState.REFUSED,
    (ItemState.PROPOSED, "reject"): ItemState.AWAITING_DECISION,
    (ItemState.PROPOSED, "withdraw"): ItemState.WITHDRAWN,
    (TaskState.OPEN, "complete"): TaskState.COMPLETED,
    (TaskState.OPEN, "suspend"): TaskState.SUSPENDED,
    (TaskState.OPEN, "cancel"): TaskState.CANCELLED,
    (TaskState.SUSPENDED, "resume"): TaskState.OPEN,
    (TaskState.SUSPENDED, "cancel"): TaskState.CANCELLED,
}
ENDED: Final = frozenset({ItemState.DONE, ItemState.REFUSED, ItemState.WITHDRAWN})
DECIDED_KINDS: Final = frozenset({"certification", "benefit"})
TITLES: Final[Mapping[StrEnum, str]] = {
    CaseState.IN_PROGRESS: "办理中",
    CaseState.SUSPENDED: "特别程序",
    CaseState.CLOSED: "已办结",
    CaseState.REFUSED: "不予认定",
    CaseState.WITHDRAWN: "已撤回",
    CaseState.LAPSED: "逾期终止",
}


class SpecialProcedure(StrEnum):
    """Why a clock stands still (行政许可法 第四十五条). Public notice and objection follow the tasks (see `notices`);
    of tasks there are only stretches from before that."""

    HEARING = "hearing"
    TESTING = "testing"
    INSPECTION = "inspection"
    APPRAISAL = "appraisal"
    EXPERT_REVIEW = "expert_review"
    PUBLIC_NOTICE = "public_notice"
    OBJECTION = "objection"

    @property
    def label(self) -> str:
        """The Chinese words shown beside the stretch."""
        return _PROCEDURES[self]


_PROCEDURES = {
    SpecialProcedure.HEARING: "听证",
    SpecialProcedure.TESTING: "检测",
    SpecialProcedure.INSPECTION: "检验",
    SpecialProcedure.APPRAISAL: "鉴定",
    SpecialProcedure.EXPERT_REVIEW: "专家评审",
    SpecialProcedure.PUBLIC_NOTICE: "公示",
    SpecialProcedure.OBJECTION: "异议核查",
}


class TaskNotOpen(DomainError):
    """409: the task is completed, cancelled, or its clock stands still."""

    status, code, title = 409, "task-not-open", "任务不在可办理状态"
    detail = "该任务当前为“{state}”。已办结或已取消的任务不能再办理；处于特别程序的，请先恢复计时。"


class TaskNotSuspended(DomainError):
    """409: there is no open suspension to end."""

    status, code, title = 409, "task-not-suspended", "任务未处于特别程序"
    detail = "该任务当前没有暂停计时，无需恢复。"


class TaskOverdue(DomainError):
    """409: a limit that has passed cannot be stretched afterwards."""

    status, code, title = 409, "task-overdue", "任务已超期，不能再暂停计时"
    detail = "该任务的办理期限为 {due_on}，已经届满。请尽快办理并反馈结果。"


class SuspensionDayRefused(DomainError):
    """422: the day lies before what the ledger already holds, or in the future."""

    status, code, title = 422, "suspension-day-refused", "特别程序的日期不符合要求"
    detail = "日期应在 {earliest} 至 {latest} 之间（含首尾两日）。"
    semantic = True


class ReasonMissing(DomainError):
    """422: a refusal or a failed result says why."""

    status, code, title = 422, "reason-missing", "请填写原因"
    detail = "结果为不通过或不予认定、不予批准时，应以中文写明具体原因，申请人将看到该原因。"
    semantic = True


class JudgementWrong(DomainError):
    """422: a fact of a result is not one that the policy lets this department state, or has a value of another kind."""

    status, code, title = 422, "judgement-wrong", "核验结论不符合政策"
    detail = "facts 中的 {name}：{advice}"
    semantic = True


class ItemNotAwaiting(DomainError):
    """409: the item's state does not allow this step of the decision."""

    status, code, title = 409, "item-not-awaiting", "事项不在可作此决定的阶段"
    detail = "该事项当前为“{state}”。请重新读取待决定事项后再操作。"


class VerdictUnknown(DomainError):
    """422: a certification is certified or refused, a benefit approved or refused."""

    status, code, title = 422, "verdict-not-applicable", "该类事项不能作此结论"
    detail = "认定事项可填 certify 或 refuse，兑现事项可填 approve 或 refuse。"
    semantic = True


class CategoryUnknown(DomainError):
    """422: a certification names a category of the policy."""

    status, code, title = 422, "category-unknown", "人才类别不在政策范围内"
    detail = "请填写受理当日有效的人才类别代码；申请中已申报类别的可以不填。兑现事项的类别以认定为准，不需填写。"
    semantic = True


class CategoryNotOfItem(DomainError):
    """422: a certification is for certain categories only; the policy's exclusions rest on it."""

    status, code, title = 422, "category-not-of-item", "该认定事项不认定此人才类别"
    detail = "“{item}”认定的类别是：{categories}。请在其中选择；不符合的，提出不予认定，请受益人改报相应的认定事项。"
    semantic = True


class DecisionObstructed(DomainError):
    """409: facts stand against a positive decision."""

    status, code, title = 409, "decision-obstructed", "现有办理结果不支持此结论"
    detail = "{reasons}。只能提出不予认定或不予批准。"


class CertificationUndecided(DomainError):
    """409: the certification filed with the benefit comes first."""

    status, code, title = 409, "certification-undecided", "同一申请的人才认定尚未决定"
    detail = "兑现事项以人才认定为前提，请先完成同一申请中的认定。"


class FourEyesRequired(DomainError):
    """409: whoever proposed a decision does not also confirm or reject it."""

    status, code, title = 409, "four-eyes-required", "提出人不能复核自己提出的决定"
    detail = "认定和批准须由两名工作人员分别提出和复核，请由另一名工作人员办理。"


class NoticeNotProvided(DomainError):
    """409: only a proposed certification can be put on public notice, and only where the policy has a notice for it."""

    status, code, title = 409, "notice-not-provided", "该事项没有公示程序"
    detail = "只有已提出认定、且政策规定须公示或可以公示的事项可以公示。无需公示的，请直接复核。"


class NoticeOpenAlready(DomainError):
    """409: the proposal is on public notice, or was."""

    status, code, title = 409, "notice-open-already", "该决定已公示"
    detail = "该决定已于 {opened_on} 公示，公示期至 {last_day}，不需再次公示。"


class NoticeRequired(DomainError):
    """409: the policy puts a public notice before the confirmation."""

    status, code, title = 409, "notice-required", "认定前须公示"
    detail = "政策规定认定前须公示 {days} 个工作日。请先公示，公示期满且异议核查完毕后再复核。"


class NoticeRunning(DomainError):
    """409: the public notice is not over."""

    status, code, title = 409, "notice-running", "公示期未满"
    detail = "公示期至 {last_day}（含当日），请于次日起复核。"


class NoticeNotRunning(DomainError):
    """409: the item is not on public notice."""

    status, code, title = 409, "notice-not-running", "该事项不在公示中"
    detail = "异议只在公示期间受理、在决定作出之前核查。该事项当前没有公示中的决定，请重新读取待决定事项。"


class ObjectionsOpen(DomainError):
    """409: objections have not been looked into."""

    status, code, title = 409, "objections-open", "异议尚未核查完毕"
    detail = "公示期间收到的异议还有 {count} 件未作出核查结论，请先核查。"


class ObjectionDayRefused(DomainError):
    """422: an objection counts that came while the notice ran."""

    status, code, title = 422, "objection-day-refused", "收到异议的日期不在公示期内"
    detail = "收到异议的日期应在 {earliest} 至 {latest} 之间（含首尾两日）。公示期外的反映，请按信访等程序办理。"
    semantic = True


class TooManyObjections(DomainError):
    """409: a notice takes so many objections and no more."""

    status, code, title = 409, "too-many-objections", "该公示登记的异议已达上限"
    detail = "一次公示至多登记 {most} 件异议，请将内容相同的合并登记。"


class ObjectionConcludedAlready(DomainError):
    """409: what was found of an objection is not changed."""

    status, code, title = 409, "objection-concluded-already", "该异议已有核查结论"
    detail = "该异议已于 {concluded_on} 作出核查结论，结论不再更改。"


class OwnProposalContested(DomainError):
    """409: whoever proposed a decision does not look into objections to it."""

    status, code, title = 409, "own-proposal-contested", "提出人不能核查对自己所提决定的异议"
    detail = "请由提出人以外的工作人员核查并作出结论。"


class Step(StrEnum):
    """What follows for an item once its present stage looks as it does."""

    WAIT = "wait"
    ASSIGN = "assign"
    FINISH = "finish"
    COMPLETE = "complete"
    REFUSE = "refuse"


def next_step(kind: str, *, stage: int, stages: int, results: Collection[str | None]) -> Step:
    """What follows from the results (None: still open) of the tasks of stage `stage` (-1: before the first).

    After a failure the later stages are not begun: the refusal is certain, and their work would delay it.
    """
    if None in results:
        return Step.WAIT
    failed = "failed" in results
    if not failed and stage + 1 < stages:
        return Step.ASSIGN
    if kind in DECIDED_KINDS:
        return Step.FINISH
    return Step.REFUSE if failed else Step.COMPLETE


def case_end(items: Collection[ItemState]) -> str | None:
    """The transition that ends a case: `close`, or `refuse` where nothing was granted; None while an item is open."""
    if not ENDED.issuperset(items):
        return None
    return "close" if ItemState.DONE in items else "refuse"


def item_state_after(state: ItemState, action: str) -> ItemState:
    """The state of an item after a step of its decision. Raises ItemNotAwaiting."""
    after = TRANSITIONS.get((state, action))
    if after is None:
        raise ItemNotAwaiting(state=ITEM_TITLES[state])
    return ItemState(after)


def task_state_after(state: TaskState, action: str) -> TaskState:
    """The state of a task after an action of its department. Raises TaskNotOpen, TaskNotSuspended."""
    after = TRANSITIONS.get((state, action))
    if after is None:
        raise TaskNotSuspended if action == "resume" else TaskNotOpen(state=TASK_TITLES[state])
    return TaskState(after)


ITEM_TITLES: Final = {
    ItemState.IN_PROGRESS: "办理中",
    ItemState.AWAITING_DECISION: "待提出决定",
    ItemState.PROPOSED: "待复核",
    ItemState.DONE: "已办成",
    ItemState.REFUSED: "未予办理",
    ItemState.WITHDRAWN: "已撤回",
}
TASK_TITLES: Final = {
    TaskState.OPEN: "待办",
    TaskState.SUSPENDED: "特别程序",
    TaskState.COMPLETED: "已办结",
    TaskState.CANCELLED: "已取消",
}


def check_suspension(clock: Clock, *, from_day: date, today: date) -> None:
    """Whether a clock may stop on `from_day`, its first day without it. Raises TaskOverdue, SuspensionDayRefused.

    It may be entered afterwards, but never so that a limit which has already passed would be stretched.
    """
    if clock.passed(today):
        raise TaskOverdue(due_on=clock.due_on())
    earliest = max([clock.start, *(each.end for each in clock.suspensions if each.end is not None)])
    if not earliest <= from_day <= today:
        raise SuspensionDayRefused(earliest=earliest, latest=today)


def check_resumption(*, from_day: date, to_day: date, today: date) -> None:
    """Whether a clock that stopped on `from_day` may run again from `to_day`. Raises SuspensionDayRefused."""
    if not from_day <= to_day <= today:
        raise SuspensionDayRefused(earliest=from_day, latest=today)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A fact that stands against certifying or approving: a stable code and the Chinese words for applicants."""

    code: str
    title: str


@dataclass(frozen=True, slots=True)
class Support:
    """The certification that a benefit relies on. Whose it is intake has seen: it alone knows of two records that they
    are one person's."""

    number: str
    category: str
    valid_to: date


OBSTACLES: Final[Mapping[str, tuple[str, str]]] = {
    "task-failed": (
        "{task}未通过：{reason}",
        "请核对反馈，提出不予认定或不予批准；反馈确有误的，请受益人重新申请，由该部门重新办理。",
    ),
    "certification-missing": ("没有可依据的人才认定", "请先完成人才认定，或核对所填认定编号。"),
    "certification-expired": ("所依据的认定 {number} 已于 {valid_to} 失效", "请受益人重新申请人才认定。"),
    "objection-upheld": (
        "公示期间的异议经核查成立：{finding}",
        "请复核退回，再提出不予认定；条件变化后，受益人可以重新申请。",
    ),
    "category-excluded": ("该类别不享受此项待遇", "请对照政策核对类别。"),
    "benefit-already-approved": ("该受益人已获批此项待遇（批准编号 {approved}）", "同一待遇不重复批准，请查阅原批准。"),
}
"""Every code of an obstacle, with its title and what to do. The title of an exclusion is that of the policy's rule."""


def _obstacle(code: str, **words: object) -> Obstacle:
    return Obstacle(code, OBSTACLES[code][0].format_map(words))


def failed_tasks(failures: Sequence[tuple[str, str]]) -> list[Obstacle]:
    """Obstacles from failed tasks, given as (title, reason)."""
    return [_obstacle("task-failed", task=title, reason=reason) for title, reason in failures]


def upheld_objections(findings: Sequence[str]) -> list[Obstacle]:
    """Obstacles from objections that were upheld, given as what was found."""
    return [_obstacle("objection-upheld", finding=finding) for finding in findings]


def benefit_obstacles(
    *, number: str | None, support: Support | None, accepted_on: date, excluded: str | None, approved: str | None
) -> list[Obstacle]:
    """What stands against a benefit beside failed tasks.

    `number` is the certification that the application named, `support` what our record holds of it, `excluded` the
    words of a rule that shuts its category out, `approved` the number of an earlier approval of the same benefit.
    Validity counts on the day of acceptance: nobody loses a benefit by our slowness.
    """
    found = []
    if support is None:
        which = f"所依据的认定 {number} 不存在" if number else "没有可依据的人才认定"
        found.append(Obstacle("certification-missing", which))
    elif support.valid_to < accepted_on:
        found.append(_obstacle("certification-expired", number=support.number, valid_to=support.valid_to))
    if excluded:
        found.append(Obstacle("category-excluded", excluded))
    if approved:
        found.append(_obstacle("benefit-already-approved", approved=approved))
    return found


def check_proposal(kind: str, *, verdict: str, reason: str | None, obstacles: Sequence[Obstacle], ready: bool) -> None:
    """Whether an officer may propose this. Raises VerdictUnknown, ReasonMissing, CertificationUndecided,
    DecisionObstructed."""
    if verdict not in VERDICTS[kind]:
        raise VerdictUnknown
    if verdict == "refuse":
        if not reason:
            raise ReasonMissing
        return
    if not ready:
        raise CertificationUndecided
    if obstacles:
        raise DecisionObstructed(reasons="；".join(obstacle.title for obstacle in obstacles))


VERDICTS: Final[Mapping[str, tuple[str, ...]]] = {
    "certification": ("certify", "refuse"),
    "benefit": ("approve", "refuse"),
    "service": (),
    "change": (),
}


def judgements(pack: Pack, department: str, facts: Mapping[str, Any]) -> Facts:
    """What a department found of the facts that the policy declares; what else it tells stays with the task.

    It may find what the policy leaves to it, and what the applicant stated; a fact without a value is not known. Raises
    JudgementWrong.
    """
    stated = {name: value for name, value in facts.items() if name.startswith(SUBJECTS) and value is not None}
    for fault in fact_faults(pack, stated):
        raise JudgementWrong(name=fault.name, advice=fault.detail)
    for name in stated:
        fact = pack.facts_by_name[name]
        if fact.stated_by is FactFrom.PLATFORM:
            raise JudgementWrong(name=name, advice=f"“{fact.title}”由平台认定，请勿填写。")
        if fact.stated_by is FactFrom.DEPARTMENT and fact.department != department:
            raise JudgementWrong(name=name, advice=f"“{fact.title}”由其他部门认定，请勿填写。")
    return stated
