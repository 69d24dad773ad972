"""A carrier's own daily file (OpenMarket's reports, Telesign's downloads), named `CARRIER-deacts_YYYYMMDD`: a list of
numbers or a table, zipped or not.
"""

from app.feeds._carriers import NAMES
from app.feeds._fields import table
from app.models.feed import Feed

feed = Feed(
    name="carrier",
    docs="https://www.openmarket.com/docs/Content/reports/deact-report.htm",
    reader=table,
    names=NAMES,
)
