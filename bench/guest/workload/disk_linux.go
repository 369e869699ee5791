package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/longhaul-project/longhaul/bench/guest/control"
	"github.com/longhaul-project/longhaul/bench/guest/pages"
)

// disk is a block device whose every block of a page's size is proved, but the
// last, which carries our signature. All access is direct.
type disk struct {
	src     *pages.Source
	fd      int
	buf     []byte // aligned, as direct access asks for; guarded by journal.mu
	last    []byte // the signature as we wrote it; owned by heartbeat
	signBuf []byte // aligned; owned by heartbeat
	writes  atomic.Uint64
	foreign atomic.Uint64
	journal
}

// blockBase keeps the content of blocks apart from that of pages.
const blockBase = 1 << 32

// chunk is how many blocks are written or read at a time.
const chunk = 64

func openDisk(device string, src *pages.Source) (*disk, error) {
	fd, err := syscall.Open(device, syscall.O_RDWR|syscall.O_DIRECT|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", device, err)
	}
	size, err := syscall.Seek(fd, 0, 2)
	if err != nil {
		return nil, fmt.Errorf("measuring %s: %w", device, err)
	}
	if size < 2*pages.Size {
		return nil, fmt.Errorf("%s has only %d bytes", device, size)
	}
	d := &disk{src: src, fd: fd}
	d.begin(int(size/pages.Size) - 1)
	if d.buf, err = aligned(chunk * pages.Size); err != nil {
		return nil, err
	}
	if d.signBuf, err = aligned(pages.Size); err != nil {
		return nil, err
	}
	return d, d.fill()
}

// aligned maps memory for direct access.
func aligned(n int) ([]byte, error) {
	b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("mapping %d bytes: %w", n, err)
	}
	return b, nil
}

func (d *disk) fill() error {
	for from := 0; from < len(d.versions); from += chunk {
		n := min(chunk, len(d.versions)-from)
		for i := range n {
			d.src.Fill(d.buf[i*pages.Size:], blockBase+uint64(from+i), 0)
		}
		if err := d.write(d.buf[:n*pages.Size], from); err != nil {
			return err
		}
	}
	return nil
}

func (d *disk) write(b []byte, block int) error {
	n, err := syscall.Pwrite(d.fd, b, int64(block)*pages.Size)
	if err != nil || n != len(b) {
		return os.NewSyscallError(fmt.Sprintf("writing block %d (%d of %d bytes)", block, n, len(b)), err)
	}
	return nil
}

func (d *disk) read(b []byte, block int) error {
	n, err := syscall.Pread(d.fd, b, int64(block)*pages.Size)
	if err != nil || n != len(b) {
		return os.NewSyscallError(fmt.Sprintf("reading block %d (%d of %d bytes)", block, n, len(b)), err)
	}
	return nil
}

// rewrite makes the next version of block i.
func (d *disk) rewrite(i int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.versions[i].Full()
	d.src.Fill(d.buf, blockBase+uint64(i), v)
	if err := d.write(d.buf[:pages.Size], i); err != nil {
		return err
	}
	d.set(i, v)
	d.writes.Add(1)
	return nil
}

// sign writes boot and beat to the last block, after a look at whether it
// still holds what we wrote before.
func (d *disk) sign(boot string, beat uint64) error {
	block := len(d.versions)
	if d.last != nil {
		if err := d.read(d.signBuf, block); err != nil {
			return err
		}
		if !bytes.Equal(d.signBuf, d.last) {
			d.foreign.Add(1)
		}
	}
	clear(d.signBuf)
	copy(d.signBuf, boot)
	binary.BigEndian.PutUint64(d.signBuf[64:], beat)
	d.last = append(d.last[:0], d.signBuf...)
	return d.write(d.signBuf, block)
}

// verify reads the whole disk.
func (d *disk) verify(v *control.Verdict) {
	v.BlocksWrong += d.journal.verify(v)
	want := make([]byte, pages.Size)
	for from := 0; from < len(d.versions); from += chunk {
		d.verifyChunk(from, min(chunk, len(d.versions)-from), want, v)
	}
	v.BlocksVerified = int64(len(d.versions))
}

func (d *disk) verifyChunk(from, n int, want []byte, v *control.Verdict) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.read(d.buf[:n*pages.Size], from); err != nil {
		v.BlocksWrong += int64(n)
		note(v, "disk: %v", err)
		return
	}
	for i := range n {
		block := from + i
		d.src.Fill(want, blockBase+uint64(block), d.versions[block])
		if got := d.buf[i*pages.Size:][:pages.Size]; !bytes.Equal(got, want) {
			v.BlocksWrong++
			note(v, "block %d in version %#x: %s", block, d.versions[block], claim(got))
		}
	}
}
