"""numbers of other systems are free again, documents may be only claimed

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Who took a number over, and whether a document identifies: of each record its first one and its cards do."""
    op.add_column(
        "external_ref",
        sa.Column("superseded_by", sa.UUID(), nullable=True, comment="filed under it after this one came to nothing"),
    )
    op.create_foreign_key(
        op.f("fk_external_ref_superseded_by_application"), "external_ref", "application", ["superseded_by"], ["id"]
    )
    op.drop_constraint(op.f("pk_external_ref"), "external_ref", type_="primary")
    op.create_primary_key(op.f("pk_external_ref"), "external_ref", ["system", "kind", "value", "application"])
    op.create_index(
        "uq_external_ref_holder",
        "external_ref",
        ["system", "kind", "value"],
        unique=True,
        postgresql_where=sa.text("superseded_by IS NULL"),
    )
    op.add_column(
        "person_document",
        sa.Column(
            "claimed",
            sa.Boolean(),
            nullable=True,
            comment="stated beside another one, seen by nobody: it identifies nobody",
        ),
    )
    op.execute("""
        UPDATE person_document AS d
           SET claimed = d.type NOT IN ('resident_identity_card', 'foreign_permanent_residence', 'hmt_residence_permit')
                     AND EXISTS (SELECT FROM person_document AS e WHERE e.person = d.person AND e.id < d.id)
    """)
    op.alter_column("person_document", "claimed", nullable=False)


def downgrade() -> None:
    """As before; of a number that was filed again, the newest application holds it."""
    op.drop_column("person_document", "claimed")
    op.execute("DELETE FROM external_ref WHERE superseded_by IS NOT NULL")
    op.drop_index("uq_external_ref_holder", table_name="external_ref")
    op.drop_constraint(op.f("pk_external_ref"), "external_ref", type_="primary")
    op.create_primary_key(op.f("pk_external_ref"), "external_ref", ["system", "kind", "value"])
    op.drop_column("external_ref", "superseded_by")
