#!/usr/bin/env python3
"""A worker of your own: takes tasks of a queue, runs a command for each, says how it ended.

    pip install nats-py
    NATS_URL=nats://127.0.0.1:4222 python3 worker.py coach ./review.sh

`kaizen-agentic work` does the same, and also stops a command whose task was cancelled.
"""

import asyncio
import json
import os
import sys
import uuid

import nats
from nats.js.errors import APIError

ME = f"{os.uname().nodename}/{uuid.uuid4()}"
KEPT = ("Nats-TTL", "Kaizen-Definition", "Kaizen-Revision", "Kaizen-Activation", "traceparent")


async def put(js, order, after: int, record: dict) -> int:
    """Stores what follows in the life of a task, unless something else has followed."""
    headers = {name: order.headers[name] for name in KEPT if name in order.headers}
    headers["Nats-Expected-Last-Subject-Sequence"] = str(after)
    return (await js.publish(order.subject, json.dumps(record).encode(), headers=headers)).seq


async def keep(order) -> None:
    while True:  # Without this, another worker is given the task after 30 s.
        await asyncio.sleep(10)
        await order.in_progress()


async def work(js, order, command: list[str]) -> None:
    sequence, last = order.metadata.sequence.stream, await js.get_last_msg("LEDGER", order.subject)
    if last.seq < sequence:  # The leader has not come as far as the node that delivered it.
        return await order.nak(delay=1)
    standing = json.loads(last.data)
    is_current = sequence == standing.get("order", last.seq) and standing["kind"] != "outcome"
    if json.loads(order.data)["kind"] != "order" or not is_current:
        return await order.ack()
    keeping = asyncio.create_task(keep(order))
    try:
        delivery = order.metadata.num_delivered
        taken = {"kind": "taken", "order": sequence, "worker": ME, "delivery": delivery}
        taken = await put(js, order, last.seq, taken)
        run = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
        await run.communicate(order.data)
        ended = {"ended": "failed" if run.returncode else "done", "exit_code": run.returncode}
        await put(js, order, taken, {"kind": "outcome", "order": sequence, "by": ME, **ended})
        await order.ack()
    except APIError as error:
        print(f"{order.subject} is somebody else's: {error}", file=sys.stderr)
    finally:
        keeping.cancel()


async def main(queue: str, command: list[str]) -> None:
    url = os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
    js = (await nats.connect(url, inbox_prefix=b"_INBOX.cli")).jetstream()
    orders = await js.pull_subscribe_bind(f"queue-{queue}", "LEDGER")
    while True:
        try:
            for order in await orders.fetch(1, timeout=10):
                await work(js, order, command)
        except TimeoutError:
            pass


asyncio.run(main(sys.argv[1], sys.argv[2:]))
