"""The bundled double of Stripe in a process of its own, and a collector that uses it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx2
from blank import blank_sqlite
from harness import FAREBOX, Collector, clean_environment


class StripeDouble:
    """`farebox stripe-double` on a free port."""

    def __init__(self, *arguments: str) -> None:
        command = [*FAREBOX, "stripe-double", "--address", "127.0.0.1:0", *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment()
        )
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        self.settings: dict[str, str] = told["settings"]
        self.url: str = told["url"]
        self.key = self.settings["FAREBOX_STRIPE_API_KEY"]
        self.secret = self.settings["FAREBOX_STRIPE_WEBHOOK_SECRET"]
        self.client = httpx2.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=30, follow_redirects=False
        )

    def collector_settings(self) -> dict[str, str]:
        """The settings of a collector that uses this double."""
        return {name.removeprefix("FAREBOX_").lower(): value for name, value in self.settings.items()}

    def send_to(self, collector: Collector) -> None:
        """Send every event to a collector's webhook from now on."""
        self.post("/v1/webhook_endpoints", url=f"{collector.api_url}/v1/webhooks/stripe")

    def post(self, path: str, **form: Any) -> dict[str, Any]:
        """Ask the double for something."""
        answer = self.client.post(path, data={name: str(value) for name, value in form.items()})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def events(self, *types: str) -> list[dict[str, Any]]:
        """What has happened, oldest first."""
        told = self.client.get("/v1/events?limit=1000").json()["data"][::-1]
        return [event for event in told if not types or event["type"] in types]

    def pay(self, checkout_url: str, card: str = "4242 4242 4242 4242") -> httpx2.Response:
        """Pay a checkout as a customer does."""
        return self.client.post(checkout_url, data={"card": card})

    def close(self) -> None:
        """End it."""
        self.client.close()
        self.process.terminate()
        self.process.communicate(timeout=30)


def new_shop(double: StripeDouble, directory: Path, **settings: Any) -> Collector:
    """A collector over new books that sells a pack; the double does not know its webhook yet."""
    defaults: dict[str, Any] = {"topup_return_url": "https://shop.example/wallet", "topup_seconds": 0.2}
    collector = Collector(blank_sqlite(directory), **(double.collector_settings() | defaults | settings))
    body = {"credits": "10", "price": {"value": "8.00"}, "reason": "the first pack"}
    collector.api.put("/v1/packs/starter", json=body).raise_for_status()
    return collector
