#!/usr/bin/env python3
"""An agent in Python, with the standard library alone: it registers itself with coredinator, says every second that it
lives, answers its own health endpoint, and takes its leave on SIGTERM or Ctrl-C. With --wants it also shares a resource with
others: before every cycle it says what it wants, and it does what it is told.

    python3 examples/agent.py [--name my-agent] [--wants steam=6] [--coredinator http://127.0.0.1:8002]
"""

import argparse
import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HEALTH = "/api/agent/health"
TTL = 5  # seconds after which what it was told counts no more


class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.path == HEALTH
        body = json.dumps({"status": "healthy" if known else "not found"}).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass  # a line for every health check is of no use to anyone


def call(base, method, path, document=None):
    """The status code of the answer and its document; raises OSError when there is no answer."""
    data = None if document is None else json.dumps(document).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(base + "/api/coredinator" + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, json.loads(answer.read() or "null")
    except urllib.error.HTTPError as error:
        if error.code in (400, 409, 422):  # to try again would not help: say why
            raise SystemExit(f"{method} {path}: {error.code} {error.read().decode()}") from None
        return error.code, None


def share(base, name, resource, amount, stop):
    """Takes part in coordination: it wants so much of a resource, or half of it, and takes what it is told. Silent for
    longer than TTL it takes nothing: coredinator keeps what it granted reserved for as long."""
    # Tied to its service: when that is stopped or unhealthy, nobody waits for this agent.
    agent = {"agent_id": name, "service": name, "ttl_seconds": TTL, "fallback": "release"}
    options = [
        {"id": "full", "demands": {resource: amount}, "utility": 10, "action": {"take": amount}},
        {"id": "half", "demands": {resource: amount / 2}, "utility": 6, "action": {"take": amount / 2}},
    ]
    registered, seq, last, until = False, 0, (0, 0), 0.0
    while not stop.is_set():
        try:
            if not registered:
                registered = call(base, "POST", "/agents/register", agent)[0] in (200, 201)
            seq += 1
            sent = time.monotonic()  # coredinator reckons from when it comes: later, never earlier
            intention = {"seq": seq, "options": options}
            status, told = call(base, "POST", f"/agents/{name}/intention?wait=3s", intention)
            registered = registered and status in (200, 202)  # it was lost there: register again
            if registered:
                until = sent + TTL
            if status == 200 and (told["epoch"], told["cycle"]) > last:  # never act on an older one
                last = told["epoch"], told["cycle"]
                print(f"cycle {last[1]}: {told['outcome']}, {resource} {told['grant'].get(resource, 0)}", flush=True)
        except OSError:
            registered = False
        if not registered:
            if until and time.monotonic() > until:
                until = 0.0
                print(f"on its own: {resource} 0", flush=True)
            stop.wait(0.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--name", default="agent-py")
    parser.add_argument("--port", type=int, default=0, help="of its health endpoint (0: any free one)")
    parser.add_argument("--coredinator", default=os.environ.get("COREDINATOR_URL", "http://127.0.0.1:8002"))
    parser.add_argument("--wants", metavar="RESOURCE=AMOUNT", help="what to share with other agents")
    args = parser.parse_args()
    resource, _, amount = (args.wants or "").partition("=")
    if args.wants and not amount.replace(".", "", 1).isdigit():
        parser.error("--wants takes a resource and an amount: steam=6")

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    server = ThreadingHTTPServer(("127.0.0.1", args.port), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    service = {
        "name": args.name,
        "host": "127.0.0.1",
        "port": server.server_address[1],
        "health_endpoint": HEALTH,
        "health_check": {"ttl": 5},  # five seconds of silence are a failure; leave this out to be asked instead
    }

    sharing = threading.Thread(
        target=share, args=(args.coredinator, args.name, resource, float(amount or 0), stop), daemon=True
    )
    registered = False
    while not stop.is_set():
        try:
            if not registered:
                # A port of its own each time it starts: the newest registration counts.
                status, _ = call(args.coredinator, "POST", "/services/register?replace=true", service)
                registered = status in (200, 201)
                print(f"registered as {args.name}" if registered else f"not registered: {status}", flush=True)
            elif call(args.coredinator, "POST", f"/services/{args.name}/heartbeat")[0] == 404:
                registered = False  # it was lost or removed there: register again
            if registered and args.wants and not sharing.ident:
                sharing.start()
        except OSError as error:
            print(f"coredinator is away: {error}", flush=True)
        stop.wait(1)

    if registered:
        try:
            if sharing.ident:
                sharing.join(5)  # or it would register again
                call(args.coredinator, "DELETE", f"/agents/{args.name}")
            call(args.coredinator, "DELETE", f"/services/{args.name}")
            print("deregistered", flush=True)
        except OSError as error:
            print(f"not deregistered: {error}", flush=True)
    server.shutdown()


if __name__ == "__main__":
    main()
