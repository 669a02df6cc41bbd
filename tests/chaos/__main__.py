"""`python -m tests.chaos [--events N] [--seed N]`: random events on a real node, by default 300."""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.run import chaos, report
from tests.chaos.world import can_be_made, world


def main() -> None:
    """Run, and print what happened; exit status 1 with the seed if something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--events", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    if reason := can_be_made():
        sys.exit(f"chaos cannot be run: {reason}")
    print(f"seed {options.seed}, {options.events} events", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, world(Path(folder)) as (made, manifest):
        tally = chaos(made, manifest, options.seed, options.events)
        figures = report(tally) | {
            "longest_overdue_seconds": round(made.longest_overdue, 2),
            "seconds": round(time.monotonic() - began),
        }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
