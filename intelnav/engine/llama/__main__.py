"""`python -m intelnav.engine.llama DEVICE`: whether the engine works here with that device, as one JSON object.

A process of its own, for whoever must not load llama.cpp: a broken build can end the process that loads it.
"""

import json
import sys
from typing import cast, get_args

import llama_cpp

from intelnav.domain.errors import IntelNavError
from intelnav.engine.interface import Device
from intelnav.engine.llama.ggml import gpus
from intelnav.engine.probe import choose_gpus, choose_threads


def main(device: str) -> None:
    """Print the version of llama-cpp-python, what it offers, and what is wrong with `device`, empty if nothing is."""
    assert device in get_args(Device), device
    problem = ""
    offered = gpus()
    try:
        choose_gpus(cast(Device, device), -1, lambda: offered)
    except IntelNavError as error:
        problem = str(error)
    found = [
        {"backend": gpu.backend, "description": gpu.description, "free_bytes": gpu.free} for gpu in offered
    ]
    report = {
        "version": llama_cpp.__version__,
        "threads": choose_threads(0),
        "gpus": found,
        "problem": problem,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1])
