"""Books of any size: finance's own tables filled by set-based SQL, so that every invariant of reconciliation holds.

Payouts of one county's treasury, of which the city bears a part, all ordered, sent in files of 5,000 and credited in
one month that is not closed yet.
"""

from collections.abc import Sequence

from tests.finance.builders import CITY, COUNTY

MONTH, DAY = "2026-01", "2026-01-15"
CITYS, COUNTYS = 400_000, 600_000  # fen of each payout
BOTH = CITYS + COUNTYS
ENTRIES = 5  # of each payout
A_FILE = 5_000
PACK = "'bench', '1', repeat('0', 64)"
# As finance's own ids are (UUIDv7, RFC 9562): in the order in which they were made, here one a millisecond.
ID = """
    CREATE FUNCTION bench_id(kind text, n bigint) RETURNS uuid IMMUTABLE LANGUAGE sql
    RETURN CAST(lpad(to_hex(1767225600000 + n), 12, '0') || '7' || left(md5(kind || n), 3)
                || '8' || right(md5(kind || n), 15) AS uuid)
"""
OPENED = """
    INSERT INTO period (treasury, month) VALUES ('{county}', '{month}');
    INSERT INTO account (treasury, kind, counterparty, balance) VALUES
        ('{county}', 'cash', '', -{payouts} * {both}), ('{county}', 'expenditure', '', {payouts} * {countys}),
        ('{county}', 'due_from', '{city}', {payouts} * {citys}), ('{city}', 'expenditure', '', {payouts} * {citys}),
        ('{city}', 'due_to', '{county}', -{payouts} * {citys});
    INSERT INTO quota (id, treasury, benefit, fiscal_year, number, amount_fen, committed_fen)
    VALUES (bench_id('quota', 0), '{county}', 'living_allowance', 2026, 'ZB-1', {payouts} * {both}, {payouts} * {both});
    INSERT INTO quota_change (quota_id, fen, reason, actor)
    VALUES (bench_id('quota', 0), {payouts} * {both}, 'budget', 'treasurer');
"""
ORDERED = """
    INSERT INTO application (id) SELECT bench_id('application', n) FROM generate_series(1, {payouts}) AS r (n);
    INSERT INTO beneficiary (id) SELECT bench_id('person', n) FROM generate_series(1, {payouts}) AS r (n);
    INSERT INTO entitlement (id, application, item, benefit, number, certification, category, beneficiary,
                             payee_account, employer_kind, treasury, accepted_on, decided_on, total_fen,
                             policy_city, policy_version, policy_sha256)
    SELECT bench_id('entitlement', n), bench_id('application', n), bench_id('item', n), 'living_allowance', 'PZ-' || n,
           'RD-' || n, 'A', bench_id('person', n), bench_id('account', n), 'enterprise', '{county}', DATE '{day}' - 20,
           DATE '{day}' - 2, {both}, {pack}
      FROM generate_series(1, {payouts}) AS r (n);
    INSERT INTO instalment (entitlement_id, number, amount_fen)
    SELECT bench_id('entitlement', n), 1, {both} FROM generate_series(1, {payouts}) AS r (n);
    INSERT INTO payout_order (id, application, item, entitlement_id, instalment, benefit, beneficiary, treasury,
                              public_fen, employer_fen, shares, rules, due_on, quota_id, payee_account, state,
                              settled_on, policy_city, policy_version, policy_sha256)
    SELECT bench_id('order', n), bench_id('application', n), bench_id('item', n), bench_id('entitlement', n), 1,
           'living_allowance', bench_id('person', n), '{county}', {both}, 0,
           jsonb_build_object('{city}', {citys}, '{county}', {countys}), '[]', DATE '{day}', bench_id('quota', 0),
           bench_id('account', n), '{state}', {settled_on}, {pack}
      FROM generate_series(1, {payouts}) AS r (n);
"""
CREDITED = """
    INSERT INTO payout_batch (id, number, channel, treasury, lines, total_fen, made_on, made_by, file, sha256)
    SELECT bench_id('batch', f), 'F-' || f, 'file', '{county}', n, n * {both}, DATE '{day}', 'treasurer', '', ''
      FROM (SELECT n / {a_file} AS f, count(*) AS n FROM generate_series(1, {payouts}) AS r (n) GROUP BY 1) AS files;
    INSERT INTO batch_line (reference, batch_id, order_id, attempt, fen)
    SELECT 'R-' || n, bench_id('batch', n / {a_file}), bench_id('order', n), 1, {both}
      FROM generate_series(1, {payouts}) AS r (n);
    INSERT INTO bank_result_file (id, treasury, number, sha256, file, lines, imported_by)
    SELECT bench_id('result', f), '{county}', 'B-' || f, 'S-' || f, '', 1, 'treasurer'
      FROM generate_series(0, {payouts} / {a_file}) AS r (f);
    INSERT INTO bank_result_line (file_id, line, reference, order_id, fen, outcome, on_day, verdict)
    SELECT bench_id('result', n / {a_file}), n, 'R-' || n, bench_id('order', n), {both}, 'credited', DATE '{day}',
           'settle'
      FROM generate_series(1, {payouts}) AS r (n);
    INSERT INTO order_history (order_id, action, state, attempt, actor, record)
    SELECT bench_id('order', n), action, state, 1, 'treasurer', bench_id(record, n / {a_file})
      FROM generate_series(1, {payouts}) AS r (n),
           (VALUES (1, 'order', 'due', NULL), (2, 'send', 'sent', 'batch'), (3, 'settle', 'settled', 'result'))
           AS s (place, action, state, record)
     ORDER BY n, place;
"""
POSTED = """
    INSERT INTO transfer (id, key, kind, treasury, month, posted_on, order_id, attempt)
    SELECT bench_id('transfer', n), 'payout:' || bench_id('order', n) || ':1', 'payout', '{county}', '{month}',
           DATE '{day}', bench_id('order', n), 1
      FROM generate_series(1, {payouts}) AS r (n);
    INSERT INTO entry (transfer_id, account_id, fen)
    SELECT bench_id('transfer', n), a.id, e.fen
      FROM generate_series(1, {payouts}) AS r (n),
           (VALUES ('{county}', 'cash', '', -{both}), ('{county}', 'expenditure', '', {countys}),
                   ('{county}', 'due_from', '{city}', {citys}), ('{city}', 'expenditure', '', {citys}),
                   ('{city}', 'due_to', '{county}', -{citys})) AS e (treasury, kind, counterparty, fen)
      JOIN account AS a USING (treasury, kind, counterparty);
"""


def orders(count: int) -> Sequence[str]:
    """SQL that makes so many orders, sent and not credited yet, in a month that is open."""
    return [ID, *_filled(count, OPENED, ORDERED, state="sent", settled_on="NULL")]


def paid(count: int) -> Sequence[str]:
    """SQL that makes so many payouts, credited and posted. As the superuser, in one session: constraints and triggers
    are left to reconciliation, or the largest books would take longer to make than all that is measured."""
    filled = _filled(count, OPENED, ORDERED, CREDITED, POSTED, state="settled", settled_on=f"DATE '{DAY}'")
    return [ID, "SET session_replication_role = replica", *filled, "RESET session_replication_role", "VACUUM ANALYZE"]


def _filled(count: int, *parts: str, state: str, settled_on: str) -> list[str]:
    values = {
        "payouts": f"{count}::bigint",
        "county": COUNTY,
        "city": CITY,
        "citys": CITYS,
        "countys": COUNTYS,
        "both": BOTH,
        "month": MONTH,
        "day": DAY,
        "pack": PACK,
        "a_file": A_FILE,
        "state": state,
        "settled_on": settled_on,
    }
    return [part.format(**values) for part in parts]
