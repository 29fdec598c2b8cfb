#!/usr/bin/env python3
"""Judges the configuration documents of services before they come into force, with Python's standard library alone.

    python3 examples/validator.py [--port 8030] [--highest-rate 0.1]

and in the configuration: `config_validator: http://127.0.0.1:8030/`. What is sent and what may be answered is told in
docs/configuration.md. The rules here are of a plant that learns: put your own in `judge`.
"""

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LONGEST = 16 << 20


def judge(document, highest):
    """What is wrong with a document, and what is doubtful: lists of {pointer, message, hint}."""
    errors, warnings = [], []
    rate = document.get("learning_rate")
    if rate is None:
        warnings.append({"message": "there is no learning_rate: the service takes its own"})
    elif isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= highest:
        message = f"must be above 0 and at most {highest}"
        errors.append({"pointer": "/learning_rate", "message": message, "hint": "begin with 0.001"})
    low, high = document.get("low", 0), document.get("high", 1)
    # What no schema says: two values that have to fit each other.
    if low >= high:
        errors.append({"pointer": "/low", "message": f"must be below high, which is {high}"})
    return errors, warnings


class Validator(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        try:
            length = int(self.headers.get("Content-Length", 0))
            if length > LONGEST:
                raise ValueError(f"more than {LONGEST} bytes")
            asked = json.loads(self.rfile.read(length))
            errors, warnings = judge(asked["document"], self.server.highest)
            status, answer = 200, {"valid": not errors, "errors": errors, "warnings": warnings}
        except (KeyError, TypeError, ValueError) as error:
            status, answer = 400, {"detail": f"{type(error).__name__}: {error}"}
            self.close_connection = True
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--port", type=int, default=8030)
    parser.add_argument("--highest-rate", type=float, default=0.1)
    arguments = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Validator)
    server.highest = arguments.highest_rate
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
