"""The program of a department, for others to copy: see README.md."""
