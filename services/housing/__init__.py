"""Housing: owns flats, who may have one, holds and leases; two people never have the same flat.

Owns: `flat`, `eligibility`, `hold` with its history, `lease`.
Hears: `talent.certified` (BenefitApproved, of the benefits that give housing in kind).
Emits: `housing.leased` (FlatHeld, FlatReleased, FlatLeased, LeaseEnded).
"""
