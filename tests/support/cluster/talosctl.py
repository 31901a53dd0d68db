#!/usr/bin/env -S python3 -SE
"""A talosctl for the cluster in a folder (see kubectl.py): what a node runs is what its disk started last.

CLUSTER names the folder:
  nodes.json        the nodes, as kubectl.py shows them; a restart changes readiness and boot ID there
  devices.json      the file that stands for a device of a node: {"altra /dev/nvme0n1": "disk.img"}
  talos.json        what goes wrong, by node:
    starts_old      the firmware starts what ran before
    stays_up        it agrees to restart, and does not
    never_ready     it starts, and the kubelet does not get ready
    refuses         `reboot` fails with this
    deaf            every call fails with this
    waits           these services do not run: ["ext-tailscale"]
    boot_id         the boot ID of another machine
  NODE.runs         what it runs, as `restore --list --json` says of the image that starts
  calls.log         every call, one JSON list a line

The forms of the output are those of Talos 1.12 (cmd/talosctl/cmd/talos).
"""
import fcntl
import json
import os
import subprocess
import sys
import time

CLUSTER = os.environ["CLUSTER"]


def path(name):
    return os.path.join(CLUSTER, name)


def load(name, default):
    try:
        with open(path(name)) as file:
            return json.load(file)
    except FileNotFoundError:
        return default


def store(name, value):
    with open(path(name + ".new"), "w") as file:
        json.dump(value, file)
    os.rename(path(name + ".new"), path(name))


def fail(text):
    sys.stderr.write(text + "\n")
    sys.exit(1)


def node_at(address):
    for name, node in load("nodes.json", {}).items():
        if any(a["address"] == address for a in node["status"]["addresses"]):
            return name, node
    fail(f'rpc error: code = Unavailable desc = connection error: dial tcp {address}:50000: i/o timeout')


def fault(name):
    return load("talos.json", {}).get(name, {})


def start(name):
    """What the disk of the node starts becomes what it runs."""
    disk = load("devices.json", {})[f"{name} /dev/nvme0n1"]
    call = [os.environ["POD_PROGRAM"], "restore", disk, "--list", "--json", "--efivars", "none"]
    report = json.loads(subprocess.run(call, check=True, stdout=subprocess.PIPE).stdout)
    store(f"{name}.runs", report["boots_now"])


def set_node(name, ready, boot_id=None):
    nodes = load("nodes.json", {})
    status = nodes[name]["status"]
    status["conditions"] = [{"type": "Ready", "status": "True" if ready else "Unknown",
                             "message": "Kubelet stopped posting node status."}]
    if boot_id:
        status["nodeInfo"]["bootID"] = boot_id
    store("nodes.json", nodes)


def firmware(name, boot_id):
    """A restart."""
    time.sleep(0.3)
    set_node(name, False)
    time.sleep(0.3)
    if not fault(name).get("starts_old"):
        start(name)
    set_node(name, False, boot_id + "+")
    if not fault(name).get("never_ready"):
        time.sleep(0.2)
        set_node(name, True)


def show(kind, name, spec, created):
    print(json.dumps({"metadata": {"namespace": "runtime", "type": kind, "id": name, "version": 1, "phase": "running",
                                   "created": created, "updated": created},
                      "node": "10.5.0.2", "spec": spec}, indent=4))


def services(runs):
    return ["ext-" + e["name"] for e in runs["extensions"] if e["name"] == "tailscale"]


def main():
    words = sys.argv[1:]
    if words[:1] == ["__firmware"]:
        firmware(words[1], words[2])
        return
    with open(path("calls.log"), "a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        log.write(json.dumps(["talosctl"] + words) + "\n")
    assert words[0] == "-n", words
    name, node = node_at(words[1])
    wrong = fault(name)
    if "deaf" in wrong:
        fail(wrong["deaf"])
    if load(f"{name}.runs", None) is None:
        start(name)
    if node["status"]["conditions"][0]["status"] != "True":
        fail("rpc error: code = Unavailable desc = connection refused")
    runs, boot_id = load(f"{name}.runs", {}), node["status"]["nodeInfo"]["bootID"]
    not_running = wrong.get("waits", [])
    call = words[2:]
    if call == ["read", "/proc/sys/kernel/random/boot_id"]:
        print(wrong.get("boot_id", boot_id))
    elif call == ["version", "--json"]:
        print(json.dumps({"metadata": {"hostname": words[1]}, "version": {"tag": runs["version"], "arch": "arm64"}}))
    elif call == ["get", "extensions", "-o", "json"]:
        layers = [(e["name"], e["version"]) for e in runs["extensions"]]
        if runs.get("schematic"):
            layers.append(("schematic", runs["schematic"]))
        for index, (extension, version) in enumerate(layers):
            metadata = {"name": extension, "version": version, "author": "", "description": "", "compatibility": {}}
            spec = {"image": f"{index}.sqsh", "metadata": metadata}
            show("ExtensionStatuses.runtime.talos.dev", str(index), spec, boot_id)
    elif call == ["get", "services.v1alpha1.talos.dev", "-o", "json"]:
        show("Services.v1alpha1.talos.dev", "apid", {"running": True, "healthy": True, "unknown": False}, boot_id)
        for service in services(runs):
            if service not in not_running:
                spec = {"running": True, "healthy": False, "unknown": True}
                show("Services.v1alpha1.talos.dev", service, spec, boot_id)
    elif call[0] == "service" and call[1] in services(runs):
        print(f"NODE     {words[1]}\nID       {call[1]}\nSTATE    Waiting\nHEALTH   ?\n"
              "EVENTS   [Waiting]: Waiting for extension service config (5s ago)")
    elif call[0] == "service":
        fail(f'service "{call[1]}" is not registered on any nodes')
    elif call == ["reboot", "--mode", "powercycle", "--wait=false"]:
        if "refuses" in wrong:
            fail(wrong["refuses"])
        if not wrong.get("stays_up"):
            subprocess.Popen([sys.executable, os.path.abspath(__file__), "__firmware", name, boot_id],
                             start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    else:
        fail(f"Error: unknown command {call}")


main()
