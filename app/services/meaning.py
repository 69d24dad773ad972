"""What a receipt needs to be understood: one value that is handed from service to service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.gateways import GATEWAYS
from app.models.catalogue import Carriers, Catalogue
from app.models.policy import Policy
from app.models.receipt import Gateway
from app.services.breaker import Tally


@dataclass(frozen=True, slots=True)
class Meaning:
    """What receipts are understood by: the codes, the carriers' names, the policy in force, those who can post."""

    catalogue: Catalogue
    carriers: Carriers
    policy: Policy
    gateways: Mapping[str, Gateway] = field(default_factory=lambda: GATEWAYS)
    tally: Tally = field(default_factory=Tally, compare=False)
