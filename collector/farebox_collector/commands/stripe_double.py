"""`farebox stripe-double`: Stripe on loopback, for tests, for the demo and for trying top-ups out."""

import asyncio
import contextlib
import json
import secrets
import socket
import sys
from typing import Annotated

import typer
import uvicorn

from farebox_collector.commands.terminal import Stop
from farebox_collector.settings import check_address, host_and_port, is_loopback
from farebox_collector.stripe_double.server import Double


def stripe_double(
    address: Annotated[str, typer.Option(help="Where to listen, on loopback; port 0 lets the system choose.")] = (
        "127.0.0.1:12111"
    ),
    api_key: Annotated[str, typer.Option(help="The API key to know; made if it is not given.")] = "",
    webhook_secret: Annotated[str, typer.Option(help="What to sign events with; made if it is not given.")] = "",
    webhook_url: Annotated[str, typer.Option(help="Where to send events, such as …/v1/webhooks/stripe.")] = "",
) -> None:
    """Run a double of Stripe on loopback, where no money moves. Prints the settings for `farebox serve`."""
    try:
        check_address(address)
    except ValueError as error:
        raise Stop(str(error)) from None
    if not is_loopback(address):
        raise Stop(f"{address}: the double is for this machine only")
    host, port = host_and_port(address)
    try:
        bound = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise Stop(f"cannot listen on {address}: {error.strerror}") from None
    shown_host = f"[{host}]" if ":" in host else host
    url = f"http://{shown_host}:{bound.getsockname()[1]}"
    key = api_key or f"sk_test_{secrets.token_hex(16)}"
    secret = webhook_secret or f"whsec_{secrets.token_hex(16)}"
    double = Double(url, key, secret)
    if webhook_url:
        double.delivery.add(webhook_url, frozenset({"*"}))
    settings = {
        "FAREBOX_STRIPE_API_BASE": url,
        "FAREBOX_STRIPE_API_KEY": key,
        "FAREBOX_STRIPE_WEBHOOK_SECRET": secret,
    }
    # The socket takes connections from here on; they wait for the server.
    sys.stdout.write(json.dumps({"ready": True, "url": url, "settings": settings}) + "\n")
    sys.stdout.flush()
    asyncio.run(_serve(double, bound))


async def _serve(double: Double, bound: socket.socket) -> None:
    config = uvicorn.Config(double.application(), log_config=None, access_log=False, lifespan="off", ws="none")
    with contextlib.suppress(asyncio.CancelledError):
        await uvicorn.Server(config).serve(sockets=[bound])
    await double.delivery.close()
