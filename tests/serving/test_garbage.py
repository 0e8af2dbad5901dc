import subprocess
import sys

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


def test_clients_that_were_never_closed_hold_nobody_up() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LEAK], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "settled\n", done.stderr


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


def test_a_client_whose_message_nobody_takes_holds_nobody_up() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", UNSENT], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "settled\n", done.stderr
