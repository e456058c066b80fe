"""Limits on the workers that wait for stores, so that stores that do not answer, or slowly, do not hold up the others.

A call runs in a thread. It has a deadline, which closes its sockets from outside. Its slots are free again when its
thread has ended, and not earlier: a host name that does not resolve for minutes must not cost a thread each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from typing_extensions import override

from cinderblock.errors import CinderblockError, StoreBusy, StoreTooSlow, StoreUnreachable
from cinderblock.store.deadline import limit_seconds
from cinderblock.store.failures import release_answers

CONCURRENT_CALLS: Final = 4
"""Concurrent calls to one store: a quarter of the workers."""
NAMESPACE_CALLS: Final = 6
"""Concurrent calls to all stores of one namespace: more than one store may have, and less than half of the workers."""
UNPROVEN_CONCURRENT_CALLS: Final = 8
"""Concurrent calls to all unproven endpoints together: half of the workers. A thousand stores may share an endpoint
that is down."""
LONG_CONCURRENT_CALLS: Final = 8
"""Concurrent long calls of all namespaces together: half of the workers. A store that answers slowly may make each of
them last for LONG_CALL_SECONDS."""
NAMESPACE_SHARE: Final = 2
"""Slots of one namespace among those that all share: a quarter, so that one namespace cannot hold all of them."""
SLOT_WAIT_SECONDS: Final = 1.0
"""For how long a call waits for an earlier one to the same store. Hundreds of usual calls end in that time."""
OPEN_SECONDS: Final = 5.0
"""For how long a breaker stays open; shorter than any interval at which a store is called again."""
CALL_SECONDS: Final = 30.0
"""Seconds of a whole call, however many requests it makes. A look-up makes several calls."""
LONG_CALL_SECONDS: Final = 600.0
"""Seconds of a call with thousands of requests. A deletion continues in the next call. A search through a whole store
lists a million manifests in 200 seconds, at 200 ms for each page."""
SLOW_SECONDS: Final = 10.0
"""Seconds from which an answered call counts as slow."""
PROBATION_SECONDS: Final = 60.0
"""For how long an endpoint stays unproven after a slow call or none, however many fast answers it gives."""
_THREAD_SECONDS: Final = 2.0
"""Seconds that a thread may need to notice its deadline."""

_EARLIER_CALLS: Final = "it has not answered earlier calls yet. Check the network, and the load of the server"
_NAMESPACE_FULL: Final = (
    "too many calls already wait for stores of this namespace. Check the endpoints of its BackupStores"
)
_OTHERS_FULL: Final = (
    "too many calls already wait for other stores that do not answer. Check the BackupStores that are not ready"
)
_LONG_FULL: Final = "too many deletions and searches already run. This one begins when one of them ends"

T = TypeVar("T")


@dataclass(slots=True, weakref_slot=True)
class Endpoint:
    """An address, as the stores of one namespace see it.

    An unproven endpoint only limits concurrency. It fails no call: a store may be unreachable because of its own
    settings, such as a wrong CA.

    Attributes:
        is_proven: whether the last call was answered, and none was slow for a while. False before the first call.
        probation_ends: the moment of the loop's clock from which an answer proves the endpoint.
    """

    is_proven: bool = False
    probation_ends: float = 0.0

    def judge(self, seconds: float, *, is_answered: bool) -> None:
        """Take note of a call."""
        if seconds > SLOW_SECONDS:
            self.probation_ends = _now() + PROBATION_SECONDS
        self.is_proven = is_answered and _now() >= self.probation_ends


class ShareOfSlots(asyncio.Semaphore):
    """Slots of which each is also one of the slots that all namespaces share.

    Args:
        shared: the slots of all.
        most: number of slots that this share may hold.
    """

    def __init__(self, shared: asyncio.Semaphore, most: int = NAMESPACE_SHARE) -> None:
        super().__init__(most)
        self._shared = shared

    @override
    async def acquire(self) -> Literal[True]:
        await super().acquire()
        try:
            return await self._shared.acquire()
        except BaseException:
            super().release()
            raise

    @override
    def release(self) -> None:
        self._shared.release()
        super().release()


@dataclass(slots=True, weakref_slot=True)
class NamespaceSlots:
    """The slots for calls to the stores of one namespace.

    Attributes:
        calls: for all calls.
        unproven: also for calls to unproven endpoints.
        long: also for calls that may last longer than CALL_SECONDS.
    """

    calls: asyncio.Semaphore
    unproven: asyncio.Semaphore
    long: asyncio.Semaphore


class SharedSlots:
    """The slots that all namespaces share. For one event loop."""

    def __init__(self) -> None:
        self._unproven = asyncio.Semaphore(UNPROVEN_CONCURRENT_CALLS)
        self._long = asyncio.Semaphore(LONG_CONCURRENT_CALLS)

    def of_namespace(self) -> NamespaceSlots:
        """Return the slots of a further namespace."""
        calls = asyncio.Semaphore(NAMESPACE_CALLS)
        return NamespaceSlots(calls, ShareOfSlots(self._unproven), ShareOfSlots(self._long))


SHARED_STORE_CALLS: Final = 8
"""Concurrent calls of all namespaces to one store that they share: half of the workers."""
FAILING_CALLERS: Final = 2
"""Namespaces in which calls to a shared store fail before it counts as unreachable for all. The load and the data of
one namespace may make just its own calls fail."""


class Circuit:
    """Whether a store is unreachable, as all callers see it who use it with the same settings. For one event loop.

    Attributes:
        slots: for calls of all of them together.
        long: also for calls that may last longer than CALL_SECONDS: half of the slots, so that such calls leave some.
        open: the last failure, and the moment of the loop's clock from which the store is tried again.
        is_probing: whether a call finds that out.
        failing: the namespaces whose calls have failed since the last answer.
    """

    def __init__(self, calls: int) -> None:
        self.slots = asyncio.Semaphore(calls)
        self.long = asyncio.Semaphore(calls // 2)
        self.open: tuple[StoreUnreachable, float] | None = None
        self.is_probing = False
        self.failing: set[str] = set()

    def fail(self, error: StoreUnreachable) -> None:
        """Fail further calls at once for a while."""
        # The error itself has a traceback, which keeps whatever the call has read.
        self.open = _repeated(error), _now() + OPEN_SECONDS

    def close(self) -> None:
        """Take note of an answer."""
        self.open = None
        self.failing.clear()

    def end_probe(self) -> None:
        """Take note that no call finds out any more whether the store is back."""
        self.is_probing = False


@dataclass(frozen=True, slots=True)
class SharedCircuit:
    """A store that namespaces share, for one of its callers.

    Attributes:
        circuit: of all callers.
        caller: a namespace; empty: the operator, which checks the store for all of them.
    """

    circuit: Circuit
    caller: str = ""


class StoreBreaker:
    """Runs calls to one store in threads, and fails them at once while the store is unreachable.

    While it is unreachable, one call at a time finds out whether that has changed. For one event loop.

    Args:
        endpoint: shared by all stores of the namespace at the same address.
        namespace: slots that all stores of the namespace share.
        name: of the store, and its address, for messages.
        shared: for a store that namespaces share; None: it belongs to one namespace.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        namespace: NamespaceSlots,
        name: str = "the store",
        shared: SharedCircuit | None = None,
    ) -> None:
        self._name = name
        self._endpoint = endpoint
        self._namespace = namespace
        self._shared = shared
        self._own = Circuit(CONCURRENT_CALLS)
        self._circuits = (self._own, shared.circuit) if shared else (self._own,)
        self._slots = ShareOfSlots(self._circuits[-1].slots, CONCURRENT_CALLS)
        self._running: set[asyncio.Task[object]] = set()

    @property
    def is_idle(self) -> bool:
        """Whether no call runs."""
        return not self._running

    async def call(self, call: Callable[[], T], seconds: float = CALL_SECONDS) -> T:
        """Return what ``call`` returns.

        Raises what it raises; StoreUnreachable at once while the breaker is open; StoreBusy if too many others run;
        StoreTooSlow if it has not ended after ``seconds``.
        """
        for circuit in self._circuits:
            if circuit.open is not None and (circuit.is_probing or _now() < circuit.open[1]):
                raise _repeated(circuit.open[0])
        is_long = seconds > CALL_SECONDS
        async with AsyncExitStack() as waiting:
            for circuit in self._circuits:
                # A deletion would keep other calls waiting for minutes.
                if circuit.open is not None and not is_long:
                    circuit.is_probing = True
                    waiting.callback(circuit.end_probe)
            if is_long:
                # First, so that a call that waits for these holds no slot that short calls need.
                await waiting.enter_async_context(_slot(self._circuits[-1].long, self._busy(_LONG_FULL)))
                await waiting.enter_async_context(_slot(self._namespace.long, self._busy(_LONG_FULL)))
            await waiting.enter_async_context(_slot(self._slots, self._busy(_EARLIER_CALLS)))
            await waiting.enter_async_context(_slot(self._namespace.calls, self._busy(_NAMESPACE_FULL)))
            if not self._endpoint.is_proven:
                await waiting.enter_async_context(_slot(self._namespace.unproven, self._busy(_OTHERS_FULL)))
            task = asyncio.create_task(self._run(call, seconds, waiting.pop_all()))
        self._running.add(task)
        task.add_done_callback(self._forget)
        try:
            async with asyncio.timeout(seconds + _THREAD_SECONDS):
                return await asyncio.shield(task)
        except TimeoutError:
            message = (
                f"Cannot use {self._name}: a call has not ended after {seconds:.0f} s. Check the network, and the load"
                " of the server."
            )
            raise self._fail(StoreTooSlow(message)) from None
        finally:
            # The task keeps its exception, whose traceback has this frame: a cycle that only the collector would end.
            del task

    async def _run(self, call: Callable[[], T], seconds: float, slots: AsyncExitStack) -> T:
        """Run the call in a thread, and release the slots when the thread has ended."""
        async with slots:
            began = _now()
            try:
                result = await asyncio.to_thread(_call_within, call, seconds)
            except StoreUnreachable as error:
                self._endpoint.judge(_now() - began, is_answered=False)
                self._fail(error)
                raise
            except CinderblockError:
                self._judge_answer(began, seconds)
                raise
            self._judge_answer(began, seconds)
            return result

    def _judge_answer(self, began: float, seconds: float) -> None:
        """Take note of an answer. A long call takes as long as there are objects."""
        for circuit in self._circuits:
            circuit.close()
        self._endpoint.judge(_now() - began if seconds <= CALL_SECONDS else 0.0, is_answered=True)

    def _fail(self, error: StoreUnreachable) -> StoreUnreachable:
        """Fail further calls of this caller, and those of all if that says something about the whole store."""
        self._own.fail(error)
        self._endpoint.is_proven = False
        if self._shared is not None:
            circuit, caller = self._shared.circuit, self._shared.caller
            # Many or large objects of one namespace may use up the time of a call.
            if caller and not isinstance(error, StoreTooSlow):
                circuit.failing.add(caller)
            if not caller or len(circuit.failing) >= FAILING_CALLERS:
                circuit.fail(error)
        return error

    def _busy(self, cause: str) -> str:
        return f"Cannot call {self._name} yet: {cause}. The call is repeated."

    def _forget(self, task: asyncio.Task[object]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may wait for it any more


def _call_within(call: Callable[[], T], seconds: float) -> T:
    try:
        with limit_seconds(seconds):
            return call()
    except Exception as error:
        release_answers(error)
        raise


def _repeated(error: StoreUnreachable) -> StoreUnreachable:
    return type(error)(error.message, reason=error.reason)


def _now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def _slot(slots: asyncio.Semaphore, message: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(SLOT_WAIT_SECONDS):
            await slots.acquire()
    except TimeoutError:
        raise StoreBusy(message) from None
    try:
        yield
    finally:
        slots.release()
