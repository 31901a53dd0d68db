/* Many boots in one: the firmware starts this instead of a boot loader. For every volume with a file \state it sets the
 * variables given there, starts the systemd-boot of that volume through the firmware's own LoadImage and StartImage, and
 * prints what came of it. So 100 states take one start of the firmware.
 *
 * Three services are wrapped while a boot loader runs: waiting is shortened, and a reset (also the payload's) comes back
 * here. What is not undone so is memory, of which there is enough. */
#include "lab.h"

static const guid FILES = {0x964e5b22, 0x6459, 0x11d2, {0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
static const guid DEVICE_PATH = {0x09576e91, 0x6d3f, 0x11d2, {0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};

static const guid LOAD_FILE_2 = {0x4006c0c1, 0xfcb3, 0x403e, {0x99, 0x6d, 0x4a, 0x6c, 0x87, 0x24, 0xe0, 0x6d}};
/* LINUX_EFI_INITRD_MEDIA_GUID as a vendor media device path. */
static u8 INITRD_PATH[] = {4, 3, 20, 0, 0x27, 0xe4, 0x68, 0x55, 0xfc, 0x68, 0x3d, 0x4f, 0xac, 0x74, 0xca, 0x55, 0x52,
                           0x31, 0xcc, 0x68, 0x7f, 0xff, 4, 0};

typedef struct file {
    u64 revision;
    status (*open)(struct file *, struct file **, const u16 *, u64, u64);
    status (*close)(struct file *);
    void *delete;
    status (*read)(struct file *, u64 *, void *);
} file;
typedef struct volume { u64 revision; status (*root)(struct volume *, file **); } volume;

#ifdef __x86_64__
#define LOADER_PATH u"\\EFI\\BOOT\\BOOTX64.EFI"
#else
#define LOADER_PATH u"\\EFI\\BOOT\\BOOTAA64.EFI"
#endif

static system_table *ST;
/* What is started of the next volume. */
static u16 start_path[128];
static status (*real_set_timer)(void *, u32, u64);
static void *back[5];

static status no_stall(u64 microseconds) {
    (void)microseconds;
    return 0;
}

static status short_timer(void *event, u32 type, u64 time) {
    return real_set_timer(event, type, type == 2 ? time / 20 : time);
}

static void no_reset(u32 type, status why, u64 n, void *data) {
    (void)why, (void)n, (void)data;
    line l;
    begin(&l, ST, "RESET");
    add_hex(&l, type, 1);
    end(&l);
    __builtin_longjmp(back, 1);
}

static void forget_variables(void) {
    u16 name[512];
    guid vendor;
    for (int again = 1; again;) {
        again = 0;
        name[0] = 0;
        for (;;) {
            u64 n = sizeof name;
            if (FAILED(ST->rt->next(&n, name, &vendor))) break;
            if (!same(&vendor, &LOADER, sizeof vendor)) continue;
            if (!FAILED(ST->rt->set(name, &vendor, 0, 0, 0))) { again = 1; break; }
        }
    }
}

/* \state: its number, the number of variables, then each: units of its name, bytes of its data, both. A name that begins
 * with a backslash is no variable: it is the file to start, as a boot option would name it. */
static int prepare(file *root, u8 *buffer, u64 size) {
    file *f;
    u64 n = size;
    if (FAILED(root->open(root, &f, u"\\state", 1, 0))) return -1;
    status s = f->read(f, &n, buffer);
    f->close(f);
    if (FAILED(s) || n < 8) return -1;
    u32 number, count;
    memcpy(&number, buffer, 4);
    memcpy(&count, buffer + 4, 4);
    forget_variables();
    memcpy(start_path, LOADER_PATH, sizeof LOADER_PATH);
    u8 *at = buffer + 8;
    while (count--) {
        u16 name[128];
        u32 units, bytes;
        memcpy(&units, at, 4);
        memcpy(&bytes, at + 4, 4);
        memcpy(name, at + 8, 2 * units);
        name[units] = 0;
        at += 8 + 2 * units;
        if (name[0] == '\\') {
            memcpy(start_path, name, 2 * (units + 1));
            continue;
        }
        /* Non-volatile, for boot and run time. */
        if (FAILED(ST->rt->set(name, &LOADER, 7, bytes, at))) return -1;
        at += bytes;
    }
    return number;
}

/* The device's path with the file's behind it. */
static u8 *loader_path(handle device) {
    static u8 path[2048];
    u8 *node;
    u64 n = 0;
    if (FAILED(ST->bs->handle_protocol(device, &DEVICE_PATH, (void **)&node))) return 0;
    while (node[n] != 0x7f) n += node[n + 2] | node[n + 3] << 8;
    memcpy(path, node, n);
    u16 length = 6;
    for (u64 i = 0; start_path[i]; i++) length += 2;
    u8 head[4] = {4, 4, length, length >> 8}, last[4] = {0x7f, 0xff, 4, 0};
    memcpy(path + n, head, 4);
    memcpy(path + n + 4, start_path, length - 4);
    memcpy(path + n + length, last, 4);
    return path;
}

/* What a stub offers to its kernel, and takes back when the kernel returns. Ours does not return. */
static void forget_initrd(void) {
    void *path = INITRD_PATH, *offered, *name;
    handle owner;
    if (FAILED(ST->bs->locate_path(&LOAD_FILE_2, &path, &owner))) return;
    if (!FAILED(ST->bs->handle_protocol(owner, &DEVICE_PATH, &name)) &&
        !FAILED(ST->bs->handle_protocol(owner, &LOAD_FILE_2, &offered))) {
        ST->bs->uninstall(owner, &LOAD_FILE_2, offered);
        ST->bs->uninstall(owner, &DEVICE_PATH, name);
    }
}

static status start(handle self, handle device) {
    handle image;
    status s = ST->bs->load_image(0, self, loader_path(device), 0, 0, &image);
    if (FAILED(s)) return s;
    boot_services *bs = ST->bs;
    runtime_services *rt = ST->rt;
    status (*stall)(u64) = bs->stall;
    void (*reset)(u32, status, u64, void *) = rt->reset;
    real_set_timer = bs->set_timer;
    bs->stall = no_stall;
    bs->set_timer = short_timer;
    rt->reset = no_reset;
    volatile status result = 0;
    if (__builtin_setjmp(back) == 0) result = bs->start_image(image, 0, 0);
    ST->bs->stall = stall;
    ST->bs->set_timer = real_set_timer;
    ST->rt->reset = reset;
    forget_initrd();
    return result;
}

__attribute__((section(".text.entry"))) status efi_main(handle self, system_table *st) {
    static u8 buffer[8192];
    ST = st;
    line l;
    u64 count = 0;
    handle *devices;
    u8 one = 1;
    st->rt->set(u"Runner", &LAB, 2, 1, &one);
    st->bs->locate_handles(2, &FILES, 0, &count, &devices);
    for (u64 i = 0; i < count; i++) {
        volume *v;
        file *root;
        if (FAILED(st->bs->handle_protocol(devices[i], &FILES, (void **)&v)) || FAILED(v->root(v, &root))) continue;
        int number = prepare(root, buffer, sizeof buffer);
        root->close(root);
        if (number < 0) continue;
        st->bs->watchdog(0, 0, 0, 0);
        begin(&l, st, "STATE");
        add_hex(&l, number, 8);
        end(&l);
        status s = start(self, devices[i]);
        show_state(st);
        begin(&l, st, "RETURNED");
        add_hex(&l, s, 16);
        end(&l);
    }
    begin(&l, st, "END");
    end(&l);
    st->rt->reset(SHUTDOWN, 0, 0, 0);
    for (;;);
}
