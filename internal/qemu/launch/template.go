package launch

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Values are what a template may ask for.
type Values struct {
	Name   string
	UUID   string // may be empty
	Memory int64  // bytes
	Token  string
	QMP    string // path of the socket on which QEMU has to serve QMP
}

// maxName is the longest name of a VM, in bytes: libvirt's and Proxmox's are
// shorter, and a file name has 255.
const maxName = 128

// Check refuses values that are not of their form. Names are those that can
// be a file name, an option's value and a word of an environment alike.
func (v Values) Check() error {
	if !isName(v.Name) {
		return fmt.Errorf("%w: VM name %.140q", ErrRefused, v.Name)
	}
	if v.UUID != "" && !isUUID(v.UUID) {
		return fmt.Errorf("%w: UUID %.40q", ErrRefused, v.UUID)
	}
	if b, err := hex.DecodeString(v.Token); err != nil || len(b) != 16 || strings.ToLower(v.Token) != v.Token {
		return fmt.Errorf("%w: token %.40q is not 32 hex digits", ErrRefused, v.Token)
	}
	if v.Memory <= 0 {
		return fmt.Errorf("%w: memory of %d bytes", ErrRefused, v.Memory)
	}
	return nil
}

// IsInterface tells whether s can be the name of a network interface that
// needs no quotes (IFNAMSIZ of Linux is 16 with the final zero).
func IsInterface(s string) bool { return len(s) < 16 && isName(s) }

// isName tells whether s is made of letters, digits and -_.+@: and begins with
// a letter or digit.
func isName(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		plain := (c >= 'a' && c <= 'z') || (s[i] >= '0' && s[i] <= '9')
		if !plain && (i == 0 || strings.IndexByte("-_.+@:", s[i]) < 0) {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

func isUUID(s string) bool {
	parts := strings.Split(s, "-")
	if len(s) != 36 || len(parts) != 5 {
		return false
	}
	for i, n := range []int{8, 4, 4, 4, 12} {
		if _, err := hex.DecodeString(parts[i]); err != nil || len(parts[i]) != n {
			return false
		}
	}
	return true
}

// Expand fills the placeholders {name}, {uuid}, {memory_bytes}, {token},
// {qmp} and {incoming} in each word of a template. The last is "defer", what
// -incoming has to say.
func Expand(template []string, v Values) ([]string, error) {
	if err := v.Check(); err != nil {
		return nil, err
	}
	if len(template) == 0 {
		return nil, fmt.Errorf("%w: the template is empty", ErrRefused)
	}
	r := strings.NewReplacer(
		"{name}", v.Name, "{uuid}", v.UUID, "{memory_bytes}", strconv.FormatInt(v.Memory, 10),
		"{token}", v.Token, "{qmp}", v.QMP, "{incoming}", "defer",
	)
	args := make([]string, len(template))
	for i, w := range template {
		args[i] = r.Replace(w)
	}
	return args, nil
}
