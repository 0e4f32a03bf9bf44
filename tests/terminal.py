#!/usr/bin/env python3
"""Runs a command on a terminal of its own, as a shell with job control would, and presses keys.

terminal.py [--under-wrapper] KEYS COMMAND...

KEYS: words parted by commas, in order: a number waits that many seconds, ^C and ^Z press the key, `stopped` waits until
the job has stopped (10 s at most, else it fails), `fg` continues it in the foreground, `bg` in the background; `kill` ends
it by SIGKILL, `kill1`, `term` and `tstp` send its first process alone SIGKILL, SIGTERM or SIGTSTP.
=TEXT types TEXT and Enter, ?TEXT waits until the terminal has shown TEXT since the last such word, 33x77 is a new size,
`raw` and `cooked` wait until the terminal has such modes.
Prints what the terminal showed, `left N` if N bytes of input are left for the shell, `modes changed` if the job left it in
other modes than it found, then `status N` (128 + n for a signal).

--under-wrapper: between the two a process of the same group that, as sudo does, ignores the keys, waits for the command
to stop, and then stops itself.
"""
import fcntl, os, pty, select, signal, struct, sys, termios, time


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
            left = struct.unpack("i", fcntl.ioctl(0, termios.FIONREAD, struct.pack("i", 0)))[0]
            if left:
                os.write(1, b"\nleft %d\n" % left)
            os.write(reports, b"status %d\n" % (128 - code if code < 0 else code))
            os._exit(0)
        os.tcsetpgrp(0, os.getpgrp())
        os.write(reports, b"stopped\n")
        order = os.read(orders, 16)
        if order == b"fg\n":
            os.tcsetpgrp(0, job)
        if order in (b"fg\n", b"bg\n"):
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
    modes = termios.tcgetattr(terminal)
    shown, told, seen = b"", b"", 0

    def is_raw():
        return not termios.tcgetattr(terminal)[3] & termios.ICANON

    def listen(seconds, until=None, condition=None):
        nonlocal shown, told
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (until and until in told) and not (condition and condition()):
            left = max(0, min(0.1, end - time.monotonic()))
            if condition:  # the modes change without a word
                left = min(left, 0.02)
            ready, _, _ = select.select([terminal, report_out], [], [], left)
            try:
                if terminal in ready:
                    shown += os.read(terminal, 4096)
            except OSError:
                pass  # nobody has it open any more
            if report_out in ready:
                more = os.read(report_out, 4096)
                told += more
                if not more and not condition:
                    break
        return condition() if condition else until is None or until in told

    def job():
        listen(10, b"job ")
        return int(told.split()[1])

    failed = None
    for key in keys:
        if key == "stopped":
            if not listen(10, b"stopped\n"):
                failed = "it did not stop"
                break
            told = told.replace(b"stopped\n", b"", 1)
        elif key in ("fg", "bg"):
            os.write(order_in, key.encode() + b"\n")
        elif key == "kill":
            os.killpg(job(), signal.SIGKILL)
            os.write(order_in, b"wait\n")
        elif key in ("kill1", "term", "tstp"):
            os.kill(job(), {"kill1": signal.SIGKILL, "term": signal.SIGTERM, "tstp": signal.SIGTSTP}[key])
        elif key in ("raw", "cooked"):
            if not listen(10, condition=lambda: is_raw() == (key == "raw")):
                failed = f"it did not become {key}"
                break
        elif key.startswith("="):
            os.write(terminal, key[1:].encode() + b"\r")
        elif key.startswith("?"):
            text = key[1:].encode()
            if not listen(10, condition=lambda: text in shown[seen:]):
                failed = f"it did not show {key[1:]!r}"
                break
            seen = shown.index(text, seen) + len(text)
        elif "x" in key and key.replace("x", "").isdigit():
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *map(int, key.split("x")), 0, 0))
        elif key.startswith("^"):
            os.write(terminal, bytes([ord(key[1]) - 64]))
        else:
            listen(float(key))
    if not failed and not listen(10, b"status "):
        failed = "it did not end"
    # What it has shown may still be on its way; the end of the session, whose leader ends now, is the end of that.
    while not failed and select.select([terminal], [], [], 3)[0]:
        try:
            shown += os.read(terminal, 4096)
        except OSError:
            break
    # Who was started by the job may put back what the job could not.
    kept = listen(5, condition=lambda: termios.tcgetattr(terminal) == modes)
    if failed:
        os.killpg(int(told.split()[1]), signal.SIGKILL)
    shown = shown.decode(errors="replace").replace("\r", "")
    sys.stdout.write(shown if shown.endswith("\n") or not shown else shown + "\n")
    if not kept:
        sys.stdout.write("modes changed\n")
    sys.stdout.write(failed + "\n" if failed else told[told.index(b"status "):].decode())
    os.kill(leader, signal.SIGKILL)
    os.waitpid(leader, 0)
    sys.exit(1 if failed else 0)


main()
