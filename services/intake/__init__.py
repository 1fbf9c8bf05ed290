"""Intake: takes filings in, from the first contact to accepted, not accepted or transferred, and feeds results back.

Owns: people with their documents, names and payee accounts (sealed; nobody else holds them), employers and their
affiliations over time, the directories that employers stand in, applications with items, materials and external
references, and what applicants are told.

Hears: dept.assigned, dept.completed, case.suspended, notice.opened, talent.certified, application.closed,
payout.ordered, payout.settled, housing.leased: the timeline and the results of an application, a projection
(`feedback.py`).

Emits: application.received (ApplicationReceived, CorrectionRequested, ApplicationAccepted, ApplicationNotAccepted,
ApplicationTransferred, ApplicationWithdrawn, PromiseMissed), employer.affiliated (EmployerAffiliated; key: the
employer), employer.listed (EmployerListed, EmployerStruck; key: the credit code) and people.resolved (PeopleResolved).
A correction not answered in time is an ApplicationNotAccepted with the reason `lapsed`.
"""
