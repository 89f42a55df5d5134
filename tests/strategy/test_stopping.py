"""Ctrl-C and SIGTERM against real processes, whatever they are doing."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SENTENCE = {
    signal.SIGINT: "stopped by Ctrl-C (SIGINT): what was finished until now is kept",
    signal.SIGTERM: "stopped by SIGTERM: what was finished until now is kept",
}
BEGIN = """
import asyncio, os, signal, sys, threading, time
from cppncripto_strategy.stopping import stops_cleanly
def ready(): print("ready", flush=True)
with stops_cleanly(patience_s=0.5):
"""
WORK = {
    "sleeps": "ready(); time.sleep(60)",
    "imports": "ready(); exec('while True: import importlib, json; importlib.reload(json)')",
    "waits for a lock": "lock = threading.Lock(); lock.acquire(); ready(); lock.acquire()",
    "runs a loop": "ready(); asyncio.run(asyncio.sleep(60))",
    "builds a loop": """
    class Loop(asyncio.SelectorEventLoop):
        def _make_self_pipe(self):
            ready()
            time.sleep(60)
    asyncio.events.new_event_loop = Loop
    asyncio.run(asyncio.sleep(60))
""",
    "swallows": """
    ready()
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
""",
    "has a thread that does not end": """
    threading.Thread(target=time.sleep, args=(60,)).start()
    ready()
    time.sleep(60)
""",
    "is tidying up": """
    class Odd:
        def __del__(self):
            ready()
            time.sleep(5)
    odd = Odd()
    del odd
    time.sleep(60)
""",
}


def run(script: str, *numbers: signal.Signals, before: str = "ready") -> tuple[int, str]:
    """Status and stderr of a script that gets signals once it printed a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == before
    for number in numbers:
        process.send_signal(number)
    _, complaint = process.communicate(timeout=30)
    return process.returncode, complaint


@pytest.mark.posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work", list(WORK))
def test_signal_ends_with_a_sentence_and_the_shells_status(work, number):
    """A traceback through an import; a process that a supervisor must kill -9."""
    text = WORK[work]
    body = text if text.startswith("\n") else f"    {text}"
    status, complaint = run(BEGIN + body, number)
    assert status == 128 + number
    assert complaint.strip() == SENTENCE[number]


@pytest.mark.posix
def test_second_signal_ends_at_once():
    """A user who presses Ctrl-C again and again, and is told nothing."""
    script = BEGIN.replace("0.5", "600") + WORK["swallows"].replace("ready()", "text = 'ready'")
    say = "said, text = text, 'again'; print(said, flush=True); time.sleep"
    script = script.replace("time.sleep", say)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for expected in ("ready", "again"):
        assert process.stdout.readline().strip() == expected
        process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=30)
    assert process.returncode == 130
    assert complaint.strip() == SENTENCE[signal.SIGINT]


@pytest.mark.posix
def test_ignored_signal_stays_ignored():
    """A run under nohup, or in a shell's background, that ends with somebody else's Ctrl-C."""
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        + BEGIN
        + "    ready(); time.sleep(0.5)\nprint('done')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    process.send_signal(signal.SIGINT)
    rest, complaint = process.communicate(timeout=30)
    assert (process.returncode, rest.strip(), complaint) == (0, "done", "")


@pytest.mark.posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_line_passes_the_status_on(number):
    """click's own "Aborted!" and status 1, which a script takes for an error of ours."""
    script = (
        "import time, click\n"
        "from cppncripto_strategy.cli import main\n"
        "from cppncripto_strategy.commands import COMMANDS\n"
        "@COMMANDS.register('wait')\n"
        "@click.command()\n"
        "def wait():\n"
        "    print('ready', flush=True); time.sleep(60)\n"
        "main(['wait'])"
    )
    status, complaint = run(script, number)
    assert status == 128 + number
    assert complaint.strip() == SENTENCE[number]


@pytest.mark.posix
def test_handlers_are_put_back():
    """A notebook whose Ctrl-C ends the kernel after one call of ours."""
    script = (
        "import signal\n"
        "from cppncripto_strategy.stopping import stops_cleanly\n"
        "before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]\n"
        "with stops_cleanly():\n    pass\n"
        "assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.posix
@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("click", signal.SIGTERM),
        ("rich.console", signal.SIGINT),
        ("pandas._libs", signal.SIGTERM),
        ("torch._C", signal.SIGINT),
        ("torch.nn", signal.SIGTERM),
    ],
)
def test_command_that_still_imports_ends_cleanly(module, number, tmp_path):
    """The first thing a signal meets is an import: a traceback of somebody else's library."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "cppncripto_strategy", "paper", "--demo"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.split("|")[-1].strip() == module:
            break
    process.send_signal(number)
    said = [line for line in process.stderr if not line.startswith("import time:")]
    assert "".join(said).strip() == SENTENCE[number]
    assert process.wait(30) == 128 + number


@pytest.mark.posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_exchange_that_is_stopped_has_done_its_work(number, tmp_path):
    """The documented way to stop it, and a traceback out of asyncio."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cppncripto_strategy", "exchange", "--port", "0", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert process.stdout is not None
    assert "rest_url" in process.stdout.readline()
    process.send_signal(number)
    _, complaint = process.communicate(timeout=30)
    assert (process.returncode, complaint) == (0, "")


@pytest.mark.posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_after_the_last_word_keeps_the_status(number):
    """Work that is done, and a supervisor that reads "killed"."""
    script = (
        "import atexit, sys, time\n"
        "atexit.register(lambda: (print('ready', flush=True), time.sleep(60)))\n"
        "from cppncripto_strategy.__main__ import main\n"
        "sys.argv = ['cppn-bt', 'data', 'list', '--store', '/nowhere', '--json']\n"
        "sys.stdout = sys.stderr\n"
        "main()"
    )
    script = script.replace("print('ready', ", "print('ready', file=sys.__stdout__, ")
    assert run(script, number) == (0, '{"store": "/nowhere", "series": []}\n')
