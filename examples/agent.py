#!/usr/bin/env python3
"""An agent in Python, with the standard library alone: it registers itself with coredinator, says every second that it
lives, answers its own health endpoint, and takes its leave on SIGTERM or Ctrl-C.

    python3 examples/agent.py [--name my-agent] [--coredinator http://127.0.0.1:8002]
"""

import argparse
import json
import os
import signal
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HEALTH = "/api/agent/health"


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
    """The status code of the answer; raises OSError when there is none."""
    data = None if document is None else json.dumps(document).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(base + "/api/coredinator" + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        if error.code in (400, 409, 422):  # to try again would not help: say why
            raise SystemExit(f"{method} {path}: {error.code} {error.read().decode()}") from None
        return error.code


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--name", default="agent-py")
    parser.add_argument("--port", type=int, default=0, help="of its health endpoint (0: any free one)")
    parser.add_argument("--coredinator", default=os.environ.get("COREDINATOR_URL", "http://127.0.0.1:8002"))
    args = parser.parse_args()

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

    registered = False
    while not stop.is_set():
        try:
            if not registered:
                # A port of its own each time it starts: the newest registration counts.
                status = call(args.coredinator, "POST", "/services/register?replace=true", service)
                registered = status in (200, 201)
                print(f"registered as {args.name}" if registered else f"not registered: {status}", flush=True)
            elif call(args.coredinator, "POST", f"/services/{args.name}/heartbeat") == 404:
                registered = False  # it was lost or removed there: register again
        except OSError as error:
            print(f"coredinator is away: {error}", flush=True)
        stop.wait(1)

    if registered:
        try:
            call(args.coredinator, "DELETE", f"/services/{args.name}")
            print("deregistered", flush=True)
        except OSError as error:
            print(f"not deregistered: {error}", flush=True)
    server.shutdown()


if __name__ == "__main__":
    main()
