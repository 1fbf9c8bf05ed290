"""Audit: owns the trail of everything that was said, and measures every clock from it.

Owns: `entry` (the chained trail), the supervision projection (`clock`, `case_clock`), anchors of the chain's head.
Hears: every topic, raw: what nobody can decode is in the trail too.
Emits: nothing. What it finds is read, so it cannot drown in its own findings.
"""
