//go:build !linux

package nstest

import (
	"errors"
	"os"
)

// An NS is a network namespace; this system has none.
type NS struct{}

// New skips the test: this system has no network namespaces.
func New(t TB) *NS {
	t.Helper()
	Skip(t, "network namespaces need Linux")
	return nil
}

// Create fails: this system has no network namespaces.
func Create(string) (*NS, error) { return nil, errors.ErrUnsupported }

// Open fails: this system has no network namespaces.
func Open(string) (*NS, error) { return nil, errors.ErrUnsupported }

// Remove fails: this system has no network namespaces.
func Remove(string) error { return errors.ErrUnsupported }

// Veth fails: this system has no network namespaces.
func Veth(*NS, string, *NS, string) error { return errors.ErrUnsupported }

// Name is empty here.
func (n *NS) Name() string { return "" }

// FD is invalid here.
func (n *NS) FD() int { return -1 }

// Path is empty here.
func (n *NS) Path() string { return "" }

// Do fails here.
func (n *NS) Do(func() error) error { return errors.ErrUnsupported }

// Close does nothing here.
func (n *NS) Close() error { return nil }

// Bridge fails here.
func (n *NS) Bridge(string, ...string) error { return errors.ErrUnsupported }

// VXLAN fails here.
func (n *NS) VXLAN(string, int, string, string) error { return errors.ErrUnsupported }

// Tap fails here.
func (n *NS) Tap(string) (*os.File, error) { return nil, errors.ErrUnsupported }

// Plug fails here.
func (n *NS) Plug(string, string) error { return errors.ErrUnsupported }

// Up fails here.
func (n *NS) Up(string) error { return errors.ErrUnsupported }

// Down fails here.
func (n *NS) Down(string) error { return errors.ErrUnsupported }

// Del fails here.
func (n *NS) Del(string) error { return errors.ErrUnsupported }

// SetMTU fails here.
func (n *NS) SetMTU(string, int) error { return errors.ErrUnsupported }

// SetMAC fails here.
func (n *NS) SetMAC(string, string) error { return errors.ErrUnsupported }

// Received fails here.
func (n *NS) Received(string) (uint64, error) { return 0, errors.ErrUnsupported }

// MAC fails here.
func (n *NS) MAC(string) (string, error) { return "", errors.ErrUnsupported }

// Move fails here.
func (n *NS) Move(string, *NS) error { return errors.ErrUnsupported }

// Addr fails here.
func (n *NS) Addr(string, string) error { return errors.ErrUnsupported }

// Route fails here.
func (n *NS) Route(string, string) error { return errors.ErrUnsupported }

// Neighbour fails here.
func (n *NS) Neighbour(string, string, string) error { return errors.ErrUnsupported }

// Sysctl fails here.
func (n *NS) Sysctl(string, string) error { return errors.ErrUnsupported }

// Tag fails here.
func (n *NS) Tag(string, uint16) error { return errors.ErrUnsupported }

// Lose is for Linux.
func (n *NS) Lose(string, int) error { return errors.ErrUnsupported }

// Dump fails here.
func (n *NS) Dump() (string, error) { return "", errors.ErrUnsupported }

// FDB fails here.
func (n *NS) FDB() ([]string, error) { return nil, errors.ErrUnsupported }
