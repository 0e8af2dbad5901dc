import subprocess
import sys

import pytest

# Leaks only: a collection that comes by itself between two of them would hang here, before `settle`.
LEAK = """
import gc
import zmq
from serving.engine.garbage import settle

class Client:
    def __init__(self):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.PULL)
        self.socket.bind("tcp://127.0.0.1:*")
        self.itself = self

gc.disable()
for _ in range(20):
    Client()
gc.enable()
settle()
print("settled")
"""

UNSENT = """
import gc
import zmq
from serving.engine.garbage import settle

class Client:
    def __init__(self):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.PUSH)
        self.socket.connect("tcp://127.0.0.1:9")
        self.socket.send(b"to nobody")
        self.itself = self

gc.disable()
Client()
gc.enable()
settle()
print("settled")
"""


@pytest.mark.parametrize("program", [LEAK, UNSENT], ids=["never closed", "a message nobody takes"])
def test_clients_that_are_leaked_hold_nobody_up(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "settled\n", done.stderr
