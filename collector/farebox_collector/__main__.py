"""Where the command `farebox` begins: a light door before heavy rooms.

Imports make some hundred thousand objects that all stay. The garbage collector would look through them again and again
while they come, which is a fifth of the time of a start: it comes by less often, as it does in a running collector.
"""

import gc
import os


def main() -> None:
    """Run the command."""
    gc.set_threshold(500_000, 20, 50)
    # Books, backups and reports are for the user who makes them.
    os.umask(0o077)
    from farebox_collector import cli

    cli.main()


if __name__ == "__main__":
    main()
