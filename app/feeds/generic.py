"""Any table: the call names its columns, by name or by place (`number=MDN,date=3`)."""

from app.feeds._fields import table
from app.models.feed import Feed

feed = Feed(
    name="generic",
    docs="docs/deactivations.md",
    reader=table,
    region=None,
    columns=("number",),
)
