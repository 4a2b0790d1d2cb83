/* SPDX-License-Identifier: GPL-2.0 */
/* The guest's image as data of the test program. GUEST_BIN comes from the Makefile. */
	.section .rodata
	.globl	guest_blob, guest_blob_end
guest_blob:
	.incbin	GUEST_BIN
guest_blob_end:
	.section .note.GNU-stack, "", @progbits
