"""What is wrong with a request, and where."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Place(BaseModel):
    """Where something is wrong."""

    pointer: str | None = Field(None, description="Into the body (JSON pointer)", examples=["/numbers"])
    parameter: str | None = Field(None, description="Of the path, the query or a header", examples=["number"])
    detail: str


class Problem(BaseModel):
    """An error (RFC 9457): what is wrong, and how to mend it."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["about:blank"])
    title: str
    status: int
    detail: str
    errors: list[Place] | None = None
