"""Where `huanquan` begins: a Ctrl-C while its libraries are still being loaded ends it at once and says nothing."""

import signal


def main() -> None:
    """Load the command line and run it; from then on each command decides what a signal does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from deploy.cli import main as run

    signal.signal(signal.SIGINT, signal.default_int_handler)
    run()
