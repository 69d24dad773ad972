"""Typed records as CSV: a number, a kind (DEACT, TRANSFER, SUSPEND, RESUME, ACTIVATION, PORT) and its date."""

from app.feeds._fields import typed
from app.models.feed import Feed

feed = Feed(
    name="records",
    docs="https://help.webexconnect.io/docs/handling-carrier-deactivations",
    reader=typed,
    region=None,
)
