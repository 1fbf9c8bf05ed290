"""Finance: owns what is paid, by whom, out of which quota, and the books of every treasury; nobody is paid twice.

Owns: `entitlement` with its instalments and what was reviewed before them (`instalment_review`), `payee_change` (where
money goes), `employer_affiliation` (as intake tells it), `payout_order` with its history, `quota`, batch and result
files of the bank, `transfer` and `entry` (the ledger, one book a treasury), `period`, `settlement`.
Hears: `talent.certified` (BenefitApproved, of the benefits that give money; PayeeAccountChanged) and
`employer.affiliated` (EmployerAffiliated; key: the employer).
Emits: `payout.ordered` (PayoutOrdered, PayoutSent), `payout.settled` (PayoutSettled, PayoutBounced, PayoutCancelled,
InstalmentReviewed), `fiscal_settlement.closed` (FiscalSettlementClosed; key: the treasury) and `sla.breached`
(SlaBreached, clock payout).

Locks are taken in one order everywhere: due work, quota, beneficiary, application, period, account; within each in
order of its key. So the ticker takes its due rows, and puts parked ones back, before a handler locks anything; a review
has its order made before it locks the application; a bank's file sets clocks before it locks orders. Due work of a
record that is only being made is written last: nobody else knows its key. One tick runs several kinds of work, and
releases several keys, in one transaction, each in this order but one behind the other; and messaging writes behind a
handler (it parks, or wakes what waited for an event). There a ring is still possible. The database ends one of the two,
whole, and it is done again: by the ticker and the consumer for ever, by whoever asked where it was a request.
"""
