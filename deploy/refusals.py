"""What the command line answers with one line and exit code 2: it says what is so, and the operator mends it."""


class Refusal(Exception):
    """The command cannot do what it was asked: one line that says why, and what to do."""


class PortTaken(Refusal):
    """Something else listens on a port that is needed."""


class NotStarted(Refusal):
    """An engine, a broker or a service refused to start or to stay; the message says why."""
