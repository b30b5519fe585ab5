/* Starts the kernel that it carries with ACPI tables of its own (acpi.py) in place of the provider's.
 *
 * A UEFI application, measured together with the kernel behind it. If anything fails the machine is switched off: the
 * kernel never starts with other tables. Compiled by tcc to a flat, position-independent program (loader.py); integers
 * are little-endian, `long` and pointers have 64 bits. Sources: UEFI specification 2.10, chapters 4.3, 4.4, 7.3, 7.4, 9.1 and
 * 4.6; Platform Initialization specification 1.8, volume 2, chapter 13.3 (MP services); ACPI 6.5, chapter 5.2.
 */

typedef unsigned char byte;
typedef unsigned int word;
typedef unsigned long number;

/* What loader.py puts in front of the program, 4 pages of it: where the kernel is from there, and the tables. */
struct payload {
    number kernel_at;
    number kernel_bytes;
    number block_bytes;
    byte block[1];
};

enum { XSDT_AT = 0x40, FADT_AT = 0x100, FACS_AT = 0x200, DSDT_AT = 0x240, MADT_AT = 0x400, FADT_BYTES = 244 };

enum { RUNTIME_SERVICES = 88, BOOT_SERVICES = 96, RESET_SYSTEM = 104 };
enum { ALLOCATE_PAGES = 40, HANDLE_PROTOCOL = 152, INSTALL_CONFIGURATION_TABLE = 192 };
enum { LOAD_IMAGE = 200, START_IMAGE = 208, LOCATE_PROTOCOL = 320 };
enum { DEVICE_HANDLE = 24, LOAD_OPTIONS_SIZE = 48, LOAD_OPTIONS = 56 };
enum { GET_NUMBER_OF_PROCESSORS = 0, GET_PROCESSOR_INFO = 8 };
enum { ANY_PAGES = 0, ACPI_RECLAIM_MEMORY = 9, PAGE = 4096, SHUTDOWN = 2 };

static byte acpi_2[] = {0x71, 0xe8, 0x68, 0x88, 0xf1, 0xe4, 0xd3, 0x11, 0xbc, 0x22, 0x00, 0x80, 0xc7, 0x3c, 0x88, 0x81};
static byte acpi_1[] = {0x30, 0x2d, 0x9d, 0xeb, 0x88, 0x2d, 0xd3, 0x11, 0x9a, 0x16, 0x00, 0x90, 0x27, 0x3f, 0xc1, 0x4d};
static byte loaded_image[] =
    {0xa1, 0x31, 0x1b, 0x5b, 0x62, 0x95, 0xd2, 0x11, 0x8e, 0x3f, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b};
static byte mp_services[] =
    {0x05, 0xa6, 0xdd, 0x3f, 0x6e, 0xa7, 0x46, 0x4f, 0xad, 0x29, 0x12, 0xf4, 0x53, 0x1b, 0x3d, 0x08};

/* From the firmware's calling convention to the compiler's, and back with up to 6 arguments. */
asm(".globl _start\n"
    "_start:\n"
    "push %rsi\n"
    "push %rdi\n"
    "sub $8, %rsp\n"
    "mov %rcx, %rdi\n"
    "mov %rdx, %rsi\n"
    "call run\n"
    "add $8, %rsp\n"
    "pop %rdi\n"
    "pop %rsi\n"
    "ret\n"
    ".globl call\n"
    "call:\n"
    "push %rbp\n"
    "mov %rsp, %rbp\n"
    "sub $48, %rsp\n"
    "mov %rdi, %rax\n"
    "mov %r9, 32(%rsp)\n"
    "mov 16(%rbp), %r10\n"
    "mov %r10, 40(%rsp)\n"
    "mov %r8, %r9\n"
    "mov %rcx, %r8\n"
    "mov %rsi, %rcx\n"
    "call *%rax\n"
    "leave\n"
    "ret\n"
    ".globl carried\n"
    "carried:\n"
    "lea _start(%rip), %rax\n"
    "sub $0x4000, %rax\n"
    "ret\n");
extern number call(void *function, number a, number b, number c, number d, number e, number f);
extern struct payload *carried(void);

static void *at(void *base, long offset) { return (byte *)base + offset; }
static void *pointer(void *base, long offset) { return *(void **)at(base, offset); }

static void checksum(byte *table, word bytes, byte *sum)
{
    byte total = 0;
    word i;
    *sum = 0;
    for (i = 0; i < bytes; i++) total += table[i];
    *sum = -total;
}

static void close_table(byte *table) { checksum(table, *(word *)at(table, 4), at(table, 9)); }

/* The processors that the firmware knows, as entries behind the MADT's own. 0 if it cannot say, or they are too many. */
static int add_processors(void *boot, byte *madt, byte *end)
{
    void *services;
    number count, enabled, i;
    byte information[64];
    word *length = at(madt, 4);
    if (call(pointer(boot, LOCATE_PROTOCOL), (number)mp_services, 0, (number)&services, 0, 0, 0)) return 0;
    if (call(pointer(services, GET_NUMBER_OF_PROCESSORS), (number)services, (number)&count, (number)&enabled, 0, 0, 0))
        return 0;
    for (i = 0; i < count; i++) {
        byte *entry = madt + *length;
        number id;
        if (entry + 16 > end) return 0;
        if (call(pointer(services, GET_PROCESSOR_INFO), (number)services, i, (number)information, 0, 0, 0)) return 0;
        id = *(number *)information;
        if (id < 255) {
            entry[0] = 0, entry[1] = 8, entry[2] = i, entry[3] = id;
            *(word *)(entry + 4) = 1;
        } else {
            entry[0] = 9, entry[1] = 16, entry[2] = entry[3] = 0;
            *(word *)(entry + 4) = id;
            *(word *)(entry + 8) = 1;
            *(word *)(entry + 12) = i;
        }
        *length += entry[1];
    }
    return count > 0;
}

static int bring_tables(void *boot)
{
    struct payload *payload = carried();
    number bytes = payload->block_bytes, address = 0, i;
    byte *block;
    if (call(pointer(boot, ALLOCATE_PAGES), ANY_PAGES, ACPI_RECLAIM_MEMORY, bytes / PAGE, (number)&address, 0, 0)) return 0;
    /* The FADT has fields of 32 bits, too. */
    if (address + bytes > 0xffffffff) return 0;
    block = (byte *)address;
    for (i = 0; i < bytes; i++) block[i] = payload->block[i];
    *(number *)(block + 24) += address;
    *(number *)(block + XSDT_AT + 36) += address;
    *(number *)(block + XSDT_AT + 44) += address;
    *(word *)(block + FADT_AT + 36) += address;
    *(word *)(block + FADT_AT + 40) += address;
    *(number *)(block + FADT_AT + 132) += address;
    *(number *)(block + FADT_AT + 140) += address;
    if (!add_processors(boot, block + MADT_AT, block + bytes)) return 0;
    checksum(block, 20, block + 8);
    checksum(block, 36, block + 32);
    close_table(block + XSDT_AT);
    close_table(block + FADT_AT);
    close_table(block + MADT_AT);
    if (call(pointer(boot, INSTALL_CONFIGURATION_TABLE), (number)acpi_2, address, 0, 0, 0, 0)) return 0;
    /* The older pointer to the provider's. It may not be there: nothing to remove then. */
    call(pointer(boot, INSTALL_CONFIGURATION_TABLE), (number)acpi_1, 0, 0, 0, 0, 0);
    return 1;
}

static void start_kernel(void *boot, number self)
{
    struct payload *payload = carried();
    void *ours, *its;
    number kernel = 0;
    if (call(pointer(boot, HANDLE_PROTOCOL), self, (number)loaded_image, (number)&ours, 0, 0, 0)) return;
    if (call(pointer(boot, LOAD_IMAGE), 0, self, 0, (number)at(payload, payload->kernel_at), payload->kernel_bytes,
             (number)&kernel))
        return;
    if (call(pointer(boot, HANDLE_PROTOCOL), kernel, (number)loaded_image, (number)&its, 0, 0, 0)) return;
    *(void **)at(its, DEVICE_HANDLE) = pointer(ours, DEVICE_HANDLE);
    *(word *)at(its, LOAD_OPTIONS_SIZE) = *(word *)at(ours, LOAD_OPTIONS_SIZE);
    *(void **)at(its, LOAD_OPTIONS) = pointer(ours, LOAD_OPTIONS);
    call(pointer(boot, START_IMAGE), kernel, 0, 0, 0, 0, 0);
}

number run(number self, void *system)
{
    void *boot = pointer(system, BOOT_SERVICES);
    if (bring_tables(boot)) start_kernel(boot, self);
    for (;;) call(pointer(pointer(system, RUNTIME_SERVICES), RESET_SYSTEM), SHUTDOWN, 0, 0, 0, 0, 0);
}
