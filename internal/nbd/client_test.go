package nbd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// testDisk has runs of text and holes between 1 byte and 300 KiB.
func testDisk(size int) []byte {
	disk := make([]byte, size)
	rng := rand.New(rand.NewPCG(uint64(size), 3))
	for off := 0; off < size; {
		n := min(1+rng.IntN(300<<10), size-off)
		if rng.IntN(2) == 0 {
			for i := range n {
				disk[off+i] = byte(1 + (off+i)%251)
			}
		}
		off += n
	}
	return disk
}

// readAll gives the disk that Next gives from an offset on; before it is zero.
func readAll(ctx context.Context, c *Client, from int64) ([]byte, error) {
	disk := make([]byte, c.Size()+pageSize)
	last := int64(-1)
	for {
		off, data, err := c.Next(ctx, from)
		if err == io.EOF {
			return disk[:c.Size()], nil
		} else if err != nil {
			return disk[:c.Size()], err
		}
		end := off + int64(len(data))
		if off <= last || off%pageSize != 0 || len(data) == 0 || len(data)%pageSize != 0 || end <= from || off >= c.Size() {
			return nil, errors.New("a span is out of order")
		}
		last = off
		copy(disk[off:], data)
		from = end
	}
}

func dial(t *testing.T, s *server) *Client {
	t.Helper()
	c, err := open(t.Context(), s.start(t), s.export)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestServers(t *testing.T) {
	disk := testDisk(10<<20 + 1000)
	for name, s := range map[string]*server{
		"all":              {},
		"plain":            {plain: true},
		"oldest":           {plain: true, oldGo: true, export: "disk"},
		"no contexts":      {noMeta: true},
		"large blocks":     {minBlock: 64 << 10, maxBlock: 64 << 10, disk: disk[:10<<20]},
		"odd maximum":      {minBlock: 512, maxBlock: 100_000, disk: disk[:10<<20]},
		"bytes":            {grain: 1, disk: disk[:1<<20+1]},
		"few extents":      {grain: 300, extents: 1, disk: disk[:1<<20]},
		"any order":        {shuffle: 40},
		"any order, plain": {shuffle: 10, plain: true},
		"extents fail":     {fail: func(command uint16, _ int64) uint32 { return uint32(command / commandBlockStatus * 95) }},
		"empty":            {disk: []byte{}},
		"one byte":         {disk: []byte{1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if s.disk == nil {
				s.disk = disk
			}
			c := dial(t, s)
			if c.Size() != int64(len(s.disk)) {
				t.Fatalf("size %d, want %d", c.Size(), len(s.disk))
			}
			for _, from := range []int64{0, 0, 8192, 5 << 20, c.Size()} { // anew each time
				from = min(from, c.Size()/pageSize*pageSize)
				got, err := readAll(t.Context(), c, from)
				if err != nil {
					t.Fatalf("from %d: %v", from, err)
				}
				if !bytes.Equal(got[from:], s.disk[from:]) {
					t.Errorf("from %d: the disk differs", from)
				}
			}
		})
	}
}

// TestSeekBack asks for something else while reads are under way.
func TestSeekBack(t *testing.T) {
	disk := testDisk(12 << 20)
	c := dial(t, &server{disk: disk, shuffle: 5})
	rng := rand.New(rand.NewPCG(4, 5))
	for range 20 {
		from := rng.Int64N(c.Size()) / pageSize * pageSize
		off, data, err := c.Next(t.Context(), from)
		if err == io.EOF {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, disk[off:off+int64(len(data))]) {
			t.Fatalf("span of %d bytes at %d differs", len(data), off)
		}
	}
}

func TestServerErrors(t *testing.T) {
	disk := testDisk(8 << 20)
	clear(disk[3<<20:][:1<<20])
	for name, s := range map[string]*server{"structured": {}, "plain": {plain: true}, "any order": {shuffle: 9}} {
		s.disk = disk
		s.fail = func(command uint16, off int64) uint32 {
			if command == commandRead && off >= 4<<20 {
				return 5
			}
			return 0
		}
		c := dial(t, s)
		got, err := readAll(t.Context(), c, 0)
		var told *ServerError
		if !errors.As(err, &told) || told.Code != 5 || !strings.Contains(err.Error(), "server says EIO") {
			t.Fatalf("%s: error %v", name, err)
		}
		if !s.plain && told.Message != "no luck??" { // a zero byte and an escape
			t.Errorf("%s: message %q", name, told.Message)
		}
		if !bytes.Equal(got[:4<<20], disk[:4<<20]) {
			t.Errorf("%s: what could be read was not", name)
		}
		if _, _, err := c.Next(t.Context(), 0); !errors.As(err, &told) || !strings.Contains(err.Error(), "of no use after") {
			t.Errorf("%s: then %v", name, err)
		}
	}
}

func TestNoSuchExport(t *testing.T) {
	for name, s := range map[string]*server{
		`opening export "x": server says no such export (no export?[31m x)`:                     {export: "y"},
		`opening export "x": reading size (the server may not have the export): unexpected EOF`: {export: "y", oldGo: true},
	} {
		if _, err := open(t.Context(), s.start(t), "x"); err == nil || err.Error() != name {
			t.Errorf("got  %v\nwant %s", err, name)
		}
	}
}

// TestSilentServer ends ctx while the server is silent: before and in the
// greeting, and when the reads have been sent.
func TestSilentServer(t *testing.T) {
	errEnough := errors.New("enough")
	stream := record(t, &server{disk: testDisk(300 << 10)})
	for _, n := range []int{0, 10, 30, len(stream) - 1} {
		conn := (&quiet{stream: stream[:n]}).start(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(20*time.Millisecond, func() { cancel(errEnough) })
		c, err := open(ctx, conn, "")
		if err == nil {
			_, err = readAll(ctx, c, 0)
		}
		if !errors.Is(err, errEnough) {
			t.Errorf("silent after %d bytes: %v", n, err)
		}
		if c != nil {
			if _, _, err := c.Next(t.Context(), 0); !errors.Is(err, errEnough) {
				t.Errorf("silent after %d bytes, then %v", n, err)
			}
			c.Close()
		}
	}
}

func TestURIs(t *testing.T) {
	for uri, want := range map[string]Target{
		"nbd://host/disk":                    {"tcp", "host:10809", "disk"},
		"nbd://host":                         {"tcp", "host:10809", ""},
		"nbd://host/":                        {"tcp", "host:10809", ""},
		"nbd://[::1]:99//a%20b":              {"tcp", "[::1]:99", "/a b"},
		"nbd://[::1]/x":                      {"tcp", "[::1]:10809", "x"},
		"nbd+unix:///disk?socket=/run/a%20b": {"unix", "/run/a b", "disk"},
		"nbd+unix:///?socket=nbd.sock":       {"unix", "nbd.sock", ""},
		"nbd+unix:///drive-virtio0?socket=x": {"unix", "x", "drive-virtio0"},
		"nbd://192.0.2.1:10810/with%2Fslash": {"tcp", "192.0.2.1:10810", "with/slash"},
	} {
		if got, err := ParseURI(uri); err != nil || got != want {
			t.Errorf("%s: %+v, %v", uri, got, err)
		}
	}
	for uri, want := range map[string]string{
		"nbds://host/disk":                        "nbds: TLS is not supported; want nbd or nbd+unix",
		"nbds+unix:///disk?socket=x":              "nbds+unix: TLS is not supported; want nbd or nbd+unix",
		"nbd:///disk":                             "no host",
		"nbd://host/disk?socket=x":                "a socket goes with nbd+unix",
		"nbd+unix:///disk":                        "no parameter socket",
		"nbd+unix://host/disk?socket=x":           `host "host" with a socket; want three slashes after the scheme`,
		"nbd://host/disk?tls-type=x509":           `parameter "tls-type" is not known`,
		"nbd://user@host/disk":                    "an address of NBD has no user, no fragment, and // after its scheme",
		"nbd://host/disk#1":                       "an address of NBD has no user, no fragment, and // after its scheme",
		"nbd+vsock://1/disk":                      `scheme "nbd+vsock" is not known; want nbd or nbd+unix`,
		"nbd://host/" + strings.Repeat("x", 4097): "name of an export of 4097 bytes; want at most 4096",
	} {
		if _, err := ParseURI(uri); err == nil || err.Error() != want {
			t.Errorf("%.40s: got %v, want %s", uri, err, want)
		}
	}
}
