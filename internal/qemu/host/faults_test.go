package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/qemu/qmp"
)

// spec opens the VM of a host and describes it for a move.
func spec(t *testing.T, h *Host) gateway.Spec {
	t.Helper()
	src, err := h.Source(t.Context(), "vm1")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	s, err := src.Spec(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Token = testToken
	return s
}

func TestSpecOfQEMU(t *testing.T) {
	t.Parallel()
	a, _, _ := newPair(t, nil)
	s := spec(t, a)
	if s.Memory != guestMemory<<10 || s.UUID != guestUUID || s.Args[0] != qemuProgram {
		t.Errorf("got %+v", s)
	}
	if want := (gateway.NIC{MAC: "52:54:00:00:00:07"}); len(s.NICs) != 1 || s.NICs[0] != want {
		t.Errorf("NICs %+v, want %+v", s.NICs, want)
	}
	vms, err := a.VMs(t.Context())
	if err != nil || len(vms) != 1 || !strings.HasPrefix(vms[0].Version, "QEMU ") || vms[0].Uptime <= 0 || vms[0].Uptime > time.Hour {
		t.Errorf("got %+v, error %v", vms, err)
	}
}

func TestQEMUDoesNotStart(t *testing.T) {
	t.Parallel()
	a, b, dir := newPair(t, nil)
	s := spec(t, a)
	s.Args = append(s.Args, "-device", "no-such-device")
	_, err := b.Prepare(t.Context(), s)
	if err == nil || !strings.Contains(err.Error(), "no-such-device") {
		t.Errorf("error %v, want what QEMU says", err)
	}
	checkClean(t, dir, "a")
	s = spec(t, a)
	s.Memory += 4096
	if _, err := b.Prepare(t.Context(), s); !errors.Is(err, gateway.ErrInvalid) {
		t.Errorf("another size of memory: %v", err)
	}
	checkClean(t, dir, "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Prepare(ctx, spec(t, a)); err == nil {
		t.Error("prepared after its context had ended")
	}
	checkClean(t, dir, "a")
}

// TestTemplateAndHooks starts destinations with a template, by way of a script
// that puts QEMU into the background.
func TestTemplateAndHooks(t *testing.T) {
	t.Parallel()
	a, b, dir := newPair(t, nil)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	hook := write("hook", `echo $LONGHAUL_EVENT $LONGHAUL_HOST $LONGHAUL_VM $LONGHAUL_MEMORY $LONGHAUL_MACS $SITE >> `+dir+"/hooks\n")
	b.cfg.Before, b.cfg.After, b.cfg.Env = []string{hook}, []string{hook}, []string{"SITE=b"}
	b.cfg.Template = []string{write("vm", "exec "+qemuProgram+` -name "$1" -uuid "$2" -M q35 -accel tcg,tb-size=16 -m $(($3 / 1024))k -nodefaults \
		-display none -netdev user,id=n0 -device virtio-net-pci,netdev=n0,mac=52:54:00:00:00:07,romfile= \
		-qmp "unix:$4,server=on,wait=off" -incoming "$5" -S -daemonize`+"\n"), "{name}", "{uuid}", "{memory_bytes}", "{qmp}", "{incoming}"}
	s := spec(t, a)
	s.Args = nil // not needed
	sink, err := b.Prepare(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	if state, err := sink.State(t.Context()); err != nil || state != gateway.Incoming {
		t.Errorf("state %s, error %v", state, err)
	}
	if err := sink.Discard(t.Context()); err != nil {
		t.Errorf("Discard: %v", err)
	}
	checkClean(t, dir, "a")
	got, err := os.ReadFile(filepath.Join(dir, "hooks"))
	want := fmt.Sprintf("before b vm1 %[1]d 52:54:00:00:00:07 b\nafter b vm1 %[1]d 52:54:00:00:00:07 b\n", guestMemory<<10)
	if err != nil || string(got) != want {
		t.Errorf("hooks: got %q, error %v, want %q", got, err, want)
	}
	b.cfg.Before = []string{write("fails", "echo no bridge br0; exit 3\n")}
	if _, err := b.Prepare(t.Context(), s); err == nil || !strings.Contains(err.Error(), "no bridge br0") {
		t.Errorf("hook fails: error %v", err)
	}
	b.cfg.Before, b.cfg.Template = nil, []string{write("nothing", "echo nothing to do\n")}
	if _, err := b.Prepare(t.Context(), s); err == nil || !strings.Contains(err.Error(), "nothing to do") {
		t.Errorf("template starts nothing: error %v", err)
	}
	checkClean(t, dir, "a")
}

// TestSlowStart: a QEMU that allocates its memory listens at its monitor and does not
// answer. Here it is one that waits for a client of another socket.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	a, b, dir := newPair(t, nil)
	gate := filepath.Join(dir, "gate")
	b.cfg.Template = []string{
		qemuProgram, "-qmp", "unix:{qmp},server=on,wait=off", "-chardev", "socket,id=gate,path=" + gate + ",server=on,wait=on",
		"-name", "{name}", "-uuid", "{uuid}", "-M", "q35", "-accel", "tcg,tb-size=16", "-m", fmt.Sprintf("%dk", guestMemory),
		"-nodefaults", "-display", "none", "-incoming", "{incoming}", "-S",
	}
	go func() {
		for t.Context().Err() == nil { // not awaitSocket: it connects, which opens the gate
			if _, err := os.Stat(gate); err == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(qmp.GreetingWait + time.Second)
		if conn, err := net.Dial("unix", gate); err == nil {
			conn.Close()
		}
	}()
	s := spec(t, a)
	sink, err := b.Prepare(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	if err := sink.Discard(t.Context()); err != nil {
		t.Errorf("Discard: %v", err)
	}

	b.cfg.StartTimeout = time.Second // and now the gate stays shut
	if _, err := b.Prepare(t.Context(), s); err == nil || !strings.Contains(err.Error(), "it took longer than 1s") {
		t.Errorf("a start that takes too long: error %v", err)
	}
	checkClean(t, dir, "a")
}

func TestBusyMonitor(t *testing.T) {
	t.Parallel()
	a, _, dir := newPair(t, nil)
	holdMonitor(t, filepath.Join(dir, "a", "vm1.sock"))
	start := time.Now()
	vms, err := a.VMs(t.Context())
	if err != nil || len(vms) != 1 || vms[0].Name != "vm1" || vms[0].State != gateway.Unknown || !strings.Contains(vms[0].Problem, "another client holds the monitor") {
		t.Errorf("got %+v, error %v", vms, err)
	}
	for _, vm := range []string{"vm1", "some-other"} { // which may be the one that does not answer
		if _, err := a.Source(t.Context(), vm); !errors.Is(err, gateway.ErrUnavailable) {
			t.Errorf("Source of %s: %v, want ErrUnavailable", vm, err)
		}
	}
	if took := time.Since(start); took > 3*askFor {
		t.Errorf("took %v", took)
	}
}

// TestHungQEMU stops processes with a signal: their monitors accept and are
// silent.
func TestHungQEMU(t *testing.T) {
	t.Parallel()
	a, b, dir := newPair(t, nil)
	if vms, err := a.VMs(t.Context()); err != nil || vms[0].Problem != "" {
		t.Fatalf("got %+v, error %v", vms, err)
	}
	s := spec(t, a)
	sink, err := b.Prepare(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	for _, p := range processes(t, dir) {
		if err := syscall.Kill(p.PID, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	vms, err := a.VMs(t.Context())
	if err != nil || len(vms) != 1 || vms[0].Problem == "" {
		t.Errorf("got %+v, error %v", vms, err)
	}
	if _, err := a.Source(t.Context(), "some-other"); !errors.Is(err, gateway.ErrNoVM) { // we know who it was
		t.Errorf("Source of another VM: %v, want ErrNoVM", err)
	}
	if err := sink.Discard(t.Context()); err != nil {
		t.Errorf("Discard: %v", err)
	}
	checkClean(t, dir, "a")
}

func TestQEMUCrashes(t *testing.T) {
	t.Parallel()
	a, _, dir := newPair(t, nil)
	src, err := a.Source(t.Context(), "vm1")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for _, p := range processes(t, dir) {
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	last := gateway.Event{}
	for ev := range src.Events() {
		last = ev
	}
	if last.Kind != gateway.EventClosed || !strings.Contains(last.Text, "hung up") {
		t.Errorf("last event %+v", last)
	}
	// A process that ends closes its socket before it is gone.
	for until := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		state, err := src.State(t.Context())
		if err == nil && state == gateway.Gone {
			break
		}
		if err == nil || time.Now().After(until) {
			t.Fatalf("state %s, error %v", state, err)
		}
	}
	if err := src.Resume(t.Context()); !errors.Is(err, gateway.ErrUnavailable) {
		t.Errorf("Resume: %v", err)
	}
	if vms, err := a.VMs(t.Context()); err != nil || len(vms) != 0 {
		t.Errorf("got %+v, error %v", vms, err)
	}
}

// TestLeftovers: a destination whose process died while nobody looked is
// cleared away, and its log is kept.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	a, b, dir := newPair(t, nil)
	s := spec(t, a)
	sink, err := b.Prepare(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	sink.Close()
	for _, p := range processes(t, b.cfg.RunDir) {
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		p.Wait(t.Context())
	}
	if _, err := b.Attach(t.Context(), s); !errors.Is(err, gateway.ErrNoVM) {
		t.Errorf("Attach: %v", err)
	}
	if vms, err := b.VMs(t.Context()); err != nil || len(vms) != 0 {
		t.Errorf("got %+v, error %v", vms, err)
	}
	checkClean(t, dir, "a")
	if _, err := os.Stat(filepath.Join(b.cfg.RunDir, "vm1.log")); err != nil {
		t.Error(err)
	}
}

// TestSocketsOfTheSourceAreLeftAlone: both hosts share a file system here, and
// QEMU takes the path of a socket away from whoever has it.
func TestSocketsOfTheSourceAreLeftAlone(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	dir := shortDir(t)
	a, b := newHost(t, dir, "a", nil), newHost(t, dir, "b", nil)
	console := filepath.Join(dir, "console")
	startQEMU(t, filepath.Join(dir, "a"), "vm1", "-serial", "unix:"+console+",server=on,wait=off")
	awaitSocket(t, console) // QEMU makes it after the monitor
	before, err := os.Lstat(console)
	if err != nil {
		t.Fatal(err)
	}
	sink, err := b.Prepare(t.Context(), spec(t, a))
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	if after, err := os.Lstat(console); err != nil || !os.SameFile(before, after) {
		t.Errorf("the source's console was replaced: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(b.cfg.RunDir, testToken, "console")); err != nil {
		t.Errorf("the destination's console: %v", err)
	}
}

// TestMonitorIsShared: the gateway lists while it moves.
func TestMonitorIsShared(t *testing.T) {
	t.Parallel()
	a, _, dir := newPair(t, nil)
	path := filepath.Join(dir, "a", "vm1.sock")
	first, err := a.monitors.acquire(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	second, err := a.monitors.acquire(t.Context(), path)
	if err != nil || first != second {
		t.Errorf("got %p and %p, error %v", first, second, err)
	}
	a.monitors.release(first)
	if _, err := second.QueryStatus(t.Context()); err != nil {
		t.Errorf("after the other let go: %v", err)
	}
	a.monitors.release(second)
	c, err := qmp.Dial(t.Context(), path) // free for others again
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	a.Close()
	if _, err := a.VMs(t.Context()); err != nil {
		t.Errorf("VMs after Close: %v", err)
	}
	if _, err := a.monitors.acquire(t.Context(), path); !errors.Is(err, errShut) {
		t.Errorf("acquire after Close: %v", err)
	}
}
