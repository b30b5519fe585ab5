"""A small library that is loaded into CRIU, for what CRIU cannot be told by an option.

It stands between CRIU and the C library's syscall(3), by which CRIU makes two calls:

======== =================================================================================================
prlimit  Where the kernel refuses the limits of another process, they are read from /proc: see `limits`.
clone3   The restored container's first process gets the process id in `SEALIFT_ROOT_PID`, if that is set:
         see `destination.stand_in`.
======== =================================================================================================

A seccomp filter cannot do this: a filtered CRIU may not suspend the filters of other processes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .wire import AgentError

LIBRARY = Path("/run/sealift/interposed.so")
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
char *getenv(const char *name);
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

#define CLONE3 435 /* on every architecture */
#define CLONE_NEWPID 0x20000000UL
#define WORDS 11 /* of struct clone_args (linux/sched.h), in its size of version 2 */
enum { FLAGS = 0, SET_TID = 8, SET_TID_SIZE = 9 };

/* The ids of the first process of a new pid namespace: there it is 1, outside of it the one that is wanted. */
static int wants_root_id(unsigned long *asked, long size, unsigned long *changed, int *ids)
{
	char *id = getenv("SEALIFT_ROOT_PID");
	int at;

	if (!id || size < (SET_TID_SIZE + 1) * 8 || size > WORDS * 8)
		return 0;
	if (!(asked[FLAGS] & CLONE_NEWPID) || asked[SET_TID_SIZE] != 1)
		return 0;
	for (at = 0; at < size / 8; at++)
		changed[at] = asked[at];
	ids[0] = *(int *)asked[SET_TID];
	ids[1] = strtoul(id, 0, 10);
	changed[SET_TID] = (unsigned long)ids;
	changed[SET_TID_SIZE] = 2;
	return 1;
}

/* CRIU asks for limits with: pid, resource, new limits (none), old limits. */
long syscall(long number, long a, long b, long c, long d, long e, long f)
{
	static call *real;
	unsigned long changed[WORDS];
	int ids[2];
	long result;

	if (!real)
		real = (call *)dlsym((void *)-1L, "syscall"); /* RTLD_NEXT */
	if (number == CLONE3 && wants_root_id((unsigned long *)a, b, changed, ids))
		return real(number, (long)changed, b, c, d, e, f);
	result = real(number, a, b, c, d, e, f);
	if (result == 0 || number != PRLIMIT64 || *__errno_location() != 1 /* EPERM */ || c || !d)
		return result;
	return from_proc(a, b, (struct rlimit64 *)d);
}
"""
PRLIMIT64 = {"x86_64": 302, "aarch64": 261}


def obtainable() -> bool:
    """Whether the library is here or can be made."""
    return LIBRARY.exists() or (_compiler() is not None and os.uname().machine in PRLIMIT64)


def library(step: str) -> Path:
    """The library, which is made if it is not there. AgentError of `step` without a compiler."""
    if not LIBRARY.exists():
        _make(step)
    return LIBRARY


def _make(step: str) -> None:
    program = _compiler()
    if program is None or os.uname().machine not in PRLIMIT64:
        raise AgentError(
            "this host has no C compiler for the library that is loaded into CRIU: install tcc", step
        )
    LIBRARY.parent.mkdir(parents=True, exist_ok=True)
    source = LIBRARY.with_suffix(f".{os.getpid()}.c")
    source.write_text(SOURCE)
    fresh = LIBRARY.with_suffix(f".{os.getpid()}")
    number = PRLIMIT64[os.uname().machine]
    command = [program, "-shared", "-nostdlib", f"-DPRLIMIT64={number}L", "-o", str(fresh), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    source.unlink()
    if done.returncode != 0:
        raise AgentError(f"{program} can't make {LIBRARY}: {done.stderr.strip()[-300:]}", step)
    fresh.rename(LIBRARY)


def _compiler() -> str | None:
    return next((name for name in COMPILERS if shutil.which(name)), None)
