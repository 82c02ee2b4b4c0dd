"""Where a card is from, as seen from the merchant: what card networks and providers price by. Pure."""

from __future__ import annotations

from typing import Literal

Region = Literal["domestic", "regional", "international"]

DOMESTIC: Region = "domestic"
REGIONAL: Region = "regional"
INTERNATIONAL: Region = "international"
REGIONS: tuple[Region, ...] = (DOMESTIC, REGIONAL, INTERNATIONAL)


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


EEA = _codes("AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK IS LI NO")
"""The European Economic Area: the 27 states of the European Union, Iceland, Liechtenstein and Norway.

Source: https://www.efta.int/eea-relations-eu/about-eea (30 states); within it interchange is capped by Regulation
(EU) 2015/751. The United Kingdom and Switzerland are not in it. Territories with a country code of their own (RE, GP,
AX, …) are left out: providers differ on them.
"""

COUNTRIES = _codes(
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ "
    "CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO "
    "FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE "
    "JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO "
    "MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW "
    "PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM "
    "TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW"
)
"""ISO 3166-1 alpha-2, the officially assigned codes (https://www.iso.org/obp/ui/#search/code/). UK is not one."""


def region_of(card_country: str | None, merchant_country: str | None) -> Region | None:
    """How far from the merchant a card was issued, by two country codes of ISO 3166; None where either is unknown.

    Domestic: the same country. Regional: two countries of the EEA. International: all else.
    """
    if card_country is None or merchant_country is None:
        return None
    if card_country == merchant_country:
        return DOMESTIC
    return REGIONAL if card_country in EEA and merchant_country in EEA else INTERNATIONAL
