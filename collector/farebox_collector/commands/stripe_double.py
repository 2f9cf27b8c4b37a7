"""`farebox stripe-double`: a double of Stripe on loopback for tests, the demo and trying top-ups."""

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
    address: Annotated[str, typer.Option(help="Loopback address to listen on; port 0 lets the system choose.")] = (
        "127.0.0.1:12111"
    ),
    api_key: Annotated[str, typer.Option(help="The API key to accept (default: generated).")] = "",
    webhook_secret: Annotated[str, typer.Option(help="The secret to sign events with (default: generated).")] = "",
    webhook_url: Annotated[str, typer.Option(help="The URL to send events to, such as …/v1/webhooks/stripe.")] = "",
) -> None:
    """Run a double of Stripe on loopback; no money moves. Prints the settings for `farebox serve`."""
    try:
        check_address(address)
    except ValueError as error:
        raise Stop(str(error)) from None
    if not is_loopback(address):
        raise Stop(f"{address} is not a loopback address; use one such as 127.0.0.1:0")
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
    # The socket accepts connections from here on; they wait for the server.
    sys.stdout.write(json.dumps({"ready": True, "url": url, "settings": settings}) + "\n")
    sys.stdout.flush()
    asyncio.run(_serve(double, bound))


async def _serve(double: Double, bound: socket.socket) -> None:
    config = uvicorn.Config(double.application(), log_config=None, access_log=False, lifespan="off", ws="none")
    with contextlib.suppress(asyncio.CancelledError):
        await uvicorn.Server(config).serve(sockets=[bound])
    await double.delivery.close()
