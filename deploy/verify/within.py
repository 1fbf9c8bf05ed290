"""What must be true within one database: each thing told once, obligations watched, states as their history says."""

from deploy.verify.looks import Each, Mirrored, told_field
from libs.common.events import ApplicationEvent
from libs.common.service import LEADER_LOCK, LEADER_NAME
from libs.common.settings import SERVICES
from libs.common.ticker import PARKED_PREFIX, RELEASE
from services.finance.entitlements import INSTALMENT
from services.finance.payouts import DEADLINE as PAYOUT_DEADLINE
from services.housing.allocation import HOLD_EXPIRY, LEASE_END, TICKER
from services.intake.app import EMITS as INTAKE_EMITS
from services.intake.notices import NOTICE_END
from services.intake.promises import PROMISE
from services.intake.settlement import LAPSE
from services.workflow.assignment import DEADLINE as TASK_DEADLINE

# -- what was done was told, once: event type → field that names the record, and the records

TOLD: dict[str, dict[str, tuple[str, str]]] = {
    "intake": {
        "ApplicationReceived": ("application", "SELECT id FROM application"),
        "ApplicationAccepted": ("application", "SELECT id FROM application WHERE state = 'accepted'"),
        "ApplicationNotAccepted": (
            "application",
            "SELECT id FROM application WHERE state IN ('not_accepted', 'lapsed')",
        ),
        "ApplicationTransferred": ("application", "SELECT id FROM application WHERE state = 'transferred'"),
        "ApplicationWithdrawn": (
            "application",
            "SELECT id FROM application WHERE state = 'withdrawn' OR withdrawal_asked_at IS NOT NULL",
        ),
        "PeopleResolved": ("call", "SELECT call FROM people_resolved"),
    },
    "workflow": {
        "DeptAssigned": ("task", "SELECT id FROM task"),
        "DeptCompleted": ("task", "SELECT id FROM task WHERE state = 'completed'"),
        "CaseSuspended": ("task", "SELECT task FROM suspension"),
        "CaseResumed": ("task", "SELECT s.task FROM resumption AS r JOIN suspension AS s ON s.id = r.suspension"),
        "PublicNoticeOpened": ("notice", "SELECT id FROM public_notice"),
        "PublicNoticeWithdrawn": (
            "notice",
            "SELECT detail ->> 'notice' FROM history WHERE action = 'notice_withdrawn'",
        ),
        "ObjectionReceived": ("objection", "SELECT id FROM objection"),
        "ObjectionConcluded": ("objection", "SELECT objection FROM objection_finding"),
        "TalentCertified": ("item", "SELECT item FROM certification"),
        "BenefitApproved": ("item", "SELECT item FROM approval"),
        "PayeeAccountChanged": ("item", "SELECT item FROM history WHERE action = 'payee_account_changed'"),
        "ApplicationClosed": ("application", "SELECT application FROM cases WHERE closed_on IS NOT NULL"),
        "WithdrawalIgnored": ("application", "SELECT application FROM history WHERE action = 'withdrawal_ignored'"),
        "SlaBreached": ("record", "SELECT task FROM breach"),
    },
    "finance": {
        "PayoutOrdered": ("order", "SELECT order_id FROM order_history WHERE action IN ('order', 'fund', 'reissue')"),
        "PayoutSent": ("order", "SELECT order_id FROM order_history WHERE action = 'send'"),
        "PayoutSettled": ("order", "SELECT order_id FROM order_history WHERE action = 'settle'"),
        "PayoutBounced": ("order", "SELECT order_id FROM order_history WHERE action = 'bounce'"),
        "PayoutCancelled": ("order", "SELECT order_id FROM order_history WHERE action = 'cancel'"),
        "SlaBreached": ("record", "SELECT order_id FROM order_history WHERE action = 'breach'"),
        "InstalmentReviewed": ("review", "SELECT id FROM instalment_review"),
        "FiscalSettlementClosed": ("settlement", "SELECT id FROM settlement"),
    },
    "housing": {
        type_: (
            "item",
            f"SELECT o.eligibility FROM hold_history AS h JOIN hold AS o ON o.id = h.hold WHERE h.move IN ({moves})",  # noqa: S608 - below
        )
        for type_, moves in {
            "FlatHeld": "'hold'",
            "FlatReleased": "'give_up', 'expire'",
            "FlatLeased": "'lease'",
            "LeaseEnded": "'end'",
        }.items()
    },
}


def _done(service: str) -> str:
    return " UNION ALL ".join(
        f"SELECT '{type_} ' || record, '', NULL::timestamptz, NULL FROM ({sql}) AS done (record)"  # noqa: S608 - those above
        for type_, (_, sql) in TOLD[service].items()
    )


def _told(service: str) -> str:
    """The same from the outbox. By pattern, not as JSON: a value that is none must not end the look."""
    fields = ", ".join(f"('{type_}', '{field}')" for type_, (field, _) in TOLD[service].items())
    return f"""
        SELECT f.type || ' ' || coalesce(substring(encode(o.value, 'escape') FROM '"' || f.field || '":"([^"]*)"'),
                                         o.event_id::text), '', NULL::timestamptz, NULL
          FROM outbox AS o JOIN (VALUES {fields}) AS f (type, field) ON f.type = o.type
    """  # noqa: S608 - names of our own


_OWN_EVENTS = ", ".join(f"'{event.__name__}'" for event in INTAKE_EMITS if issubclass(event, ApplicationEvent))
_OWN_TOLD = f"""
    SELECT event_id::text, '', NULL::timestamptz, NULL FROM outbox WHERE type IN ({_OWN_EVENTS})
"""  # noqa: S608 - names of our own
_OWN_STEPS = f"""
    SELECT event_id::text, '', NULL::timestamptz, NULL FROM timeline WHERE code IN ({_OWN_EVENTS})
"""  # noqa: S608 - names of our own

# -- what is kept twice is alike

_LEASES = """
    SELECT l.id::text, l.from_day || ' to ' || l.to_day, NULL::timestamptz, e.application::text
      FROM lease AS l JOIN hold AS h ON h.id = l.hold JOIN eligibility AS e ON e.id = h.eligibility
"""
_LEASES_TOLD = f"""
    SELECT {told_field("lease")}, {told_field("from_day")} || ' to ' || {told_field("to_day")}, NULL::timestamptz, key
      FROM outbox WHERE type = 'FlatLeased'
"""  # noqa: S608 - names of our own
_GRANTED = """
    SELECT g.number, application::text, (g.beneficiary, g.treasury) = (c.beneficiary, c.treasury)
      FROM certification AS g JOIN cases AS c USING (application)
     UNION ALL
    SELECT g.number, application::text, g.beneficiary = c.beneficiary
      FROM approval AS g JOIN cases AS c USING (application)
"""
_BENEFITS = """
    SELECT item::text, concat_ws(' ', benefit, beneficiary), NULL::timestamptz, application::text FROM approval
"""
_BENEFITS_CLAIMED = """
    SELECT c.item::text, concat_ws(' ', c.benefit, c.beneficiary), NULL::timestamptz, i.application::text
      FROM claim AS c LEFT JOIN item AS i ON i.id = c.item
"""
_RESULTS = """
    SELECT i.id::text, concat_ws(' ', c.beneficiary, i.code, i.kind, i.state, c.closed_on, i.reason), NULL::timestamptz,
           i.application::text
      FROM item AS i JOIN cases AS c USING (application) WHERE c.closed_on IS NOT NULL
"""
_RESULTS_FILED = """
    SELECT item::text, concat_ws(' ', person, code, kind, result, closed_on, reason), NULL::timestamptz,
           application::text
      FROM record_entry
"""
# Of two people who are one since, both of whom had it and have ended, one claim stays: it is asked whether the person
# has one, not by which application. Where an item came to nothing its claim is free: another takes it, and gives it up.
_CLAIMED = """
    SELECT i.id::text, a.id::text,
           EXISTS (SELECT FROM claim AS c WHERE c.person = coalesce(p.merged_into, p.ref) AND c.code = i.code)
      FROM application_item AS i JOIN application AS a ON a.id = i.application JOIN person AS p ON p.ref = a.beneficiary
      LEFT JOIN item_result AS r ON r.item = i.id LEFT JOIN case_end AS e ON e.application = a.id
     WHERE a.state = 'accepted' AND i.kind IN ('certification', 'benefit')
       AND coalesce(r.result, '') NOT IN ('refused', 'withdrawn')
       AND coalesce(e.state, '') NOT IN ('withdrawn', 'lapsed')
       AND (r.valid_to IS NULL OR r.valid_to >= (now() AT TIME ZONE 'Asia/Shanghai')::date)
"""

# -- what is owed at a moment is watched


def _watched(kind: str, key: str, *, by: str = "'infinity'") -> str:
    """A condition: due work of this kind waits for this key, or is parked. It waits until a moment and no longer; what
    was parked and released waits from then on."""
    return f"""(EXISTS (SELECT FROM due WHERE kind = '{kind}' AND key = {key} AND at <= greatest({by}, now()))
                OR EXISTS (SELECT FROM parked_key AS k WHERE k.topic = '{PARKED_PREFIX}{kind}' AND k.key = {key}))"""  # noqa: S608 - names of our own


def _end_of(day: str) -> str:
    """The moment at which a day ends in Asia/Shanghai."""
    return f"({day} + 1)::timestamp AT TIME ZONE 'Asia/Shanghai'"


_OPEN_TASKS = f"""
    SELECT t.id::text, t.application::text,
           {_watched(TASK_DEADLINE, "t.id::text")} OR EXISTS (SELECT FROM breach AS b WHERE b.task = t.id)
      FROM task AS t WHERE t.state = 'open'
"""  # noqa: S608 - names of our own
_CORRECTIONS = f"""
    SELECT a.id::text, a.id::text, {_watched(LAPSE, "a.id::text")} FROM application AS a WHERE a.state = 'correction'
"""  # noqa: S608 - names of our own
_PROMISES = f"""
    SELECT a.id::text, a.id::text,
           {_watched(PROMISE, "a.id::text")}
           OR EXISTS (SELECT FROM timeline AS t WHERE t.application = a.id AND t.code = 'PromiseMissed')
           OR EXISTS (SELECT FROM case_end AS e WHERE e.application = a.id)
      FROM application AS a
     WHERE a.state = 'accepted'
       AND EXISTS (SELECT FROM material AS m WHERE m.application = a.id AND m.evidence = 'promised'
                      AND NOT EXISTS (SELECT FROM material AS u WHERE u.application = a.id AND u.code = m.code
                                         AND u.evidence = 'upload'))
"""  # noqa: S608 - names of our own
_NOTICES = f"""
    SELECT n.notice::text, n.application::text, {_watched(NOTICE_END, "n.notice::text")} OR n.over_on IS NOT NULL
      FROM public_notice AS n
"""  # noqa: S608 - names of our own
_UNPAID = f"""
    SELECT o.id::text, o.application::text,
           {_watched(PAYOUT_DEADLINE, "o.id::text", by=_end_of("o.due_on"))}
           OR EXISTS (SELECT FROM order_history AS h WHERE h.order_id = o.id AND h.action = 'breach')
      FROM payout_order AS o WHERE o.state NOT IN ('settled', 'cancelled', 'recovering', 'recovered')
"""  # noqa: S608 - names of our own
# An employer that bears the whole of a benefit leaves no part to order; then no instalment of it has an order. What was
# withheld on its day waits for a review that passes.
_INSTALMENTS = f"""
    SELECT i.entitlement_id || '/' || i.number, e.application::text,
           {_watched(INSTALMENT, "i.entitlement_id || '/' || i.number")}
           OR EXISTS (SELECT FROM payout_order AS o
                       WHERE o.entitlement_id = i.entitlement_id AND o.instalment = i.number)
           OR NOT EXISTS (SELECT FROM payout_order AS o WHERE o.entitlement_id = i.entitlement_id)
           OR i.review_from IS NOT NULL
              AND (SELECT r.verdict FROM instalment_review AS r
                    WHERE (r.entitlement_id, r.number) = (i.entitlement_id, i.number)
                    ORDER BY r.serial DESC LIMIT 1) IS DISTINCT FROM 'pass'
      FROM instalment AS i JOIN entitlement AS e ON e.id = i.entitlement_id WHERE i.number > 1
"""  # noqa: S608 - names of our own
_HOLDS = f"""
    SELECT h.id::text, e.application::text,
           CASE h.state WHEN 'held' THEN {_watched(HOLD_EXPIRY, "h.id::text", by="h.held_until")}
                        WHEN 'leased' THEN {_watched(LEASE_END, "h.id::text", by=_end_of("l.to_day"))} ELSE true END
      FROM hold AS h JOIN eligibility AS e ON e.id = h.eligibility LEFT JOIN lease AS l ON l.hold = h.id
"""  # noqa: S608 - names of our own

# -- nothing that a day brings about came before it, but for a clock that is somewhat ahead


def _over(day: str, at: str) -> str:
    """A condition: a day was over at a moment."""
    return f"{at} >= {_end_of(day)} - interval '15 minutes'"


_LAPSED = "SELECT id::text, id::text, decided_on > answer_by FROM application WHERE state = 'lapsed'"
_BREACHES = f"""
    SELECT b.task::text, t.application::text, {_over("b.due_on", "b.announced_at")}
      FROM breach AS b JOIN task AS t ON t.id = b.task
"""  # noqa: S608 - names of our own
_LATE = f"""
    SELECT o.id::text, o.application::text, {_over("o.due_on", "h.recorded_at")}
      FROM order_history AS h JOIN payout_order AS o ON o.id = h.order_id WHERE h.action = 'breach'
"""  # noqa: S608 - names of our own
_EXPIRED = f"""
    SELECT h.hold::text, e.application::text,
           CASE h.move WHEN 'end' THEN {_over("l.to_day", "h.at")} ELSE h.at >= o.held_until - interval '15 minutes' END
      FROM hold_history AS h JOIN hold AS o ON o.id = h.hold JOIN eligibility AS e ON e.id = o.eligibility
      LEFT JOIN lease AS l ON l.hold = o.id WHERE h.move IN ('expire', 'end') AND h.by = '{TICKER}'
"""  # noqa: S608 - names of our own

# -- states are as history and parts say

_CASE_STATES = """
    SELECT c.application::text, c.application::text,
           (c.state = 'in_progress') = bool_or(i.state NOT IN ('done', 'refused', 'withdrawn'))
      FROM cases AS c JOIN item AS i USING (application) GROUP BY c.application
"""
_ITEM_STATES = """
    SELECT i.id::text, i.application::text,
           (i.state = 'in_progress') = coalesce(bool_or(t.state IN ('open', 'suspended')), false)
           AND CASE i.kind WHEN 'certification' THEN (i.state = 'done') = bool_or(c.item IS NOT NULL)
                           WHEN 'benefit' THEN (i.state = 'done') = bool_or(a.item IS NOT NULL) ELSE true END
           AND (i.state <> 'done' OR coalesce(i.verdict, i.kind)
                                     = CASE i.kind WHEN 'certification' THEN 'certify' WHEN 'benefit' THEN 'approve'
                                                   ELSE i.kind END)
      FROM item AS i LEFT JOIN task AS t ON t.item = i.id
      LEFT JOIN certification AS c ON c.item = i.id LEFT JOIN approval AS a ON a.item = i.id
     GROUP BY i.id
"""
_NOTICED = """
    SELECT i.id::text, i.application::text,
           coalesce(c.decided_on > n.last_day, true)
           AND NOT EXISTS (SELECT FROM public_notice AS p JOIN objection AS o ON o.notice = p.id
                             LEFT JOIN objection_finding AS f ON f.objection = o.id
                            WHERE p.item = i.id AND (f.upheld OR f.objection IS NULL))
      FROM certification AS c JOIN item AS i ON i.id = c.item
      LEFT JOIN public_notice AS n ON n.item = i.id AND n.proposed_at = i.proposed_at
"""
_ONCE = """
    SELECT concat_ws(' ', h.application, w.what, h.item, h.task), h.application::text, count(*) = 1
      FROM history AS h
      JOIN (VALUES ('case_opened', 'opened'), ('case_ended', 'ended'), ('task_assigned', 'assigned'),
                   ('task_completed', 'completed'), ('limit_passed', 'late'), ('confirmed', 'confirmed'),
                   ('withdrawn', 'withdrawal'), ('withdrawal_ignored', 'withdrawal'),
                   ('promise_missed', 'promise'), ('promise_missed_ignored', 'promise')) AS w (action, what)
        ON w.action = h.action
     GROUP BY h.application, w.what, h.item, h.task
"""
_HOLD_STATES = """
    SELECT o.id::text, e.application::text, coalesce(h.state = o.state, false)
           AND (o.state IN ('leased', 'ended')) = (l.id IS NOT NULL)
      FROM hold AS o JOIN eligibility AS e ON e.id = o.eligibility LEFT JOIN lease AS l ON l.hold = o.id
      LEFT JOIN (SELECT DISTINCT ON (hold) hold, state FROM hold_history ORDER BY hold, id DESC) AS h ON h.hold = o.id
"""
_FLATS = """
    SELECT flat::text, NULL::text, count(*) = 1 FROM hold WHERE state IN ('held', 'leased') GROUP BY flat
     UNION ALL
    SELECT 'eligibility ' || eligibility, NULL, count(*) = 1
      FROM hold WHERE state IN ('held', 'leased') GROUP BY eligibility
"""
_FOUR_EYES = """
    SELECT id::text, application::text, confirmed_by <> proposed_by FROM item WHERE confirmed_by IS NOT NULL
     UNION ALL
    SELECT 'objection ' || o.id, n.application::text, f.recorded_by <> n.proposed_by
      FROM objection_finding AS f JOIN objection AS o ON o.id = f.objection JOIN public_notice AS n ON n.id = o.notice
"""

# -- messaging, in every service

_RELEASABLE = f"""
    SELECT p.topic || ' ' || p.key, NULL::text, k.key IS NOT NULL
      FROM (SELECT DISTINCT topic, key FROM parked) AS p LEFT JOIN parked_key AS k USING (topic, key)
     UNION ALL
    SELECT w.topic || ' ' || w.key, NULL, {_watched(RELEASE, "w.topic || ' ' || w.key")}
      FROM parked_key AS w WHERE w.waiting_for IS NOT NULL
"""  # noqa: S608 - names of our own
_IN_ORDER = """
    WITH published AS (
        SELECT topic, key, max(id) AS id FROM outbox
         WHERE NOT EXISTS (SELECT FROM unpublished WHERE unpublished.id = outbox.id) GROUP BY topic, key)
    SELECT o.event_id::text, NULL::text, p.id IS NULL OR p.id < o.id
      FROM unpublished JOIN outbox AS o USING (id) LEFT JOIN published AS p USING (topic, key)
"""

# Whoever leads names its session so before it relays and ticks; two of them publish everything twice.
_LEADERS = f"""
    SELECT concat_ws(' ', a.application_name, 'with process', a.pid), NULL::text,
           count(*) OVER () = 1
           AND EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.granted
                          AND (l.classid::bigint << 32) + l.objid::bigint = {LEADER_LOCK})
      FROM pg_stat_activity AS a
     WHERE a.datname = current_database() AND starts_with(a.application_name, '{LEADER_NAME}')
"""  # noqa: S608 - names of our own

WITHIN: tuple[Mirrored | Each, ...] = (
    *(
        Mirrored(f"what {service} did it told of, once", {service: _done(service)}, {service: _told(service)})
        for service in TOLD
    ),
    Mirrored("every event of intake is a step in the timeline", {"intake": _OWN_TOLD}, {"intake": _OWN_STEPS}),
    Mirrored("every lease is told of with its days", {"housing": _LEASES}, {"housing": _LEASES_TOLD}),
    Each("every certification and approval is of whom its case is for", "workflow", _GRANTED),
    Mirrored("every approved benefit is claimed once", {"workflow": _BENEFITS}, {"workflow": _BENEFITS_CLAIMED}),
    Mirrored(
        "every result of an ended case is in the talent record", {"workflow": _RESULTS}, {"workflow": _RESULTS_FILED}
    ),
    Each("whoever was accepted claims what was asked for", "intake", _CLAIMED),
    Each("every correction is watched until its last day", "intake", _CORRECTIONS),
    Each("every promised material is watched until its day", "intake", _PROMISES),
    Each("every public notice is watched until it is over", "intake", _NOTICES),
    Each("every open task is watched until its limit", "workflow", _OPEN_TASKS),
    Each("every unpaid order is watched until its day", "finance", _UNPAID),
    Each("every later instalment has its order, or the day of it, or waits for its review", "finance", _INSTALMENTS),
    Each("every hold and every lease is watched until its end", "housing", _HOLDS),
    Each("no correction lapsed before its last day was over", "intake", _LAPSED),
    Each("no task was said to be late before its limit had passed", "workflow", _BREACHES),
    Each("no payment was said to be late before its day was over", "finance", _LATE),
    Each("no hold and no lease ended by itself before its time", "housing", _EXPIRED),
    Each("every case is where its items are", "workflow", _CASE_STATES),
    Each("every item is where its tasks and its decision are", "workflow", _ITEM_STATES),
    Each("nobody is certified while on public notice, or against an objection", "workflow", _NOTICED),
    Each("nothing happened twice in a case", "workflow", _ONCE),
    Each("nobody both proposed a decision and confirmed it, or judged an objection to it", "workflow", _FOUR_EYES),
    Each("every hold is where its history and its lease are", "housing", _HOLD_STATES),
    Each("no flat is given to two at once, and nobody has two for one benefit", "housing", _FLATS),
    *(Each(f"what is parked in {s} can be released", s, _RELEASABLE) for s in SERVICES),
    *(Each(f"{s} publishes the events of a key in order", s, _IN_ORDER) for s in SERVICES),
    *(Each(f"{s} is led by one process, which holds the lock", s, _LEADERS) for s in SERVICES),
)
AT_REST: tuple[Each, ...] = (
    Each(
        "no application waits for a correction",
        "intake",
        "SELECT id::text, NULL::text, state <> 'correction' FROM application",
    ),
    Each(
        "no case is in progress",
        "workflow",
        "SELECT application::text, NULL::text, state <> 'in_progress' FROM cases",
    ),
    Each(
        "no payout order is under way",
        "finance",
        "SELECT id::text, NULL::text, state IN ('settled', 'cancelled', 'recovered') FROM payout_order",
    ),
)
