import anyio
import pytest

from intelnav.events import KEPT, Events

pytestmark = pytest.mark.anyio


async def test_the_last_thousand_are_kept_and_numbered() -> None:
    events = Events()
    for number in range(KEPT + 5):
        events.add("node", str(number))
    kept = events.after(0)
    assert [event.seq for event in kept] == list(range(6, KEPT + 6))
    assert [event.message for event in events.after(KEPT + 3)] == [str(KEPT + 3), str(KEPT + 4)]
    assert events.after(KEPT + 5) == []


async def test_who_waits_is_told_of_the_next_one() -> None:
    events = Events()
    heard: list[int] = []

    async def listen() -> None:
        await events.next(1)
        heard.extend(event.seq for event in events.after(1))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await anyio.wait_all_tasks_blocked()
        events.add("config", "first")
        await anyio.wait_all_tasks_blocked()
        assert heard == []
        events.add("slice", "second", model="tiny", layers="0..2", state="ready")
    assert heard == [2]
    # It is there already.
    await events.next(0)


async def test_nobody_waits_for_what_does_not_come_any_more() -> None:
    events = Events()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(events.next, 0)
        await anyio.wait_all_tasks_blocked()
        events.close()
    await events.next(7)
