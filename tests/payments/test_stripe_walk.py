"""From a checkout to a refund and a dispute, through Stripe's own library against the bundled double."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
from harness import Collector, farebox
from stripe_double import StripeDouble


def order(shop: Collector, wallet: str, key: str, **more: Any) -> httpx2.Response:
    body = {"pack": "starter", **more}
    return shop.api.post(f"/v1/wallets/{wallet}/checkout", json=body, headers={"Idempotency-Key": key})


def buy(shop: Collector, double: StripeDouble, wallet: str, **more: Any) -> dict[str, Any]:
    """Order and pay; the top-up as it stands then, with its payment."""
    made = order(shop, wallet, f"buy-{wallet}", **more).raise_for_status().json()
    assert double.pay(made["checkout_url"]).status_code == 303
    (paid,) = shop.api.get(f"/v1/wallets/{wallet}/topups").json()["items"]
    intents = double.client.get("/v1/payment_intents?limit=100").json()["data"]
    (intent,) = [one for one in intents if one["metadata"]["farebox_topup"] == paid["topup_id"]]
    return {**paid, "intent": intent["id"]}


def wait_for(condition: Callable[[], object]) -> None:
    """Ask again and again, for half a minute at most."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come"


def kinds(shop: Collector, wallet: str) -> list[tuple[str, str]]:
    rows = shop.api.get(f"/v1/ledger?wallet={wallet}").json()["items"]
    return [(row["type"], row["amount_credits"].removesuffix("0" * 9).rstrip(".")) for row in rows]


def lots(shop: Collector, wallet: str) -> list[tuple[str, str, str, str]]:
    names = ("origin", "remaining_credits", "price_usd", "returned_usd")
    rows = shop.api.get(f"/v1/wallets/{wallet}/lots").json()["items"]
    return [tuple(row[name].removesuffix("0" * 7) for name in names) for row in rows]


def test_a_customer_pays_for_a_pack_and_gets_its_credits(shop: Collector, double: StripeDouble) -> None:
    made = order(shop, "ada", "first", success_url="https://shop.example/done?session={CHECKOUT_SESSION_ID}")
    assert made.status_code == 201
    topup = made.json()
    assert (topup["state"], topup["credits"], topup["price"]["value"]) == ("open", "10.000000000", "8.00")
    again = order(shop, "ada", "first", success_url="https://shop.example/done?session={CHECKOUT_SESSION_ID}")
    assert (again.json(), again.headers["Idempotent-Replayed"]) == (topup, "true")
    assert order(shop, "ada", "first").status_code == 409

    page = double.client.get(topup["checkout_url"])
    assert "8.00 USD" in page.text
    assert "10 credits" in page.text
    declined = double.pay(topup["checkout_url"], "4000 0000 0000 0002")
    assert (declined.status_code, "declined" in declined.text) == (402, True)
    assert shop.api.get("/v1/wallets/ada").status_code == 404
    paid = double.pay(topup["checkout_url"])
    assert paid.headers["location"].startswith("https://shop.example/done?session=cs_test_")
    assert shop.wallet("ada")["balance_credits"] == "10.000000000"
    (shown,) = shop.api.get("/v1/wallets/ada/topups").json()["items"]
    assert (shown["state"], shown["checkout_url"]) == ("paid", None)
    assert lots(shop, "ada") == [("topup", "10.00", "8.00", "0.00")]
    assert kinds(shop, "ada") == [("topup", "10")]


def test_every_event_again_in_any_order_changes_nothing(shop: Collector, double: StripeDouble) -> None:
    buy(shop, double, "bea")
    before = shop.metrics()
    for event in [*double.events()[::-1], *double.events()]:
        double.post(f"/double/events/{event['id']}/send")
    after = shop.metrics()
    sent = 2 * len(double.events())
    assert after['farebox_payment_events_total{outcome="repeated"}'] == (
        before.get('farebox_payment_events_total{outcome="repeated"}', 0) + sent
    )
    assert shop.wallet("bea")["balance_credits"] == "10.000000000"


def test_refunds_go_back_to_their_lot(shop: Collector, double: StripeDouble) -> None:
    bought = buy(shop, double, "cleo")
    double.post("/v1/refunds", payment_intent=bought["intent"], amount=200)
    assert lots(shop, "cleo") == [("topup", "7.50", "8.00", "2.00")]
    rest = double.post("/v1/refunds", payment_intent=bought["intent"])
    assert rest["amount"] == 600
    assert (lots(shop, "cleo"), shop.wallet("cleo")["balance_credits"]) == (
        [("topup", "0.00", "8.00", "8.00")],
        "0.000000000",
    )
    double.post(f"/double/refunds/{rest['id']}/fail")
    assert shop.wallet("cleo")["balance_credits"] == "7.500000000"
    assert kinds(shop, "cleo") == [
        ("refund_failed", "7.500000000"),
        ("refund", "-7.500000000"),
        ("refund", "-2.500000000"),
        ("topup", "10"),
    ]


def test_a_refund_of_credits_that_were_used_becomes_a_debt(shop: Collector, double: StripeDouble) -> None:
    bought = buy(shop, double, "dan")
    body = {"type": "adjustment", "amount_credits": "-6"}
    shop.api.post("/v1/wallets/dan/movements", json=body, headers={"Idempotency-Key": "dan"}).raise_for_status()
    double.post("/v1/refunds", payment_intent=bought["intent"])
    assert shop.wallet("dan")["balance_credits"] == "-6.000000000"
    assert lots(shop, "dan") == [("topup", "0.00", "8.00", "3.20")]


def test_a_dispute_takes_the_credits_until_it_is_won(shop: Collector, double: StripeDouble) -> None:
    bought = buy(shop, double, "eve")
    dispute = double.post("/double/disputes", payment_intent=bought["intent"])
    assert shop.wallet("eve")["balance_credits"] == "0.000000000"
    double.post(f"/double/disputes/{dispute['id']}", status="won")
    assert shop.wallet("eve")["balance_credits"] == "10.000000000"
    assert kinds(shop, "eve") == [("dispute_won", "10"), ("dispute", "-10"), ("topup", "10")]

    bought = buy(shop, double, "finn")
    inquiry = double.post("/double/disputes", payment_intent=bought["intent"], status="warning_needs_response")
    assert shop.wallet("finn")["balance_credits"] == "10.000000000"
    double.post(f"/double/disputes/{inquiry['id']}", status="lost")
    assert shop.wallet("finn")["balance_credits"] == "0.000000000"


def test_the_top_up_link_leads_to_one_open_checkout(shop: Collector, double: StripeDouble) -> None:
    link = "/v1/wallets/gus/topup?pack=starter"
    first, second = shop.api.get(link), shop.api.get(link)
    assert (first.status_code, first.headers["location"]) == (303, second.headers["location"])
    assert double.pay(first.headers["location"]).headers["location"] == "https://shop.example/wallet"
    assert shop.wallet("gus")["balance_credits"] == "10.000000000"
    assert shop.api.get(link).headers["location"] != first.headers["location"]


def test_twenty_who_follow_a_top_up_link_at_once_get_one_checkout(shop: Collector) -> None:
    for wallet in ("ina", "ivo"):
        link = f"/v1/wallets/{wallet}/topup?pack=starter"
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: shop.api.get(link), range(20)))  # noqa: B023
        assert {answer.status_code for answer in answers} == {303}
        assert len({answer.headers["location"] for answer in answers}) == 1
        made = shop.pages(f"/v1/wallets/{wallet}/topups")
        assert [topup["state"] for topup in made] == ["open"]


def test_what_stripe_refuses_is_a_clear_problem_and_a_failed_top_up(shop: Collector, double: StripeDouble) -> None:
    shop.api.put("/v1/packs/crumb", json={"credits": "0.1", "price": {"value": "0.10"}}).raise_for_status()
    for _ in range(2):
        refused = order(shop, "hal", "crumb", pack="crumb")
        assert (refused.status_code, "amount_too_small" in refused.json()["detail"]) == (422, True)
    (shown,) = shop.api.get("/v1/wallets/hal/topups").json()["items"]
    assert shown["state"] == "failed"
    assert shop.api.delete("/v1/packs/crumb").status_code == 204
    assert [pack["pack"] for pack in shop.api.get("/v1/packs").json()["items"]] == ["starter"]
    assert [len(shop.api.get(f"/v1/packs/{name}/history").json()["items"]) for name in ("crumb", "starter")] == [2, 1]
    assert order(shop, "hal", "none", pack="nosuch").status_code == 404
    assert order(shop, "hal", "url", success_url="javascript:alert(1)").status_code == 422


def test_a_wallet_tops_itself_up_and_says_so(shop: Collector, double: StripeDouble) -> None:
    path, cap = "/v1/wallets/ivy/auto-topup", {"value": "20.00"}
    assert shop.api.get(path).status_code == 404
    assert shop.api.put(path, json={"enabled": False}).status_code == 404
    terms = {"pack": "starter", "below_credits": "12", "month_cap": cap}
    nothing_kept = shop.api.put(path, json=terms)
    assert (nothing_kept.status_code, "save_payment_method" in nothing_kept.json()["detail"]) == (422, True)
    made = order(shop, "ivy", "buy-ivy", save_payment_method=True).raise_for_status().json()
    double.pay(made["checkout_url"])
    bad: dict[str, Any]
    for bad in (
        {"pack": "nosuch"},
        {"month_cap": {"value": "7.99"}},
        {"month_cap": {"value": "20", "currency": "EUR"}},
    ):
        assert shop.api.put(path, json=terms | bad).status_code == 422, bad
    for bad in ({"below_credits": "NaN"}, {"below_credits": "-1"}, {"month_cap": {"value": "-1"}}, {"month_cap": None}):
        assert shop.api.put(path, json=terms | bad).status_code == 422, bad
    told = shop.api.put(path, json=terms).raise_for_status().json()
    assert (told["enabled"], told["payment_method_kept"]) == (True, True)
    # Ten are fewer than twelve: the next round buys ten more, and the credits are there when Stripe has told.
    wait_for(lambda: len(shop.api.get("/v1/wallets/ivy/topups").json()["items"]) == 2)
    wait_for(lambda: shop.wallet("ivy")["balance_credits"] == "20.000000000")
    assert shop.api.get(path).json()["spent_this_month"] == {"value": "8.00", "currency": "USD"}
    assert shop.api.put(path, json={"enabled": False}).json()["enabled"] is False


def test_the_business_sees_fees_and_the_overview_links_receipt_and_top_up(
    shop: Collector, double: StripeDouble
) -> None:
    bought = buy(shop, double, "joe")

    def booked() -> dict[str, Any]:
        rows = shop.api.get("/v1/topups?state=paid").json()["items"]
        return next(row for row in rows if row["wallet"] == "joe")

    wait_for(lambda: booked()["fee_usd"] is not None)
    assert (booked()["fee_usd"], booked()["payment_intent"]) == ("0.530000000", bought["intent"])
    wait_for(lambda: shop.api.get("/v1/wallets/joe/overview").json()["topups"][0]["receipt_url"])
    overview = shop.api.get("/v1/wallets/joe/overview").json()
    assert "8.00 USD" in double.client.get(overview["topups"][0]["receipt_url"]).text
    assert shop.api.get(overview["topup_url"]).status_code == 303


def test_a_refund_pauses_the_automatic_top_up_until_it_is_resumed(shop: Collector, double: StripeDouble) -> None:
    paid = buy(shop, double, "pia", save_payment_method=True)
    terms = {"pack": "starter", "below_credits": "2", "month_cap": {"value": "50.00"}}
    path = "/v1/wallets/pia/auto-topup"
    assert shop.api.put(path, json=terms).raise_for_status().json()["paused"] is False
    double.post("/v1/refunds", payment_intent=paid["intent"])
    paused = shop.api.get(path).json()
    assert (paused["enabled"], paused["paused"], paused["author"]) == (False, True, "farebox")
    assert paid["topup_id"] in paused["reason"]
    metrics = shop.metrics()
    assert metrics['farebox_auto_topups{state="paused"}'] == 1
    assert metrics['farebox_payments_unmatched{kind="refund"}'] == 0
    shown = farebox("wallets", "auto-topup", "pia", "--database-url", shop.database_url)
    assert (shown.returncode, "pia: paused since" in shown.stdout) == (0, True), shown.stderr
    assert len(shop.api.get("/v1/wallets/pia/topups").json()["items"]) == 1
    resumed = shop.api.put(path, json={"enabled": True}).raise_for_status().json()
    kept = (resumed["pack"], resumed["below_credits"], resumed["month_cap"]["value"])
    assert (resumed["enabled"], resumed["paused"], kept) == (True, False, ("starter", "2.000000000", "50.00"))
    wait_for(lambda: shop.wallet("pia")["balance_credits"] == "10.000000000")
