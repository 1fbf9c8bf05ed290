"""Workflow: from an accepted application to its end.

Owns cases, their items and department tasks, the clock of each task, certifications, approvals of benefits and the
talent record. Hears ApplicationAccepted, ApplicationWithdrawn and PromiseMissed. Emits DeptAssigned, DeptCompleted,
CaseSuspended, CaseResumed, TalentCertified, BenefitApproved, PayeeAccountChanged, ApplicationClosed, WithdrawalIgnored
and SlaBreached.
"""
