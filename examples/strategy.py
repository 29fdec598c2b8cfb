#!/usr/bin/env python3
"""A strategy of coordination in Python, with the standard library alone: whoever gains most is served first.

    python3 examples/strategy.py [--port 8020]

and in the configuration: `conflict_resolution: {http: "http://127.0.0.1:8020/"}`. What is sent and what may be answered is
told with the strategy `http`. Everyone begins with what is safe; then, the largest first by weight times utility,
each agent is moved to the first of its options that still fits. coredinator verifies what comes of it.
"""

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LONGEST = 64 << 20


def bounds(claim, variable):
    """The lowest and the highest value with which a claim is met."""
    slack = variable.get("tolerance", 0) / 2
    if variable.get("on_conflict") == "blend":
        slack = float("inf")
    return claim.get("min", claim["value"] - slack), claim.get("max", claim["value"] + slack)


def decide(asked):
    problem = asked["problem"]
    variables = {variable["name"]: variable for variable in problem["variables"]}
    agents = {agent["agent_id"]: agent for agent in problem["agents"]}
    active = set(asked["active"])
    safe = {agent: has["grant"] for agent, has in asked["safe"].items()}
    left = dict(asked["available"])
    for grant in safe.values():
        for name, amount in grant.items():
            left[name] -= amount

    wishes = []
    for intention in problem["intentions"]:
        agent = intention["agent_id"]
        if agent in active:
            for place, option in enumerate(intention["options"]):
                gain = agents[agent].get("weight", 1) * option["utility"]
                wishes.append((-gain, agent, place, option))
    wishes.sort(key=lambda wish: wish[:3])

    common, pushed, chosen = {}, {}, {}
    for _, agent, _, option in wishes:
        if agent in chosen:
            continue
        back, demands = safe.get(agent, {}), option.get("demands", {})
        if any(amount > left[name] + back.get(name, 0) for name, amount in demands.items()):
            continue
        claims = {}
        for name, claim in option.get("claims", {}).items():
            low, high = bounds(claim, variables[name])
            before = common.get(name, (variables[name]["min"], variables[name]["max"]))
            claims[name] = max(low, before[0]), min(high, before[1])
        pushes = {
            name: strength > 0
            for name, strength in option.get("effects", {}).items()
            if abs(strength) > variables[name].get("tolerance", 0)
        }
        if any(low > high for low, high in claims.values()):
            continue
        if any(pushed.get(name, up) != up for name, up in pushes.items()):
            continue
        for name in {*back, *demands}:
            left[name] += back.get(name, 0) - demands.get(name, 0)
        common.update(claims)
        pushed.update(pushes)
        chosen[agent] = option["id"]
    return {"decisions": [{"agent_id": agent, "option_id": option} for agent, option in sorted(chosen.items())]}


class Strategy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        try:
            length = int(self.headers.get("Content-Length", 0))
            if length > LONGEST:
                raise ValueError(f"more than {LONGEST} bytes")
            status, answer = 200, decide(json.loads(self.rfile.read(length)))
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
        pass  # a line for every cycle is of no use to anyone


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--port", type=int, default=8020)
    server = ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Strategy)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
