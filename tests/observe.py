"""What can be seen of a container's processes from the outside: all of it, as JSON.

Run on a host, with the first process. Standard library only. Numbers of processes are those inside the container, so
that two hosts can be compared.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import socket
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
PIDFD_OPEN, PIDFD_GETFD, IOPRIO_GET = 434, 438, 252
SIOCINQ, SIOCOUTQ = 0x541B, 0x5411
PASSING = {(1, 4), (1, 55), (1, 56), (1, 57), (6, 11), (6, 26), (6, 28), (6, 35)}
"""Options that are no setting: errors are cleared by being read; statistics and clocks of a connection go on."""

STATUS = (
    *("Name", "Umask", "Ngid", "Uid", "Gid", "Groups", "Threads"),
    *("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
    *("NoNewPrivs", "Seccomp", "Seccomp_filters", "Speculation_Store_Bypass", "SpeculationIndirectBranch"),
    *("Cpus_allowed_list", "Mems_allowed_list", "THP_enabled", "VmLck", "VmPin", "HugetlbPages"),
)
STAT = {
    "tty_nr": 7,
    "tpgid": 8,
    "priority": 18,
    "nice": 19,
    "exit_signal": 38,
    "rt_priority": 40,
    "policy": 41,
}
"""Numbers of fields as proc(5) counts them: the state is the third."""
FILES = (
    *(
        "comm",
        "cmdline",
        "environ",
        "limits",
        "oom_score_adj",
        "coredump_filter",
        "personality",
        "timerslack_ns",
    ),
    *("loginuid", "setgroups", "uid_map", "gid_map", "timens_offsets", "attr/current"),
)
NETWORK = (
    "dev_mcast",
    "if_inet6",
    "ipv6_route",
    "route",
    "igmp",
    "igmp6",
    "packet",
    "raw",
    "netlink",
    "unix",
)


def text(path: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8", "surrogateescape")
    except OSError as failed:
        return f"({failed.strerror})"


def names(path: str) -> list[str]:
    return sorted(each.name for each in Path(path).iterdir())


def link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError as failed:  # a zombie has no files
        return f"({failed.strerror})"


def status(pid: int | str) -> dict[str, str]:
    lines = (line.partition(":") for line in text(f"/proc/{pid}/status").split("\n") if line)
    return {name: value.strip() for name, _, value in lines}


def tree(first: int) -> list[int]:
    found, wait = [], [first]
    while wait:
        pid = wait.pop()
        found.append(pid)
        for each in Path(f"/proc/{pid}/task").glob("*/children"):
            wait += [int(word) for word in text(str(each)).split() if word.isdigit()]
    return found


def inside(pid: int | str) -> int:
    return int(status(pid).get("NSpid", "0").split()[-1])


def threads(pid: int) -> dict[str, Any]:
    found = {}
    for thread in names(f"/proc/{pid}/task"):
        said = status(f"{pid}/task/{thread}")
        fields = text(f"/proc/{pid}/task/{thread}/stat").rpartition(")")[2].split()
        found[said.get("NSpid", thread).split()[-1]] = {
            "status": {name: said[name] for name in STATUS if name in said},
            "stat": {name: fields[at - 3] for name, at in STAT.items() if name not in {"tty_nr", "tpgid"}},
            "comm": text(f"/proc/{pid}/task/{thread}/comm"),
            "ioprio": LIBC.syscall(IOPRIO_GET, 1, int(thread)),
            "affinity": sorted(os.sched_getaffinity(int(thread))),
        }
    return found


def areas(pid: int) -> list[Any]:
    found: list[Any] = []
    for line in text(f"/proc/{pid}/smaps").split("\n"):
        if head := re.match(r"([0-9a-f]+-[0-9a-f]+) (\S+) (\S+) \S+ \d+ *(.*)", line):
            found.append([head[1], head[2], head[3], re.sub(r"^(/memfd:|/dev/zero|/SYSV)", r"\1", head[4])])
        elif line.startswith("VmFlags:") and found:
            found[-1].append(" ".join(sorted(set(line.split()[1:]) - {"sd", "um", "uw", "ac"})))
    return found


def descriptors(pid: int, numbers: dict[str, int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number in sorted(names(f"/proc/{pid}/fd"), key=int):
        place = Path(f"/proc/{pid}/fd/{number}")
        try:
            target, about = str(place.readlink()), place.stat()
        except OSError:
            continue
        kind = re.sub(r"\[\d+\]", f"[{numbers.setdefault(target, len(numbers))}]", target)
        said = []
        for line in text(f"/proc/{pid}/fdinfo/{number}").split("\n"):
            if (
                line.startswith(("mnt_id:", "ino:", "sdev:", "scm_fds:"))
                or "ticks:" in line
                or "it_value" in line
            ):
                continue
            said.append(re.sub(r"(ino|sdev|pos|fhandle-bytes|fhandle-type|f_handle):\S+", r"\1", line))
        found[number] = {
            "target": kind,
            "mode": stat.filemode(about.st_mode),
            "info": sorted(said),
            **(socket_of(pid, int(number)) if target.startswith("socket:") else {}),
        }
    return found


def socket_of(pid: int, number: int) -> dict[str, Any]:
    handle = LIBC.syscall(PIDFD_OPEN, pid, 0)
    ours = LIBC.syscall(PIDFD_GETFD, handle, number, 0)
    os.close(handle)
    if ours < 0:
        return {}
    with socket.socket(fileno=ours) as found:
        ask = {"own": found.getsockname, "peer": found.getpeername}
        return {
            "options": options(found),
            "queues": {
                name: queued(found, request) for name, request in (("in", SIOCINQ), ("out", SIOCOUTQ))
            },
            "names": {name: tried(lambda call=call: repr(call())) for name, call in ask.items()},
        }


def options(found: socket.socket) -> dict[str, Any]:
    levels = {"SOL_SOCKET": 1}
    if found.family in {socket.AF_INET, socket.AF_INET6}:
        levels |= {"IPPROTO_IP": 0, "IPPROTO_TCP": 6, "IPPROTO_UDP": 17}
    if found.family == socket.AF_INET6:
        levels |= {"IPPROTO_IPV6": 41}
    protocol = found.getsockopt(1, 38)
    return {
        f"{level} {option}": tried(lambda code=code, option=option: found.getsockopt(code, option, 64).hex())
        for level, code in levels.items()
        if code not in {6, 17} or code == protocol
        for option in range(1, 90)
        if (code, option) not in PASSING
    }


def queued(found: socket.socket, request: int) -> Any:
    return tried(lambda: struct.unpack("i", fcntl.ioctl(found, request, bytes(4)))[0])


def tried(ask: Any) -> Any:
    """The answer, or the number of the error."""
    try:
        return ask()
    except OSError as failed:
        return failed.errno


def mounts(pid: int) -> list[Any]:
    found = []
    for line in text(f"/proc/{pid}/mountinfo").split("\n"):
        if " - " in line:
            left, _, right = line.partition(" - ")
            words, kind = left.split(" "), right.split(" ")
            shared = sorted(re.sub(r":\d+", "", word) for word in words[6:] if word)
            options = [
                each
                for each in kind[2].split(",")
                if not each.startswith(("lowerdir", "upperdir", "workdir"))
            ]
            found.append([words[4], kind[0], sorted(words[5].split(",")), shared, sorted(options)])
    return sorted(found)


def sysctls(pid: int) -> dict[str, str]:
    """Of its network, IPC and UTS namespaces: only a process inside sees them."""
    script = (
        "import os, sys, json\nfound = {}\n"
        "for top in ('/proc/sys/net', '/proc/sys/kernel', '/proc/sys/fs/mqueue'):\n"
        " for place, _, names in os.walk(top):\n"
        "  for name in names:\n"
        "   try: found[place + '/' + name] = open(place + '/' + name).read()\n"
        "   except OSError: pass\n"
        "found['ipc'] = [open('/proc/sysvipc/' + name).read() for name in ('shm', 'sem', 'msg')]\n"
        "print(json.dumps(found))"
    )
    words = ["nsenter", f"--net=/proc/{pid}/ns/net", f"--ipc=/proc/{pid}/ns/ipc", f"--uts=/proc/{pid}/ns/uts"]
    done = subprocess.run([*words, sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def network(pid: int) -> dict[str, str]:
    enter = ["nsenter", f"--net=/proc/{pid}/ns/net"]
    asked = {
        "addresses": ["ip", "-details", "-json", "address"],
        "routes": ["ip", "-json", "route", "show", "table", "all"],
        "routes 6": ["ip", "-6", "-json", "route", "show", "table", "all"],
        "rules": ["ip", "-json", "rule"],
        "qdiscs": ["tc", "qdisc"],
        "filter": ["nft", "list", "ruleset"],
    }
    said = {
        name: subprocess.run([*enter, *words], capture_output=True, text=True, check=False).stdout
        for name, words in asked.items()
    }
    # The kernel numbers interfaces as they come, on each host.
    return {
        name: re.sub(r'"(ifindex|link_index|link_netnsid)":\d+,', "", text) for name, text in said.items()
    }


def main(first: int) -> dict[str, Any]:
    numbers: dict[str, int] = {}
    found: dict[str, Any] = {"network": network(first), "sysctls": sysctls(first), "processes": {}}
    pids = sorted(tree(first), key=inside)
    namespaces: dict[str, int] = {}
    for pid in pids:
        said = status(pid)
        if said["State"].startswith("Z"):
            found["processes"][inside(pid)] = {"parent": inside(said["PPid"]), "name": said["Name"]}
            continue
        fields = text(f"/proc/{pid}/stat").rpartition(")")[2].split()
        found["processes"][inside(pid)] = {
            "parent": inside(said["PPid"]) if pid != first else 0,
            "status": {name: said[name] for name in STATUS if name in said},
            "numbers": {name: said[name].split()[-1] for name in ("NStgid", "NSpid", "NSpgid", "NSsid")},
            "stat": {name: fields[at - 3] for name, at in STAT.items()},
            **{name: text(f"/proc/{pid}/{name}") for name in FILES},
            "links": {name: link(f"/proc/{pid}/{name}") for name in ("exe", "cwd", "root")},
            "namespaces": {
                name: namespaces.setdefault(link(f"/proc/{pid}/ns/{name}"), len(namespaces))
                for name in names(f"/proc/{pid}/ns")
            },
            "threads": threads(pid),
            "areas": areas(pid),
            "descriptors": descriptors(pid, numbers),
            "mounts": mounts(pid),
            "timers": re.sub(r"notify: \S+", "notify", text(f"/proc/{pid}/timers")),
        }
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(int(sys.argv[1]))))
