"""AWS End User Messaging's daily report, `YYYY-MM-DD-deact-report.csv`; its columns are not documented."""

import re

from app.feeds._fields import table
from app.models.feed import Feed

feed = Feed(
    name="aws",
    docs="https://docs.aws.amazon.com/sms-voice/latest/userguide/phone-numbers-deactivation-reports.html",
    reader=table,
    names=re.compile(r"(?P<day>\d{4}-\d\d-\d\d)-deact-report", re.IGNORECASE),
)
