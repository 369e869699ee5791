# A guest that changes one byte and one counter in each page of 1-9 MiB, for ever.
# as --32 dirty.S -o dirty.o && ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o dirty.img dirty.o
	.code16
	.globl _start
_start:	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	lgdtl	gdtr
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmpl	$8, $flat
	.code32
flat:	movw	$16, %ax
	movw	%ax, %ds
	inb	$0x92, %al		# A20
	orb	$2, %al
	outb	%al, $0x92
	xorl	%ebx, %ebx
pass:	movl	$0x100000, %edi
	incl	%ebx
page:	incb	(%edi)
	movl	%ebx, 8(%edi)
	movl	%edi, 16(%edi)
	addl	$4096, %edi
	movl	$2000, %ecx		# some time between the pages
1:	loop	1b
	cmpl	$0x900000, %edi
	jb	page
	jmp	pass
	.p2align 3
gdt:	.quad	0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdtr:	.word	23
	.long	gdt
	.org	510
	.word	0xaa55
