"""The write path in SQL. Each statement stands above the one function that runs it; every function works inside the
transaction that its caller opened with `connection.transaction`. Locks are taken in one order everywhere: what holds
erasures off, receipt keys, messages, the breaker's hits, quarantines, numbers, lookups, unread, refused, counts,
alarms, unknown words, and last the feed. Within each they are taken by key; of numbers, first those that are new, then
those that are there. So processes cannot deadlock.
"""

from app.services.store.changes import CHANNEL, FEED_LOCK, change_of, publish
from app.services.store.consents import list_row, lists, save_lists
from app.services.store.counts import (
    OPTED_OUT,
    CountKey,
    alarm,
    clear_alarms,
    clear_quiet_alarms,
    count,
    hour_of,
    note_unknown,
)
from app.services.store.messages import (
    add_unnamed,
    find_messages,
    name_receipts,
    register,
    take_senderless,
    take_unnamed,
    undated,
)
from app.services.store.numbers import (
    ERASING,
    drop_blank,
    erased,
    facts,
    hold_off_erasures,
    lock_numbers,
    look,
    save_lookups,
    save_numbers,
    still_there,
    with_blocks,
)
from app.services.store.receipts import (
    Arrival,
    MessageId,
    add_keys,
    add_nonces,
    add_receipts,
    id_of,
    stored,
    whole_messages,
)
from app.services.store.rows import carrier_of, cause_json, cause_of, columns, found_json, found_of, number_of, steps_of
from app.services.store.unread import Kept, drop_refused, drop_unread, keep_unread

__all__ = [
    "CHANNEL",
    "ERASING",
    "FEED_LOCK",
    "OPTED_OUT",
    "Arrival",
    "CountKey",
    "Kept",
    "MessageId",
    "add_keys",
    "add_nonces",
    "add_receipts",
    "add_unnamed",
    "alarm",
    "carrier_of",
    "cause_json",
    "cause_of",
    "change_of",
    "clear_alarms",
    "clear_quiet_alarms",
    "columns",
    "count",
    "drop_blank",
    "drop_refused",
    "drop_unread",
    "erased",
    "facts",
    "find_messages",
    "found_json",
    "found_of",
    "hold_off_erasures",
    "hour_of",
    "id_of",
    "keep_unread",
    "list_row",
    "lists",
    "lock_numbers",
    "look",
    "name_receipts",
    "note_unknown",
    "number_of",
    "publish",
    "register",
    "save_lists",
    "save_lookups",
    "save_numbers",
    "steps_of",
    "still_there",
    "stored",
    "take_senderless",
    "take_unnamed",
    "undated",
    "whole_messages",
    "with_blocks",
]
