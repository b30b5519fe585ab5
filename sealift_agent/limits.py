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

from . import proc
from .wire import AgentError

CAP_SYS_RESOURCE = 24
LIBRARY = Path("/run/sealift/limits.so")
COMPILERS = ("tcc", "cc")
SOURCE = r"""
/* No headers: a host has a compiler at most, not a C library to develop against. */
struct rlimit64 { unsigned long soft, hard; };
typedef long call(long number, long a, long b, long c, long d, long e, long f);
void *dlsym(void *handle, const char *name);
int open(const char *path, int flags, ...);
long read(int file, void *buffer, unsigned long size);
int close(int file);
int snprintf(char *buffer, unsigned long size, const char *format, ...);
unsigned long strtoul(const char *text, char **end, int base);
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

static int from_proc(long pid, long resource, struct rlimit64 *found)
{
	char table[4096], *at = table;
	long size, line;
	int file;

	snprintf(table, sizeof(table), "/proc/%ld/limits", pid);
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
	word(word(at + 26, &found->soft), &found->hard);
	return 0;
}

/* CRIU asks through libc's syscall(): pid, resource, new limits (none), old limits. */
long syscall(long number, long a, long b, long c, long d, long e, long f)
{
	static call *real;
	long result;

	if (!real)
		real = (call *)dlsym((void *)-1L, "syscall"); /* RTLD_NEXT */
	result = real(number, a, b, c, d, e, f);
	if (result == 0 || number != PRLIMIT64 || *__errno_location() != 1 /* EPERM */ || c || !d)
		return result;
	return from_proc(a, b, (struct rlimit64 *)d);
}
"""
PRLIMIT64 = {"x86_64": 302, "aarch64": 261}


def capable() -> bool:
    """Whether this process has CAP_SYS_RESOURCE."""
    effective = int(proc.status(os.getpid())["CapEff"], 16)
    return bool(effective >> CAP_SYS_RESOURCE & 1)


def unreadable(pids: list[int]) -> bool:
    """Whether CRIU can't read the limits of these processes by itself."""
    return not capable() and any(_of_another_user(pid) for pid in pids)


def obtainable() -> bool:
    """Whether the library is here or can be made."""
    return LIBRARY.exists() or (_compiler() is not None and os.uname().machine in PRLIMIT64)


def environment(pids: list[int]) -> dict[str, str] | None:
    """The environment for a CRIU that dumps these processes: None where it needs no help."""
    if not unreadable(pids):
        return None
    if not LIBRARY.exists():
        _make()
    return {**os.environ, "LD_PRELOAD": str(LIBRARY)}


def _make() -> None:
    program = _compiler()
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


def _compiler() -> str | None:
    return next((name for name in COMPILERS if shutil.which(name)), None)


def _of_another_user(pid: int) -> bool:
    status = proc.status(pid)
    wanted = {"Uid": str(os.getuid()), "Gid": str(os.getgid())}
    return any(one != own for name, own in wanted.items() for one in status.get(name, "").split()[:3])
