package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// readAll gives the disk of an image without a backing file, and the spans
// that it is made of.
func readAll(file []byte, limit int64) ([]byte, string, error) {
	src, size := bytes.NewReader(file), int64(len(file))
	h, err := ReadHeader(src, size)
	if err != nil {
		return nil, "", err
	}
	u := new(Unpacker)
	defer u.Close()
	r := NewReader(src, size, h, u)
	var disk []byte
	var spans strings.Builder
	for off := int64(0); off < min(h.Size, limit); {
		e, err := r.Extent(off)
		if err != nil {
			return disk, spans.String(), err
		}
		if e.Start != off || e.End <= off || e.End > h.Size {
			return nil, "", fmt.Errorf("extent %+v at %d of %d", e, off, h.Size)
		}
		n := min(e.End, limit) - off
		disk = append(disk, make([]byte, n)...)
		if e.Kind == Data {
			if err := r.Read(disk[off:], off); err != nil {
				return disk, spans.String(), err
			}
		}
		fmt.Fprintf(&spans, "%d-%d %s\n", e.Start, e.End, [...]string{"absent", "zero", "data"}[e.Kind])
		off += n
	}
	return disk, spans.String(), nil
}

// expected is the disk that makeSeeds puts into the images.
func expected(name string) []byte {
	disk := make([]byte, 200<<10)
	copy(disk[3000:], strings.Repeat("text that compresses well\n", 1000))
	copy(disk[100<<10:], strings.Repeat("and other text\n", 2000))
	switch name {
	case "extended":
		clear(disk[112<<10:][:512])
		clear(disk[65<<10:][:1024])
	case "zero":
		clear(disk[8<<10:][:12<<10])
	case "overlay": // 4k to 8k are copied up, the rest is the backing file's
		clear(disk[:4<<10])
		clear(disk[8<<10:])
		copy(disk[5<<10:], bytes.Repeat([]byte{1}, 1024))
	case "snapshot":
		copy(disk[4<<10:], bytes.Repeat([]byte{2}, 9<<10))
	}
	return disk
}

func TestSeeds(t *testing.T) {
	if *update {
		makeSeeds(t)
	}
	for name, file := range seeds(t) {
		got, spans, err := readAll(file, 1<<20)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if want := expected(name); !bytes.Equal(got, want) {
			t.Errorf("%s: the disk differs; spans:\n%s", name, spans)
		}
	}
}

func TestExtents(t *testing.T) {
	all := seeds(t)
	for name, want := range map[string]string{
		"v3":      "0-32768 data\n32768-102400 absent\n102400-135168 data\n135168-204800 absent\n",
		"overlay": "0-4096 absent\n4096-8192 data\n8192-204800 absent\n",
		"zero":    "0-8192 data\n8192-20480 zero\n20480-32768 data\n32768-102400 absent\n102400-135168 data\n135168-204800 absent\n",
	} {
		if _, got, _ := readAll(all[name], 1<<20); got != want {
			t.Errorf("%s: spans\n%swant\n%s", name, got, want)
		}
	}
}

func TestBacking(t *testing.T) {
	file := seeds(t)["overlay"]
	h, err := ReadHeader(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	if b := h.Backing; b.Name != "disk.raw" || b.Format != "raw" || string(file[b.Offset:][:8]) != "disk.raw" {
		t.Errorf("backing %+v", b)
	}
}

// put writes v at an offset, in as many bytes as its type has.
func put[T uint8 | uint32 | uint64](b []byte, off int, v T) []byte {
	b = bytes.Clone(b)
	if _, err := binary.Encode(b[off:], binary.BigEndian, v); err != nil {
		panic(err)
	}
	return b
}

func TestHostileHeaders(t *testing.T) {
	all := seeds(t)
	v2, v3, overlay := all["v2"], all["v3"], all["overlay"]
	named := all["deflate-64"] // images with small clusters bring no names of features
	names := bytes.Index(named, []byte{0x68, 0x03, 0xf8, 0x57}) + 8
	for _, c := range []struct {
		file []byte
		want string
	}{
		{nil, "byte 0: no qcow2 magic"},
		{put(v3, 0, uint8(0)), "byte 0: no qcow2 magic"},
		{v2[:60], "byte 60: file ends in the header"},
		{v3[:80], "byte 80: file ends in the header"},
		{put(v3, 4, uint32(1)), "byte 4: version 1; want 2 or 3"},
		{put(v3, 4, uint32(4)), "byte 4: version 4; want 2 or 3"},
		{put(v3, 20, uint32(8)), "byte 20: clusters of 2^8 bytes; want 2^9 to 2^21"},
		{put(v3, 20, uint32(22)), "byte 20: clusters of 2^22 bytes; want 2^9 to 2^21"},
		{put(v3, 20, uint32(1<<32-1)), "byte 20: clusters of 2^4294967295 bytes; want 2^9 to 2^21"},
		{put(v3, 32, uint32(2)), "byte 32: the image is encrypted (LUKS)"},
		{put(v3, 32, uint32(7)), "byte 32: the image is encrypted (method 7)"},
		{put(v3, 24, uint64(1<<63)), "byte 24: disk of 9223372036854775808 bytes"},
		{put(v3, 24, uint64(1<<50)), "byte 24: disk of 1125899906842624 bytes, more than the L1 table of 33554432 bytes that QEMU allows can map"},
		{put(v3, 24, uint64(1<<30)), "byte 36: L1 table of 1 entries; a disk of 1073741824 bytes needs 512"},
		{put(v3, 36, uint32(0)), "byte 36: L1 table of 0 entries; a disk of 204800 bytes needs 1"},
		{put(v3, 40, uint64(12289)), "byte 40: L1 table at byte 12289, which is no multiple of 4096"},
		{put(v3, 40, uint64(1<<64-4096)), "byte 40: L1 table of 8 bytes at byte 18446744073709547520 reaches behind the end of the file at 86016"},
		{put(v3, 79, uint8(4)), "byte 72: incompatible feature 2 (external data file) is not supported"},
		{put(v3, 79, uint8(32)), "byte 72: incompatible feature 5 (no name) is not known"},
		{put(put(named, 72, uint8(128)), names+1, uint8(63)), `byte 72: incompatible feature 63 ("dirty bit") is not known`},
		{put(v3, 79, uint8(16)), "byte 20: extended L2 entries with clusters of 2^12 bytes; want at least 2^14"},
		{put(v3, 100, uint32(1<<32-8)), "byte 100: header of 4294967288 bytes; want a multiple of 8 from 104 to 4096"},
		{put(v3, 100, uint32(96)), "byte 100: header of 96 bytes; want a multiple of 8 from 104 to 4096"},
		{put(v3, 104, uint8(2)), "byte 104: compression type 2 is not known"},
		{put(v3, 104, uint8(1)), "byte 104: compression type 1 does not agree with incompatible feature 3"},
		{put(v3, 79, uint8(8)), "byte 104: compression type 0 does not agree with incompatible feature 3"},
		{put(named, names-4, uint32(1<<32-1)), "byte 112: header extension 0x6803f857 of 4294967295 bytes reaches behind byte 65536"},
		{put(overlay, 16, uint32(1024)), "byte 16: name of a backing file of 1024 bytes; want at most 1023"},
		{put(overlay, 8, uint64(4096)), "byte 8: name of a backing file at byte 4096, outside of the first 4096"},
		{put(overlay, 8, uint64(1<<64-1)), "byte 8: name of a backing file at byte 18446744073709551615, outside of the first 4096"},
	} {
		if _, _, err := readAll(c.file, 1<<20); err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

// l2Offset is where the first L2 table of an image is.
func l2Offset(file []byte) int {
	return int(binary.BigEndian.Uint64(file[binary.BigEndian.Uint64(file[40:]):]) & offsetMask)
}

// firstPacked is where the first compressed cluster of an image with clusters of 4 KiB is.
func firstPacked(file []byte) int {
	return int(binary.BigEndian.Uint64(file[l2Offset(file):]) & (1<<58 - 1))
}

func TestHostileTables(t *testing.T) {
	all := seeds(t)
	v2, v3, deflate, zstd, extended := all["v2"], all["v3"], all["deflate"], all["zstd"], all["extended"]
	l1 := int(binary.BigEndian.Uint64(v3[40:]))
	l2, x := l2Offset(v3), l2Offset(extended)
	for _, c := range []struct {
		file []byte
		at   int
		want string
	}{
		{put(v3, l1, uint64(512)), l1, "L2 table at byte 512 of 86016, in clusters of 4096"},
		{put(v3, l1, uint64(len(v3))), l1, "L2 table at byte 86016 of 86016, in clusters of 4096"},
		{put(v3, l2, uint64(512)), l2, "cluster at byte 512, which is no multiple of 4096"},
		{put(v3, l2, uint64(1<<55)), l2, "cluster at byte 36028797018963968 of 86016"},
		{put(v3, l2, uint64(1<<62)), l2, "compressed cluster at byte 0 of 86016"},
		{put(v3, l2, uint64(1<<62+len(v3))), l2, "compressed cluster at byte 86016 of 86016"},
		{put(v2, l2Offset(v2)+47, uint8(1)), l2Offset(v2) + 40, "zero cluster in an image of version 2"},
		{put(extended, x+8, uint64(1<<35+1<<3)), x + 8, "subcluster 3 is both data and zero"},
		{put(deflate, firstPacked(deflate), uint8(255)), firstPacked(deflate), "compressed cluster of at most 512 bytes: " +
			"after 0 of 4096 bytes: flate: corrupt input before offset 1"},
		{put(zstd, firstPacked(zstd), uint8(255)), firstPacked(zstd), "compressed cluster of at most 512 bytes: " +
			"after 0 of 4096 bytes: invalid input: magic number mismatch"},
	} {
		want := fmt.Sprintf("byte %d: %s", c.at, c.want)
		if _, _, err := readAll(c.file, 1<<20); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

// TestTruncated cuts images off everywhere. Without an error each byte is what
// it was, or zero: what a cluster has behind the end of the file is.
func TestTruncated(t *testing.T) {
	for name, file := range seeds(t) {
		want := expected(name)
		for n := 0; n < len(file); n += max(1, len(file)/400) {
			got, _, err := readAll(file[:n], 1<<20)
			if err != nil {
				continue
			}
			for i := range got {
				if got[i] != want[i] && got[i] != 0 {
					t.Fatalf("%s cut at %d of %d: byte %d is %d, was %d", name, n, len(file), i, got[i], want[i])
				}
			}
		}
	}
}

// TestMapBomb points every entry of an image at the same table and cluster: a
// file of 64 KiB claims exabytes. It must be refused after little work.
func TestMapBomb(t *testing.T) {
	const cluster = 64 << 10
	for name, entry := range map[string]uint64{"data": 3 * cluster, "zero": 1, "absent": 0} {
		file := bytes.Clone(seeds(t)["deflate-64"][:112])
		file = append(file, make([]byte, 4*cluster-len(file))...)
		l1 := int64(cluster / 8)
		binary.BigEndian.PutUint64(file[24:], uint64(l1*(cluster/8)*cluster))
		binary.BigEndian.PutUint32(file[36:], uint32(l1))
		binary.BigEndian.PutUint64(file[40:], cluster)
		for i := range cluster / 8 {
			binary.BigEndian.PutUint64(file[cluster+i*8:], 2*cluster)
			binary.BigEndian.PutUint64(file[2*cluster+i*8:], entry)
		}
		src := &counter{Reader: bytes.NewReader(file)}
		h, err := ReadHeader(src, int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		r := NewReader(src, int64(len(file)), h, new(Unpacker))
		for off := int64(0); err == nil && off < h.Size; {
			var e Extent
			e, err = r.Extent(off)
			off = e.End
		}
		if err == nil || !strings.Contains(err.Error(), "the tables map more than 64 times the 262144 bytes of the file") {
			t.Errorf("%s: error %v", name, err)
		}
		if src.n > 100<<20 {
			t.Errorf("%s: read %d bytes before", name, src.n)
		}
	}
}

type counter struct {
	*bytes.Reader
	n int
}

func (c *counter) ReadAt(p []byte, off int64) (int, error) {
	c.n += len(p)
	return c.Reader.ReadAt(p, off)
}

// broken fails to read from an offset on.
type broken struct {
	*bytes.Reader
	from int64
}

var errDisk = errors.New("medium error")

func (f broken) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.from {
		return int(max(0, f.from-off)), errDisk
	}
	return f.Reader.ReadAt(p, off)
}

func TestReadErrors(t *testing.T) {
	for name, file := range seeds(t) {
		for from := int64(4096); from < int64(len(file)); from += 4096 {
			src := broken{bytes.NewReader(file), from}
			h, err := ReadHeader(src, int64(len(file)))
			if err != nil {
				continue // of these files, the header's read takes all
			}
			r := NewReader(src, int64(len(file)), h, new(Unpacker))
			for off := int64(0); off < h.Size && err == nil; {
				var e Extent
				if e, err = r.Extent(off); err == nil && e.Kind == Data {
					err = r.Read(make([]byte, e.End-off), off)
				}
				off = e.End
			}
			if err != nil && !errors.Is(err, errDisk) {
				t.Errorf("%s broken from %d: %v", name, from, err)
			}
		}
	}
}
