package qemutest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// emulator is the emulator of all tests.
const emulator = "qemu-system-x86_64"

// Need skips the test where QEMU is not installed. With LONGHAUL_NO_SKIP set
// it fails instead.
func Need(tb testing.TB) {
	tb.Helper()
	if _, err := exec.LookPath(emulator); err != nil {
		if os.Getenv("LONGHAUL_NO_SKIP") != "" {
			tb.Fatalf("needs QEMU: %v", err)
		}
		tb.Skipf("needs QEMU: %v", err)
	}
	if testing.Short() {
		tb.Skip("runs QEMU")
	}
}

// vm is one QEMU process.
type vm struct {
	*monitor
	quit func()
}

// start runs a QEMU. A VM that is not incoming is executing its sweep when
// start returns.
func start(tb testing.TB, dir, name string, c Config, incoming bool) *vm {
	tb.Helper()
	image := filepath.Join(dir, name+".img")
	if err := os.WriteFile(image, bootDisk(uint32(c.Dirty)<<20), 0o600); err != nil {
		tb.Fatal(err)
	}
	qmp, qmpFile := socketPair(tb)
	debug, debugFile := socketPair(tb)
	// RAM must not be a multiple of 256 KiB: TCG of QEMU before 8.2.2 then
	// loses dirty pages (facts/lab.md).
	args := append([]string{
		"-M", c.Machine, "-accel", "tcg,tb-size=32", "-m", fmt.Sprintf("%dk", c.Memory*1024+8),
		"-nodefaults", "-display", "none", "-no-user-config",
		"-uuid", "6c6f6e67-6861-756c-0000-000000000001",
		"-drive", "file=" + image + ",format=raw,if=ide",
		"-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control",
		"-chardev", "socket,id=debug,fd=4", "-device", "isa-debugcon,chardev=debug",
	}, c.Args...)
	if incoming {
		args = append(args, "-incoming", "defer")
	}
	cmd := exec.Command(emulator, args...)
	cmd.ExtraFiles = []*os.File{qmpFile, debugFile}
	var stderr lockedBuffer
	cmd.Stderr = &stderr
	cmd.SysProcAttr = endWithParent()
	err := cmd.Start()
	qmpFile.Close()
	debugFile.Close()
	if err != nil {
		tb.Fatal(err)
	}
	v := &vm{quit: sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
		qmp.Close()
		debug.Close()
	})}
	tb.Cleanup(v.quit)
	v.monitor = newMonitor(tb, name, qmp, stderr.String)
	if !incoming {
		debug.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(debug, make([]byte, 1)); err != nil {
			tb.Fatalf("%s: waiting for the guest: %v\n%s", name, err, stderr.String())
		}
	}
	return v
}

// socketPair returns two connected sockets: ours, and one for a process.
func socketPair(tb testing.TB) (net.Conn, *os.File) {
	tb.Helper()
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		tb.Fatal(err)
	}
	ours := os.NewFile(uintptr(fds[0]), "ours")
	defer ours.Close()
	c, err := net.FileConn(ours)
	if err != nil {
		tb.Fatal(err)
	}
	return c, os.NewFile(uintptr(fds[1]), "theirs")
}

// lockedBuffer is a buffer that a process writes while the test reads it.
type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Bytes returns what has been written. The caller must not change it.
func (l *lockedBuffer) Bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Bytes()
}
