"""`python -m derain` is the command line."""

import signal


def main() -> None:
    """Entry point; Ctrl-C while Python loads the modules, or ends, ends the process without a traceback."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from derain.cli import main as command_line

    signal.signal(signal.SIGINT, handler)
    try:
        command_line()
    finally:
        if handler is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
