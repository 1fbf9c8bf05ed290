"""What two services hold of the same thing must be alike. Each query gives (key, value, at, about), see `looks.Row`."""

from collections.abc import Iterable

from deploy.verify.looks import Known, Mirrored, kept_words, told_field, told_words
from libs.common.events import EmployerListed, Event
from libs.common.settings import SERVICES
from services.intake.feedback import HANDLERS

# The day of an event (Asia/Shanghai). By pattern too: a time that is none must not end the look.
_TOLD_ON = r"""CASE WHEN time ~ '^[1-9]\d{3}-(0[1-9]|1[0-2])-\d\dT\d\d'
                    THEN (left(time, 7) || '-01')::date + substr(time, 9, 2)::int - 1
                         + (substr(time, 12, 2) >= '16')::int END"""

# -- applications, cases, tasks

_ACCEPTED = """
    SELECT a.id::text, concat_ws(' ', a.policy_sha256, a.case_no, a.treasury, a.accepted_on, a.beneficiary,
                                 coalesce(a.payee_account::text, 'no account')), max(t.at), a.id::text
      FROM application AS a JOIN timeline AS t ON t.application = a.id WHERE a.state = 'accepted' GROUP BY a.id
"""
_CASES = """
    SELECT application::text, concat_ws(' ', sha256, case_no, treasury, accepted_on, beneficiary,
                                        coalesce(payee_account::text, 'no account')), opened_at, application::text
      FROM cases
"""
_ITEMS_ACCEPTED = """
    SELECT i.id::text, concat_ws(' ', i.code, i.kind, i.category, i.certification), t.at, a.id::text
      FROM application AS a JOIN application_item AS i ON i.application = a.id
      JOIN (SELECT application, max(at) AS at FROM timeline GROUP BY application) AS t ON t.application = a.id
     WHERE a.state = 'accepted'
"""
_ITEMS = """
    SELECT i.id::text, concat_ws(' ', i.code, i.kind, i.category, i.certification), c.opened_at, i.application::text
      FROM item AS i JOIN cases AS c USING (application)
"""
# The days of a task follow from its clock and the calendar of the day on which they were told; what was told stands in
# the outbox.
_TASK_DAYS = f"""
    SELECT {told_field("task")} AS task, (array_agg({told_field("due_on")} ORDER BY id DESC))[1] AS due_on,
           min({told_field("due_on")}) FILTER (WHERE type = 'DeptAssigned') AS first_due_on,
           (array_agg({told_field("due_on")} ORDER BY id DESC) FILTER (WHERE type = 'CaseResumed'))[1] AS moved_due_on,
           min({_TOLD_ON}) FILTER (WHERE type = 'DeptAssigned') AS opened_on
      FROM outbox WHERE type IN ('DeptAssigned', 'CaseResumed') GROUP BY 1
"""  # noqa: S608 - parts of our own
_TASKS = f"""
    SELECT t.id::text, concat_ws(' ', t.treasury, t.department, t.result, t.completed_on, 'due ' || d.due_on), h.at,
           t.application::text
      FROM task AS t JOIN (SELECT task, max(at) AS at FROM history WHERE task IS NOT NULL GROUP BY task) AS h
        ON h.task = t.id
      LEFT JOIN ({_TASK_DAYS}) AS d ON d.task = t.id::text
"""  # noqa: S608 - parts of our own
_TASK_HOLDERS = """
    SELECT task::text, concat_ws(' ', treasury, department, result, completed_on, 'due ' || due_on), NULL::timestamptz,
           application::text
      FROM task_holder
"""
_TASK_CLOCKS_HERE = f"""
    SELECT t.id::text, concat_ws(' ', t.treasury, t.department, t.completed_on, 'since ' || d.opened_on,
                                 'due ' || d.first_due_on, 'moved to ' || d.moved_due_on), h.at, t.application::text
      FROM task AS t JOIN (SELECT task, max(at) AS at FROM history WHERE task IS NOT NULL GROUP BY task) AS h
        ON h.task = t.id
      LEFT JOIN ({_TASK_DAYS}) AS d ON d.task = t.id::text
"""  # noqa: S608 - parts of our own
_TASK_CLOCKS = """
    SELECT record::text, concat_ws(' ', treasury, department, ended_on, 'since ' || opened_on, 'due ' || due_on,
                                   'moved to ' || moved_due_on), NULL::timestamptz, application::text
      FROM clock WHERE kind = 'task'
"""
_ENDED = """
    SELECT c.application::text, concat_ws(' on ', c.state, c.closed_on), max(h.at), c.application::text
      FROM cases AS c JOIN history AS h USING (application) WHERE c.closed_on IS NOT NULL GROUP BY c.application
"""
_ENDS_HEARD = """
    SELECT application::text, concat_ws(' on ', state, closed_on), NULL::timestamptz, application::text FROM case_end
"""
_SPANS = """
    SELECT c.application::text, concat_ws(' to ', c.accepted_on, c.closed_on), max(h.at), c.application::text
      FROM cases AS c JOIN history AS h USING (application) GROUP BY c.application
"""
_SPANS_HEARD = """
    SELECT application::text, concat_ws(' to ', accepted_on, closed_on), NULL::timestamptz, application::text
      FROM case_clock
"""
_RESULTS = """
    SELECT i.id::text, i.state, h.at, i.application::text
      FROM item AS i JOIN cases AS c USING (application)
      JOIN (SELECT application, max(at) AS at FROM history GROUP BY application) AS h USING (application)
     WHERE c.closed_on IS NOT NULL
"""
_RESULTS_HEARD = """
    SELECT item::text, result, NULL::timestamptz, application::text FROM item_result WHERE result IS NOT NULL
"""

# -- decisions, entitlements, money

_DECIDED = """
    SELECT g.item::text, concat_ws(' ', g.number, g.category, g.decided_on, 'until ' || g.valid_to), h.at,
           g.application::text
      FROM (SELECT item, number, category, decided_on, valid_to, application FROM certification
             UNION ALL SELECT item, number, category, decided_on, NULL, application FROM approval) AS g
      JOIN (SELECT item, max(at) AS at FROM history WHERE action = 'confirmed' GROUP BY item) AS h USING (item)
"""
_DECIDED_HEARD = """
    SELECT item::text, concat_ws(' ', number, category, decided_on, 'until ' || valid_to), NULL::timestamptz,
           application::text
      FROM item_result WHERE number IS NOT NULL
"""
_APPROVED = """
    SELECT a.item::text, concat_ws(' ', a.benefit, a.number, a.beneficiary, c.treasury, a.decided_on), h.at,
           a.application::text
      FROM approval AS a JOIN cases AS c USING (application)
      JOIN (SELECT item, max(at) AS at FROM history WHERE action = 'confirmed' GROUP BY item) AS h USING (item)
"""
_ENTITLED = """
    SELECT item::text, concat_ws(' ', benefit, number, beneficiary, treasury, decided_on), recorded_at,
           application::text FROM entitlement
"""
_ELIGIBLE = """
    SELECT id::text, concat_ws(' ', benefit, number, beneficiary, treasury, decided_on), NULL::timestamptz,
           application::text FROM eligibility
"""
# Finance keeps the references that it was told; a person merged since is known by any of them.
_OWED = """
    SELECT e.item || ' for ' || e.beneficiary, 'entitlement ' || e.id, e.recorded_at, e.application::text
      FROM entitlement AS e
"""
_CHANGED = """
    SELECT h.item::text, concat_ws(' ', c.beneficiary, c.payee_account, c.accepted_on), h.at, h.application::text
      FROM history AS h JOIN cases AS c USING (application) WHERE h.action = 'payee_account_changed'
"""
_CHANGES_HEARD = """
    SELECT item::text, concat_ws(' ', beneficiary, payee_account, accepted_on), NULL::timestamptz, application::text
      FROM payee_change
"""
_ASKED = """
    SELECT i.id || ' for ' || p.ref, '', NULL::timestamptz, a.id::text
      FROM application_item AS i JOIN application AS a ON a.id = i.application
      JOIN person AS b ON b.ref = a.beneficiary
      JOIN person AS p ON coalesce(p.merged_into, p.ref) = coalesce(b.merged_into, b.ref)
"""
_PAID_TO = """
    SELECT 'account ' || o.payee_account || ' of ' || o.beneficiary, 'order ' || min(o.id::text), max(h.recorded_at),
           min(o.application::text)
      FROM payout_order AS o JOIN order_history AS h ON h.order_id = o.id
     WHERE o.payee_account IS NOT NULL GROUP BY o.payee_account, o.beneficiary
"""
_ACCOUNTS = """
    SELECT 'account ' || a.ref || ' of ' || p.ref, '', NULL::timestamptz, NULL
      FROM payee_account AS a JOIN person AS b ON b.ref = a.person
      JOIN person AS p ON coalesce(p.merged_into, p.ref) = coalesce(b.merged_into, b.ref)
"""
_ORDERS = """
    SELECT o.id::text, concat_ws(' ', o.public_fen, o.treasury, o.benefit, o.instalment, 'due ' || o.due_on,
                                 'settled ' || o.settled_on,
                                 CASE WHEN o.state = 'cancelled' THEN 'cancelled' END), h.at, o.application::text
      FROM payout_order AS o
      JOIN (SELECT order_id, max(recorded_at) AS at FROM order_history GROUP BY order_id) AS h ON h.order_id = o.id
"""
_PAYMENTS = """
    SELECT "order"::text, concat_ws(' ', fen, treasury, benefit, instalment, 'due ' || due_on,
                                    'settled ' || settled_on,
                                    CASE WHEN cancelled_on IS NOT NULL THEN 'cancelled' END), NULL::timestamptz,
           application::text FROM payment
"""
_SENT = """
    SELECT h.order_id::text, '', max(h.recorded_at), min(o.application::text)
      FROM order_history AS h JOIN payout_order AS o ON o.id = h.order_id WHERE h.action = 'send' GROUP BY h.order_id
"""
_SENT_HEARD = """
    SELECT "order"::text, '', NULL::timestamptz, application::text FROM payment WHERE sent_at IS NOT NULL
"""
_PAYOUT_CLOCKS_HERE = f"""
    SELECT o.id::text, concat_ws(' ', o.public_fen, o.treasury, 'since ' || d.opened_on, 'due ' || o.due_on,
                                 CASE WHEN o.settled_on IS NOT NULL OR o.state = 'cancelled' THEN 'ended' END), h.at,
           o.application::text
      FROM payout_order AS o
      JOIN (SELECT order_id, max(recorded_at) AS at FROM order_history GROUP BY order_id) AS h ON h.order_id = o.id
      LEFT JOIN (SELECT {told_field("order")} AS "order", (array_agg({_TOLD_ON} ORDER BY id DESC))[1] AS opened_on
                   FROM outbox WHERE type = 'PayoutOrdered' GROUP BY 1) AS d ON d."order" = o.id::text
"""  # noqa: S608 - parts of our own
_PAYOUT_CLOCKS = """
    SELECT record::text, concat_ws(' ', fen, treasury, 'since ' || opened_on, 'due ' || due_on,
                                   CASE WHEN ended_on IS NOT NULL THEN 'ended' END),
           NULL::timestamptz, application::text FROM clock WHERE kind = 'payout'
"""
# What decides who pays. Of the statements of an employer the newest; finance keeps them all. The driver stores the
# first and the last day of Python's calendar as infinite; what is told names them.
_AFFILIATED = """
    SELECT concat_ws(' ', s.employer, max(a.id),
                     string_agg(concat_ws(' ', a.kind, a.treasury, greatest(a.valid_from, '0001-01-01'),
                                          nullif(a.valid_to, 'infinity')), ', ' ORDER BY a.id)),
           'employer ' || s.employer, max(a.recorded_at), s.employer::text
      FROM (SELECT DISTINCT ON (employer) employer, statement FROM employer_affiliation ORDER BY employer, id DESC) AS s
      JOIN employer_affiliation AS a USING (statement) GROUP BY s.employer
"""
_AFFILIATED_HEARD = """
    SELECT concat_ws(' ', f.employer, f.revision,
                     string_agg(concat_ws(' ', a.kind, a.treasury, a.valid_from, nullif(a.valid_to, '9999-12-31')),
                                ', ' ORDER BY a.n)),
           '', NULL::timestamptz, f.employer::text
      FROM employer_affiliation AS f
     CROSS JOIN ROWS FROM (jsonb_to_recordset(f.affiliations)
                           AS (kind text, treasury text, valid_from date, valid_to date)) WITH ORDINALITY
           AS a (kind, treasury, valid_from, valid_to, n)
     GROUP BY f.employer, f.revision
"""

# -- events

_PUBLISHED = """
    SELECT event_id::text, concat_ws(' ', topic, key, type, time, traceparent, encode(sha256(value), 'hex')),
           created_at, key FROM outbox
"""
# The headers are kept as they came: what they say beside the columns is shown where it is something else.
_CHAINED = """
    SELECT event_id::text,
           concat_ws(' ', topic, key, type, time, substring(headers FROM '"ce_traceparent":"([^"]*)"'),
                     encode(sha256(payload), 'hex'),
                     CASE WHEN strpos(headers, '"ce_id":"' || event_id || '"') * strpos(headers, '"ce_type":"' || type
                               || '"') * strpos(headers, '"ce_time":"' || time || '"')
                               * strpos(headers, '"ce_subject":' || to_json(key)) = 0 THEN headers END),
           recorded_at, key
      FROM entry
"""
# `sla.breached` has two publishers, and no order between them.
_IN_ORDER = """
    SELECT topic || ' ' || key || ' ' || lpad(row_number() OVER (PARTITION BY topic, key ORDER BY id)::text, 9, '0'),
           event_id::text, created_at, key
      FROM outbox WHERE topic <> 'sla.breached'
"""
_CHAINED_IN_ORDER = """
    SELECT topic || ' ' || key || ' '
           || lpad(row_number() OVER (PARTITION BY topic, key ORDER BY partition, "offset")::text, 9, '0'),
           event_id::text, recorded_at, key
      FROM entry WHERE topic <> 'sla.breached'
"""

# What the trail alone holds of intake's directories. First and last days as above.
_DIRECTORIES = f"""
    SELECT 'statement ' || id,
           concat_ws(' ', CASE WHEN listed THEN 'EmployerListed' ELSE 'EmployerStruck' END, city, directory,
                     credit_code, 'from ' || least(greatest(valid_from, '0001-01-01'), '9999-12-31'),
                     'to ' || CASE WHEN valid_to = 'infinity' THEN '9999-12-31' ELSE valid_to END,
                     'document ' || {kept_words("document")}), recorded_at, credit_code
      FROM directory_entry
"""  # noqa: S608 - parts of our own
_DIRECTORIES_CHAINED = f"""
    SELECT 'statement ' || coalesce(substring(encode(value, 'escape') FROM '"statement":([0-9]+)'), event_id::text),
           concat_ws(' ', type, {told_field("city")}, {told_field("directory")}, {told_field("credit_code")},
                     'from ' || {told_field("valid_from")}, 'to ' || {told_field("valid_to")},
                     'document ' || {told_words("document")}), NULL::timestamptz, key
      FROM (SELECT event_id, type, key, payload AS value FROM entry WHERE topic = '{EmployerListed.topic}') AS told
"""  # noqa: S608 - parts of our own


def _types(events: Iterable[type[Event]]) -> str:
    return ", ".join(f"'{event.__name__}'" for event in events)


_TOLD_INTAKE = f"""
    SELECT event_id::text, key, created_at, key
      FROM outbox WHERE type IN ({_types(HANDLERS)})
"""  # noqa: S608 - names of our own classes
_STEPS_HEARD = f"""
    SELECT event_id::text, application::text, NULL::timestamptz, application::text
      FROM timeline WHERE code IN ({_types(HANDLERS)})
"""  # noqa: S608 - names of our own classes

_NOTICES = """
    SELECT n.id::text, concat_ws(' ', n.item, n.category, c.treasury, n.opened_on, n.last_day,
                                 'withdrawn ' || (h.at AT TIME ZONE 'Asia/Shanghai')::date),
           greatest(n.opened_at, h.at), n.application::text
      FROM public_notice AS n JOIN cases AS c USING (application)
      LEFT JOIN history AS h ON h.application = n.application AND h.action = 'notice_withdrawn'
                            AND h.detail ->> 'notice' = n.id::text
"""
_NOTICES_HEARD = """
    SELECT notice::text, concat_ws(' ', item, category, treasury, opened_on, last_day, 'withdrawn ' || withdrawn_on),
           NULL::timestamptz, application::text
      FROM public_notice
"""
_OBJECTIONS = """
    SELECT o.id::text, concat_ws(' ', o.notice, o.received_on, f.upheld, f.concluded_on),
           greatest(o.recorded_at, f.recorded_at), n.application::text
      FROM objection AS o JOIN public_notice AS n ON n.id = o.notice
      LEFT JOIN objection_finding AS f ON f.objection = o.id
"""
_OBJECTIONS_HEARD = """
    SELECT objection::text, concat_ws(' ', notice, received_on, upheld, concluded_on), NULL::timestamptz,
           application::text
      FROM objection
"""

BETWEEN: tuple[Mirrored, ...] = (
    Mirrored(
        "every accepted application has its case, as it was accepted", {"intake": _ACCEPTED}, {"workflow": _CASES}
    ),
    Mirrored("every item of a case is the one that was filed", {"intake": _ITEMS_ACCEPTED}, {"workflow": _ITEMS}),
    Mirrored("every task and its result are known to intake", {"workflow": _TASKS}, {"intake": _TASK_HOLDERS}),
    Mirrored("every task has its clock in supervision", {"workflow": _TASK_CLOCKS_HERE}, {"audit": _TASK_CLOCKS}),
    Mirrored("every public notice is known to intake", {"workflow": _NOTICES}, {"intake": _NOTICES_HEARD}),
    Mirrored("every objection is known to intake", {"workflow": _OBJECTIONS}, {"intake": _OBJECTIONS_HEARD}),
    Mirrored("every end of a case is known to intake", {"workflow": _ENDED}, {"intake": _ENDS_HEARD}),
    Mirrored("every case has its days in supervision", {"workflow": _SPANS}, {"audit": _SPANS_HEARD}),
    Mirrored("every result of an item is known to intake", {"workflow": _RESULTS}, {"intake": _RESULTS_HEARD}),
    Mirrored("every number of a decision is known to intake", {"workflow": _DECIDED}, {"intake": _DECIDED_HEARD}),
    Mirrored(
        "every approved benefit is an entitlement to money or to a flat",
        {"workflow": _APPROVED},
        {"finance": _ENTITLED, "housing": _ELIGIBLE},
    ),
    Mirrored("every changed account is known to finance", {"workflow": _CHANGED}, {"finance": _CHANGES_HEARD}),
    Known("finance knows where every employer belongs", {"intake": _AFFILIATED}, {"finance": _AFFILIATED_HEARD}),
    Known("every entitlement is of whom its application names", {"finance": _OWED}, {"intake": _ASKED}),
    Known("every payout order goes to an account of its beneficiary", {"finance": _PAID_TO}, {"intake": _ACCOUNTS}),
    Mirrored("every payout order is known to intake, to the fen", {"finance": _ORDERS}, {"intake": _PAYMENTS}),
    Mirrored("every order sent to the bank is known to intake", {"finance": _SENT}, {"intake": _SENT_HEARD}),
    Mirrored(
        "every payout order has its clock in supervision",
        {"finance": _PAYOUT_CLOCKS_HERE},
        {"audit": _PAYOUT_CLOCKS},
    ),
    Mirrored(
        "every step that others tell of stands in the timeline once",
        dict.fromkeys(("workflow", "finance", "housing"), _TOLD_INTAKE),
        {"intake": _STEPS_HEARD},
    ),
    Mirrored(
        "every published event is in the trail once, unaltered, and nothing else is",
        dict.fromkeys(SERVICES, _PUBLISHED),
        {"audit": _CHAINED},
    ),
    Mirrored(
        "every statement in a directory of employers is in the trail as it was made",
        {"intake": _DIRECTORIES},
        {"audit": _DIRECTORIES_CHAINED},
    ),
    Mirrored(
        "the events of every key were published in their order",
        dict.fromkeys(SERVICES, _IN_ORDER),
        {"audit": _CHAINED_IN_ORDER},
    ),
)
