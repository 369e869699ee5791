package guest

import (
	"bytes"
	"fmt"
)

// cpio writes an archive in the "newc" format that the kernel unpacks as its
// initramfs (linux Documentation/driver-api/early-userspace/buffer-format.rst).
type cpio struct {
	b     bytes.Buffer
	inode int
}

// Types of files, as st_mode has them.
const (
	modeDir    = 0o040000
	modeFile   = 0o100000
	modeDevice = 0o020000 // character device
)

func (c *cpio) dir(name string) { c.entry(name, modeDir|0o755, nil, 0, 0) }

func (c *cpio) file(name string, perm uint32, content []byte) {
	c.entry(name, modeFile|perm, content, 0, 0)
}

func (c *cpio) device(name string, major, minor int) {
	c.entry(name, modeDevice|0o600, nil, major, minor)
}

// end closes the archive and returns it.
func (c *cpio) end() []byte {
	c.entry("TRAILER!!!", 0, nil, 0, 0)
	return c.b.Bytes()
}

// entry writes magic, thirteen numbers of eight hex digits, the name and the
// content, the last two padded to four bytes.
func (c *cpio) entry(name string, mode uint32, content []byte, major, minor int) {
	c.inode++
	c.b.WriteString("070701")
	for _, field := range []int{c.inode, int(mode), 0, 0, 1, 0, len(content), 0, 0, major, minor, len(name) + 1, 0} {
		fmt.Fprintf(&c.b, "%08X", field)
	}
	c.b.WriteString(name)
	c.b.WriteByte(0)
	c.pad()
	c.b.Write(content)
	c.pad()
}

func (c *cpio) pad() {
	for c.b.Len()%4 != 0 {
		c.b.WriteByte(0)
	}
}
