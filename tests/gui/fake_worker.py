"""A worker that misbehaves on request: the first argument says how."""

from __future__ import annotations

import json
import os
import sys
import time


def say(**message: object) -> None:
    print(json.dumps(message), flush=True)


def main(mode: str) -> None:
    if mode == "deaf":
        time.sleep(60)
    if mode == "stillborn":
        print("no such library", file=sys.stderr, flush=True)
        sys.exit(3)
    protocol = 99 if mode == "foreign" else 1
    say(type="hello", protocol=protocol, version="0", pid=os.getpid())
    for line in sys.stdin:
        command = json.loads(line)
        number = command.get("id", 0)
        if command["type"] == "cancel":
            say(type="cancelled", id=number)
        if command["type"] != "run":
            continue
        say(type="accepted", id=number)
        if mode == "talkative":
            print("a library prints\n" * 3, file=sys.stderr, end="", flush=True)
            say(type="log", id=number, level="WARNING", text="a warning")
        if mode == "dies" or command["params"].get("die"):
            print("last words", file=sys.stderr, flush=True)
            os._exit(9)
        if mode == "garbled":
            print('{"type": "result", "id": ', flush=True)
            time.sleep(60)
        if mode == "fails":
            error = {"code": "no_luck", "what": "It failed.", "why": "Because.", "fix": "Again."}
            say(type="error", id=number, error=error)
        elif mode in ("waits", "silent"):
            say(type="progress", id=number, stage="Working", done=1, total=3)
            if mode == "silent":
                time.sleep(60)
        else:
            for done in range(4):
                say(type="progress", id=number, stage="Working", done=done, total=3)
            say(type="result", id=number, result={"echo": command["params"]}, seconds=0.5)


main(sys.argv[1])
