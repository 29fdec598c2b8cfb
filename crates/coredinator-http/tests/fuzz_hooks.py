"""Keeps fuzzed requests harmless and quick, and lets many of them reach services that exist."""

import re

import schemathesis

SERVICES = ["web", "once", "missing", "beat", "port"]
AGENTS = ["fuzzed-1", "fuzzed-2"]
RUNS = {"runtime", "command", "kind"}


def names_something_to_run(value):
    """Whether a document has a key, at any depth, that may name something to be run."""
    if isinstance(value, dict):
        return any(key in RUNS or names_something_to_run(inner) for key, inner in value.items())
    if isinstance(value, list):
        return any(map(names_something_to_run, value))
    return False


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Every second name is one that there is."""
    name = (path_parameters or {}).get("service_id")
    if isinstance(name, str) and len(name) % 2 == 0:
        path_parameters["service_id"] = SERVICES[sum(map(ord, name)) % len(SERVICES)]
    agent = (path_parameters or {}).get("agent_id")
    if isinstance(agent, str) and len(agent) % 2 == 0:
        path_parameters["agent_id"] = AGENTS[sum(map(ord, agent)) % len(AGENTS)]
    return path_parameters


@schemathesis.hook
def before_call(context, case, kwargs):
    operation = case.operation.definition.raw.get("operationId")
    query = case.query
    if isinstance(query, dict):
        # Waiting is by design: all waits that can be read become short.
        if re.fullmatch(r"[0-9.]+([a-z]+[0-9.]*)*", str(query.get("wait", "-"))):
            query["wait"] = "10ms"
        elif "index" in query and "wait" not in query:
            query["wait"] = "10ms"
        if operation in ("list_services", "get_service") and "index" not in query:
            query.pop("wait", None)
        # `?verbose` is true; a page token is what a page before gave out; and there are dates that no calendar has.
        for switch in ("verbose", "fresh", "replace", "follow"):
            if query.get(switch) == "":
                del query[switch]
        query.pop("page_token", None)
        if re.match(r"[0-9]", str(query.get("since", "-"))):
            query["since"] = "5m"
        if operation == "logs" and str(query.get("follow", "")).lower() == "true":
            query.pop("follow", None)
        if operation == "step":
            # What belongs to a dry run, and what does not.
            if query.get("dry_run") == "":
                del query["dry_run"]
            query.pop("group" if str(query.get("dry_run", "")).lower() == "true" else "strategy", None)
    if operation in ("events", "coordination_events", "get_decision"):
        # The stream never ends; the list does.
        case.headers["Accept"] = "application/json"
    if operation == "register_service":
        if not isinstance(case.body, dict) or names_something_to_run(case.body):
            # Counted as remote, so that nothing is run: 403.
            case.headers["X-Forwarded-For"] = "192.0.2.1"
        elif isinstance(case.body.get("host"), str):
            # Checks stay on this machine.
            case.body["host"] = "127.0.0.1"
    if operation == "register_agent" and isinstance(case.body, dict):
        if isinstance(case.body.get("agent_id"), str) and len(case.body["agent_id"]) % 2 == 0:
            case.body["agent_id"] = AGENTS[len(case.body["agent_id"]) // 2 % len(AGENTS)]
        if isinstance(case.body.get("endpoint"), str):
            # Nobody but this machine is asked.
            case.body["endpoint"] = "http://127.0.0.1:9/"
    if operation == "scale_service" and isinstance(case.body, dict):
        replicas = case.body.get("replicas")
        if type(replicas) in (int, float) and 0 <= replicas <= 10000:
            case.body["replicas"] = int(replicas) % 4
