"""The entry of every process and pod of d to g."""

import subprocess
import sys

import pytest

TO_A_THREAD = """
import signal, threading, time
from studyguide.roles import _set_on_signals

stop = threading.Event()
_set_on_signals(stop)

def be_hit():
    time.sleep(0.2)  # the main thread sleeps by now
    signal.pthread_kill(threading.get_ident(), signal.{name})
    time.sleep({rest})

threading.Thread(target=be_hit, daemon=True).start()
stop.wait()
print("stopped")
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_is_heard_whichever_thread_the_kernel_gives_it_to(name: str) -> None:
    program = TO_A_THREAD.format(name=name, rest=60)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout, done.stderr) == ("stopped\n", "")
