/* The little of UEFI that the test programs need, and printing: one serial port (the console where the firmware shows no
 * port, as U-Boot does), lines that begin with "@@".
 * Layouts: UEFI specification 2.10, chapters 4, 7, 8 and 12.8 (Serial I/O Protocol). */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef u64 status;
typedef void *handle;

#define FAILED(s) ((s) >> 63)
#define SHUTDOWN 2

typedef struct { u32 a; u16 b, c; u8 d[8]; } guid;
typedef struct { u64 signature; u32 revision, size, crc, reserved; } header;

typedef struct serial {
    u32 revision;
    void *reset, *set_attributes, *set_control, *get_control;
    status (*write)(struct serial *, u64 *, const void *);
} serial;

typedef struct console {
    void *reset;
    status (*write)(struct console *, const u16 *);
} console;

typedef struct {
    header h;
    void *raise, *restore, *allocate_pages, *free_pages, *memory_map;
    status (*allocate)(u32, u64, void **);
    status (*free)(void *);
    void *create_event;
    status (*set_timer)(void *, u32, u64);
    void *wait, *signal, *close_event, *check_event, *install, *reinstall;
    status (*uninstall)(handle, const guid *, void *);
    status (*handle_protocol)(handle, const guid *, void **);
    void *reserved, *notify, *locate_handle;
    status (*locate_path)(const guid *, void **, handle *);
    void *install_table;
    status (*load_image)(u8, handle, void *, void *, u64, handle *);
    status (*start_image)(handle, u64 *, u16 **);
    void *exit;
    status (*unload_image)(handle);
    void *exit_boot, *count;
    status (*stall)(u64);
    status (*watchdog)(u64, u64, u64, u16 *);
    void *connect, *disconnect, *open, *close, *open_information, *per_handle;
    status (*locate_handles)(u32, const guid *, void *, u64 *, handle **);
    status (*locate)(const guid *, void *, void **);
} boot_services;

typedef struct {
    header h;
    void *time[4], *virtual[2];
    status (*get)(const u16 *, const guid *, u32 *, u64 *, void *);
    status (*next)(u64 *, u16 *, guid *);
    status (*set)(const u16 *, const guid *, u32, u64, const void *);
    void *monotonic;
    void (*reset)(u32, status, u64, void *);
} runtime_services;

typedef struct {
    header h;
    u16 *vendor;
    u32 revision;
    void *in_handle, *in, *out_handle;
    console *out;
    void *err_handle, *err;
    runtime_services *rt;
    boot_services *bs;
} system_table;

typedef struct {
    u32 revision;
    handle parent;
    system_table *st;
    handle device;
    void *path, *reserved;
    u32 options_size;
    u16 *options;
    void *base;
    u64 size;
} loaded_image;

static const guid LOADER = {0x4a67b082, 0x0a4c, 0x41cf, {0xb6, 0xc7, 0x44, 0x0b, 0x29, 0xbb, 0x8c, 0x4f}};
static const guid GLOBAL = {0x8be4df61, 0x93ca, 0x11d2, {0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c}};
/* Of this test alone: a runner started the boot loader and wants the control back. */
static const guid LAB = {0x6f1c3a52, 0x91d4, 0x4c0e, {0x8e, 0x17, 0x3a, 0x55, 0xd0, 0x9b, 0x42, 0x6e}};
static const guid SERIAL_IO = {0xbb25cf6f, 0xf1d4, 0x11d2, {0x9a, 0x0c, 0x00, 0x90, 0x27, 0x3f, 0xc1, 0xfd}};
static const guid LOADED_IMAGE = {0x5b1b31a1, 0x9562, 0x11d2, {0x8e, 0x3f, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};

void *memcpy(void *to, const void *from, unsigned long n) {
    for (unsigned long i = 0; i < n; i++) ((volatile u8 *)to)[i] = ((const u8 *)from)[i];
    return to;
}

void *memset(void *to, int byte, unsigned long n) {
    for (unsigned long i = 0; i < n; i++) ((volatile u8 *)to)[i] = byte;
    return to;
}

__attribute__((unused)) static int same(const void *a, const void *b, u64 n) {
    for (u64 i = 0; i < n; i++)
        if (((const u8 *)a)[i] != ((const u8 *)b)[i]) return 0;
    return 1;
}

/* One line, written at once: the console may be the same port. */
typedef struct { serial *port; console *out; u64 used; char text[4000]; } line;

static void add_char(line *l, char c) {
    if (l->used < sizeof l->text) l->text[l->used++] = c;
}

static void add(line *l, const char *text) {
    while (*text) add_char(l, *text++);
}

static void add_hex(line *l, u64 n, int digits) {
    while (digits--) add_char(l, "0123456789abcdef"[(n >> 4 * digits) & 15]);
}

/* UTF-16: anything but plain ASCII in hex. */
static void add_wide(line *l, const u16 *text, u64 units) {
    for (u64 i = 0; i < units; i++)
        if (text[i] > ' ' && text[i] < 127 && text[i] != '\\') add_char(l, text[i]);
        else { add_char(l, '\\'); add_hex(l, text[i], 4); }
}

static void begin(line *l, system_table *st, const char *tag) {
    l->port = 0;
    l->out = st->out;
    l->used = 0;
    st->bs->locate(&SERIAL_IO, 0, (void **)&l->port);
    add(l, "\r\n@@");
    add(l, tag);
    add_char(l, ' ');
}

static void end(line *l) {
    add(l, " @\r\n");
    u64 at = 0;
    while (l->port && at < l->used) {
        /* Small pieces: a UART's queue is short and drivers time out. */
        u64 n = l->used - at < 16 ? l->used - at : 16;
        if (FAILED(l->port->write(l->port, &n, l->text + at)) && !n) break;
        at += n;
    }
    for (; !l->port && at < l->used; at++) {
        u16 one[2] = {(u8)l->text[at], 0};
        l->out->write(l->out, one);
    }
}

static void show_variable(system_table *st, const char *tag, const u16 *name, const guid *vendor, int wide) {
    line l;
    u16 data[1500];
    u64 n = sizeof data;
    if (FAILED(st->rt->get(name, vendor, 0, &n, data))) return;
    begin(&l, st, tag);
    if (wide) add_wide(&l, data, n / 2);
    else for (u64 i = 0; i < n; i++) add_hex(&l, ((u8 *)data)[i], 2);
    end(&l);
}

/* What systemd-boot and the firmware say about this boot. */
static void show_state(system_table *st) {
    show_variable(st, "INFO", u"LoaderInfo", &LOADER, 1);
    show_variable(st, "ENTRIES", u"LoaderEntries", &LOADER, 1);
    show_variable(st, "SELECTED", u"LoaderEntrySelected", &LOADER, 1);
    show_variable(st, "COUNTED", u"LoaderBootCountPath", &LOADER, 1);
    show_variable(st, "ONESHOT", u"LoaderEntryOneShot", &LOADER, 1);
    show_variable(st, "SECUREBOOT", u"SecureBoot", &GLOBAL, 0);
    show_variable(st, "SETUPMODE", u"SetupMode", &GLOBAL, 0);
    show_variable(st, "INDICATIONS", u"OsIndicationsSupported", &GLOBAL, 0);
}
