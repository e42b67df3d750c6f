#!/usr/bin/env python3
"""A resolver of your own: answers the source type `code_owner`.

Who owns a project stands in a JSON file, {"pilot-api": "ada"}. The project is taken from
params.project of the source, else from the event that set the definition off.

    pip install nats-py
    NATS_URL=nats://127.0.0.1:4222 python3 code_owner.py owners.json

The messages are those of proto/kaizen/outside/v1/outside.proto. All of their fields are texts
but one, so a dozen lines read and write them; with more of them, generate code from the file.
"""

import asyncio
import json
import os
import sys

import nats

SUBJECT = "kaizen.resolver.code_owner"


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


def fields(message: bytes) -> dict[int, bytes]:
    """Texts by field number."""
    found, at = {}, 0
    while at < len(message):
        tag, at = varint(message, at)
        if tag & 7 != 2:
            raise ValueError(f"field {tag >> 3} is no text")
        size, at = varint(message, at)
        found[tag >> 3] = message[at : at + size]
        at += size
    return found


def field(number: int, text: bytes) -> bytes:
    size, head = len(text), bytearray([number << 3 | 2])
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(head) + bytes([size]) + text


def value(found: object) -> bytes:
    return field(1, json.dumps(found).encode())


def failure(message: str, transient: bool = False) -> bytes:
    return field(2, field(1, message.encode()) + (b"\x10\x01" if transient else b""))


def answer(owners: str, request: bytes) -> bytes:
    asked = fields(request)
    params = json.loads(asked.get(2) or b"{}")
    attributes = json.loads(asked.get(3) or b"{}")
    project = params.get("project") or attributes.get("project")
    if project is None:
        return failure("name a project in params, or have an event set it off")
    try:
        with open(owners, encoding="utf-8") as file:
            known = json.load(file)
    except OSError as error:
        return failure(str(error), transient=True)
    if project not in known:
        return failure(f"nobody owns {project}")
    return value({"project": project, "owner": known[project]})


async def main(owners: str) -> None:
    client = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))

    async def reply(message) -> None:
        try:
            answered = answer(owners, message.data)
        except (ValueError, IndexError) as error:
            answered = failure(f"cannot read the request: {error}")
        await message.respond(answered)

    # A queue group: of several that run, one answers.
    await client.subscribe(SUBJECT, queue="code_owner", cb=reply)
    await client.flush()
    print(f"answering on {SUBJECT}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
