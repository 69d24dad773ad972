"""The usual way, written as its tutorials teach it and as well as it can be: a Pydantic body, a SQLAlchemy session and
a commit a receipt. It keeps every receipt and the newest state of its number; it decides nothing else.

`create_app` answers after the commit; `create_background_app` answers first and stores in a background task.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI
from sqlalchemy import BigInteger, DateTime, Identity
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.responses import Response

from bench.peers import ReceiptIn

DATABASE = "SENDABLE_TEST_TUTORIAL_DATABASE"
POOL = 20
"""Connections. Fewer or more (5, 10, 40) stored less in a second, or no more."""

STATES = {"3041": "deactivated", "629": "not_sms_capable", "514": "unknown", "349": "unknown"}


class Table(DeclarativeBase):
    type_annotation_map = {datetime: DateTime(timezone=True)}  # noqa: RUF012 - as SQLAlchemy documents it


class Receipt(Table):
    __tablename__ = "receipts"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    message_id: Mapped[str] = mapped_column(index=True)
    number: Mapped[str] = mapped_column(index=True)
    sender: Mapped[str | None]
    status: Mapped[str]
    code: Mapped[str | None]
    carrier: Mapped[str | None]
    occurred_at: Mapped[datetime | None]
    received_at: Mapped[datetime]


class NumberState(Table):
    __tablename__ = "number_states"

    number: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    code: Mapped[str | None]
    carrier: Mapped[str | None]
    last_receipt_at: Mapped[datetime]


engine = create_async_engine(os.environ.get(DATABASE, "postgresql+asyncpg://"), pool_size=POOL, max_overflow=0)
sessions = async_sessionmaker(engine, expire_on_commit=False)


async def session() -> AsyncIterator[AsyncSession]:
    async with sessions() as one:
        yield one


async def keep(db: AsyncSession, said: ReceiptIn) -> None:
    now = datetime.now(UTC)
    db.add(Receipt(**said.model_dump(), received_at=now))
    state = "active" if said.status == "delivered" else STATES.get(said.code or "", "active")
    seen = {"state": state, "code": said.code, "carrier": said.carrier, "last_receipt_at": now}
    upsert = insert(NumberState).values(number=said.number, **seen)
    await db.execute(upsert.on_conflict_do_update(index_elements=[NumberState.number], set_=seen))
    await db.commit()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as db:
        await db.run_sync(Table.metadata.create_all)
    yield
    await engine.dispose()


def create_app() -> FastAPI:
    app = FastAPI(lifespan=lifespan)

    @app.post("/receipts")
    async def receive(said: ReceiptIn, db: Annotated[AsyncSession, Depends(session)]) -> Response:
        await keep(db, said)
        return Response()

    return app


def create_background_app() -> FastAPI:
    app = FastAPI(lifespan=lifespan)

    async def keep_later(said: ReceiptIn) -> None:
        async with sessions() as db:
            await keep(db, said)

    @app.post("/receipts")
    async def receive(said: ReceiptIn, later: BackgroundTasks) -> Response:
        later.add_task(keep_later, said)
        return Response()

    return app
