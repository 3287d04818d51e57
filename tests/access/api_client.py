"""A client generated from the API's own description, as those of fleet 1.0 were: it knows options only, no bytes.

usage: api_client.py http://HOST:PORT create|change|delete
"""

import http.client
import json
import sys
import urllib.parse

UNITS = [f"u{number:03}.service" for number in range(250)]


class Client:
    """Every method of the description, as `call("Units.Get", unitName="a.service")`."""

    def __init__(self, endpoint):
        self.connection = http.client.HTTPConnection(urllib.parse.urlsplit(endpoint).netloc, timeout=60)
        status, self.document = self.request("GET", "/fleet/v1/discovery")
        assert status == 200, status

    def request(self, method, path, body=None):
        headers = {"User-Agent": "google-api-go-client/0.5"}
        if body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body)
        self.connection.request(method, path, body, headers)
        response = self.connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text else None

    def call(self, name, body=None, **parameters):
        resource, method = name.split(".")
        method = self.document["resources"][resource]["methods"][method]
        described = method.get("parameters", {})
        path, query = method["path"], {"alt": "json"}
        for parameter, value in parameters.items():
            if described[parameter]["location"] == "path":
                path = path.replace("{%s}" % parameter, urllib.parse.quote(value, safe=""))
            else:
                query[parameter] = value
        path = f"{self.document['basePath']}{path}?{urllib.parse.urlencode(query)}"
        return self.request(method["httpMethod"], path, body)

    def pages(self, name, member, **parameters):
        """All items, and how many each page had."""
        items, sizes = [], []
        while True:
            status, page = self.call(name, **parameters)
            assert status == 200, page
            sizes.append(len(page.get(member, [])))
            items += page.get(member, [])
            if "nextPageToken" not in page:
                return items, sizes
            parameters["nextPageToken"] = page["nextPageToken"]


def options(command):
    return [
        {"section": "Service", "name": "ExecStart", "value": command},
        {"section": "X-Fleet", "name": "Global", "value": "true"},
    ]


def same(got, expected):
    assert got == expected, f"{got!r} is not {expected!r}"


def create(client):
    same(client.call("Units.Get", unitName="a.service"), (404, {"error": {"code": 404, "message": "unit does not exist"}}))
    unit = {"name": "a.service", "desiredState": "launched", "options": options("/bin/sleep 1000")}
    same(client.call("Units.Set", unit, unitName="a.service"), (201, None))
    same(client.call("Units.Get", unitName="a.service"), (200, unit))
    for name in UNITS:
        unit = {"name": name, "desiredState": "inactive", "options": options("/bin/sleep 1")}
        same(client.call("Units.Set", unit, unitName=name), (201, None))
    units, sizes = client.pages("Units.List", "units")
    same(sizes, [100, 100, 51])
    same([unit["name"] for unit in units], ["a.service"] + UNITS)


def change(client):
    states, _ = client.pages("UnitState.List", "states", unitName="a.service")
    (machine,), _ = client.pages("Machines.List", "machines")
    same([(state["machineID"], state["systemdActiveState"]) for state in states], [(machine["id"], "active")])
    same(client.pages("UnitState.List", "states", machineID="0" * 32), ([], [0]))
    change = {"desiredState": "launched", "options": options("/bin/sleep 2000")}
    same(client.call("Units.Set", change, unitName="a.service"), (204, None))
    same(client.call("Units.Get", unitName="a.service")[1]["options"], options("/bin/sleep 2000"))
    metadata = [{"op": "add", "path": f"/{machine['id']}/metadata/rack", "value": {"value": "7"}}]
    same(client.call("Machines.Patch", metadata), (204, None))
    (machine,), _ = client.pages("Machines.List", "machines")
    same(machine["metadata"]["rack"], "7")


def delete(client):
    same(client.call("Units.Set", {"desiredState": "inactive"}, unitName="a.service"), (204, None))
    for name in ["a.service"] + UNITS:
        same(client.call("Units.Delete", unitName=name), (204, None))
    same(client.call("Units.List"), (200, {}))
    same(client.call("Units.Delete", unitName="a.service")[0], 404)


{"create": create, "change": change, "delete": delete}[sys.argv[2]](Client(sys.argv[1]))
