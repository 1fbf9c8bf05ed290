"""Intake's HTTP edge, by noun."""
