"""entries of one statement are checked together

Revision ID: 0007
Revises: 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# As migration 0002 had it.
ENTRY_BY_ENTRY = """
    CREATE OR REPLACE FUNCTION refuse_unbalanced_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        checked uuid;
    BEGIN
        IF TG_TABLE_NAME = 'transfer' THEN
            checked := NEW.id;
            IF NOT EXISTS (SELECT 1 FROM entry WHERE transfer_id = checked) THEN
                RAISE EXCEPTION 'transfer % has no entries', checked USING ERRCODE = 'check_violation';
            END IF;
        ELSE
            checked := NEW.transfer_id;
        END IF;
        IF EXISTS (SELECT 1 FROM entry AS e JOIN account AS a ON a.id = e.account_id
                    WHERE e.transfer_id = checked GROUP BY a.treasury HAVING sum(e.fen) <> 0) THEN
            RAISE EXCEPTION 'transfer % does not balance in every book', checked
                  USING ERRCODE = 'check_violation';
        END IF;
        RETURN NULL;
    END $$
"""


def upgrade() -> None:
    """Five entries of a payout were looked at six times, all of them each time. Now each statement that adds entries
    adds what balances, so their sum does; and at the commit it is asked only whether a transfer has any."""
    op.execute("DROP TRIGGER entry_balances ON entry")
    op.execute("""
        CREATE FUNCTION refuse_unbalanced_entries() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            checked uuid;
        BEGIN
            SELECT e.transfer_id INTO checked FROM added AS e JOIN account AS a ON a.id = e.account_id
             GROUP BY e.transfer_id, a.treasury HAVING sum(e.fen) <> 0 LIMIT 1;
            IF FOUND THEN
                RAISE EXCEPTION 'transfer % does not balance in every book', checked USING ERRCODE = 'check_violation';
            END IF;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER entry_balances AFTER INSERT ON entry REFERENCING NEW TABLE AS added
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_unbalanced_entries()
    """)
    op.execute("""
        CREATE OR REPLACE FUNCTION refuse_unbalanced_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NOT EXISTS (SELECT 1 FROM entry WHERE transfer_id = NEW.id) THEN
                RAISE EXCEPTION 'transfer % has no entries', NEW.id USING ERRCODE = 'check_violation';
            END IF;
            RETURN NULL;
        END $$
    """)


def downgrade() -> None:
    """Entry by entry again."""
    op.execute("DROP TRIGGER entry_balances ON entry")
    op.execute("DROP FUNCTION refuse_unbalanced_entries()")
    op.execute(ENTRY_BY_ENTRY)
    op.execute("""
        CREATE CONSTRAINT TRIGGER entry_balances AFTER INSERT ON entry DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION refuse_unbalanced_transfer()
    """)
