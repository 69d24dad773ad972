"""Vibes' daily disconnects of all American carriers: gzip, tabs, `MDN` and `Carrier Code`, no quotation marks."""

import re

from app.feeds._fields import table
from app.models.feed import Feed

feed = Feed(
    name="vibes",
    docs="https://developer-aggregation.vibes.com/docs/deactivation-files",
    reader=table,
    names=re.compile(r"disconnect(?:_intl)?_(?P<day>\d{4}_\d\d_\d\d)", re.IGNORECASE),
)
