/*
 * A library that is loaded into CRIU: see interposed.py. No headers: a host has a compiler at most, not a C library to
 * develop against.
 */
typedef unsigned long size_t;
typedef long call(long number, long a, long b, long c, long d, long e, long f);
typedef long trace(long request, long pid, unsigned long address, void *data);
typedef void *map(void *address, size_t size, int protection, int flags, int file, long offset);
void *dlsym(void *handle, const char *name);
int open64(const char *path, int flags, unsigned mode);
long read(int file, void *buffer, size_t size);
int close(int file);
int munmap(void *address, size_t size);
int snprintf(char *buffer, size_t size, const char *format, ...);
int sscanf(const char *text, const char *format, ...);
int strcmp(const char *one, const char *other);
size_t strtoul(const char *text, char **end, int base);
char *getenv(const char *name);
int *__errno_location(void);
void *__libc_malloc(size_t size);
void *__libc_realloc(void *memory, size_t size);
void __libc_free(void *memory);
#define RTLD_NEXT ((void *)-1L)

/* Limits of other processes */

struct limits { unsigned long soft, hard; };

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

static int from_proc(long pid, long resource, struct limits *found)
{
	char table[4096], *at = table;
	long size, line;
	int file;

	snprintf(table, sizeof(table), "/proc/%ld/limits", pid);
	file = open64(table, 0, 0);
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

/* The id of the first process */

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

/* The terminal of a container that has one (console.py) */

#define PIDFD_OPEN 434
#define PIDFD_GETFD 438
#define MOVE_MOUNT 429
#define HERE (-100L)
#define O_RDWR 2
#define WHAT_IS_OPEN 4L /* MOVE_MOUNT_F_EMPTY_PATH */
#define ENOENT 2
#define EPERM 1
static enum { NONE, TAKEN, MOUNTED, MISSED, GIVEN } terminal;
static long terminals = -1, master = -1;

/*
 * Its file system and its master are descriptors of another process, which has made them. They are taken when the first
 * process is made, which mounts the file system: in its own pid namespace it can't find that other process.
 */
static void take_terminal(call *real)
{
	char *said = getenv("SEALIFT_TERMINAL");
	long process, maker, numbers[2];

	if (terminal != NONE || !said || sscanf(said, "%ld %ld %ld", &maker, &numbers[0], &numbers[1]) != 3)
		return;
	process = real(PIDFD_OPEN, maker, 0, 0, 0, 0, 0);
	if (process < 0)
		return;
	terminals = real(PIDFD_GETFD, process, numbers[0], 0, 0, 0, 0);
	master = real(PIDFD_GETFD, process, numbers[1], 0, 0, 0, 0);
	close(process);
	if (terminals >= 0 && master >= 0)
		terminal = TAKEN;
}

/* The first file system for terminals is that one. */
int mount(const char *source, const char *place, const char *kind, unsigned long flags, const void *options)
{
	static int (*real)(const char *, const char *, const char *, unsigned long, const void *);
	static call *move;
	long result;

	if (!real)
		real = dlsym(RTLD_NEXT, "mount");
	if (!move)
		move = (call *)dlsym(RTLD_NEXT, "syscall");
	if (!kind || strcmp(kind, "devpts") || (terminal != TAKEN && (terminal != NONE || !getenv("SEALIFT_TERMINAL"))))
		return real(source, place, kind, flags, options);
	if (terminal == NONE) { /* it could not be taken, and Docker has no other */
		*__errno_location() = EPERM;
		return -1;
	}
	result = move(MOVE_MOUNT, terminals, (long)"", HERE, (long)place, WHAT_IS_OPEN, 0);
	if (result == 0)
		terminal = MOUNTED;
	return result;
}

/*
 * At once CRIU asks whether the container's /dev/console, which is a terminal there, exists already (`devpts_restore` in
 * its tty.c). If not, it opens a new master, and keeps that for the terminal.
 *
 * Here it is also given to the session. A process has the terminal of its session from its parent, but CRIU has the
 * session's first process take it after its children were made: they would have none.
 */
int fstatat64(int directory, const char *path, void *found, int flags)
{
	static int (*real)(int, const char *, void *, int);

	if (!real)
		real = dlsym(RTLD_NEXT, "fstatat64");
	if (terminal == MOUNTED) {
		terminal = MISSED;
		*__errno_location() = ENOENT;
		return -1;
	}
	return real(directory, path, found, flags);
}

/* Files that are opened without an event for who watches them (files/silent.py) */

#define O_PATH 010000000
#define O_ACCMODE 3
#define SET_NAME 15
#define GET_NAME 16
#define WATCHED "memfd:sealift (deleted)"
static int watched = -1;
int prctl(int option, ...);

/*
 * The agent refuses to who is called so the opening of the container's files, so that nobody is told of it, and has the
 * file opened at a descriptor of its own. Others may open them.
 */
static int announce(int flags, char *name)
{
	if (flags & (O_PATH | O_ACCMODE) || !getenv("SEALIFT_SILENT"))
		return 0;
	prctl(GET_NAME, name);
	prctl(SET_NAME, "silent open");
	return 1;
}

static int take(int opened, char *name)
{
	static call *real;
	char *said = getenv("SEALIFT_SILENT");
	long agent, slot, process;

	prctl(SET_NAME, name);
	if (opened >= 0 || *__errno_location() != EPERM || !said || sscanf(said, "%ld %ld", &agent, &slot) != 2)
		return opened;
	if (!real)
		real = (call *)dlsym(RTLD_NEXT, "syscall");
	process = real(PIDFD_OPEN, agent, 0, 0, 0, 0, 0);
	if (process < 0)
		return -1;
	opened = real(PIDFD_GETFD, process, slot, 0, 0, 0, 0);
	close(process);
	return opened;
}

/* Who gives no mode has anything there, and the kernel does not look at it. */
int openat64(int directory, const char *path, int flags, unsigned mode)
{
	static int (*real)(int, const char *, int, ...);
	char name[16];
	int opened;

	if (!real)
		real = dlsym(RTLD_NEXT, "openat64");
	if (terminal == MISSED && !strcmp(path, "ptmx")) {
		terminal = GIVEN;
		/* The session's first process opens it. It may close it again: the maker has it open. */
		close(real(directory, "0", O_RDWR, 0));
		return master;
	}
	if (watched >= 0 && !strcmp(path, WATCHED)) {
		opened = watched;
		watched = -1;
		return opened;
	}
	if (!announce(flags, name))
		return real(directory, path, flags, mode);
	return take(real(directory, path, flags, mode), name);
}

int open64(const char *path, int flags, unsigned mode)
{
	return openat64(HERE, path, flags, mode);
}

/* CRIU's tar, which packs file systems in memory, has other names for the two; the last two are without a mode. */
int openat(int directory, const char *path, int flags, unsigned mode)
{
	return openat64(directory, path, flags, mode);
}

int __openat_2(int directory, const char *path, int flags)
{
	return openat64(directory, path, flags, 0);
}

int open(const char *path, int flags, unsigned mode)
{
	return openat64(HERE, path, flags, mode);
}

int __open_2(const char *path, int flags)
{
	return openat64(HERE, path, flags, 0);
}

/*
 * For a file system in memory below which others are mounted, CRIU makes a directory in the container, mounts it there
 * in a namespace of its own, and removes the directory. Another one, which is there, does as well.
 */
#define FOR_A_MOUNT "/proc/fs"

char *mkdtemp(char *name)
{
	static char *(*real)(char *);
	const char *start = "/tmp/cr-tmpfs.", *place = FOR_A_MOUNT;
	int at;

	if (!real)
		real = dlsym(RTLD_NEXT, "mkdtemp");
	for (at = 0; start[at] && name[at] == start[at]; at++)
		;
	if (start[at] || !getenv("SEALIFT_DUMPS"))
		return real(name);
	for (at = 0; (name[at] = place[at]); at++)
		;
	return name;
}

int rmdir(const char *name)
{
	static int (*real)(const char *);

	if (!real)
		real = dlsym(RTLD_NEXT, "rmdir");
	return strcmp(name, FOR_A_MOUNT) ? real(name) : 0;
}

/*
 * CRIU asks for limits with: pid, resource, new limits (none), old limits.
 *
 * It opens the handle of each watched file, and asks the result for its name, to put that into the image. Then it opens
 * the name, which has to lead to the same inode. On overlayfs handles can't be opened, and of a file in a volume the name
 * is one below the volume. So it gets a name that the agent puts the right one for (watched_paths.py).
 */
long syscall(long number, long a, long b, long c, long d, long e, long f)
{
	static call *real;
	unsigned long changed[WORDS];
	int ids[2];
	long result;

	if (!real)
		real = (call *)dlsym(RTLD_NEXT, "syscall");
	if (number == CLONE3 && (((unsigned long *)a)[FLAGS] & CLONE_NEWPID))
		take_terminal(real);
	if (number == CLONE3 && wants_root_id((unsigned long *)a, b, changed, ids))
		return real(number, (long)changed, b, c, d, e, f);
	result = real(number, a, b, c, d, e, f);
	if (number == OPEN_BY_HANDLE && getenv("SEALIFT_DUMPS")) {
		if (watched >= 0)
			close(watched);
		watched = result;
		return real(MEMFD, (long)"sealift", 1 /* MFD_CLOEXEC */, 0, 0, 0, 0);
	}
	if (result == 0 || number != PRLIMIT64 || *__errno_location() != 1 /* EPERM */ || c || !d)
		return result;
	return from_proc(a, b, (struct limits *)d);
}

/* Reservations: address space without memory */

#define PROT_WRITE 2
#define MAP_SHARED 1
#define MAP_PRIVATE 2
#define MAP_ANONYMOUS 0x20
#define MAP_NORESERVE 0x4000

/*
 * What could neither be read nor written is mapped for writing by CRIU, which takes that away later. The kernel would
 * count it as if it were used.
 */
void *mmap64(void *address, size_t size, int protection, int flags, int file, long offset)
{
	static map *real;

	if (!real)
		real = (map *)dlsym(RTLD_NEXT, "mmap64");
	if (protection == PROT_WRITE && (flags & MAP_PRIVATE) && (flags & MAP_ANONYMOUS))
		flags |= MAP_NORESERVE;
	return real(address, size, protection, flags, file, offset);
}

/* CRIU's table of the pages of a mapping has 16 bytes for each that there could be. Few of them are ever used. */

#define LARGE (1UL << 28)
#define MOST 64
static struct { void *memory; size_t size; } large[MOST];

void *malloc(size_t size)
{
	void *memory;
	int at;

	if (size >= LARGE)
		for (at = 0; at < MOST; at++)
			if (!large[at].memory) {
				memory = mmap64(0, size, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
				if (memory == (void *)-1L)
					break;
				large[at].memory = memory;
				large[at].size = size;
				return memory;
			}
	return __libc_malloc(size);
}

static int place_of(void *memory)
{
	int at;

	if (memory && !((unsigned long)memory & 4095))
		for (at = 0; at < MOST; at++)
			if (large[at].memory == memory)
				return at;
	return -1;
}

void free(void *memory)
{
	int at = place_of(memory);

	if (at < 0) {
		__libc_free(memory);
		return;
	}
	munmap(memory, large[at].size);
	large[at].memory = 0;
}

/*
 * For a dump whose pages follow later, CRIU copies the whole table. What has never been written of it is not copied: it
 * would take the memory that it has not had so far. The copy is new, and zero there, too.
 */

#ifndef PAGEMAP_SCAN
#define PAGEMAP_SCAN 0xc0606610UL
#endif
#define ENTRIES 512
#define ENTRY_USED (3UL << 62) /* of /proc/PID/pagemap: present, or swapped */
#define PRESENT_OR_SWAPPED (1UL << 3 | 1UL << 4)
typedef void *copy(void *to, const void *from, size_t size);
int ioctl(int file, unsigned long request, ...);
long pread64(int file, void *buffer, size_t size, long offset);

/* The same page by page, for kernels before 6.7: 8 bytes of /proc/self/pagemap for each page. */
static void next_used_page(int pagemap, unsigned long *start, unsigned long *end)
{
	unsigned long entries[ENTRIES], at = *start, first = 0;
	long got, entry;

	while (at < *end) {
		got = pread64(pagemap, entries, sizeof(entries), at / 4096 * 8) / 8;
		if (got <= 0)
			return; /* nobody can tell */
		for (entry = 0; entry < got && at < *end; entry++, at = (at / 4096 + 1) * 4096) {
			if ((entries[entry] & ENTRY_USED) && !first)
				first = at;
			if (!(entries[entry] & ENTRY_USED) && first) {
				*start = first;
				*end = at;
				return;
			}
		}
	}
	*start = first ? first : *end;
}

/* The first range with memory in it from `start` on. `start` = `end` if there is none, all of it if nobody can tell. */
static void next_used(int pagemap, unsigned long *start, unsigned long *end)
{
	unsigned long region[3];
	unsigned long asked[12] = {sizeof(asked), 0, *start, *end, 0, (unsigned long)region, 1, 0, 0, 0,
				   PRESENT_OR_SWAPPED, PRESENT_OR_SWAPPED};
	int found = pagemap < 0 ? -1 : ioctl(pagemap, PAGEMAP_SCAN, asked);

	if (found < 0 && pagemap >= 0)
		next_used_page(pagemap, start, end);
	if (found == 0)
		*start = *end;
	if (found > 0) {
		*start = region[0];
		*end = region[1];
	}
}

void *memcpy(void *to, const void *from, size_t size)
{
	static copy *real;
	unsigned long at = (unsigned long)from, end = at + size, used, used_end;
	long offset = (char *)to - (char *)from;
	int pagemap;

	if (!real)
		real = (copy *)dlsym(RTLD_NEXT, "memcpy");
	if (size < LARGE || place_of((void *)from) < 0)
		return real(to, from, size);
	pagemap = open64("/proc/self/pagemap", 0, 0);
	while (at < end) {
		used = at;
		used_end = end;
		next_used(pagemap, &used, &used_end);
		if (used_end > end)
			used_end = end;
		if (used < used_end)
			real((char *)used + offset, (char *)used, used_end - used);
		at = used_end;
	}
	if (pagemap >= 0)
		close(pagemap);
	return to;
}

void *realloc(void *memory, size_t size)
{
	int at = place_of(memory);
	void *to;

	if (at < 0)
		return __libc_realloc(memory, size);
	to = malloc(size);
	if (!to)
		return 0;
	memcpy(to, memory, size < large[at].size ? size : large[at].size);
	free(memory);
	return to;
}

/* The lock of the container's connections */

#define O_WRONLY 1
#define O_NONBLOCK 0x800
#define POLLIN 1
#define UNLOCKED_MS 5000
struct wait { int file; short events, found; };
long write(int file, const void *buffer, size_t size);
int poll(struct wait *waits, unsigned long count, int timeout);

static int open_pipe(const char *directory, const char *name, int flags)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	return open64(path, flags | O_NONBLOCK, 0);
}

/* Ask for packets to pass, and wait until they do. Nobody is there to ask in a dump, nor when the agent is dead. */
static void unlock(void)
{
	static int asked;
	char *directory = getenv("SEALIFT_ARMED");
	struct wait wait = {-1, POLLIN, 0};
	int asks;

	if (asked || !directory)
		return;
	asked = 1;
	asks = open_pipe(directory, "connected", O_WRONLY);
	if (asks < 0)
		return;
	wait.file = open_pipe(directory, "unlocked", 0);
	if (wait.file >= 0 && write(asks, "\n", 1) == 1)
		poll(&wait, 1, UNLOCKED_MS);
	if (wait.file >= 0)
		close(wait.file);
	close(asks);
}

/* What CRIU logs */

/*
 * Runc asks for all messages, some 400 for each process, which take a quarter of a dump's and of a restore's time. Where
 * there are many processes, the agent says so by a file, and only warnings and errors are logged. The level is a field of
 * runc's request (CRIU's images/rpc.proto: criu_req.opts.log_level).
 */
#define MSG_TRUNC 0x20 /* as CRIU reads the request; the call before only asks for its size */
#define WARNINGS 2
enum { OPTIONS = 2, LOG_LEVEL = 9 };

static int is_to_log_little(void)
{
	char path[4096], *directory = getenv("SEALIFT_ARMED");
	int file;

	if (!directory)
		return 0;
	snprintf(path, sizeof(path), "%s/little-log", directory);
	file = open64(path, 0, 0);
	if (file >= 0)
		close(file);
	return file >= 0;
}

static unsigned char *number_at(unsigned char *at, unsigned char *end, unsigned long *value)
{
	int shift;

	*value = 0;
	for (shift = 0; at < end && shift < 64; shift += 7) {
		*value |= (unsigned long)(*at & 127) << shift;
		if (!(*at++ & 128))
			return at;
	}
	return end;
}

static void log_little(unsigned char *at, unsigned char *end, int inside)
{
	unsigned long key, value;
	unsigned char *before;

	while (at < end) {
		at = number_at(at, end, &key);
		before = at;
		at = number_at(at, end, &value);
		if ((key & 7) == 0 && inside && key >> 3 == LOG_LEVEL && value < 128)
			*before = WARNINGS;
		if ((key & 7) == 2) {
			if (value > (unsigned long)(end - at))
				return;
			if (!inside && key >> 3 == OPTIONS)
				log_little(at, at + value, 1);
			at += value;
		}
		if ((key & 7) == 5)
			at = before + 4;
		if ((key & 7) == 1)
			at = before + 8;
	}
}

/* Answers of the page server that are known before they come */

/*
 * For each process, and each shared mapping, CRIU asks the page server whether an earlier round has pages of it, and
 * waits. With hundreds of processes, frozen meanwhile, these are hundreds of round trips. The answer is yes where the
 * round before has asked for the same. So it is given at once, and what the server has said is read, and compared, before
 * anything else of it is read. What a dump asks for is written to the file SEALIFT_ASKED, for the next round. The file of
 * the round before is SEALIFT_ASKED_BEFORE; empty if there was none.
 *
 * CRIU dumps System V's shared memory in a process of its own, which asks over the same connection. So what was asked and
 * foreseen is in memory that both have. It is made when CRIU reads its first message, which is runc's request.
 */
#define TCP_NODELAY 1
#define OPEN 4   /* criu/page-xfer.c, PS_IOV_OPEN2: the answer is one byte */
#define PARENT 5 /* PS_IOV_PARENT: four bytes */
#define EPROTO 71
#define APPEND 02101 /* O_WRONLY | O_CREAT | O_APPEND */
#define MOST_FORESEEN 65536
struct order { unsigned command, unused; unsigned long pages, address, place; };
struct places { unsigned long *all; size_t number, room; };
typedef long give(int socket, const void *data, size_t size, int flags);
typedef long receive(int socket, void *buffer, size_t size, int flags);
static int server = -1, question;
static unsigned long place;
static struct places before;
static enum { UNREAD, KNOWN, UNKNOWN } rounds;
static struct {
	unsigned long asked[MOST_FORESEEN];
	size_t number;
	unsigned char foreseen[MOST_FORESEEN];
	size_t bytes;
} *now;

static int has_memory(void)
{
	if (!now)
		now = mmap64(0, sizeof(*now), 3 /* read, write */, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return now != (void *)-1L;
}

static void add(struct places *places, unsigned long one)
{
	unsigned long *more;

	if (places->number == places->room) {
		more = realloc(places->all, (places->room * 2 + 64) * sizeof(one));
		if (!more)
			return;
		places->all = more;
		places->room = places->room * 2 + 64;
	}
	places->all[places->number++] = one;
}

static void read_rounds(void)
{
	char *path = getenv("SEALIFT_ASKED_BEFORE");
	unsigned long one;
	int file;

	rounds = UNKNOWN;
	if (!path || !getenv("SEALIFT_ASKED"))
		return;
	if (*path) {
		file = open64(path, 0, 0);
		if (file < 0)
			return;
		while (read(file, &one, sizeof(one)) == sizeof(one))
			add(&before, one);
		close(file);
	}
	rounds = KNOWN;
}

static int was_asked(unsigned long one)
{
	size_t at;

	for (at = 0; at < before.number; at++)
		if (before.all[at] == one)
			return 1;
	return 0;
}

static int is_foreseen(void)
{
	if (rounds == UNREAD)
		read_rounds();
	return question && rounds == KNOWN && now->bytes + 4 <= MOST_FORESEEN && now->number < MOST_FORESEEN;
}

static void write_round(void)
{
	char *path = getenv("SEALIFT_ASKED");
	int file = path ? open64(path, APPEND, 0600) : -1;

	if (file < 0)
		return;
	write(file, now->asked, now->number * sizeof(*now->asked));
	now->number = 0;
	close(file);
}

long send(int socket, const void *data, size_t size, int flags)
{
	static give *real;
	const struct order *order = data;

	if (!real)
		real = (give *)dlsym(RTLD_NEXT, "send");
	if (has_memory() && size == sizeof(*order) && (order->command == OPEN || order->command == PARENT)) {
		server = socket;
		question = order->command;
		place = order->place;
		if (now->number == MOST_FORESEEN)
			write_round();
		if (question == OPEN && now->number < MOST_FORESEEN)
			now->asked[now->number++] = place;
	}
	return real(socket, data, size, flags);
}

/* Read what the server has answered by now to all that was foreseen. */
static int is_as_foreseen(receive *real)
{
	unsigned char answers[4096];
	size_t at = 0;
	long got, one;

	while (at < now->bytes) {
		got = real(server, answers, now->bytes - at < sizeof(answers) ? now->bytes - at : sizeof(answers), 0);
		if (got <= 0)
			return 0;
		for (one = 0; one < got; one++)
			if (answers[one] != now->foreseen[at++]) {
				*__errno_location() = EPROTO;
				return 0;
			}
	}
	now->bytes = 0;
	return 1;
}

long recv(int socket, void *buffer, size_t size, int flags)
{
	static receive *real;
	unsigned char *said = buffer;
	size_t at;
	long got;

	if (!real)
		real = (receive *)dlsym(RTLD_NEXT, "recv");
	if (has_memory() && socket == server) {
		if (is_foreseen() && size == (question == OPEN ? 1 : 4)) {
			question = 0;
			said[0] = was_asked(place);
			for (at = 1; at < size; at++)
				said[at] = 0;
			for (at = 0; at < size; at++)
				now->foreseen[now->bytes++] = said[at];
			return size;
		}
		question = 0;
		write_round();
		if (!is_as_foreseen(real))
			return -1;
	}
	got = real(socket, buffer, size, flags);
	if (flags == MSG_TRUNC && got > 0 && is_to_log_little())
		log_little(said, said + got, 0);
	return got;
}

/* The window of a connection that its peer has closed in one direction */

#define SOL_TCP 6
#define TCP_REPAIR_OPTIONS 22
#define TCP_REPAIR_WINDOW 29
#define OPTION_SCALE 3 /* its value: the peer's scale in the lower half */
#define ACKED 16       /* of a head of TCP: the flags are in its byte 13 */
enum { WINDOW = 14, CHECKSUM = 16, TCP_HEAD = 20 };
typedef int option(int socket, int level, int name, const void *value, unsigned size);
typedef long deliver(int socket, const void *data, size_t size, int flags, const void *to, unsigned to_size);
struct repair_option { unsigned code, value; };
struct repair_window { unsigned last_update, send, largest, receive, receive_update; };
static unsigned scale, window, window_is_known;

int setsockopt(int socket, int level, int name, const void *value, unsigned size)
{
	static option *real;
	const struct repair_option *options = value;
	unsigned at;

	if (!real)
		real = (option *)dlsym(RTLD_NEXT, "setsockopt");
	if (level == SOL_TCP && name == TCP_NODELAY && socket == server && is_foreseen())
		return 0;
	if (level == SOL_TCP && name == TCP_REPAIR_OPTIONS)
		for (scale = at = 0; at < size / sizeof(*options); at++)
			if (options[at].code == OPTION_SCALE)
				scale = options[at].value & 15;
	if (level == SOL_TCP && name == TCP_REPAIR_WINDOW && size == sizeof(struct repair_window)) {
		window = ((const struct repair_window *)value)->send >> scale;
		window_is_known = 1;
	}
	return real(socket, level, name, value, size);
}

/*
 * CRIU sends such a connection the peer's last packet once more, with the connection's own window, cut off to 16 bits,
 * in the place of the peer's. The kernel would wait for a larger one if that is 0: it sends nothing for seconds.
 */
long sendto(int socket, const void *data, size_t size, int flags, const void *to, unsigned to_size)
{
	static deliver *real;
	unsigned char packet[128], *head = packet;
	unsigned old, sum, at;

	if (!real)
		real = (deliver *)dlsym(RTLD_NEXT, "sendto");
	if (!window_is_known || size < 40 || size > sizeof(packet))
		return real(socket, data, size, flags, to, to_size);
	for (at = 0; at < size; at++)
		packet[at] = ((const unsigned char *)data)[at];
	if (packet[0] >> 4 == 4 && packet[9] == SOL_TCP)
		head += (packet[0] & 15) * 4;
	else if (packet[0] >> 4 == 6 && packet[6] == SOL_TCP)
		head += 40;
	else
		return real(socket, data, size, flags, to, to_size);
	if (head + TCP_HEAD > packet + size || !(head[13] & ACKED))
		return real(socket, data, size, flags, to, to_size);
	if (window > 65535)
		window = 65535;
	old = head[WINDOW] << 8 | head[WINDOW + 1];
	head[WINDOW] = window >> 8;
	head[WINDOW + 1] = window & 255;
	sum = head[CHECKSUM] << 8 | head[CHECKSUM + 1]; /* RFC 1624 */
	sum = (~sum & 65535) + (~old & 65535) + window;
	while (sum >> 16)
		sum = (sum & 65535) + (sum >> 16);
	head[CHECKSUM] = ~sum >> 8 & 255;
	head[CHECKSUM + 1] = ~sum & 255;
	return real(socket, packet, size, flags, to, to_size);
}

/* Addresses of one link (IPv6) */

#define AF_INET6 10
enum { LINK_LOCAL = 0xfe, LINK_LOCAL_NEXT = 0x80, ADDRESS = 8, SCOPE = 24, ADDRESS_SIZE = 28 }; /* of sockaddr_in6 */
struct interface { unsigned number; char *name; };
struct interface *if_nameindex(void);
void if_freenameindex(struct interface *interfaces);

/*
 * CRIU binds a connection of such an address without the number of its interface (`libsoccr_set_addr` has none), which
 * the kernel demands. It is the interface that has the address. `connect` then goes by the same.
 */
int bind(int socket, const void *address, unsigned size)
{
	static int (*real)(int, const void *, unsigned);
	unsigned char changed[ADDRESS_SIZE];
	const unsigned char *asked = address;
	struct interface *interfaces, *one;
	unsigned at;
	int result;

	if (!real)
		real = dlsym(RTLD_NEXT, "bind");
	result = real(socket, address, size);
	if (result == 0 || size != ADDRESS_SIZE || *(const unsigned short *)address != AF_INET6)
		return result;
	if (asked[ADDRESS] != LINK_LOCAL || (asked[ADDRESS + 1] & 0xc0) != LINK_LOCAL_NEXT)
		return result;
	for (at = 0; at < SCOPE; at++)
		changed[at] = asked[at];
	interfaces = if_nameindex();
	for (one = interfaces; one && one->number && result != 0; one++) {
		*(unsigned *)(changed + SCOPE) = one->number;
		result = real(socket, changed, size);
	}
	if (interfaces)
		if_freenameindex(interfaces);
	return result;
}

/* Where CRIU has a process make its first system calls */

#define PEEKTEXT 1
#define PEEKDATA 2
#define POKETEXT 4
#define POKEDATA 5
#define SETREGS 13
#define SETOPTIONS 0x4200
#define TRACE_CALLS ((void *)1) /* PTRACE_O_TRACESYSGOOD */
#define SETREGSET 0x4205
#define PAGE 4096

/*
 * CRIU writes them into the first executable mapping of a process. Into a shared one it cannot: there is no copy of a
 * page for one process. So what is meant for the first page of such a mapping goes to the first private one that can be
 * executed. `to` is 0 where the first one that can be executed is private.
 */
#define PROCESSES 4096
struct move { long pid; unsigned long from, to; };
static struct move moves[PROCESSES];

static void find(struct move *move, long pid)
{
	char text[4096], line[128], mode[8];
	unsigned long start;
	long got, at, length = 0;
	int file;

	move->pid = pid;
	snprintf(line, sizeof(line), "/proc/%ld/maps", pid);
	file = open64(line, 0, 0);
	if (file < 0)
		return;
	while ((got = read(file, text, sizeof(text))) > 0)
		for (at = 0; at < got; at++) {
			if (text[at] != '\n') {
				if (length < (long)sizeof(line) - 1)
					line[length++] = text[at];
				continue;
			}
			line[length] = 0;
			length = 0;
			if (sscanf(line, "%lx-%*x %7s", &start, mode) != 2 || mode[2] != 'x')
				continue;
			if (mode[3] == 's' && !move->from)
				move->from = start;
			if (mode[3] == 'p') {
				if (move->from)
					move->to = start;
				close(file);
				return;
			}
		}
	close(file);
}

/* Asked once for each process, before CRIU has mapped something of its own into it. */
static struct move *move_of(long pid)
{
	struct move *move = &moves[pid % PROCESSES];
	int tried;

	for (tried = 0; tried < PROCESSES; tried++, move = move + 1 == moves + PROCESSES ? moves : move + 1) {
		if (move->pid == pid)
			return move;
		if (!move->pid) {
			find(move, pid);
			return move;
		}
	}
	return 0;
}

static unsigned long elsewhere(long pid, unsigned long address)
{
	struct move *move = move_of(pid);

	if (!move || !move->to || address < move->from || address >= move->from + PAGE)
		return address;
	return move->to + (address - move->from);
}

#ifdef CALL
/*
 * A call that waits is ended by the stop, and the kernel would continue it when the process goes on: after a round, or
 * when a migration is rolled back. But CRIU's own calls in the process take the kernel's note of what is left of it, so
 * it would fail with EINTR. It is made again instead: see interrupted.py, which has the same list.
 */
static int waits(long number)
{
	switch (number) {
	case 7: case 35: case 202: case 230: /* poll, nanosleep, futex, clock_nanosleep */
	case 43: case 288: case 45: case 47: case 299: /* accept, accept4, recvfrom, recvmsg, recvmmsg */
	case 232: case 281: case 441: /* epoll_wait, epoll_pwait, epoll_pwait2 */
	case 65: case 220: case 128: /* semop, semtimedop, rt_sigtimedwait */
		return 1;
	}
	return 0;
}

static void call_again(unsigned long *registers)
{
	long result = registers[RESULT], number = registers[CALL];

	if ((result == -516 /* ERESTART_RESTARTBLOCK */ || result == -4 /* EINTR */) && waits(number))
		registers[RESULT] = -513; /* ERESTARTNOINTR */
}
#endif

long ptrace(long request, long pid, unsigned long address, void *data)
{
	static trace *real;
	unsigned long *registers, *vector;

	if (!real)
		real = (trace *)dlsym(RTLD_NEXT, "ptrace");
	switch (request) {
	case SETOPTIONS: /* in a restore: all is made, and nothing runs yet */
		if (data == TRACE_CALLS)
			unlock();
		break;
	case PEEKTEXT:
	case PEEKDATA:
	case POKETEXT:
	case POKEDATA:
		address = elsewhere(pid, address);
		break;
	case SETREGS:
	case SETREGSET:
		vector = data;
		registers = request == SETREGS ? data : (unsigned long *)vector[0];
		if (request == SETREGS || (address == 1 /* NT_PRSTATUS */ && vector[1] > POINTER * 8)) { /* not of 32 bits */
			registers[POINTER] = elsewhere(pid, registers[POINTER]);
#ifdef CALL
			call_again(registers);
#endif
		}
		break;
	}
	return real(request, pid, address, data);
}
