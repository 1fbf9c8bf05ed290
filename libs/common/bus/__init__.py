"""The bus: one protocol, two drivers."""
