"""What the stories in Python share: their place, the session with AWS, how one looks, and programs that are run.

`Site::act` starts a story's script with the name of an act, and perhaps more words; each ends with an error at the first surprise.
"""

import json
import os
import signal
import subprocess
import sys
import time

import boto3
import botocore.exceptions

ACT, *WORDS = sys.argv[1:] or [None]
AWS, DATA, EKSO, KUBECTL, SCRATCH = (os.environ[f"STORY_{name}"] for name in ("AWS", "DATA", "EKSO", "KUBECTL", "SCRATCH"))
SESSION = boto3.Session()
CONFIG = SESSION._session.get_scoped_config()
EC2, EKS, IAM, SCALING, STS = (SESSION.client(name) for name in ("ec2", "eks", "iam", "autoscaling", "sts"))
ACCOUNT = STS.get_caller_identity()["Account"]
# For botocore's waiters, which ask twice a minute unless told.
SOON = {"Delay": 1, "MaxAttempts": 120}


def check(what, seen, expected):
    if seen != expected:
        sys.exit(f"{what}: {seen!r} instead of {expected!r}")


def contains(what, text, part):
    if part not in str(text):
        sys.exit(f"{what}: {part!r} is not in {text!r}")


def refused(what, call, code, part="", status=None):
    """Demands an error of AWS's: its code, a part of its message, and the status of HTTP if one is named."""
    try:
        answer = call()
    except botocore.exceptions.ClientError as error:
        told = error.response
        check(what, told["Error"]["Code"], code)
        contains(what, told["Error"]["Message"], part)
        check(what, told["ResponseMetadata"]["HTTPStatusCode"], status or told["ResponseMetadata"]["HTTPStatusCode"])
    else:
        sys.exit(f"{what}: it was answered: {answer}")


def until(what, look):
    """Looks until there is something to see, and gives it."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        seen = look()
        if seen:
            return seen
        time.sleep(0.2)
    sys.exit(f"{what}: it did not come")


def run(*words, stdin="", fails=False):
    """What a program prints; of one that must fail, its errors too."""
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=120)
    if (done.returncode != 0) != fails:
        sys.exit(f"{' '.join(words)}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr if fails else done.stdout


def processes(*words):
    """The ids of the site's processes whose command line has these words: agents of nodes, say, or the daemon; not the first processes
    of machines, nor the monitors of pods."""
    site = json.load(open(f"{DATA}/site.json"))["id"]
    places = (f"/ekso-{site}/", os.path.realpath(DATA))
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line, group = (open(f"/proc/{pid}/{file}", "rb").read().decode() for file in ("cmdline", "cgroup"))
        except OSError:
            continue  # It has ended.
        if set(words) <= set(line.split("\0")) and any(place in group + line for place in places):
            if "machine-init" not in line and "pod-monitor" not in line:
                yield int(pid)


def killed_and_up():
    """kill -9 of the daemon and of the agents of all nodes, and `ekso up`, which goes on where they were."""
    for pid in [*processes("node", "--server"), *processes("server", "--daemon")]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # Its node was going anyway.
    run(EKSO, "up", "--data-dir", DATA, "--name", "dev")


def kubeconfig(cluster):
    """The file of a cluster, which `logged_in` writes."""
    return f"{SCRATCH}/{cluster}.kubeconfig"


def logged_in(cluster):
    run(AWS, "eks", "update-kubeconfig", "--name", cluster, "--kubeconfig", kubeconfig(cluster))


def kubectl(cluster, words, stdin="", fails=False):
    return run(KUBECTL, "--kubeconfig", kubeconfig(cluster), *words.split(), stdin=stdin, fails=fails)


def get(cluster, words):
    return json.loads(kubectl(cluster, f"get {words} -o json"))


def role(name):
    return f"arn:aws:iam::{ACCOUNT}:role/{name}"
