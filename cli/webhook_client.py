"""A tenant's webhooks as the command sees them. Knows the API's routes, not terminals."""

from typing import Any
from urllib.parse import quote

from cli.client import Client, Json

ENDPOINTS = "/v1/webhook_endpoints"
DELIVERIES = "/v1/webhook_deliveries"
SECRET = "/v1/webhook_secret"


class Webhooks:
    """Raises what the client raises."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def endpoints(self) -> list[Json]:
        """All of them, the newest first."""
        found: list[Json] = []
        more: dict[str, str] = {}
        while True:
            page = self._client.json("GET", ENDPOINTS, params={"limit": 100, **more})
            found += page["data"]
            if not page["has_more"]:
                return found
            more = {"after": page["last_id"]}

    def create(self, name: str, url: str, events: list[str]) -> Json:
        """With its `signing_secret`, this once."""
        return self._client.json("POST", ENDPOINTS, json={"name": name, "url": url, "event_types": events})

    def enable(self, endpoint_id: str) -> Json:
        return self._client.json("POST", _endpoint(endpoint_id), json={"status": "enabled"})

    def delete(self, endpoint_id: str) -> Json:
        return self._client.json("DELETE", _endpoint(endpoint_id))

    def replay_since(self, endpoint_id: str, since: str) -> int:
        """`since` as ISO 8601 with its offset. Returns how many deliveries are due again."""
        answer = self._client.json("POST", f"{_endpoint(endpoint_id)}/replay", json={"since": since})
        return int(answer["deliveries"])

    def deliveries(self, endpoint_id: str, filters: dict[str, Any]) -> list[Json]:
        """Newest first; of one endpoint, or of all and of jobs' own webhooks."""
        path = f"{_endpoint(endpoint_id)}/deliveries" if endpoint_id else DELIVERIES
        return list(self._client.json("GET", path, params=filters)["data"])

    def delivery(self, delivery_id: str) -> Json:
        return self._client.json("GET", _delivery(delivery_id))

    def replay(self, delivery_id: str) -> Json:
        return self._client.json("POST", f"{_delivery(delivery_id)}/replay")

    def secret(self) -> Json:
        """Without the secret itself, which nobody is shown again."""
        return self._client.json("GET", SECRET)

    def rotate_secret(self, keep_old: bool) -> Json:
        """With the new `signing_secret`, this once."""
        return self._client.json("POST", f"{SECRET}/rotate", json={"keep_old_secret_active_for_24_hours": keep_old})


def _endpoint(endpoint_id: str) -> str:
    return f"{ENDPOINTS}/{quote(endpoint_id, safe='')}"


def _delivery(delivery_id: str) -> str:
    return f"{DELIVERIES}/{quote(delivery_id, safe='')}"
