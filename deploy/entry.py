"""Where `huanquan` begins: a Ctrl-C while its libraries are still being loaded ends it at once and says nothing."""

import gc
import signal


def main() -> None:
    """Load the command line and run it; from then on each command decides what a signal does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.set_threshold(100_000, 20, 20)  # libraries stay: to look for garbage among them took an eighth of their loading
    from deploy.cli import main as run

    signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
