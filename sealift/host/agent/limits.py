"""CRIU on a host without CAP_SYS_RESOURCE, as in many a container: resource limits of others are read for it.

CRIU asks for the limits of each process that it dumps with prlimit(2), which needs that capability as soon as the
process is another user's. /proc/PID/limits tells everybody the same: a small library that is loaded into CRIU looks
there where the kernel refuses. (A seccomp filter can't stand in: a filtered CRIU may not suspend other processes'.)
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .wire import AgentError

CAP_SYS_RESOURCE = 24
LIBRARY = Path("/run/sealift/limits.so")
COMPILERS = ("tcc", "cc")
SOURCE = r"""
/* No headers: a host has a compiler at most, not a C library to develop against. */
struct rlimit64 { unsigned long soft, hard; };
int open(const char *path, int flags, ...);
long read(int file, void *buffer, unsigned long size);
int close(int file);
int snprintf(char *buffer, unsigned long size, const char *format, ...);
unsigned long strtoul(const char *text, char **end, int base);
long syscall(long number, ...);
int *__errno_location(void);

static char *word(char *text, unsigned long *value)
{
	while (*text == ' ')
		text++;
	if (*text == 'u') { /* unlimited */
		*value = ~0UL;
		return text + 9;
	}
	*value = strtoul(text, &text, 10);
	return text;
}

int prlimit64(int pid, int resource, const struct rlimit64 *new, struct rlimit64 *old)
{
	char table[4096], *at = table;
	long size;
	int file, line;

	if (syscall(PRLIMIT64, (long)pid, (long)resource, new, old) == 0)
		return 0;
	if (*__errno_location() != 1 || new || !old) /* EPERM, and a question only */
		return -1;
	snprintf(table, sizeof(table), "/proc/%d/limits", pid);
	file = open(table, 0);
	if (file < 0)
		return -1;
	size = read(file, table, sizeof(table) - 1);
	close(file);
	if (size < 0)
		return -1;
	table[size] = 0;
	for (line = 0; line <= resource; line++) { /* below the heading, in the order of the resources' numbers */
		while (*at && *at != '\n')
			at++;
		if (!*at)
			return -1;
		at++;
	}
	word(word(at + 26, &old->soft), &old->hard);
	return 0;
}
"""
PRLIMIT64 = {"x86_64": 302, "aarch64": 261}


def unreadable(pids: list[int]) -> bool:
    """Whether CRIU can't read the limits of these processes by itself."""
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    return not effective >> CAP_SYS_RESOURCE & 1 and any(_of_another_user(pid) for pid in pids)


def compiler() -> str | None:
    """What can make the library here."""
    known = os.uname().machine in PRLIMIT64
    return next((name for name in COMPILERS if shutil.which(name)), None) if known else None


def environment(pids: list[int]) -> dict[str, str] | None:
    """The environment for a CRIU that dumps these processes: None where it needs no help."""
    if not unreadable(pids):
        return None
    if not LIBRARY.exists():
        _make()
    return {**os.environ, "LD_PRELOAD": str(LIBRARY)}


def _make() -> None:
    program = compiler()
    if program is None:
        raise AgentError(
            "this host lacks CAP_SYS_RESOURCE, and a C compiler (tcc) to do without", "final dump"
        )
    source = LIBRARY.with_suffix(".c")
    source.write_text(SOURCE)
    fresh = LIBRARY.with_suffix(f".{os.getpid()}")
    number = PRLIMIT64[os.uname().machine]
    command = [program, "-shared", "-nostdlib", f"-DPRLIMIT64={number}L", "-o", str(fresh), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    source.unlink()
    if done.returncode != 0:
        raise AgentError(f"{program} can't make {LIBRARY}: {done.stderr.strip()[-300:]}", "final dump")
    fresh.rename(LIBRARY)


def _of_another_user(pid: int) -> bool:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    wanted = {"Uid": str(os.getuid()), "Gid": str(os.getgid())}
    ids = {line.partition(":")[0]: line.split()[1:4] for line in lines if line.startswith(("Uid:", "Gid:"))}
    return any(one != wanted[name] for name, three in ids.items() for one in three)
