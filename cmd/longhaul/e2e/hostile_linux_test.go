package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/guest/control"
	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/gateway"
)

// hostileMemory is what a hostile stream may cost a gateway on top of its
// store, which 8 MiB bound here: the backlog, batches of 4 MiB in both
// directions, and what Go's collector leaves for later.
const hostileMemory = 192 << 20 // bytes

// TestHostileStream feeds gateways streams that are none, break off, or have
// been tampered with. The VM stays where it is, and memory is bounded.
func TestHostileStream(t *testing.T) {
	t.Parallel() // it waits most of its time
	b := newForwardBed(t, bedOptions{
		link: lab.Link{Rate: 200e6, RTT: 10 * time.Millisecond}, fill: 30, dirty: control.Dirty{Rate: 100, Hot: 1000, Sparse: 75, Disk: 5},
	})
	t.Run("forward", b.hostileBytes)
	for _, m := range []mutation{
		{"truncated in memory", 4 << 20, func(b []byte) ([]byte, error) { return b[:len(b)/2], io.ErrUnexpectedEOF }},
		{"truncated in its head", 6, func(b []byte) ([]byte, error) { return nil, io.ErrUnexpectedEOF }},
		{"noise in memory", 4 << 20, func(b []byte) ([]byte, error) { noise(b); return b, nil }},
		{"noise from the version on", 4, func(b []byte) ([]byte, error) { noise(b); return b, nil }},
	} {
		t.Run(m.name, func(t *testing.T) { b.tampered(t, m) })
		if t.Failed() {
			return
		}
	}
	t.Run("orphan", b.orphan)
	t.Run("leg", b.hostileLeg)
	if !t.Failed() {
		b.move(t, gateway.MigrateRequest{})
		b.verify(t)
	}
}

// noise overwrites b.
func noise(b []byte) {
	random := rand.New(rand.NewPCG(uint64(len(b)), 7))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
}

const hostileSize = 16 << 20 // bytes of each stream

// hostileBytes sends what begins like a migration and goes on as anything. The
// far end gets it byte by byte: a forward is no judge.
func (b *bed) hostileBytes(t *testing.T) {
	heads := map[string]string{
		"a section that never ends": "QEVM\x00\x00\x00\x03\x01\x00\x00\x00\x01\xff",
		"a configuration of 4 GiB":  "QEVM\x00\x00\x00\x03\x07\xff\xff\xff\xff",
		"a page of a foreign block": "QEVM\x00\x00\x00\x03\x02\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x08\xff",
		"noise":                     "",
	}
	got := make(chan int64, len(heads)) // one for each
	listen(t, b.lab.B, migrationIn, func(c net.Conn) {
		n, _ := io.Copy(io.Discard, c)
		got <- n
	})
	for name, head := range heads {
		before := b.resident(t)
		c := b.hostileStream(t, head)
		select {
		case n := <-got:
			if n != hostileSize {
				t.Errorf("%s: %d bytes arrived of %d", name, n, hostileSize)
			}
		case <-time.After(settleTime):
			t.Fatalf("%s: the stream does not end at the far site", name)
		}
		c.Close()
		b.idle(t, b.lab.A, "mig-tcp")
		b.cost(t, name, before)
	}
	b.beats(t)
}

// hostileStream sends a whole stream into a forward.
func (b *bed) hostileStream(t *testing.T, head string) net.Conn {
	t.Helper()
	c := dial(t, b.lab.A, migrationOut)
	body := make([]byte, hostileSize)
	noise(body)
	copy(body, head)
	if _, err := c.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	return c
}

// orphan sends a connection that begins like an additional one of a migration
// whose main one never comes. It is held back, and not for ever.
func (b *bed) orphan(t *testing.T) {
	before := b.resident(t)
	c := dial(t, b.lab.A, migrationOut)
	init := make([]byte, 1<<20)
	copy(init, "\x11\x22\x33\x44\x00\x00\x00\x01")
	if _, err := c.Write(init); err != nil {
		t.Fatal(err)
	}
	c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), settleTime)
	defer cancel()
	const why = "no main connection has come within"
	for _, s := range b.sites() {
		poll(t, ctx, func() error { return b.says(s, why) })
	}
	b.idle(t, b.lab.A, "mig-tcp")
	b.cost(t, "a connection without a main one", before)
}

func (b *bed) resident(t *testing.T) (all [2]int64) {
	t.Helper()
	for i, s := range b.sites() {
		n, _, err := b.pair.Process(s).Resident()
		if err != nil {
			t.Fatal(err)
		}
		all[i] = n
	}
	return all
}

// cost checks what a hostile stream has cost the gateways.
func (b *bed) cost(t *testing.T, what string, before [2]int64) {
	t.Helper()
	after := b.resident(t)
	t.Logf("%s: %d and %d MiB, then %d and %d", what, before[0]>>20, before[1]>>20, after[0]>>20, after[1]>>20)
	for i, s := range b.sites() {
		if after[i] > before[i]+hostileMemory {
			t.Errorf("%s cost the gateway of site %s %d MiB", what, s.Name, (after[i]-before[i])>>20)
		}
	}
}

// mutation changes one read of a stream, from an offset on.
type mutation struct {
	name   string
	offset int64
	change func([]byte) ([]byte, error)
}

// tampered migrates by hand through somebody who changes the stream before it
// reaches the gateway. The destination must not come up, and the source goes
// on.
func (b *bed) tampered(t *testing.T, m mutation) {
	ctx, cancel := context.WithTimeout(t.Context(), handTime)
	defer cancel()
	before := b.resident(t)
	out, in := b.ends("mig-tcp")
	path := filepath.Join(b.lab.Dir, "tamper.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.tamper(ln, strings.TrimPrefix(out, "tcp:"), m)
	}()
	defer func() { ln.Close(); <-ended }()
	h := b.begin(t, ctx, handMove{out: "unix:" + path, in: in})
	poll(t, ctx, func() error {
		q, err := h.src.Migration(ctx)
		if err == nil && q.Status != "failed" {
			err = fmt.Errorf("migration is %s", q.Status)
		}
		return err
	})
	poll(t, ctx, func() error {
		runs, err := h.src.Running(ctx)
		if err == nil && !runs {
			err = errors.New("the source does not run")
		}
		return err
	})
	if runs, err := h.to.Running(ctx); err == nil && runs {
		t.Error("the destination runs")
	}
	h.dst.Kill()
	h.src.Close() // a monitor serves one client
	b.executesAt(t, b.at)
	b.idle(t, b.at, "mig-tcp")
	b.beats(t)
	b.verify(t)
	b.cost(t, m.name, before)
}

// tamper carries one connection to an address of the guest's site and back.
func (b *bed) tamper(ln net.Listener, to string, m mutation) {
	from, err := ln.Accept()
	if err != nil {
		return
	}
	defer from.Close()
	c, err := b.at.Dial(context.Background(), "tcp", to)
	if err != nil {
		return
	}
	back := make(chan struct{})
	go func() { io.Copy(from, c); from.Close(); close(back) }()
	buf := make([]byte, 64<<10)
	for at := int64(0); ; {
		size := int64(len(buf))
		if at < m.offset {
			size = min(size, m.offset-at)
		}
		n, err := from.Read(buf[:size])
		part := buf[:n]
		if hit := at >= m.offset && m.change != nil; hit && n > 0 {
			var e error
			part, e = m.change(part)
			err = errors.Join(err, e)
			m.change = nil
		}
		at += int64(n)
		if _, e := c.Write(part); e != nil || err != nil {
			break
		}
	}
	c.Close()
	<-back
}

// hostileLeg connects to the leg of a running move and says things that no QEMU
// says. The move may fail, and then says where and why; the VM is whole.
func (b *bed) hostileLeg(t *testing.T) {
	if err := b.lab.SetLink(lab.Link{Rate: 40e6, RTT: 10 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	defer b.lab.SetLink(lab.Link{Rate: 200e6, RTT: 10 * time.Millisecond})
	before := b.resident(t)
	from := b.at
	id := b.until(t, phase{"moving", func(src, _ gateway.Job) bool {
		return src.State == gateway.JobMoving && src.Progress.LogicalBytes > 4<<20
	}})
	legs, err := filepath.Glob(filepath.Join(from.Dir, "run/leg-*.sock"))
	if err != nil || len(legs) != 1 {
		t.Fatalf("legs %v, %v; want one", legs, err)
	}
	c, err := net.Dial("unix", legs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	body := make([]byte, 1<<20)
	noise(body)
	copy(body, "QEVM\x00\x00\x00\x03\x07\xff\xff\xff\xff")
	c.Write(body) // the gateway may hang up in the middle
	b.settled(t, id)
	j, err := b.pair.API(from).Job(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the move is %s: %s", j.State, j.Error)
	at, _ := b.copies(t)
	b.agreed(t, id, from, at)
	b.at = at
	if j.State != gateway.JobDone && (j.Error == "" || at != from) {
		t.Errorf("the move is %s with error %q, and the VM at site %s", j.State, j.Error, at.Name)
	}
	b.beats(t)
	b.verify(t)
	b.cost(t, "a hostile connection to a leg", before)
}
