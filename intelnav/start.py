"""Where `intelnav-node` starts. To import a node takes a moment, and it is to be stoppable from the first one on."""

import os
import signal


def main() -> None:
    """Run a node, see `intelnav.node.main`. Until it heeds signals itself, they end it: it has said nothing yet.

    As the first process of a container it would otherwise ignore them.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    from intelnav.node import main as run

    run()


if __name__ == "__main__":
    main()
