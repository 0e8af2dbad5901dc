"""Keeping Python's garbage collector away from what lives as long as an engine."""

import gc
import threading

_END_S = 5.0


def settle() -> None:
    """Collect everything, and leave what is alive out of later collections.

    vLLM and what it imports are millions of objects. A full collection goes through them all, which
    takes half a second in which nobody is answered, several times a minute under load. vLLM's own
    server does the same. What is part of a cycle and given up later is found by the next `settle`.
    """
    was_enabled = gc.isenabled()
    # A collection that comes by itself would not know the order that is needed here.
    gc.disable()
    # vLLM's; polyvec is used without it, too.
    import zmq.asyncio

    gc.unfreeze()
    # A context that is collected waits for its sockets to be closed, and no longer knows those that are
    # collected with it: for ever, if it comes first. So contexts come last.
    kinds = (zmq.Context, zmq.asyncio.Context)
    contexts = [found for found in gc.get_objects() if type(found) in kinds]
    gc.collect()
    # One whose closed socket still has a message for a peer that is gone waits for that peer, also for ever.
    # It may: in a thread that holds nobody up, not even the interpreter's end.
    ending = threading.Thread(target=contexts.clear, name="zmq-contexts", daemon=True)
    ending.start()
    ending.join(_END_S)
    gc.collect()
    gc.freeze()
    if was_enabled:
        gc.enable()
