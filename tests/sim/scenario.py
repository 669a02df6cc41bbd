"""What is simulated: a swarm forms, a share of it dies at once, and the rest looks up; and what is measured of it."""

import gc
import multiprocessing
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, quantiles
from typing import Any

from tests.sim.clock import virtual_time
from tests.sim.network import Tally
from tests.sim.swarm import Found, Swarm

WITHDRAWN = 0.05
IDLE_SECONDS = 300.0
LOOKUPS = 1000
# What tells the announcements apart, before the deaths and after.
FIRST, SECOND = 0.0, 0.5

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is simulated: so many lookups right after the deaths, or `later` after the living announced again.

    `idle` nodes then only keep in touch for five minutes, as all do in life.
    """

    size: int
    dead: tuple[float, ...] = (0.0, 0.3, 0.6)
    lookups: int = LOOKUPS
    later: int = 300
    idle: int = 30
    seed: int = 1


def simulate(plan: Plan, at_once: int = 1) -> list[Figures]:
    """The figures of each share of dead nodes; all start from the same swarm, and so many processes share the work."""
    # Nothing is thrown away before the end, so looking for garbage only takes time.
    gc.disable()
    try:
        with virtual_time(plan.seed) as loop:
            swarm = Swarm(loop, plan.size, plan.seed)
            loop.run_until_complete(swarm.join())
            announced = loop.run_until_complete(swarm.announce(FIRST))
            parts = [
                lambda dead=dead, part=part: loop.run_until_complete(part(swarm, plan, dead))
                for dead in plan.dead
                for part in (_at_once, _later)
            ]
            figures = in_processes(parts, at_once)
    finally:
        gc.enable()
    return [
        {"nodes": plan.size, "dead": dead, "announcement_before": _traffic(announced), **first, **second}
        for dead, first, second in zip(plan.dead, figures[::2], figures[1::2], strict=True)
    ]


def in_processes(tasks: Sequence[Callable[[], Any]], at_once: int) -> list[Any]:
    """What each task returns. Each runs in a fork of this process as it is now, `at_once` of them at a time."""
    fork = multiprocessing.get_context("fork")
    results: list[Any] = []
    running: list[Any] = []
    waiting = list(tasks)
    while waiting or running:
        while waiting and len(running) < at_once:
            receiver, sender = fork.Pipe(duplex=False)
            process = fork.Process(target=_send, args=(sender, waiting.pop(0)))
            process.start()
            sender.close()
            running.append((process, receiver))
        process, receiver = running.pop(0)
        results.append(receiver.recv())
        process.join()
    return results


def _send(sender: Any, task: Callable[[], Any]) -> None:
    sender.send(task())
    sender.close()


async def _at_once(swarm: Swarm, plan: Plan, dead: float) -> Figures:
    """What those find who look before anybody has announced again."""
    await _kill(swarm, plan, dead)
    return {"lookups_at_once": _lookups(await swarm.look_up(plan.lookups, FIRST))}


async def _later(swarm: Swarm, plan: Plan, dead: float) -> Figures:
    """What is found, and what it costs to keep in touch, when the living have announced again."""
    await _kill(swarm, plan, dead)
    again = await swarm.announce(SECOND)
    later = await swarm.look_up(plan.later, SECOND)
    idle = _traffic(await swarm.idle(plan.idle, IDLE_SECONDS))
    return {
        "lookups_after_announcing": _lookups(later),
        "announcement_after": _traffic(again),
        "upkeep_per_second": {name: idle[name] / IDLE_SECONDS for name in ("datagrams", "bytes")},
    }


async def _kill(swarm: Swarm, plan: Plan, dead: float) -> None:
    # Python seeds its generator anew in each fork.
    random.seed(plan.seed)
    swarm.kill(dead)
    await swarm.withdraw(WITHDRAWN)


def _lookups(found: Sequence[Found]) -> Figures:
    """Averages, where nothing else is said; times in milliseconds, sizes in bytes of UDP payload."""
    possible = [each for each in found if each.routed is not None]
    seconds = quantiles([each.seconds for each in found], n=100)
    datagrams = quantiles([each.tally.datagrams for each in found], n=100)
    records = sum(each.records for each in found)
    return {
        "count": len(possible),
        "success": mean(bool(each.routed) for each in possible),
        "every_living_host": mean(each.complete for each in found),
        "rounds": mean(each.tally.rounds for each in found),
        "datagrams": mean(each.tally.datagrams for each in found),
        "datagrams_p99": datagrams[98],
        "datagrams_without_further_pages": mean(
            each.tally.datagrams - each.tally.for_pages for each in found
        ),
        "bytes": mean(each.tally.octets for each in found),
        "milliseconds_p50": 1000 * seconds[49],
        "milliseconds_p99": 1000 * seconds[98],
        "records": mean(each.records for each in found),
        "stale": sum(each.old for each in found) / max(1, records),
        "of_the_dead": sum(each.dead for each in found) / max(1, records),
    }


def _traffic(tallies: Sequence[Tally]) -> Figures:
    return {
        "count": len(tallies),
        "datagrams": mean(each.datagrams for each in tallies) if tallies else 0.0,
        "bytes": mean(each.octets for each in tallies) if tallies else 0.0,
    }
