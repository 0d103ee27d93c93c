"""Follows a stream with httpx-sse until its `end`; prints events as JSON lines."""

import json
import sys

import httpx
import httpx_sse

with httpx.Client(timeout=httpx.Timeout(10, read=90)) as client:
    with httpx_sse.connect_sse(client, "GET", sys.argv[1]) as source:
        for sse in source.iter_sse():
            line = {"event": sse.event, "id": sse.id, "data": sse.data}
            print(json.dumps(line), flush=True)
            if sse.event == "end":
                break
