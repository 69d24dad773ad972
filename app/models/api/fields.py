"""What fields of many answers are, and the examples that the document shows."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import ConfigDict, Field

NUMBER = "+15555551234"
WHEN = "2026-11-21T18:42:07.120000Z"

Number = Annotated[str, Field(description="E.164", examples=[NUMBER])]
Sender = Annotated[str, Field(description="Short code, phone number (E.164) or name", examples=["12345"])]
WHY_NOT = (
    "Why not; null when it may be texted. A reason of the policy, one that an opt-out by call gave, `erased`, or "
    "`no_consent`: nobody has agreed to the list that was asked for"
)
Reason = Annotated[str | None, Field(description=WHY_NOT, examples=["deactivated"])]
When = Annotated[datetime, Field(description="UTC", examples=[WHEN])]
Given = list[Any]
"""Stands here because a field called `list` hides the word."""
Next = Annotated[
    str | None, Field(description="Pass it as `after` for the next page; null on the last one", examples=[None])
]
Long = Annotated[int, Field(json_schema_extra={"format": "int64"})]
"""Generators of clients make 32 bits of an integer that says nothing of its size."""
NextPlace = Annotated[
    Long | None, Field(description="Pass it as `after` for the next page; null on the last one", examples=[None])
]


def shown(example: dict[str, Any]) -> ConfigDict:
    """Of a model, as the document shows it: made of the examples of its fields it would be one that never comes."""
    return ConfigDict(json_schema_extra={"examples": [example]})
