package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"
)

// SocketMode lets the owner and the group of the socket use the API, and
// nobody else: who may connect may move VMs.
const SocketMode fs.FileMode = 0o660

// A stale socket refuses at once; this bounds the wait for one whose owner
// is stopped.
const probeTimeout = 2 * time.Second

// Listen makes the socket at path. A socket that a dead gateway left behind
// is replaced; one that answers, or a file that is no socket, is an error and
// stays. If group is not empty the socket belongs to that group.
func Listen(path, group string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("making the API socket: %w", err)
	}
	if err := restrict(path, group); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

func removeStale(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for an old API socket: %w", err)
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is in the way: it is not a socket", path)
	}
	conn, err := net.DialTimeout("unix", path, probeTimeout)
	if err == nil {
		return errors.Join(fmt.Errorf("%s is in use: another gateway answers there", path), conn.Close())
	}
	// Only a refusal proves that nobody listens. A full backlog (EAGAIN) or a
	// missing permission means that somebody does.
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("asking who is behind %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the old API socket: %w", err)
	}
	return nil
}

// restrict sets group and mode. Until it has, the mode is what the umask left:
// under any usual one, only the owner can connect.
func restrict(path, group string) error {
	if group != "" {
		g, err := user.LookupGroup(group)
		if err != nil {
			return fmt.Errorf("group of the API socket: %w", err)
		}
		gid, err := strconv.Atoi(g.Gid)
		if err != nil {
			return fmt.Errorf("group of the API socket: %w", err)
		}
		if err := os.Chown(path, -1, gid); err != nil {
			return fmt.Errorf("group of the API socket: %w", err)
		}
	}
	if err := os.Chmod(path, SocketMode); err != nil {
		return fmt.Errorf("mode of the API socket: %w", err)
	}
	return nil
}
