"""every transfer balances in every book

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A deferred check at the commit, when every entry of the transfer is there."""
    op.execute("""
        CREATE FUNCTION refuse_unbalanced_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
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
    """)
    for table in ("transfer", "entry"):
        op.execute(f"""
            CREATE CONSTRAINT TRIGGER {table}_balances AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION refuse_unbalanced_transfer()
        """)


def downgrade() -> None:
    """Without the check."""
    for table in ("transfer", "entry"):
        op.execute(f"DROP TRIGGER {table}_balances ON {table}")
    op.execute("DROP FUNCTION refuse_unbalanced_transfer()")
