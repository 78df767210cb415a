"""The samples of a process, taken for as long as it runs, for all who look at once."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from objcg.region import RegionError
from objcg.views.watch import State

from .stream import Stream

if TYPE_CHECKING:
    from objcg.views.watch import Sample, Watch

INTERVAL = 1.0
"""Seconds from one sample to the next, or more: see `Feed`."""


class Feed:
    """Takes samples; `after()` waits for the next. All of it in one event loop.

    Only the latest text is kept. Reading a region of many groups takes its time, so that is done in
    a thread: by one at a time, and what it returns is not changed any more. The pause after it is
    as long, or longer: a view takes at most half of a processor, whatever it looks at.
    """

    def __init__(self, watch: Watch, interval: float = INTERVAL) -> None:
        self._watch = watch
        self._interval = interval
        self._stream = Stream()
        self._latest = watch.latest
        self._text = ""
        self._number = 0
        self._news = asyncio.Event()
        self._hurry = asyncio.Event()
        self.closed = False

    @property
    def latest(self) -> Sample:
        """The sample that was taken last."""
        return self._latest

    async def run(self) -> None:
        """Take samples until the process has ended, or forever."""
        self._publish(await asyncio.to_thread(self._stream.add, self._latest))
        took = 0.0
        while self._latest.state is State.RUNNING:
            try:
                await asyncio.wait_for(self._hurry.wait(), max(self._interval - took, took))
            except asyncio.TimeoutError:
                pass
            self._hurry.clear()
            began = time.monotonic()
            self._publish(await asyncio.to_thread(self._take))
            took = time.monotonic() - began

    def hurry(self) -> None:
        """Take the next sample at once: something was changed."""
        self._hurry.set()

    async def after(self, number: int) -> tuple[int, str | None]:
        """Wait for what is newer than the text of this number; 0: any.

        Return its number and it, or None when there will be none.
        """
        while self._number <= number:
            if self.closed:
                return number, None
            await self._news.wait()
        return self._number, self._text

    def close(self) -> None:
        """End all waiting: there will be nothing more."""
        self.closed = True
        self._news.set()

    def _take(self) -> str:
        try:
            sample, problem = self._watch.sample(), None
        except RegionError as error:
            # a process that changes its groups all the time may not be read at once
            sample, problem = self._watch.latest, str(error)
        text = self._stream.add(sample, problem)
        self._latest = sample
        return text

    def _publish(self, text: str) -> None:
        self._number += 1
        self._text = text
        # who waits is woken; who comes next waits for another
        news, self._news = self._news, asyncio.Event()
        news.set()
