"""The reports' figures counted anew from the raw rows, by plain Python that shares no line with the router's.

One pass over `payments`, `attempts` and `operations`, through the database's own driver; every grouping that is asked
for is counted at once, in dicts. Slow, and simple enough to be believed.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

DECIMALS = {"EUR": 2, "USD": 2, "GBP": 2, "JPY": 0, "KWD": 3}
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Asked:
    """One report."""

    begin: dt.datetime
    end: dt.datetime
    zone: str
    group_by: tuple[str, ...]
    only: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Counted:
    """One row: sums by figure, and every latency."""

    sums: Counter[str] = field(default_factory=Counter)
    fees: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    latencies: list[float] = field(default_factory=list)


Found = dict[tuple[str, ...], Counted]


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def raw(cursor: Any, marker: str) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]]:
    """Payments with their attempts and operations, a thousand at a time; `marker` is the driver's `?` or `%s`."""
    after = ""
    while True:
        many = _read(cursor, f"SELECT * FROM payments WHERE id > {marker} ORDER BY id LIMIT 1000", [after])
        if not many:
            return
        after, last = many[0]["id"], many[-1]["id"]
        between = f"WHERE payment_id >= {marker} AND payment_id <= {marker}"
        tried, made = defaultdict(list), defaultdict(list)
        for each in _read(cursor, f"SELECT * FROM attempts {between} ORDER BY number", [after, last]):
            tried[each["payment_id"]].append(each)
        for each in _read(cursor, f"SELECT * FROM operations {between}", [after, last]):
            made[each["payment_id"]].append(each)
        for each in many:
            yield each, tried[each["id"]], made[each["id"]]
        after = last


def _read(cursor: Any, query: str, values: Sequence[Any]) -> list[dict[str, Any]]:
    cursor.execute(query, values)
    names = [each[0] for each in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def recount(
    rows: Iterable[tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]], asked: Sequence[Asked]
) -> list[Found]:
    """Each report's rows by their groups."""
    found: list[Found] = [{} for _ in asked]
    zones = {each.zone: ZoneInfo(each.zone) for each in asked}
    for payment, attempts, operations in rows:
        for at, groups, sums, fees, latency in _told(payment, attempts, operations):
            moment = EPOCH + dt.timedelta(microseconds=at)
            for report, into in zip(asked, found, strict=True):
                if not report.begin <= moment < report.end or any(groups[k] != v for k, v in report.only.items()):
                    continue
                local = moment.astimezone(zones[report.zone])
                key = tuple(
                    local.date().isoformat()
                    if name == "day"
                    else local.replace(minute=0, second=0, microsecond=0).isoformat(timespec="minutes")
                    if name == "hour"
                    else groups[name]
                    for name in report.group_by
                )
                row = into.setdefault(key, Counted())
                row.sums.update(sums)
                for name, fee in fees.items():
                    row.fees[name] += fee
                if latency is not None:
                    row.latencies.append(latency)
    return found


def _told(
    payment: dict[str, Any], attempts: list[dict[str, Any]], operations: list[dict[str, Any]]
) -> Iterator[tuple[int, dict[str, str], dict[str, int], dict[str, Decimal], float | None]]:
    card = _json(payment["order"])["payment_method"].get("card", {})
    decision, amount, currency = _json(payment["decision"]), payment["amount"], payment["currency"]
    base = {
        "merchant": payment["merchant"],
        "currency": currency,
        "country": card.get("country", ""),
        "brand": card.get("brand", ""),
    }
    taker = next((a for a in attempts if a["id"] == payment["attempt_id"]), None)
    status = payment["status"]
    good = status in ("authorized", "captured") or (status == "canceled" and bool(taker and taker["was_approved"]))
    own: dict[str, int] = {"payments": 1, "amount": amount}
    own["captured_amount"], own["refunded_amount"] = payment["amount_captured"], payment["amount_refunded"]
    if good:
        own |= {"approved": 1, "approved_amount": amount}
    else:
        own[status if status in ("declined", "failed", "canceled") else "open"] = 1
    # Where it went, and why.
    moves = [(a, b) for a, b in itertools.pairwise(attempts) if a["provider"] != b["provider"]]
    primary = decision["primary"]
    shut = [c for c in decision["candidates"] if c["provider"] == primary and "circuit open" in c["reasons"]]
    avoided = bool(shut) and any(a["provider"] != primary for a in attempts)
    own["failed_over"] = int(avoided or any(a["outcome"] != "declined" for a, _ in moves))
    own["cascaded"] = int(any(a["outcome"] == "declined" for a, _ in moves))
    before = [a for a, _ in moves if taker and a["number"] < taker["number"] and a["provider"] != taker["provider"]]
    if payment["tries"]:
        own["parked"] = 1
        if taker and taker["finished_at"] and (good or status == "declined"):
            own |= {"parked_completed": 1, "wait_ms": (taker["finished_at"] - payment["created_at"]) // 1000}
        way = "parking"
    elif any(a["outcome"] == "declined" for a in before):
        way = "cascade"
    else:
        way = "failover" if before or (avoided and taker and taker["provider"] != primary) else ""
    if good and way:
        own |= {f"recovered_by_{way}": 1, f"recovered_by_{way}_amount": amount}
    if payment["dispute"]:
        stages = [each["reason"] for each in _json(payment["dispute"])["each"].values()]
        own |= {"disputes": len(stages), "disputed_amount": payment["amount_captured"]}
        own |= {"chargebacks": stages.count("lost")}
        own |= {"chargeback_amount": payment["amount_captured"] if "lost" in stages else 0}
    declined = (_json(payment["decline"]) or {}).get("class", "")
    yield (
        payment["created_at"],
        base | {"provider": payment["provider"] or "", "decline_class": declined},
        own,
        {},
        None,
    )
    for each in attempts:
        yield _attempt(payment, each, base, decision, currency)
    if taker:
        yield from _moved(payment, taker, operations, base)


def _moved(
    payment: dict[str, Any], taker: dict[str, Any], operations: list[dict[str, Any]], base: dict[str, str]
) -> Iterator[tuple[int, dict[str, str], dict[str, int], dict[str, Decimal], float | None]]:
    where = base | {"provider": payment["provider"], "decline_class": ""}
    for kind, name, total in (
        ("capture", "captured_in_period", payment["amount_captured"]),
        ("refund", "refunded_in_period", payment["amount_refunded"]),
    ):
        mine = [o for o in operations if o["kind"] == kind and o["state"] in ("done", "received")]
        for each in mine:
            yield each["finished_at"], where, {name: each["amount"]}, {}, None
        rest = total - sum(each["amount"] for each in mine)
        if rest:
            yield taker["finished_at"], where, {name: rest}, {}, None


def _attempt(
    payment: dict[str, Any], each: dict[str, Any], base: dict[str, str], decision: dict[str, Any], currency: str
) -> tuple[int, dict[str, str], dict[str, int], dict[str, Decimal], float | None]:
    approved = bool(each["was_approved"])
    kind = _json(each["decline"])["class"] if each["outcome"] == "declined" else ""
    sums = {"attempts": 1}
    if approved:
        sums["attempts_approved"] = 1
    elif kind:
        sums[f"declines_{kind}"] = 1
    elif each["outcome"] == "not_executed":
        sums["attempts_not_executed"] = 1
    elif each["outcome"] in ("unknown", None):
        sums["attempts_in_doubt"] = 1
    if each["number"] == 1 and (approved or kind):
        sums |= {"first_answers": 1, "first_approvals": int(approved)}
    told = next(c for c in decision["candidates"] if c["provider"] == each["provider"])
    estimate = Decimal(0)
    if each["outcome"] != "not_executed":
        estimate = Decimal(str(told["attempt_fee"]))
        if approved and each["id"] == payment["attempt_id"]:
            estimate += Decimal(str(told["fee"]))
    fees = {"fee_estimated": estimate, "cost": estimate}
    if each["fee_actual"] is not None:
        sums["fees_told"] = 1
        if each["fee_currency"] == currency:
            fees["cost"] = fees["fee_actual"] = Decimal(each["fee_actual"]).scaleb(-DECIMALS[currency])
            fees["fee_estimated_of_actual"] = estimate
        else:
            sums["fees_told_otherwise"] = 1
    latency = None if each["latency_us"] is None else each["latency_us"] / 1000
    groups = base | {"provider": each["provider"], "decline_class": kind}
    return payment["created_at"], groups, sums, fees, latency


def differences(report: Sequence[str], rows: Iterable[Sequence[Any]], asked: Asked, found: Found) -> Iterator[str]:
    """Where a report of these columns is not what was counted; each difference in words."""
    seen = set()
    for row in rows:
        named = dict(zip(report, row, strict=True))
        key = tuple(named[each] or "" for each in asked.group_by)
        seen.add(key)
        if key not in found:
            yield f"{key}: not counted"
            continue
        counted = found[key]
        for name, value in named.items():
            if name in asked.group_by:
                continue
            wanted = _figure(name, counted, named["currency"])
            if isinstance(wanted, tuple):
                if value is None or not wanted[0] <= value <= wanted[1]:
                    yield f"{key} {name}: {value}, and not in {wanted}"
            elif value != wanted:
                yield f"{key} {name}: {value}, and not {wanted}"
    for key in found.keys() - seen:
        if any(found[key].sums.values()):
            yield f"{key}: missing"


def _figure(name: str, counted: Counted, currency: str) -> Any:
    sums = counted.sums
    rates = {
        "approval_rate": (sums["approved"], sums["approved"] + sums["declined"]),
        "first_approval_rate": (sums["first_approvals"], sums["first_answers"]),
    }
    for rate, (good, of) in rates.items():
        if name.startswith(rate):
            if not of:
                return None
            if name == rate:
                return round(good / of, 6)
            low, high = _interval(good, of)
            return round(low if name.endswith("low") else high, 6)
    if name.startswith("latency"):
        if not counted.latencies:
            return None
        ordered = sorted(counted.latencies)
        exact = ordered[max(0, math.ceil(float(name[-2:]) / 100 * len(ordered)) - 1)]
        # The middle of the exact value's bucket: off by half a bucket at most, and open at the first and the last.
        return (
            (0, 50) if exact <= 50 else (exact / math.sqrt(1.3) * 0.9999 - 0.1, exact * math.sqrt(1.3) * 1.0001 + 0.1)
        )
    if name == "parked_wait":
        return round(sums["wait_ms"] / sums["parked_completed"] / 1000, 3) if sums["parked_completed"] else None
    if name == "effective_cost":
        captured = Decimal(sums["captured_amount"]).scaleb(-DECIMALS[currency])
        return round(counted.fees["cost"] / captured * 10_000, 2) if captured else None
    if name in ("fee_estimated", "fee_actual", "fee_estimated_of_actual", "cost"):
        return counted.fees[name]
    return sums[name]


def _interval(good: int, of: int) -> tuple[float, float]:
    """The two rates p at which (good/of - p)² = z²·p·(1-p)/of: Wilson's interval from its definition."""
    z2, seen = 1.959963984540054**2, good / of
    a, b, c = 1 + z2 / of, -(2 * seen + z2 / of), seen * seen
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)
