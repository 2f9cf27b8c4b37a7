"""Start the command `farebox`: raise GC thresholds, then import the rest.

Imports make some hundred thousand objects, all permanent. With default thresholds the garbage collector would traverse
them repeatedly during the imports, a fifth of the start-up time. A running collector raises the thresholds too.
"""

import gc
import os


def main() -> None:
    """Run the command."""
    gc.set_threshold(500_000, 20, 50)
    # Books, backups and reports are readable by the user who makes them only.
    os.umask(0o077)
    from farebox_collector import cli

    cli.main()


if __name__ == "__main__":
    main()
