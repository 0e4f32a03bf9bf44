#!/usr/bin/env python3
"""Runs a command on a terminal of its own, as a shell with job control would, and presses keys.

terminal.py [--under-wrapper] KEYS COMMAND...

KEYS: words parted by commas, in order: a number waits that many seconds, ^C and ^Z press the key, `stopped` waits until
the job has stopped (10 s at most, else it fails), `fg` continues it in the foreground, `kill` ends it by SIGKILL.
Prints what the terminal showed, then `status N` (128 + n for a signal).

--under-wrapper: between the two a process of the same group that, as sudo does, ignores the keys, waits for the command
to stop, and then stops itself.
"""
import os, pty, select, signal, sys, termios, time


def wrapper(command):
    for key in (signal.SIGINT, signal.SIGTSTP):
        signal.signal(key, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        for key in (signal.SIGINT, signal.SIGTSTP):
            signal.signal(key, signal.SIG_DFL)
        os.execvp(command[0], command)
    while True:
        _, status = os.waitpid(child, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            os.kill(os.getpid(), signal.SIGSTOP)
            os.kill(child, signal.SIGCONT)
        else:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def shell(command, wrapped, orders, reports):
    """The session's leader: one job in a group of its own, in the foreground."""
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        os.tcsetpgrp(0, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        if wrapped:
            wrapper(command)
        os.execvp(command[0], command)
    try:
        os.setpgid(job, job)
    except OSError:
        pass
    os.write(reports, b"job %d\n" % job)
    while True:
        _, status = os.waitpid(job, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            code = os.waitstatus_to_exitcode(status)
            os.write(reports, b"status %d\n" % (128 - code if code < 0 else code))
            os._exit(0)
        os.tcsetpgrp(0, os.getpgrp())
        os.write(reports, b"stopped\n")
        if os.read(orders, 16) == b"fg\n":
            os.tcsetpgrp(0, job)
            os.killpg(job, signal.SIGCONT)


def main():
    words = sys.argv[1:]
    wrapped = words[0] == "--under-wrapper"
    words = words[wrapped:]
    keys, command = words[0].split(","), words[1:]
    order_out, order_in = os.pipe()
    report_out, report_in = os.pipe()
    leader, terminal = pty.fork()
    if leader == 0:
        shell(command, wrapped, order_out, report_in)
    os.close(report_in)
    shown, told = b"", b""

    def listen(seconds, until=None):
        nonlocal shown, told
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (until and until in told):
            ready, _, _ = select.select([terminal, report_out], [], [], max(0, min(0.1, end - time.monotonic())))
            try:
                if terminal in ready:
                    shown += os.read(terminal, 4096)
            except OSError:
                pass  # nobody has it open any more
            if report_out in ready:
                more = os.read(report_out, 4096)
                told += more
                if not more:
                    break
        return until is None or until in told

    failed = None
    for key in keys:
        if key == "stopped":
            if not listen(10, b"stopped\n"):
                failed = "it did not stop"
                break
            told = told.replace(b"stopped\n", b"", 1)
        elif key == "fg":
            os.write(order_in, b"fg\n")
        elif key == "kill":
            os.killpg(int(told.split()[1]), signal.SIGKILL)
            os.write(order_in, b"wait\n")
        elif key.startswith("^"):
            os.write(terminal, bytes([ord(key[1]) - 64]))
        else:
            listen(float(key))
    if not failed and not listen(10, b"status "):
        failed = "it did not end"
    if failed:
        os.killpg(int(told.split()[1]), signal.SIGKILL)
    sys.stdout.write(shown.decode(errors="replace").replace("\r", ""))
    sys.stdout.write(failed + "\n" if failed else told[told.index(b"status "):].decode())
    os.kill(leader, signal.SIGKILL)
    os.waitpid(leader, 0)
    sys.exit(1 if failed else 0)


main()
