"""Speed beside a limit and peers, in one run on one PostgreSQL: `make bench`. What each row means:
docs/benchmarks.md."""
