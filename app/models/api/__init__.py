"""The API's answers and questions, as its document shows them.

Answers go out without passing through these models: they are made of values that were checked when they came in.
"""

from app.models.api.codes import Code, Codes, UnknownWords
from app.models.api.feed import Change, ChangePage, Erased, HistoryPage
from app.models.api.fields import NUMBER
from app.models.api.lists import LEFT, Imported, Lists, OptOutReport, Subscribed, Subscriber, SubscriberPage
from app.models.api.lookups import LookupAnswer, LookupPage, Resumed
from app.models.api.operating import Alarms, Alive, DeactivationOutcome, Decided, HeldPage, QuarantinePage, Ready
from app.models.api.problems import Problem
from app.models.api.receipts import Dropped, ReceiptPage, Registered, Replayed, Reverified, UnreadCallback, UnreadPage
from app.models.api.status import AT_MOST, BadNumber, BulkAnswer, BulkQuestion, LineQuestion, NumberStatus

__all__ = [
    "AT_MOST", "LEFT", "NUMBER", "Alarms", "Alive", "BadNumber", "BulkAnswer", "BulkQuestion", "Change", "ChangePage",
    "Code", "Codes", "DeactivationOutcome", "Decided", "Dropped", "Erased", "HeldPage", "HistoryPage", "Imported",
    "LineQuestion", "Lists", "LookupAnswer", "LookupPage", "NumberStatus", "OptOutReport", "Problem",
    "QuarantinePage", "Ready", "ReceiptPage", "Registered", "Replayed", "Resumed", "Reverified", "Subscribed",
    "Subscriber", "SubscriberPage", "UnknownWords", "UnreadCallback", "UnreadPage",
]  # fmt: skip
