"""Files of one carrier and day, known by their names: `att-deacts_20261120.zip`."""

import re

NAMES = re.compile(
    r"^(?P<carrier>[a-z0-9][a-z0-9 .&-]*?)[-_]deacts?(?:\b|_)(?:.*?(?P<day>\d{4}-?\d\d-?\d\d))?", re.IGNORECASE
)
