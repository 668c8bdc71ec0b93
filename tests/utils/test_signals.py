"""Signals by which a process is asked to leave, and the end of a parent."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mmpt.utils.signals import LeaveRequest, overlook_first


@pytest.mark.parametrize("number", LeaveRequest.SIGNALS)
def test_a_signal_is_noted_and_nothing_ends(number: signal.Signals) -> None:
    request = LeaveRequest()
    request.listen()
    assert request.received is None
    os.kill(os.getpid(), number)
    assert request.received is number
    assert not request.agreed


def test_in_another_thread_there_is_nothing_to_listen_to() -> None:
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=LeaveRequest().listen)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


def run(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_a_process_whose_parent_does_not_listen_ends_at_once() -> None:
    process = run(
        "import time; from mmpt.utils.signals import overlook_first; overlook_first(); print('up', flush=True)\n"
        "time.sleep(60)"
    )
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.terminate()
    assert process.wait(timeout=20) == -signal.SIGTERM


def test_a_data_worker_does_not_keep_a_process_that_listens_from_ending() -> None:
    process = run(
        "import multiprocessing, time\nfrom mmpt.utils.signals import LeaveRequest, overlook_first\n"
        "LeaveRequest().listen()\n"
        "for early in (True, False):\n"
        "    target = time.sleep if early else (lambda s: (overlook_first(), time.sleep(s)))\n"
        "    multiprocessing.get_context('fork').Process(target=target, args=(300,), daemon=True).start()\n"
        "time.sleep(0.5); print('done', flush=True)"
    )
    out, _ = process.communicate(timeout=30)
    assert (out, process.returncode) == ("done\n", 0)


def test_a_child_that_is_just_forked_is_not_ended_before_it_overlooks() -> None:
    LeaveRequest().listen()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, b"born")
        time.sleep(0.5)  # in which the signal comes
        overlook_first()
        os.write(write, b"here")
        time.sleep(60)
        os._exit(0)
    assert os.read(read, 4) == b"born"
    os.kill(child, signal.SIGTERM)
    assert os.read(read, 4) == b"here"
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="a service of Linux")
def test_a_child_ends_with_its_parent_even_if_that_is_killed() -> None:
    child = (
        "from mmpt.utils.signals import die_with_parent; die_with_parent(); print('up', flush=True)\n"
        "import time; time.sleep(60)"
    )
    parent = run(
        "import subprocess, sys\n"
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE, text=True)\n"
        "p.stdout.readline(); print(p.pid, flush=True); p.wait()"
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not os.path.exists(f"/proc/{pid}"):
            return
        time.sleep(0.1)
    pytest.fail("the child outlived its parent")
