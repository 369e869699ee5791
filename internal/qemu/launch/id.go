package launch

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// bootFile tells one run of the machine from another (random(4)).
const bootFile = "/proc/sys/kernel/random/boot_id"

// ID names the process for good, over restarts of the machine too, whose clock of
// Start begins anew; "" for the zero Process, or if it cannot be told. ParseID reads it.
func (p Process) ID() string {
	if p.PID == 0 {
		return ""
	}
	run, err := boot()
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%d %d %s", p.PID, p.Start, run)
}

func boot() (string, error) {
	b, err := os.ReadFile(bootFile)
	if err != nil {
		return "", fmt.Errorf("telling this run of the machine from another: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// ErrID is what ParseID says of what ID has not written.
var ErrID = errors.New("not the identity of a process")

// ParseID returns the process of an ID, which may have ended: the zero Process if it
// was of an earlier run of the machine. An error that is not ErrID says that this is not
// known now.
func ParseID(id string) (Process, error) {
	var words [3]string
	if n := copy(words[:], strings.Split(id, " ")); n != len(words) || strings.Count(id, " ") != len(words)-1 {
		return Process{}, fmt.Errorf("%.80q: %w", id, ErrID)
	}
	pid, err := strconv.ParseUint(words[0], 10, 31)
	if err != nil || pid == 0 {
		return Process{}, fmt.Errorf("%.80q: %w", id, ErrID)
	}
	start, err := strconv.ParseUint(words[1], 10, 64)
	if err != nil {
		return Process{}, fmt.Errorf("%.80q: %w", id, ErrID)
	}
	run, err := boot()
	if err != nil {
		return Process{}, err
	}
	if words[2] != run {
		return Process{}, nil
	}
	return Process{PID: int(pid), Start: start}, nil
}
