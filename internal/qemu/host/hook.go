package host

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
)

// hookTime bounds a hook: making a tap takes milliseconds.
const hookTime = 30 * time.Second

// hookPath is the environment's PATH, unless the config has another.
const hookPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// env is the environment of hooks and destinations.
func (h *Host) env(event string, s gateway.Spec) []string {
	var taps, macs []string
	for _, n := range s.NICs {
		macs = append(macs, n.MAC)
		if n.Tap != "" {
			taps = append(taps, n.Tap)
		}
	}
	env := append([]string{hookPath}, h.cfg.Env...)
	return append(env,
		"LONGHAUL_EVENT="+event, "LONGHAUL_HOST="+h.cfg.Name, "LONGHAUL_VM="+s.VM, "LONGHAUL_UUID="+s.UUID,
		"LONGHAUL_MEMORY="+strconv.FormatInt(s.Memory, 10), "LONGHAUL_TOKEN="+s.Token,
		"LONGHAUL_TAPS="+strings.Join(taps, " "), "LONGHAUL_MACS="+strings.Join(macs, " "),
	)
}

// hook runs one of the config's commands, if it has one.
func (h *Host) hook(ctx context.Context, event string, command []string, s gateway.Spec) error {
	if len(command) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, hookTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env, cmd.Dir = h.env(event, s), h.cfg.WorkDir
	cmd.WaitDelay = time.Second // for children that keep the output open
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("hook %s %s: %w: %.300s", event, command[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}

// ended clears up after a process that was ended here.
func (h *Host) ended(ctx context.Context, vm, path string) error {
	spec := gateway.Spec{VM: vm}
	dir := filepath.Dir(path)
	ours := filepath.Dir(dir) == filepath.Clean(h.cfg.RunDir) && isToken(filepath.Base(dir))
	if ours {
		n, err := (place{dir}).read()
		if err != nil {
			return nil // another call was first
		}
		spec = n.Spec
		if err := h.remove(place{dir}); err != nil {
			return err
		}
	}
	if err := h.hook(ctx, "after", h.cfg.After, spec); err != nil {
		h.log.Warn("running the hook after the end of a VM", "vm", vm, "err", err)
	}
	return nil
}
