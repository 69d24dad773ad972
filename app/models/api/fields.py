"""What fields of many answers are, and the examples that the document shows."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

NUMBER = "+15555551234"
WHEN = "2026-11-21T18:42:07.120000Z"

Number = Annotated[str, Field(description="E.164", examples=[NUMBER])]
Sender = Annotated[str, Field(description="Short code, phone number (E.164) or name", examples=["12345"])]
Reason = Annotated[str | None, Field(description="Why not; null when it may be texted", examples=["deactivated"])]
When = Annotated[datetime, Field(description="UTC", examples=[WHEN])]
Given = list[Any]
"""Stands here because a field called `list` hides the word."""
Next = Annotated[str | None, Field(description="Pass it as `after` for the next page; null on the last one")]
Long = Annotated[int, Field(json_schema_extra={"format": "int64"})]
"""Generators of clients make 32 bits of an integer that says nothing of its size."""
NextPlace = Annotated[Long | None, Field(description="Pass it as `after` for the next page; null on the last one")]
