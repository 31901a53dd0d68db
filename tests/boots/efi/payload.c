/* Stands in for a kernel: the stub of a UKI starts it. Says which one it is and with what command line, then what the
 * boot loader left in the variables, and turns the machine off. It never gives control back, as a kernel never does. */
#include "lab.h"

/* The test program puts the image's own name behind the colon. */
static const volatile char ID[] = "bootsurgeon-payload:................................................";

__attribute__((section(".text.entry"))) status efi_main(handle self, system_table *st) {
    line l;
    loaded_image *image = 0;
    begin(&l, st, "PAYLOAD");
    for (int i = 20; ID[i] && ID[i] != '.'; i++) add_char(&l, ID[i]);
    add_char(&l, ' ');
    if (!FAILED(st->bs->handle_protocol(self, &LOADED_IMAGE, (void **)&image)) && image->options)
        add_wide(&l, image->options, image->options_size / 2);
    end(&l);

    u8 byte;
    u64 n = 1;
    /* The runner takes a reset for the end of a boot, and shows the state itself. */
    if (FAILED(st->rt->get(u"Runner", &LAB, 0, &n, &byte))) {
        show_state(st);
        begin(&l, st, "END");
        end(&l);
    }
    st->rt->reset(SHUTDOWN, 0, 0, 0);
    for (;;);
}
