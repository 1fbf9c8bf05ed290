"""Workflow: from an accepted application to its end.

Owns cases, their items and department tasks, the clock of each task, public notices and objections to them,
certifications, approvals of benefits and the talent record. Hears ApplicationAccepted, ApplicationWithdrawn and
PromiseMissed. Emits DeptAssigned, DeptCompleted, CaseSuspended, CaseResumed, PublicNoticeOpened, PublicNoticeWithdrawn,
ObjectionReceived, ObjectionConcluded, TalentCertified, BenefitApproved, PayeeAccountChanged, ApplicationClosed,
WithdrawalIgnored and SlaBreached.
"""
