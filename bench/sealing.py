"""What sealing costs a payment: CPU time of this thread, for the two values that a usual payment seals.

python -m bench.sealing
"""

from __future__ import annotations

import time
from collections.abc import Callable

from router.ledger.sealed import Seals
from router.sealing import Ring, new_key

ROUNDS = 5_000
ORDER = {
    "reference": "ORD-12345",
    "payment_method": {"type": "card", "tokens": {"stripe": "pm_card_visa", "adyen": "8415718415172204"}},
}
PARAMS = {
    "merchantAccount": "SandboxMerchant",
    "amount": {"value": 1999, "currency": "EUR"},
    "reference": "att_01m7zbrcgamkdg9q3sjxa6t28s",
    "paymentMethod": {"type": "scheme", "storedPaymentMethodId": "8415718415172204"},
    "shopperReference": "cus_1",
    "shopperInteraction": "ContAuth",
    "recurringProcessingModel": "CardOnFile",
    "returnUrl": "https://shop.example/return",
    "metadata": {"reference": "ORD-12345", "payment": "pay_01m7zbrcg3gp43nj89q5yymhvp"},
    "merchantOrderReference": "ORD-12345",
    "captureDelayHours": 0,
}


def micros(work: Callable[[], object]) -> float:
    """Mean CPU microseconds of one call, on this thread."""
    began = time.thread_time()
    for _ in range(ROUNDS):
        work()
    return (time.thread_time() - began) / ROUNDS * 1e6


def main() -> None:
    """Print the figures."""
    seals = Seals(Ring([new_key()]))
    sealed = seals.json(PARAMS, "params:att_1")
    order = micros(lambda: seals.order(ORDER, "pay_1"))
    params = micros(lambda: seals.json(PARAMS, "params:att_1"))
    print(f"seal an order's tokens     {order:6.1f} us")
    print(f"seal an attempt's params   {params:6.1f} us")
    print(f"a payment, both            {order + params:6.1f} us")
    print(f"open an attempt's params   {micros(lambda: seals.open_json(sealed, 'params:att_1')):6.1f} us")


if __name__ == "__main__":
    main()
