"""GovDelivery TMS: the numbers of a day, eleven digits a line, no heading."""

from app.feeds._fields import numbers
from app.models.feed import Feed

feed = Feed(
    name="govdelivery",
    docs="https://developers.govdelivery.com/api/tms/resource/deactivated_phone_numbers/",
    reader=numbers,
)
