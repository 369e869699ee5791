package launch

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// ErrRefused: a command line asks for what the host does not permit, or for
// what cannot be had in another process.
var ErrRefused = errors.New("command line refused")

// DefaultEmulators returns the programs that Rewrite permits by default.
func DefaultEmulators() []string {
	return []string{"/usr/bin/qemu-system-*", "/usr/local/bin/qemu-system-*", "/usr/libexec/qemu-kvm"}
}

// Options of Rewrite.
type Options struct {
	Name      string   // of the VM, for a command line that names none
	QMP       string   // socket of the new process's monitor
	Dir       string   // for sockets that cannot be where they were
	Emulators []string // patterns of path.Match; empty means DefaultEmulators

	// Exists tells whether a path is taken at this host. Nil asks the file system.
	Exists func(path string) bool
}

// Limits of a command line that comes from another site: QEMU's own are those
// of the kernel, and what libvirt writes for the largest VMs is 64 KiB long.
const (
	maxWords    = 4096
	maxWordSize = 128 << 10 // MAX_ARG_STRLEN of Linux
	maxSize     = 1 << 20
)

// An option is one option of a command line with its value.
type option struct {
	name   string // without dashes; empty for a disk image that stands alone
	words  []string
	hasArg bool
}

// value is the option's argument.
func (o option) value() string {
	if !o.hasArg {
		return ""
	}
	return o.words[len(o.words)-1]
}

// Rewrite makes the command line of a destination from that of its source. A
// line that has been rewritten comes out the same again, but for paths.
func Rewrite(args []string, o Options) ([]string, error) {
	options, err := parse(args)
	if err != nil {
		return nil, err
	}
	if err := permitted(args[0], o.Emulators); err != nil {
		return nil, err
	}
	if o.Exists == nil {
		o.Exists = func(p string) bool {
			_, err := os.Lstat(p)
			return err == nil
		}
	}
	options, err = o.keep(options)
	if err != nil {
		return nil, err
	}
	out := []string{args[0]}
	named := false
	for _, opt := range options {
		named = named || opt.name == "name"
		out = append(out, opt.words...)
	}
	if !named {
		out = append(out, "-name", "guest="+escape(o.Name))
	}
	return append(out, "-qmp", "unix:"+escape(o.QMP)+",server=on,wait=off", "-incoming", "defer", "-S"), nil
}

// permitted checks the program.
func permitted(program string, patterns []string) error {
	if len(patterns) == 0 {
		patterns = DefaultEmulators()
	}
	for _, p := range patterns {
		if ok, err := path.Match(p, program); err != nil {
			return fmt.Errorf("pattern %q of permitted emulators: %w", p, err)
		} else if ok && path.Clean(program) == program {
			return nil
		}
	}
	return fmt.Errorf("%w: program %q is not one of %q", ErrRefused, program, patterns)
}

// parse cuts a command line into options, as QEMU's main loop over argv does
// (softmmu/vl.c, lookup_opt): an option takes the next word whatever it is.
func parse(args []string) ([]option, error) {
	if len(args) == 0 || len(args) > maxWords {
		return nil, fmt.Errorf("%w: it has %d words", ErrRefused, len(args))
	}
	size := 0
	for _, w := range args {
		size += len(w) + 1
		if len(w) > maxWordSize || size > maxSize || strings.ContainsRune(w, 0) {
			return nil, fmt.Errorf("%w: it is too long", ErrRefused)
		}
	}
	var options []option
	for i := 1; i < len(args); i++ {
		w := args[i]
		if !strings.HasPrefix(w, "-") || w == "-" {
			options = append(options, option{words: []string{w}})
			continue
		}
		opt := option{name: strings.TrimPrefix(strings.TrimPrefix(w, "-"), "-"), words: []string{w}}
		if !slices.Contains(flags(), opt.name) {
			if i++; i == len(args) {
				return nil, fmt.Errorf("%w: %s lacks its value", ErrRefused, w)
			}
			opt.words, opt.hasArg = append(opt.words, args[i]), true
		}
		options = append(options, opt)
	}
	return options, nil
}

// flags returns QEMU's options without value (qemu-options.def, 6.2 to 11.1).
func flags() []string {
	return []string{
		"h", "help", "version", "S", "s", "daemonize", "snapshot", "nodefaults", "no-user-config", "nographic",
		"full-screen", "no-reboot", "no-shutdown", "no-acpi", "no-hpet", "no-fd-bootchk", "win2k-hack", "enable-kvm",
		"mem-prealloc", "singlestep", "one-insn-per-tb", "preconfig", "portrait", "alt-grab", "ctrl-grab", "no-quit",
		"usb", "only-migratable", "enable-fips", "semihosting", "old-param", "no-frame", "xen-attach",
		"xen-domid-restrict", "enable-sync-profile", "no-kvm", "no-kvm-irqchip", "no-kvm-pit", "no-kvm-pit-reinjection",
	}
}

// ofProcess names options that belong to the process and not to the guest: they go.
func ofProcess() []string {
	return []string{"S", "incoming", "daemonize", "pidfile", "loadvm", "qmp", "qmp-pretty", "preconfig"}
}

// forbidden names options that would run another program or change who we are.
func forbidden() []string {
	return []string{"runas", "run-with", "chroot", "readconfig", "writeconfig", "plugin", "add-fd", "h", "help", "version"}
}

// keep returns the options that the destination gets.
func (o Options) keep(options []option) ([]option, error) {
	monitors := controlMonitors(options)
	var kept []option
	for _, opt := range options {
		switch {
		case slices.Contains(ofProcess(), opt.name):
			continue
		case slices.Contains(forbidden(), opt.name):
			return nil, fmt.Errorf("%w: -%s", ErrRefused, opt.name)
		case opt.name == "mon" && slices.Contains(monitors, chardevOf(opt)):
			continue
		case opt.name == "chardev" && slices.Contains(monitors, field(opt.value(), "id")):
			continue
		}
		if err := refusable(opt); err != nil {
			return nil, err
		}
		kept = append(kept, o.relocate(opt))
	}
	return kept, nil
}

// controlMonitors returns the ids of the chardevs that only serve a QMP
// monitor: they go with it, as we bring our own.
func controlMonitors(options []option) []string {
	var ids, others []string
	for _, opt := range options {
		if opt.name != "mon" {
			continue
		}
		if field(opt.value(), "mode") == "control" {
			ids = append(ids, chardevOf(opt))
		} else {
			others = append(others, chardevOf(opt))
		}
	}
	return slices.DeleteFunc(ids, func(id string) bool { return slices.Contains(others, id) })
}

// chardevOf is the chardev of a -mon, which may be its first word.
func chardevOf(opt option) string {
	if id := field(opt.value(), "chardev"); id != "" {
		return id
	}
	first := split(opt.value())[0]
	if strings.Contains(first, "=") {
		return ""
	}
	return first
}

// refusable finds what cannot or may not be started.
func refusable(opt option) error {
	for _, key := range []string{"fd", "fds", "vhostfd", "vhostfds", "sock-fd"} {
		if v := field(opt.value(), key); v != "" {
			return fmt.Errorf("%w: -%s has %s=%s, a descriptor that only its parent has; use a template, or libvirt's own migration through a forward", ErrRefused, opt.name, key, v)
		}
	}
	if opt.name == "netdev" || opt.name == "nic" || opt.name == "net" {
		for _, key := range []string{"script", "downscript", "helper"} {
			if v := field(opt.value(), key); v != "" && v != "no" {
				return fmt.Errorf("%w: -%s runs %s=%s; the host's own hooks do that", ErrRefused, opt.name, key, v)
			}
		}
	}
	return nil
}

// relocate moves the unix sockets on which the process listens to Dir, if
// their place is taken: the source may be a neighbour, and QEMU would take its
// sockets away from it. Names stay as they are, so that they do not grow.
func (o Options) relocate(opt option) option {
	v := opt.value()
	move := func(p string) string {
		if !o.Exists(p) {
			return p
		}
		return filepath.Join(o.Dir, filepath.Base(p))
	}
	listens := func(v string) bool {
		s, ok := lookup(v, "server")
		return ok && s != "off"
	}
	switch opt.name {
	case "chardev":
		if p := field(v, "path"); p != "" && listens(v) {
			v = setField(v, "path", move(p))
		}
	case "serial", "parallel", "monitor", "debugcon", "virtioconsole", "gdb":
		if rest, ok := strings.CutPrefix(v, "unix:"); ok && listens(v) {
			words := split(rest)
			v = "unix:" + join(append([]string{move(words[0])}, words[1:]...))
		}
	case "vnc":
		if rest, ok := strings.CutPrefix(v, "unix:"); ok {
			words := split(rest)
			v = "unix:" + join(append([]string{move(words[0])}, words[1:]...))
		}
	}
	if v != opt.value() {
		opt.words = []string{opt.words[0], v}
	}
	return opt
}

// split cuts an option's value at its commas; a doubled comma stands for one.
func split(v string) []string {
	var words []string
	var word strings.Builder
	for i := 0; i < len(v); i++ {
		if v[i] != ',' {
			word.WriteByte(v[i])
		} else if i+1 < len(v) && v[i+1] == ',' {
			word.WriteByte(',')
			i++
		} else {
			words = append(words, word.String())
			word.Reset()
		}
	}
	return append(words, word.String())
}

func join(words []string) string {
	escaped := make([]string, len(words))
	for i, w := range words {
		escaped[i] = escape(w)
	}
	return strings.Join(escaped, ",")
}

// escape doubles commas.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// lookup finds a key of an option's value; "server" alone is "server=on".
func lookup(v, key string) (string, bool) {
	for _, w := range split(v) {
		k, value, _ := strings.Cut(w, "=")
		if k == key {
			return value, true
		}
	}
	return "", false
}

func field(v, key string) string {
	value, _ := lookup(v, key)
	return value
}

func setField(v, key, value string) string {
	words := split(v)
	for i, w := range words {
		if k, _, _ := strings.Cut(w, "="); k == key {
			words[i] = key + "=" + value
		}
	}
	return join(words)
}
