package nstest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

func check(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// TestTwoSitesTalk joins two namespaces and sends a datagram across.
func TestTwoSitesTalk(t *testing.T) {
	a, b := New(t), New(t)
	check(t, Veth(a, "eth0", b, "eth0"), a.Addr("eth0", "10.9.0.1/24"), b.Addr("eth0", "10.9.0.2/24"))
	var in net.PacketConn
	check(t, b.Do(func() (err error) { in, err = net.ListenPacket("udp", "10.9.0.2:7"); return err }))
	defer in.Close()
	check(t, a.Do(func() error {
		out, err := net.Dial("udp", "10.9.0.2:7")
		if err != nil {
			return err
		}
		defer out.Close()
		_, err = out.Write([]byte("hello"))
		return err
	}))
	buf := make([]byte, 16)
	in.SetReadDeadline(time.Now().Add(time.Minute))
	k, from, err := in.ReadFrom(buf)
	if err != nil || string(buf[:k]) != "hello" || !strings.HasPrefix(from.String(), "10.9.0.1:") {
		t.Errorf("got %q from %v, %v", buf[:k], from, err)
	}
}

// TestDoComesHome checks that a thread is back in its namespace after Do.
func TestDoComesHome(t *testing.T) {
	n := New(t)
	before, err := netns.Get()
	check(t, err)
	defer before.Close()
	want := errors.New("from f")
	if err := n.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("Do answered %v", err)
	}
	after, err := netns.Get()
	check(t, err)
	defer after.Close()
	if !before.Equal(after) {
		t.Error("the thread is still in the namespace")
	}
}

// TestNamed checks that a named namespace can be found, and is gone after Close.
func TestNamed(t *testing.T) {
	NeedRoot(t)
	name := fmt.Sprintf("lh-nstest-%d", os.Getpid())
	n, err := Create(name)
	check(t, err)
	t.Cleanup(func() { n.Close() }) // also when the test ends early
	if _, err := os.Stat(n.Path()); err != nil {
		t.Error(err)
	}
	again, err := Open(name)
	check(t, err)
	check(t, again.Bridge("d0"))
	if d, err := n.Dump(); err != nil || !strings.Contains(d, "link d0 bridge") {
		t.Errorf("dump %q, %v", d, err)
	}
	check(t, again.Close(), n.Close(), n.Close(), Remove(name))
	if _, err := os.Stat("/run/netns/" + name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the name is still there: %v", err)
	}
	if _, err := Create("../x"); err == nil {
		t.Error("a name with a slash was taken")
	}
}

// TestDump checks that a dump shows a change and is stable without one.
func TestDump(t *testing.T) {
	n := New(t)
	check(t, Veth(n, "d0", n, "d1"), n.Bridge("br0", "d0"), n.SetMAC("d0", "02:00:00:00:00:01"))
	one, err := n.Dump()
	check(t, err)
	two, err := n.Dump()
	check(t, err)
	if one != two {
		t.Errorf("two dumps differ:\n%s\n%s", one, two)
	}
	check(t, n.SetMTU("d0", 1400))
	three, err := n.Dump()
	check(t, err)
	if three == two {
		t.Error("the dump does not show a changed MTU")
	}
	check(t, n.Plug("d0", ""), n.Down("d0"), n.Del("br0"), n.Del("d0"))
}

// TestTapAndSysctl reads a frame from a TAP and sets a sysctl of the namespace.
func TestTapAndSysctl(t *testing.T) {
	n := New(t)
	f, err := n.Tap("tap0")
	check(t, err)
	defer f.Close()
	check(t, n.Addr("tap0", "10.9.1.1/24"), n.Neighbour("tap0", "10.9.1.2", "02:00:00:00:00:02"),
		n.Route("10.8.0.0/16", "10.9.1.2"), n.Sysctl("ipv4.ip_forward", "1"))
	check(t, n.Do(func() error {
		c, err := net.Dial("udp", "10.8.0.1:9")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("x"))
		return err
	}))
	f.SetReadDeadline(time.Now().Add(time.Minute))
	for b := make([]byte, 2048); ; {
		k, err := f.Read(b)
		check(t, err)
		if k > 14 && b[12] == 8 && b[13] == 0 {
			break // IPv4: our datagram; before it the kernel may send IPv6 of its own
		}
	}
}
