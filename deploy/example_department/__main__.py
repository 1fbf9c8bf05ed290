"""`python -m deploy.example_department`: the program of department.py, from this repository."""

from deploy.example_department.department import main

main()
