"""A dictionary of services behind FastAPI: what the table of the benchmark `report` compares with.

python fastapi_baseline.py PORT COUNT
"""

import sys

import uvicorn
from fastapi import FastAPI

PORT, COUNT = int(sys.argv[1]), int(sys.argv[2])
SERVICES = {
    f"s{n}": {
        "name": f"s{n}", "host": "127.0.0.1", "port": 9, "health_endpoint": "/health",
        "status": "unknown", "last_health_check": None,
    }
    for n in range(COUNT)
}
app = FastAPI()


@app.get("/services")
async def services():
    return {"services": list(SERVICES.values())}


@app.get("/services/{name}")
async def service(name: str):
    return SERVICES[name]


uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="error", access_log=False)
