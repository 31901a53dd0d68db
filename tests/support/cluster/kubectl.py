#!/usr/bin/env -S python3 -SE
"""A kubectl with a cluster in a folder, for tests: its pods are processes of this machine.

CLUSTER names the folder:
  nodes.json        what `get node` says, by name
  devices.json      the file that stands for a device of a node: {"/dev/nvme0n1": "disk.img"}; by node: {"altra /dev/…": …}
  plan.json         what goes wrong:
    waiting         the pod never begins: {"reason": …, "message": …}
    warning         what `get events` says of it
    begins_after    seconds
    cut_attach_at   after so many bytes the connection of attach is lost
    no_attach       what attach fails with
    cut_log_at      the first `logs --follow` is cut after so many lines
    cut_log_in      the first one is cut in the middle of this line
    dead_watch      `get --watch` says nothing, and does not end
    evict_at        the pod is evicted once attach has carried so many bytes
    vanish          the pod is deleted by somebody, forcibly, once it runs
    kill            its program gets SIGKILL once it runs
    forbidden       calls that this user may not make: ["get node"]
    deaf            `create` fails with this
    create_answers_after    seconds: the pod is there before whoever creates it is told
    lost_create     the pod is created, and the answer is lost: `create` fails with this
  calls.log         every call, one JSON list a line
  pods/NAME.json    the pods
"""
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time

CLUSTER = os.environ["CLUSTER"]


def path(*names):
    return os.path.join(CLUSTER, *names)


def load(name, default):
    try:
        with open(path(name)) as file:
            return json.load(file)
    except FileNotFoundError:
        return default


PLAN = load("plan.json", {})


def store(pod):
    name = pod["metadata"]["name"]
    with open(path("pods", name + ".new"), "w") as file:
        json.dump(pod, file)
    os.rename(path("pods", name + ".new"), path("pods", name + ".json"))


def pod_of(name):
    return load(os.path.join("pods", name + ".json"), None)


def fail(text):
    sys.stderr.write(text + "\n")
    sys.exit(1)


def show(document):
    sys.stdout.write(json.dumps(document, indent=4) + "\n")
    sys.stdout.flush()


def set_state(name, phase, state, **more):
    """Changes the state of a pod that is there."""
    pod = pod_of(name)
    if pod is None:
        return
    pod["status"] = {"phase": phase, **more}
    if state is not None:
        pod["status"]["containerStatuses"] = [{"name": "bootsurgeon", "state": state}]
    store(pod)


def remove(name):
    try:
        os.unlink(path("pods", name + ".json"))
    except FileNotFoundError:
        pass


def program(container, node):
    """The container's command as the kubelet makes it, for a program of this machine."""
    devices = load("devices.json", {})

    def word(text):
        text = text.replace("$$", "$")
        return devices.get(f"{node} {text}", devices.get(text, text))

    words = [word(text) for text in container.get("args", [])]
    command = container.get("command")
    if command:
        # /tmp is the pod's own.
        scratch = path("pods", "scratch") + "/"
        os.makedirs(scratch, exist_ok=True)
        command = [text.replace("$$", "$").replace("/tmp/", scratch) for text in command]
        return command + words
    return [os.environ["POD_PROGRAM"]] + words


def kubelet(name):
    """Runs a pod to its end."""
    pod = pod_of(name)
    if "waiting" in PLAN:
        set_state(name, "Pending", {"waiting": PLAN["waiting"]})
        while pod_of(name) and not os.path.exists(path("pods", name + ".delete")):
            time.sleep(0.02)
        remove(name)
        return
    begin = time.monotonic() + PLAN.get("begins_after", 0)
    while time.monotonic() < begin and not os.path.exists(path("pods", name + ".delete")):
        time.sleep(0.02)
    if pod_of(name) is None or os.path.exists(path("pods", name + ".delete")):
        remove(name)
        return
    container = pod["spec"]["containers"][0]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BOOTSURGEON_")}
    for variable in container.get("env", []):
        environment[variable["name"]] = variable.get("value", pod["spec"]["nodeName"]).replace("$$", "$")
    with open(path("pods", name + ".log"), "wb") as log:
        child = subprocess.Popen(program(container, pod["spec"]["nodeName"]), env=environment, stdout=log, stderr=log,
                                 stdin=subprocess.PIPE if container.get("stdin") else subprocess.DEVNULL)
    set_state(name, "Running", {"running": {"startedAt": "now"}})
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path("pods", name + ".sock"))
    listener.listen()
    listener.settimeout(0.02)
    connection, carried = None, 0
    while child.poll() is None:
        if os.path.exists(path("pods", name + ".delete")):
            os.unlink(path("pods", name + ".delete"))
            child.send_signal(signal.SIGTERM)
            pod = pod_of(name)
            pod["metadata"]["deletionTimestamp"] = "now"
            store(pod)
        if PLAN.get("kill"):
            child.kill()
        if PLAN.get("vanish"):
            time.sleep(0.3)
            child.kill()
            remove(name)
            return
        if connection is None:
            try:
                connection, _ = listener.accept()
                connection.settimeout(0.02)
            except socket.timeout:
                pass
            continue
        if child.stdin is None:
            time.sleep(0.02)
            continue
        try:
            data = connection.recv(1 << 16)
        except socket.timeout:
            continue
        except OSError:
            data = b""
        try:
            child.stdin.write(data)
            child.stdin.flush()
            if not data:
                # stdinOnce: with its first attach the input ends.
                child.stdin.close()
                child.stdin = None
        except BrokenPipeError:
            child.stdin = None
        carried += len(data)
        if carried >= PLAN.get("evict_at", 1 << 62):
            child.kill()
            child.wait()
            set_state(name, "Failed", None, reason="Evicted", message="The node was low on resource: memory.")
            return
    code = child.returncode
    reason = "Completed" if code == 0 else "Error"
    code = 128 - code if code < 0 else code
    if code == 137:
        reason = "OOMKilled"
    set_state(name, "Succeeded" if code == 0 else "Failed", {"terminated": {"exitCode": code, "reason": reason}})
    if connection:
        connection.close()
    if pod_of(name) and "deletionTimestamp" in pod_of(name)["metadata"]:
        time.sleep(0.3)
        remove(name)


def get(words):
    kind = words[0]
    if kind == "node":
        node = load("nodes.json", {}).get(words[1])
        if node is not None:
            show(node)
    elif kind == "events":
        warning = PLAN.get("warning")
        event = {"lastTimestamp": "2026-01-01T00:00:00Z", "reason": "Failed", "message": warning}
        show({"items": [event] if warning else []})
    elif kind == "pod" and "--watch" not in words:
        if pod_of(words[1]):
            show(pod_of(words[1]))
    elif kind == "pod":
        last = None
        if pod_of(words[1]) is None:
            fail(f'Error from server (NotFound): pods "{words[1]}" not found')
        while PLAN.get("dead_watch"):
            time.sleep(0.1)
        while True:
            pod = pod_of(words[1])
            if pod is None:
                if last:
                    show({"type": "DELETED", "object": last})
                    last = None
            elif pod != last:
                show({"type": "MODIFIED" if last else "ADDED", "object": pod})
                last = pod
            time.sleep(0.02)
    else:
        fail(f"error: the server doesn't have a resource type {kind!r}")


def create():
    if "deaf" in PLAN:
        fail(PLAN["deaf"])
    pod = json.load(sys.stdin)
    name = pod["metadata"]["name"]
    os.makedirs(path("pods"), exist_ok=True)
    pod["status"] = {"phase": "Pending"}
    store(pod)
    # What was created is kept, for tests to look at.
    with open(path("created.json"), "w") as file:
        json.dump(pod, file)
    subprocess.Popen([sys.executable, os.path.abspath(__file__), "__kubelet", name], start_new_session=True,
                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(PLAN.get("create_answers_after", 0))
    if "lost_create" in PLAN:
        fail(PLAN["lost_create"])
    print(f"pod/{name}")


def attach(name):
    if "no_attach" in PLAN:
        fail(PLAN["no_attach"])
    connection = socket.socket(socket.AF_UNIX)
    while True:
        try:
            connection.connect(path("pods", name + ".sock"))
            break
        except OSError:
            if pod_of(name) is None or "terminated" in str(pod_of(name)["status"]):
                fail("error: cannot attach a container in a completed pod")
            time.sleep(0.02)
    carried, limit = 0, PLAN.get("cut_attach_at", 1 << 62)
    while True:
        data = os.read(0, min(1 << 16, limit - carried))
        if not data:
            break
        try:
            connection.sendall(data)
        except OSError:
            return
        carried += len(data)
        if carried >= limit:
            fail("error: lost connection to pod")
    connection.shutdown(socket.SHUT_WR)
    # The container's output comes until its end.
    connection.recv(1)


def logs(name):
    cut, half = PLAN.get("cut_log_at"), PLAN.get("cut_log_in")
    if cut is not None or half is not None:
        try:
            os.close(os.open(path("pods", name + ".cut"), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            cut = half = None
    while not os.path.exists(path("pods", name + ".log")):
        time.sleep(0.02)
    with open(path("pods", name + ".log"), "rb") as log:
        count = 0
        while True:
            pod = pod_of(name)
            ended = pod is None or "running" not in str(pod["status"])
            for line in iter(log.readline, b""):
                if count + 1 == half:
                    sys.stdout.buffer.write(line[:len(line) // 2])
                    sys.stdout.buffer.flush()
                    fail("error: unexpected EOF")
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
                count += 1
                if count == cut:
                    fail("error: unexpected EOF")
            if ended:
                return
            time.sleep(0.02)


def delete(name):
    if pod_of(name) is None:
        return
    state = str(pod_of(name)["status"])
    if "terminated" in state or "Evicted" in state:
        remove(name)
    else:
        open(path("pods", name + ".delete"), "w").close()
    print(f'pod "{name}" deleted')


def main():
    words = sys.argv[1:]
    if words[:1] == ["__kubelet"]:
        # Whoever attaches may never come: a test kills it.
        signal.alarm(600)
        kubelet(words[1])
        return
    with open(path("calls.log"), "a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        log.write(json.dumps(["kubectl"] + words) + "\n")
    words = [word for word in words if not word.startswith(("--context=", "--kubeconfig="))]
    call = " ".join(words[:2])
    if call in PLAN.get("forbidden", []):
        fail(f'Error from server (Forbidden): User "somebody" cannot {call}')
    {
        "get": lambda: get(words[1:]),
        "create": create,
        "attach": lambda: attach(words[1]),
        "logs": lambda: logs(words[1]),
        "delete": lambda: delete(words[2]),
    }[words[0]]()


main()
