"""Where the command `farebox` and `python -m farebox_collector` begin: a light door before heavy rooms.

Imports make some hundred thousand objects that all stay. The garbage collector would look through them again and again
while they come, which is a fifth of the time of a start; it begins its work when they are there, and passes over them.
"""

import gc


def main() -> None:
    """Run the command."""
    gc.disable()
    from farebox_collector import cli

    gc.freeze()
    gc.enable()
    cli.main()


if __name__ == "__main__":
    main()
