"""The policy as data: packs, and the pure functions that read them. No SQL, no HTTP, no clock.

Services, command line and simulation all ask here; nobody else does policy arithmetic.
"""

from libs.common.policy.conditions import Facts, FactValueType
from libs.common.policy.coverage import categories_of, certifies, exclusion
from libs.common.policy.decision import (
    Clause,
    Decision,
    FactFault,
    Screening,
    Seen,
    Verdict,
    decide,
    fact_faults,
    review,
    worth_trying,
)
from libs.common.policy.difference import Difference, NotOfOneCity, differences
from libs.common.policy.errors import (
    Defect,
    ManualDecision,
    NoRuleInForce,
    PackRefused,
    PolicyError,
    UnknownCode,
)
from libs.common.policy.green_channel import green_channel, limit_of, promised_working_days
from libs.common.policy.identity import PackIdentity
from libs.common.policy.instalments import (
    Instalment,
    amount_of,
    certification_valid_to,
    payout_due_on,
    schedule,
)
from libs.common.policy.model import VersionBy
from libs.common.policy.pack import Pack, PolicyDates, Rulebook, Succession, When, load_pack
from libs.common.policy.routes import (
    Leg,
    Route,
    affiliated_treasury,
    platform_for,
    platform_of,
    settlement_route,
    task_treasury,
    tasks_for,
    treasury_of_region,
)
from libs.common.policy.sharing import Split, describe_split, employer_share, split, treasury_of_payment

__all__ = [
    "Clause",
    "Decision",
    "Defect",
    "Difference",
    "FactFault",
    "FactValueType",
    "Facts",
    "Instalment",
    "Leg",
    "ManualDecision",
    "NoRuleInForce",
    "NotOfOneCity",
    "Pack",
    "PackIdentity",
    "PackRefused",
    "PolicyDates",
    "PolicyError",
    "Route",
    "Rulebook",
    "Screening",
    "Seen",
    "Split",
    "Succession",
    "UnknownCode",
    "Verdict",
    "VersionBy",
    "When",
    "affiliated_treasury",
    "amount_of",
    "categories_of",
    "certification_valid_to",
    "certifies",
    "decide",
    "describe_split",
    "differences",
    "employer_share",
    "exclusion",
    "fact_faults",
    "green_channel",
    "limit_of",
    "load_pack",
    "payout_due_on",
    "platform_for",
    "platform_of",
    "promised_working_days",
    "review",
    "schedule",
    "settlement_route",
    "split",
    "task_treasury",
    "tasks_for",
    "treasury_of_payment",
    "treasury_of_region",
    "worth_trying",
]
