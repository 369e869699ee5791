package launch

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const qemu = "/usr/bin/qemu-system-x86_64"

// added is what every rewritten line ends with.
const added = "-qmp unix:/run/longhaul/h/t/qmp,server=on,wait=off -incoming defer -S"

func options(taken ...string) Options {
	return Options{
		Name: "db1", QMP: "/run/longhaul/h/t/qmp", Dir: "/run/longhaul/h/t",
		Exists: func(p string) bool { return slices.Contains(taken, p) },
	}
}

func TestRewrite(t *testing.T) {
	for _, c := range []struct {
		name, in, want string
	}{
		{"plain", "-name db1 -m 1G -nodefaults", "-name db1 -m 1G -nodefaults"},
		{"names the nameless", "-m 1G", "-m 1G -name guest=db1"},
		{"monitor", "-name db1 -qmp unix:/run/vm/db1.sock,server=on,wait=off -m 1G", "-name db1 -m 1G"},
		{"several monitors", "-name db1 -qmp tcp::4444,server -qmp-pretty unix:/x,server -m 1G", "-name db1 -m 1G"},
		{
			"monitor with its chardev", "-name db1 -chardev socket,id=qmp,path=/run/vm/q,server=on,wait=off -mon chardev=qmp,mode=control -m 1G",
			"-name db1 -m 1G",
		},
		{
			"monitor by first word", "-name db1 -chardev socket,path=/run/vm/q,id=qmp,server -mon qmp,mode=control -m 1G",
			"-name db1 -m 1G",
		},
		{
			"human monitor stays", "-name db1 -chardev stdio,id=hmp -mon chardev=hmp,mode=readline",
			"-name db1 -chardev stdio,id=hmp -mon chardev=hmp,mode=readline",
		},
		{"of the process", "-name db1 -daemonize -pidfile /run/x.pid -S -incoming tcp:0:4444 -loadvm x --preconfig -m 1G", "-name db1 -m 1G"},
		{"two dashes", "--name db1 --incoming defer --daemonize -m 1G", "--name db1 -m 1G"},
		{"a value that looks like an option", "-name db1 -append -S -kernel -incoming", "-name db1 -append -S -kernel -incoming"},
		{"an image alone", "-name db1 disk.img", "-name db1 disk.img"},
		{"a socket in its place", "-name db1 -serial unix:/run/vm/tty,server=on,wait=off", "-name db1 -serial unix:/run/vm/tty,server=on,wait=off"},
		{"a socket whose place is taken", "-name db1 -serial unix:/taken/tty,server=on,wait=off", "-name db1 -serial unix:/run/longhaul/h/t/tty,server=on,wait=off"},
		{"a client's socket", "-name db1 -chardev socket,id=c,path=/taken/swtpm", "-name db1 -chardev socket,id=c,path=/taken/swtpm"},
		{"server=off", "-name db1 -chardev socket,id=c,path=/taken/swtpm,server=off", "-name db1 -chardev socket,id=c,path=/taken/swtpm,server=off"},
		{"a chardev that listens", "-name db1 -chardev socket,id=c,path=/taken/c,,1,server,wait=off", "-name db1 -chardev socket,id=c,path=/run/longhaul/h/t/c,,1,server,wait=off"},
		{"vnc", "-name db1 -vnc unix:/taken/vnc,password=on", "-name db1 -vnc unix:/run/longhaul/h/t/vnc,password=on"},
		{"taps keep their names", "-name db1 -netdev tap,id=n,ifname=tap0,script=no,downscript=no", "-name db1 -netdev tap,id=n,ifname=tap0,script=no,downscript=no"},
		{"what came by itself", "-name db1 " + added, "-name db1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Rewrite(append([]string{qemu}, strings.Fields(c.in)...), options("/taken/tty", "/taken/c,1", "/taken/swtpm", "/taken/vnc"))
			if err != nil {
				t.Fatal(err)
			}
			want := append([]string{qemu}, strings.Fields(c.want+" "+added)...)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			again, err := Rewrite(got, options())
			if diff := cmp.Diff(got, again); err != nil || diff != "" {
				t.Errorf("once more: error %v, -want +got\n%s", err, diff)
			}
		})
	}
}

func TestRewriteRefuses(t *testing.T) {
	long := strings.Repeat("x", maxWordSize+1)
	for _, c := range []struct {
		name string
		args []string
	}{
		{"nothing", nil},
		{"another program", []string{"/bin/sh", "-c", "x"}},
		{"a relative program", []string{"qemu-system-x86_64", "-m", "1G"}},
		{"a way around", []string{"/usr/bin/../../tmp/qemu-system-x86_64"}},
		{"a folder more", []string{"/usr/bin/qemu-system-x/evil"}},
		{"a way around within the pattern", []string{"/usr/bin/qemu-system-x/../evil"}},
		{"descriptors", []string{qemu, "-netdev", "tap,id=n,fd=33,vhost=on"}},
		{"descriptors of libvirt's monitor", []string{qemu, "-chardev", "socket,id=charmonitor,fd=22,server=on"}},
		{"scripts", []string{qemu, "-netdev", "tap,id=n,script=/tmp/x"}},
		{"helpers", []string{qemu, "-nic", "bridge,helper=/tmp/x"}},
		{"another user", []string{qemu, "-runas", "root"}},
		{"a config", []string{qemu, "--readconfig", "/tmp/x"}},
		{"plugins", []string{qemu, "-plugin", "/tmp/x.so"}},
		{"no value", []string{qemu, "-m"}},
		{"a long word", []string{qemu, "-append", long}},
		{"many words", make([]string, maxWords+1)},
		{"a zero", []string{qemu, "-append", "a\x00b"}},
	} {
		if got, err := Rewrite(c.args, options()); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %.200q, error %v", c.name, got, err)
		}
	}
}

func TestRewritePermits(t *testing.T) {
	o := options()
	o.Emulators = []string{"/opt/qemu/*/qemu-kvm"}
	if _, err := Rewrite([]string{"/opt/qemu/9.2/qemu-kvm"}, o); err != nil {
		t.Error(err)
	}
	if _, err := Rewrite([]string{qemu}, o); !errors.Is(err, ErrRefused) {
		t.Errorf("%s: error %v", qemu, err)
	}
}

// FuzzRewrite: what has been rewritten does not change when it is once more,
// and never keeps an -incoming of its source.
func FuzzRewrite(f *testing.F) {
	f.Add("-name guest=db1,debug-threads=on -machine q35,accel=kvm -m 262152k -qmp unix:/run/vm/db1.sock,server=on,wait=off -S")
	f.Add("-chardev socket,id=q,path=/r/q,server=on -mon chardev=q,mode=control -netdev tap,id=n,ifname=tap0,script=no -device virtio-net-pci,netdev=n")
	f.Add("-serial unix:/run/a,,b,server -vnc unix:/x disk.img -incoming defer --S -append --S")
	f.Add("-chardev socket,path=/run/longhaul/h/t/qmp,server=on,id=x -mon x")
	f.Fuzz(func(t *testing.T, line string) {
		o := options()
		o.Exists = func(p string) bool { return len(p)%2 == 1 }
		got, err := Rewrite(append([]string{qemu}, strings.Fields(line)...), o)
		if err != nil {
			return
		}
		o.Exists = func(string) bool { return false }
		again, err := Rewrite(got, o)
		if err != nil || !slices.Equal(got, again) {
			t.Errorf("%q becomes %q and then %q, error %v", line, got, again, err)
		}
		parsed, err := parse(got)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, opt := range parsed {
			if slices.Contains(ofProcess(), opt.name) {
				n++
			}
		}
		if n != 3 {
			t.Errorf("%q becomes %q", line, got)
		}
	})
}
