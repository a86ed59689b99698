#!/usr/bin/python3
"""Drives a program on a pseudo-terminal from a JSON script on stdin (pexpect, Debian's python3-pexpect).

usage: terminal.py ROWS COLUMNS PROGRAM ARGS…
Steps: {"expect": REGEX}, {"send": TEXT}, {"control": LETTER}, {"resize": [ROWS, COLUMNS]}, {"sleep": SECONDS}, {"eof": true} (wait for the end).
Prints a JSON object: {"output": everything read, "code": exit code, "signal": …}, or {"error": …, "output": …} when an expectation failed.
"""
import json
import sys
import time

import pexpect

rows, columns, program, args = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
steps = json.load(sys.stdin)
child = pexpect.spawn(program, args, dimensions=(rows, columns), timeout=40, encoding="utf-8", codec_errors="replace")
seen = []


class Tee:
    def write(self, text):
        seen.append(text)

    def flush(self):
        pass


child.logfile_read = Tee()
result = {}
try:
    for step in steps:
        if "expect" in step:
            child.expect(step["expect"])
        elif "send" in step:
            child.send(step["send"])
        elif "control" in step:
            child.sendcontrol(step["control"])
        elif "resize" in step:
            child.setwinsize(*step["resize"])
        elif "sleep" in step:
            time.sleep(step["sleep"])
        elif "eof" in step:
            child.expect(pexpect.EOF)
    child.close()
    result = {"code": child.exitstatus, "signal": child.signalstatus}
except Exception as error:  # the transcript tells more than the exception's text
    child.close(force=True)
    result = {"error": type(error).__name__ + ": " + str(error).split("\n")[0]}
result["output"] = "".join(seen)
print(json.dumps(result))
