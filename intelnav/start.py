"""Where `intelnav-node` starts. To import a node takes a moment, and it is to be stoppable from the first one on."""

import os
import signal


def main() -> None:
    """Run a node, see `intelnav.node.main`. Until it heeds signals itself, SIGTERM ends it: it has said nothing yet.

    As the first process of a container it would otherwise ignore the signal.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    from intelnav.node import main as run

    run()
