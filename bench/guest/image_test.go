package guest

import (
	"bytes"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCPIO: cpio(1)'s own format, to the byte for one small file.
func TestCPIO(t *testing.T) {
	var c cpio
	c.file("a", 0o644, []byte("hi"))
	got := string(c.end())
	want := "070701" + "00000001" + "000081A4" + "00000000" + "00000000" + "00000001" + "00000000" + "00000002" +
		"00000000" + "00000000" + "00000000" + "00000000" + "00000002" + "00000000" + "a\x00" + "hi\x00\x00"
	if !strings.HasPrefix(got, want) || !strings.Contains(got[len(want):], "TRAILER!!!\x00") || len(got)%4 != 0 {
		t.Errorf("%q, want %q and a trailer", got, want)
	}
}

func TestMemory(t *testing.T) {
	tests := []struct {
		o    Options
		want string
	}{
		{Options{}, "262152k"},
		{Options{Accel: "kvm"}, "262144k"},
		{Options{Memory: 512 << 20}, "524296k"},
		{Options{Memory: 256<<20 + 8<<10}, "262152k"},
		{Options{Memory: 100<<20 + 5000}, "102408k"},
	}
	for _, tt := range tests {
		args := Command(tt.o)
		if i := slices.Index(args, "-m"); args[i+1] != tt.want {
			t.Errorf("%d bytes, %q: -m %s, want %s", tt.o.Memory, tt.o.Accel, args[i+1], tt.want)
		}
	}
}

func TestCommand(t *testing.T) {
	o := Options{Name: "vm1", Image: Image{"/k", "/i"}, QMP: "/q", Console: "/c", Disk: "/d", IP: netip.MustParsePrefix("10.77.0.10/24"), MTU: 1450, Rate: 5, UUID: "u"}
	line := strings.Join(IncomingCommand(o), " ")
	for _, want := range []string{"lh.ip=10.77.0.10/24", "lh.mtu=1450", "lh.rate=5", "lh.seed=1", "ifname=vm1", "locking=off,filename=/d", "-incoming defer -S",
		"-accel tcg,thread=multi,tb-size=64", "unix:/q,server=on,wait=off", "mac=52:54:00:"} {
		if !strings.Contains(line, want) {
			t.Errorf("%q is not in %s", want, line)
		}
	}
	if a, b := (Options{Name: "vm1"}).HardwareAddr(), (Options{Name: "vm2"}).HardwareAddr(); a == b {
		t.Errorf("two guests have the address %s", a)
	}
}

// TestModuleOrder: every module comes after those that it depends on.
func TestModuleOrder(t *testing.T) {
	needQEMU(t)
	img, err := Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	order, err := moduleOrder(filepath.Dir(img.Kernel), "virtio_pci", "virtio_net", "virtio_blk")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range order {
		needs, err := depends(m.elf)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range needs {
			if !slices.Contains(names, n) {
				t.Errorf("%s needs %s, which comes later", m.path, n)
			}
		}
		names = append(names, moduleName(m.path))
	}
	if !slices.Contains(names, "net_failover") || !slices.Contains(names, "virtio_blk") {
		t.Errorf("modules %v", names)
	}
	if _, err := depends([]byte("no module")); err == nil {
		t.Error("any bytes are a module")
	}
	if _, err := moduleOrder(t.TempDir(), "virtio_pci"); err == nil {
		t.Error("a missing module is loaded")
	}
}

// TestSources: the embedded sources are a whole program, made of the standard
// library and each other.
func TestSources(t *testing.T) {
	dir := t.TempDir()
	if err := unpackSources(dir); err != nil {
		t.Fatal(err)
	}
	tool, err := findGo()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool, "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./bench/guest/workload")
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "GOOS=linux")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for line := range bytes.Lines(out) {
		if !bytes.HasPrefix(line, []byte(sourceModule+"/bench/guest/")) {
			t.Errorf("the workload needs %s", line)
		}
	}
}
